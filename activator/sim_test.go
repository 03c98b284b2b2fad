package activator

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"assistant/lifecycle"
	"assistant/lifecycle/engine"
	"assistant/modeldir"
)

// TestSimulation drives step with random events and checks what must always hold after each one. A
// seed replays exactly: run one with -run 'TestSimulation/seed=N'.
func TestSimulation(t *testing.T) {
	const seeds, events = 20, 50_000 // a million events altogether
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(seed)
			for i := range events {
				if err := w.turn(); err != nil {
					t.Fatalf("after event %d (%s): %v", i, w.last, err)
				}
			}
			if err := w.settle(); err != nil {
				t.Fatalf("when everything came to rest: %v", err)
			}
		})
	}
}

// TestSimulationReplays shows that a seed leads to the same end twice.
func TestSimulationReplays(t *testing.T) {
	run := func() string {
		w := newWorld(7)
		for range 20_000 {
			if err := w.turn(); err != nil {
				t.Fatal(err)
			}
		}
		return fmt.Sprint(w.granted, w.refused, w.cancelled, w.st.gen, w.now)
	}
	if a, b := run(), run(); a != b {
		t.Fatalf("one seed, two ends: %s and %s", a, b)
	}
}

// world is everything around the state: clients, engines and a clock, all made up.
type world struct {
	rng  *rand.Rand
	now  time.Time
	st   state
	last string

	waiters  []*waiter
	leases   []*lifecycle.Instance
	starting []*lifecycle.Instance // spawned, not ready, not gone
	up       []*lifecycle.Instance // ready in their own eyes
	stopping map[*lifecycle.Instance]bool
	forced   bool // the event under way may stop busy instances

	granted, refused, cancelled int
	limit                       int // the largest number of instances that may be alive by now
}

func newWorld(seed uint64) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1e9, 0),
		st: state{set: DefaultSettings(), catalog: modeldir.NewCatalog(nil), models: map[string]*modelState{}}, stopping: map[*lifecycle.Instance]bool{},
	}
	w.st.set.MaxInstances, w.st.set.Queue, w.st.set.QueueTotal = 3, 8, 20
	w.limit = 3
	w.do(event{kind: evCatalog, cat: w.catalog()})
	return w
}

// catalog makes up to eight models, now and then with changed specs.
func (w *world) catalog() *modeldir.Catalog {
	var specs []*modeldir.Model
	for i := range 8 {
		if w.rng.IntN(10) == 0 {
			continue // removed, or not there yet
		}
		key := fmt.Sprintf("m%d", i)
		idle := time.Duration(w.rng.IntN(3)) * 20 * time.Second
		m := &modeldir.Model{Key: key, Name: key, IdleTimeout: &idle, Pinned: i == 1, Concurrency: 1 + i%2}
		if w.rng.IntN(4) == 0 {
			m.CtxSize = 1 + w.rng.IntN(2)
		}
		if i == 2 {
			m.MinInstances = w.rng.IntN(2)
		}
		if i == 3 {
			m.Port = 8000
		}
		specs = append(specs, m)
	}
	return modeldir.NewCatalog(specs)
}

func pick[T any](w *world, list []T) (T, bool) {
	if len(list) == 0 {
		var none T
		return none, false
	}
	return list[w.rng.IntN(len(list))], true
}

// turn lets one thing happen and checks the world.
func (w *world) turn() error {
	w.now = w.now.Add(time.Duration(w.rng.ExpFloat64() * float64(200*time.Millisecond)))
	if next := w.st.next(); !next.IsZero() && !next.After(w.now) {
		w.do(event{kind: evTick})
		if next := w.st.next(); !next.IsZero() && !next.After(w.now) {
			return fmt.Errorf("a tick left something due at %v", next)
		}
		return w.check()
	}
	switch n := w.rng.IntN(1000); {
	case n < 400:
		w.arrive()
	case n < 640:
		if in, ok := pick(w, w.leases); ok {
			w.leases = remove(w.leases, in)
			w.do(event{kind: evRelease, in: in})
		}
	case n < 780:
		if in, ok := pick(w, w.starting); ok {
			w.starting = remove(w.starting, in)
			w.up = append(w.up, in)
			w.do(event{kind: evReady, in: in, run: &lifecycle.Running{Slots: in.Model.Concurrency}})
		}
	case n < 900:
		if in, ok := pick(w, slices.SortedFunc(maps.Keys(w.stopping), byGen)); ok {
			w.exit(in, nil)
		}
	case n < 920:
		w.crash()
	case n < 970:
		if wt, ok := pick(w, w.waiters); ok {
			w.waiters = remove(w.waiters, wt)
			w.cancelled++
			w.do(event{kind: evCancel, w: wt})
		}
	case n < 975:
		w.do(event{kind: evCatalog, cat: w.catalog()})
	case n < 980:
		set := w.st.set
		set.MaxInstances = 1 + w.rng.IntN(4)
		w.limit = max(set.MaxInstances, len(w.st.live))
		w.do(event{kind: evSettings, set: &set})
	case n < 985:
		w.forced = w.rng.IntN(3) == 0
		w.do(event{kind: evUnload, key: fmt.Sprintf("m%d", w.rng.IntN(8)), force: w.forced})
		w.forced = false
	case n < 990:
		if in, ok := pick(w, w.up); ok {
			w.do(event{kind: evUnreachable, in: in})
		}
	case n < 995:
		w.do(event{kind: evPressure})
	default:
		w.now = w.now.Add(time.Duration(w.rng.IntN(60)) * time.Second)
		return nil // what became due is done by the tick of the next turn
	}
	return w.check()
}

func byGen(a, b *lifecycle.Instance) int { return int(a.Gen) - int(b.Gen) }

func (w *world) arrive() {
	key := fmt.Sprintf("m%d", min(w.rng.IntN(8), w.rng.IntN(8)))
	if in := w.st.take(key); in != nil {
		w.last = "take"
		w.granted++
		w.leases = append(w.leases, in)
		return
	}
	wt := &waiter{arrived: w.now}
	w.waiters = append(w.waiters, wt)
	w.do(event{kind: evArrive, w: wt, key: key})
}

func (w *world) crash() {
	list := w.starting
	if w.rng.IntN(2) == 0 {
		list = w.up
	}
	if in, ok := pick(w, list); ok {
		err := errors.New("boom")
		if w.rng.IntN(5) == 0 {
			err = &engine.MissingError{What: "model file"}
		}
		if w.rng.IntN(2) == 0 && slices.Contains(w.up, in) {
			w.up = remove(w.up, in)
			w.stopping[in] = true // what is left of it goes in its own time
			w.do(event{kind: evDying, in: in, err: err})
			return
		}
		w.exit(in, err)
	}
}

func (w *world) exit(in *lifecycle.Instance, err error) {
	w.starting, w.up = remove(w.starting, in), remove(w.up, in)
	delete(w.stopping, in)
	w.do(event{kind: evExited, in: in, err: err})
}

func remove[T comparable](list []T, x T) []T {
	if i := slices.Index(list, x); i >= 0 {
		return slices.Delete(slices.Clone(list), i, i+1)
	}
	return list
}

// do lets the state take a step and does what it says.
func (w *world) do(ev event) {
	w.last = fmt.Sprintf("kind %d", ev.kind)
	for _, e := range w.st.step(ev, w.now) {
		switch e.kind {
		case effSpawn:
			w.starting = append(w.starting, e.in)
		case effStop:
			if w.stopping[e.in] && !e.in.Dying {
				panic("stopped twice")
			}
			if e.in.Leases > 0 && !w.forced {
				panic(fmt.Sprintf("stopped with %d leases by %s", e.in.Leases, w.last))
			}
			w.stopping[e.in] = true
		case effDeliver:
			i := slices.Index(w.waiters, e.w)
			if i < 0 {
				panic("delivered to somebody who does not wait")
			}
			w.waiters = slices.Delete(w.waiters, i, i+1)
			if e.w.ended == granted {
				w.granted++
				w.leases = append(w.leases, e.w.in)
			} else {
				w.refused++
			}
		}
	}
}

// check says what does not hold.
func (w *world) check() error {
	s := &w.st
	if n := len(s.live); n > w.limit {
		return fmt.Errorf("%d instances alive, limit %d", n, w.limit)
	}
	w.limit = max(s.set.MaxInstances, min(w.limit, len(s.live)))
	queued := 0
	for key, m := range s.models {
		if m.key != key {
			return fmt.Errorf("model %s filed under %s", m.key, key)
		}
		serving := 0
		for _, in := range m.instances {
			if !slices.Contains(s.live, in) {
				return fmt.Errorf("%s is not among the living", in.ID())
			}
			if in.State == lifecycle.Starting || in.State == lifecycle.Ready {
				serving++
			}
			if in.Slots > 0 && in.Leases > in.Slots {
				return fmt.Errorf("%s has %d leases on %d slots", in.ID(), in.Leases, in.Slots)
			}
			if in.Free() && m.queue.n > 0 {
				return fmt.Errorf("%s has a free slot while %d wait", in.ID(), m.queue.n)
			}
		}
		if serving > 1 {
			return fmt.Errorf("%d instances of %s serve", serving, key)
		}
		if m.queue.n > s.set.Queue {
			return fmt.Errorf("%d wait for %s", m.queue.n, key)
		}
		if hot := slices.Contains(s.hot, m); hot != (m.queue.n > 0) {
			return fmt.Errorf("%s: hot is %v with %d waiting", key, hot, m.queue.n)
		}
		queued += m.queue.n
	}
	if queued != s.queued || queued != len(w.waiters) || queued > s.set.QueueTotal {
		return fmt.Errorf("%d in queues, %d counted, %d wait", queued, s.queued, len(w.waiters))
	}
	leases := map[*lifecycle.Instance]int{}
	for _, in := range w.leases {
		leases[in]++
	}
	for _, in := range s.live {
		if in.Leases != leases[in] {
			return fmt.Errorf("%s counts %d leases, %d are out", in.ID(), in.Leases, leases[in])
		}
	}
	return w.checkNobodyIsForgotten()
}

// checkNobodyIsForgotten: who waits has something to wait for: an instance that starts, works or stops, a rest
// that ends, or room that others hold.
func (w *world) checkNobodyIsForgotten() error {
	s := &w.st
	for _, m := range s.hot {
		if len(m.instances) > 0 || m.resting(w.now) || len(s.live) >= s.set.MaxInstances {
			continue
		}
		return fmt.Errorf("%d wait for %s in vain: there is room and nothing starts", m.queue.n, m.key)
	}
	for _, in := range s.live {
		if in.State != lifecycle.Ready && in.State != lifecycle.Starting && in.Leases == 0 && !in.Stopping && !in.Dying {
			return fmt.Errorf("%s drains without leases and nobody stops it", in.ID())
		}
	}
	return nil
}

// settle lets everything come to its end: no new requests, leases end, engines do as they are told. Then
// nobody waits, and the idle are gone.
func (w *world) settle() error {
	for range 10_000 {
		switch {
		case len(w.leases) > 0:
			in := w.leases[0]
			w.leases = w.leases[1:]
			w.do(event{kind: evRelease, in: in})
		case len(w.starting) > 0 && !w.stopping[w.starting[0]]:
			in := w.starting[0]
			w.starting = w.starting[1:]
			w.up = append(w.up, in)
			w.do(event{kind: evReady, in: in, run: &lifecycle.Running{Slots: in.Model.Concurrency}})
		case len(w.stopping) > 0:
			w.exit(slices.SortedFunc(maps.Keys(w.stopping), byGen)[0], nil)
		default:
			next := w.st.next()
			if next.IsZero() {
				if len(w.waiters) > 0 {
					return fmt.Errorf("%d wait for ever", len(w.waiters))
				}
				return w.check()
			}
			w.now = next
			w.do(event{kind: evTick})
		}
		if err := w.check(); err != nil {
			return err
		}
	}
	return errors.New("it never comes to rest")
}
