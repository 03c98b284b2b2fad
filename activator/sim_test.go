package activator

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"assistant/lifecycle"
	"assistant/lifecycle/engine"
	"assistant/lifecycle/machine"
	"assistant/lifecycle/memory"
	"assistant/modeldir"
)

// world is everything around the state: clients, engines, a machine and a clock, all made up. It checks after each event what must
// always hold. Everything random comes from the seed, so that a seed replays exactly.
type world struct {
	rng    *rand.Rand
	now    time.Time
	st     state
	last   string
	events int
	rig    *rig // a fault put in by a test; nil = none

	waiters  []*waiter
	clocks   map[*waiter]*waitedFor
	leases   []lease
	starting []*lifecycle.Instance // spawned, not ready, not gone
	up       []*lifecycle.Instance // ready in their own eyes
	saving   []save                // told to save, not done
	stopping map[*lifecycle.Instance]bool
	asked    []*modeldir.Model // needs being found out
	forced   bool              // the event under way may stop busy instances
	gone     bool              // the event under way may stop kept ones
	leaving  map[*lifecycle.Instance]bool

	held     []heldMemory         // device memory of those that are gone, which the driver has not given back
	failedAt map[string]time.Time // when a model's last start failed
	set      Settings             // as the world wants them kept; the state's own may be rigged

	room   machine.Amount // true size of the machine
	limit  int            // the largest number of instances that may be alive by now
	budget machine.Amount // the most that may be reserved by now

	granted, refused, cancelled int
	reasons                     map[Fault]int
	longest                     waitedFor      // of all waiters
	seen                        map[string]int // how often what is worth knowing happened
}

// lease is one that is out.
type lease struct {
	in   *lifecycle.Instance
	held held
}

// heldMemory is device memory that comes free with a delay.
type heldMemory struct {
	amount machine.Amount
	since  time.Time
}

// save is an attempt to save an instance's contexts.
type save struct {
	in      *lifecycle.Instance
	attempt int
}

// waitedFor is how long a waiter waited, by what the world saw from outside: for room (nothing of its model was up, and nothing of anybody
// was on its way out), while others left, during its model's starts, and for a slot.
type waitedFor struct{ room, leaving, start, slot, without time.Duration }

const (
	simModels  = 9
	simClients = 4
	simMaxWait = 20 * time.Second
	gib        = 1 << 30
)

var simDevices = []machine.Device{
	{Name: "CUDA0", ID: "GPU-0", Total: 8 * gib, Listed: true}, {Name: "CUDA1", ID: "GPU-1", Total: 8 * gib, Listed: true},
}

// simKeys and simKinds name models and events. They are made once, as the world needs them millions of times.
var simKeys, simKinds = numbered("m", simModels), numbered("event kind ", int(evKillAll)+1)

func numbered(what string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprint(what, i)
	}
	return names
}

func newWorld(seed uint64) *world { return newRiggedWorld(seed, nil) }

func newRiggedWorld(seed uint64, r *rig) *world {
	rng := rand.New(rand.NewPCG(seed, 1))
	w := &world{
		rng: rng, rig: r, now: time.Unix(1e9, 0).UTC(), st: newState(seed%3 != 0),
		clocks: map[*waiter]*waitedFor{}, stopping: map[*lifecycle.Instance]bool{}, leaving: map[*lifecycle.Instance]bool{}, reasons: map[Fault]int{}, failedAt: map[string]time.Time{}, seen: map[string]int{},
	}
	w.st.set.MaxInstances, w.st.set.Queue, w.st.set.QueueTotal, w.st.set.MaxWait = 3, 8, 20, simMaxWait
	w.st.set.QueueClient, w.st.set.QueueBytes, w.st.set.QueueBytesTotal = 5, 6000, 14000
	w.st.set.KeepLast, w.st.set.Predict = seed%5 == 1, seed%4 == 1
	w.st.oracle = w.st.set.oracle(nil)
	w.set, w.limit = w.st.set, 3
	if r != nil && r.policy != nil {
		w.st.policy = r.policy
	}
	w.room.Host, w.room.Device[0], w.room.Device[1] = 16*gib, 8*gib, 8*gib
	if w.st.surveys {
		w.lookAtMachine()
	}
	w.do(event{kind: evCatalog, cat: w.catalog()})
	return w
}

// catalog makes up models, now and then with changed specs.
func (w *world) catalog() *modeldir.Catalog {
	var specs []*modeldir.Model
	for i := range simModels {
		if w.rng.IntN(10) == 0 {
			continue // removed, or not there yet
		}
		key := fmt.Sprintf("m%d", i)
		idle := time.Duration(w.rng.IntN(3)) * 20 * time.Second
		m := &modeldir.Model{
			Key: key, Name: key, IdleTimeout: &idle, Pinned: i == 1, Concurrency: 1 + i%2, MaxInstances: 1 + i%3,
			Priority: i % 3, Preload: i == 5, KeepContext: i%2 == 0,
		}
		if w.rng.IntN(4) == 0 {
			m.CtxSize = 1 + w.rng.IntN(2)
		}
		switch i {
		case 2:
			m.MinInstances = w.rng.IntN(3)
		case 3:
			m.Port, m.MaxInstances = 8000, 1
		case 4:
			m.Concurrency = 0
		}
		specs = append(specs, m)
	}
	return modeldir.NewCatalog(specs)
}

// need is what a model takes: some only the host, some a device, one nearly all there is, one more than that.
func (w *world) need(m *modeldir.Model) *memory.Need {
	i := int64(m.Key[1] - '0')
	if i == 7 && m.CtxSize == 2 {
		i = simModels
	}
	return &simNeeds[i]
}

// simNeeds are what models take, by number; the last is model 7's with the larger context.
var simNeeds = func() (all [simModels + 1]memory.Need) {
	for i := range int64(simModels) {
		all[i] = onDevice(10, i*gib/20)
		if i%2 == 0 {
			all[i] = onHost((1 + i) * gib)
		}
	}
	all[8], all[simModels] = onHost(14*gib), onHost(400*gib)
	return all
}()

// onHost is the need of a model that takes so many bytes of the host.
func onHost(bytes int64) memory.Need { return memory.Need{Source: memory.Declared, Process: bytes} }

// onDevice is the need of a model of so many layers that take so many bytes each, and half a GiB of the host.
func onDevice(layers int, bytes int64) memory.Need {
	n := memory.Need{Source: memory.Header, Process: gib / 2, DeviceCompute: gib / 4, Output: memory.Block{Weights: bytes}, Anonymous: true}
	for range layers - 1 {
		n.Blocks = append(n.Blocks, memory.Block{Weights: bytes})
	}
	return n
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
	w.events++
	if err := w.pass(time.Duration(w.rng.ExpFloat64() * float64(200*time.Millisecond))); err != nil {
		return err
	}
	if next := w.st.next(); !next.IsZero() && !next.After(w.now) {
		w.do(event{kind: evTick})
		if next := w.st.next(); !next.IsZero() && !next.After(w.now) {
			return fmt.Errorf("a tick left something due at %v: %s", next, w.due())
		}
		return w.check()
	}
	switch n := w.rng.IntN(1000); {
	case n < 400:
		w.arrive()
	case n < 620:
		w.release()
	case n < 700:
		if in, ok := pick(w, w.starting); ok {
			w.ready(in)
		}
	case n < 790:
		if in, ok := pick(w, slices.SortedFunc(maps.Keys(w.stopping), byGen)); ok {
			w.exit(in, nil)
		}
	case n < 830:
		if at, ok := pick(w, w.saving); ok {
			w.saving = remove(w.saving, at)
			w.do(event{kind: evSaved, in: at.in, attempt: at.attempt})
		}
	case n < 870:
		w.survey()
	case n < 890:
		w.crash()
	case n < 930:
		if wt, ok := pick(w, w.waiters); ok {
			w.waiters = remove(w.waiters, wt)
			w.cancelled++
			w.do(event{kind: evCancel, w: wt})
		}
	case n < 960:
		if w.st.surveys {
			w.lookAtMachine()
		}
	case n < 970:
		if in, ok := pick(w, w.up); ok && w.st.surveys && slices.Contains(w.st.live, in) {
			used := in.Reserved
			used.Host += int64(w.rng.IntN(gib / 4))
			w.budget.Host += max(0, used.Host-in.Reserved.Host) // it has it already
			w.do(event{kind: evMeasured, in: in, used: used})
		}
	case n < 975:
		w.gone = true
		clear(w.failedAt) // a new spec deserves a new try
		w.do(event{kind: evCatalog, cat: w.catalog()})
		w.gone = false
	case n < 980:
		set := w.st.set
		set.MaxInstances = 1 + w.rng.IntN(4)
		w.set.MaxInstances = set.MaxInstances
		w.limit = max(set.MaxInstances, len(w.st.live))
		w.do(event{kind: evSettings, set: &set})
	case n < 985:
		w.forced, w.gone = w.rng.IntN(3) == 0, true
		key := fmt.Sprintf("m%d", w.rng.IntN(simModels))
		delete(w.failedAt, key)
		w.do(event{kind: evUnload, key: key, force: w.forced})
		w.forced, w.gone = false, false
	case n < 990:
		if in, ok := pick(w, w.up); ok {
			w.gone = true
			w.do(event{kind: evUnreachable, in: in})
			w.gone = false
		}
	default:
		return w.pass(time.Duration(w.rng.IntN(60)) * time.Second)
	}
	return w.check()
}

// due tells what a tick has left.
func (w *world) due() string {
	s := &w.st
	out := fmt.Sprintf("again %v, oracle %v", s.again, s.oracleAt)
	for _, in := range s.live {
		out += fmt.Sprintf("; %s %s leases %d retires %v saves by %v", in.ID(), in.State, in.Leases, s.retireAt(in), in.SaveBy)
	}
	for _, m := range s.hot {
		out += fmt.Sprintf("; %s waits until %v, rests until %v", m.key, m.waitEnds(s.set.MaxWait), m.restUntil)
	}
	for _, f := range s.freeing {
		out += fmt.Sprintf("; freeing until %v", f.until)
	}
	return out
}

// pass lets time go by, from one deadline to the next, and counts what it was for those who wait.
func (w *world) pass(d time.Duration) error {
	for end := w.now.Add(d); ; {
		next := w.st.next()
		if next.IsZero() || !next.Before(end) {
			w.spend(end.Sub(w.now))
			return nil
		}
		if next.After(w.now) {
			w.spend(next.Sub(w.now))
		}
		w.do(event{kind: evTick})
		if err := w.check(); err != nil {
			return err
		}
		if again := w.st.next(); !again.IsZero() && !again.After(w.now) {
			return nil // turn looks whether it stays so
		}
	}
}

func (w *world) spend(d time.Duration) {
	w.now = w.now.Add(d)
	w.held = slices.DeleteFunc(w.held, func(h heldMemory) bool { return !w.now.Before(h.since.Add(longestFreeing)) })
	leaving := len(w.st.freeing) > 0 || slices.ContainsFunc(w.st.live, func(in *lifecycle.Instance) bool {
		return in.State == lifecycle.Draining || in.State == lifecycle.Starting // which may hold up a load on its device
	})
	for wt, c := range w.clocks {
		m := wt.model
		switch {
		case wt.ended != waiting:
		case m.count(lifecycle.Ready) > 0:
			c.slot += d
		case m.count(lifecycle.Starting) > 0:
			c.start += d
		case leaving:
			c.leaving += d
		default:
			c.room += d
		}
	}
}

func byGen(a, b *lifecycle.Instance) int { return int(a.Gen) - int(b.Gen) }

func (w *world) arrive() {
	r := Request{
		Key:    simKeys[min(w.rng.IntN(simModels), w.rng.IntN(simModels))],
		Client: uint64(w.rng.IntN(simClients)), Conversation: uint64(w.rng.IntN(6)), Bytes: int64(w.rng.IntN(2000)),
	}
	if _, in := w.st.take(&r, w.now); in != nil {
		w.last = "take"
		w.granted++
		w.leases = append(w.leases, lease{in, held{r.Client, w.now}})
		return
	}
	wt := &waiter{Request: r, arrived: w.now}
	w.waiters = append(w.waiters, wt)
	w.do(event{kind: evArrive, w: wt})
	if wt.ended == waiting {
		w.clocks[wt] = &waitedFor{}
	}
}

func (w *world) release() {
	if l, ok := pick(w, w.leases); ok {
		w.leases = remove(w.leases, l)
		delete(w.failedAt, l.in.Model.Key) // it is up to its work
		if w.st.quiet(l.in) {
			w.last = "give"
			w.st.give(w.st.models[l.in.Model.Key], l.in, l.held, w.now)
			return
		}
		w.do(event{kind: evRelease, in: l.in, held: l.held})
	}
}

func (w *world) ready(in *lifecycle.Instance) {
	w.starting = remove(w.starting, in)
	w.up = append(w.up, in)
	w.do(event{kind: evReady, in: in, run: &lifecycle.Running{Slots: in.Model.Concurrency, KeepsContexts: in.Model.KeepContext}})
}

func (w *world) survey() {
	if m, ok := pick(w, w.asked); ok {
		w.asked = remove(w.asked, m)
		w.do(event{kind: evNeeded, key: m.Key, need: &Facts{Spec: m, Need: *w.need(m), Start: time.Duration(w.rng.IntN(5)) * time.Second}})
	}
}

// lookAtMachine takes a sample: others may use some of the memory, and devices show what was freed with a delay.
func (w *world) lookAtMachine() {
	m := Machine{Limited: true, Capacity: w.room, Room: w.room, Devices: simDevices, Busy: w.rng.IntN(4) == 0, Short: w.rng.IntN(20) == 0}
	m.Room.Host -= int64(w.rng.IntN(3)) * gib
	w.held = slices.DeleteFunc(w.held, func(h heldMemory) bool { return w.rng.IntN(3) == 0 })
	for _, h := range w.held {
		m.Room = m.Room.Minus(h.amount)
	}
	w.do(event{kind: evMachine, now: &m})
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
	w.saving = slices.DeleteFunc(w.saving, func(at save) bool { return at.in == in })
	delete(w.stopping, in)
	var missing *engine.MissingError
	if m := w.st.models[in.Model.Key]; err != nil && in.State == lifecycle.Starting && len(m.instances) == 1 {
		w.failedAt[in.Model.Key] = w.now
		if errors.As(err, &missing) {
			delete(w.failedAt, in.Model.Key) // it may be there at the next request
		}
	}
	if amount := in.Reserved; w.st.surveys {
		amount.Host = 0
		w.held = append(w.held, heldMemory{amount, w.now})
	}
	w.do(event{kind: evExited, in: in, err: err})
}

func remove[T comparable](list []T, x T) []T {
	if i := slices.Index(list, x); i >= 0 {
		return slices.Delete(slices.Clone(list), i, i+1)
	}
	return list
}

// violation is what a check in the middle of a step panics with.
type violation string

// do lets the state take a step and does what it says.
func (w *world) do(ev event) {
	w.last = simKinds[ev.kind]
	if w.rig != nil && w.rig.before != nil {
		rigged := ev // apart, so that it alone is on the heap
		if !w.rig.before(w, &rigged) {
			return
		}
		ev = rigged
	}
	effects := w.st.step(ev, w.now)
	if w.rig != nil && w.rig.after != nil {
		effects = w.rig.after(w, ev, effects)
	}
	for _, e := range effects {
		w.carryOut(e)
	}
}

func (w *world) carryOut(e effect) {
	fail := func(format string, args ...any) {
		panic(violation(fmt.Sprintf(format, args...) + " by " + w.last))
	}
	switch e.kind {
	case effSpawn:
		w.seen["start"]++
		if slices.Contains(w.starting, e.in) {
			fail("%s is started twice", e.in.ID())
		}
		if at, failed := w.failedAt[e.in.Model.Key]; failed && w.now.Before(at.Add(firstBackoff)) {
			fail("%s is started %v after a start that failed", e.in.ID(), w.now.Sub(at))
		}
		w.starting = append(w.starting, e.in)
	case effSave:
		w.seen["save"]++
		if e.in.Leases > 0 {
			fail("%s is to be saved with %d leases", e.in.ID(), e.in.Leases)
		}
		w.saving = append(w.saving, save{e.in, e.in.Attempt})
	case effStop:
		w.checkStop(e, fail)
		w.stopping[e.in] = true
	case effDeliver:
		w.deliver(e.w, fail)
	case effNeed:
		w.asked = append(w.asked, e.spec)
	default: // nothing that the world has to do
	}
}

func (w *world) checkStop(e effect, fail func(string, ...any)) {
	w.seen["stop for "+string(e.why)]++
	m := w.st.models[e.in.Model.Key]
	switch {
	case w.stopping[e.in] && !e.in.Dying:
		fail("%s is stopped twice", e.in.ID())
	case e.in.Leases > 0 && !w.forced:
		fail("%s is stopped with %d leases", e.in.ID(), e.in.Leases)
	case e.in.Model.Pinned && (e.why == lifecycle.ReasonRoom || e.why == lifecycle.ReasonUnwanted):
		fail("%s is pinned and stopped for %s", e.in.ID(), e.why)
	case slices.Contains(w.starting, e.in) && m != nil && m.queue.n > 0 && (e.why.Rescuable() || e.why == lifecycle.ReasonUnwanted) && len(m.instances) == 1:
		fail("%s, whose start %d wait for, is stopped for %s", e.in.ID(), m.queue.n, e.why)
	}
}

func (w *world) deliver(wt *waiter, fail func(string, ...any)) {
	i := slices.Index(w.waiters, wt)
	if i < 0 {
		fail("a request is told twice how it ended, or after its client left")
	}
	w.waiters = slices.Delete(w.waiters, i, i+1)
	if wt.ended == granted {
		w.granted++
		if in := wt.in; in.Stopping || in.Saving || !slices.Contains(w.up, in) {
			fail("a lease on %s, which is %s", in.ID(), in.State)
		}
		for _, other := range w.waiters {
			if other.ended == waiting && other.Key == wt.Key && other.Client == wt.Client && other.model != nil && other.seq < wt.seq {
				fail("client %d was served out of order", wt.Client)
			}
		}
		w.leases = append(w.leases, lease{wt.in, held{wt.Client, w.now}})
		return
	}
	w.refused++
	var fault *Error
	if !errors.As(wt.err, &fault) {
		return
	}
	w.reasons[fault.Fault]++
	m := w.st.models[wt.Key]
	switch {
	case fault.Fault == FaultFull && m != nil:
		n, bytes := m.queue.of(wt.Client)
		if m.queue.n < w.set.Queue && w.st.queued < w.set.QueueTotal && n < w.set.QueueClient && m.queue.bytes+wt.Bytes <= w.set.QueueBytes &&
			w.st.bytes+wt.Bytes <= w.set.QueueBytesTotal && bytes >= 0 {
			fail("a request is refused as one too many, and %d wait for %s, %d altogether", m.queue.n, wt.Key, w.st.queued)
		}
	case fault.Fault == FaultWait && m != nil && !m.served() && !w.st.surveys && w.neverServed(wt):
		w.checkHelpless(m, fail)
	}
}

// neverServed reports whether a request never saw an instance of its model: its turn has not come at all.
func (w *world) neverServed(wt *waiter) bool {
	c := w.clocks[wt]
	return c != nil && c.start == 0 && c.slot == 0 && c.leaving < w.set.MaxWait // others' leaving took all its patience
}

// checkHelpless: who is refused because there was no room must have been helped as far as that goes: whoever could leave is leaving.
func (w *world) checkHelpless(m *modelState, fail func(string, ...any)) {
	if len(w.st.live) > w.set.MaxInstances {
		return // the limit was lowered: more than one has to leave, and some may be kept
	}
	if len(w.leaving) > 0 || slices.ContainsFunc(w.st.live, func(in *lifecycle.Instance) bool { return in.State == lifecycle.Draining }) {
		return // somebody was asked, and takes too long
	}
	for _, in := range w.st.live {
		other := w.st.models[in.Model.Key]
		kept := in.Model.Pinned || other.count(lifecycle.Ready)+other.count(lifecycle.Starting) <= other.kept()
		if in.State == lifecycle.Ready && other != m && !kept && m.startable(w.now) && !w.leaving[in] {
			fail("a request for %s is refused for want of room, which %s, with %d leases, was never asked to give", m.key, in.ID(), in.Leases)
		}
	}
}

// checkKept looks whether min_instances are left when an instance begins to leave that could have stayed.
func (w *world) checkKept() error {
	for _, in := range w.st.live {
		if in.State != lifecycle.Draining || w.leaving[in] {
			continue
		}
		w.leaving[in] = true
		m := w.st.models[in.Model.Key]
		if m.spec == nil || w.gone || !in.Reason.Rescuable() {
			continue
		}
		if n := m.count(lifecycle.Ready) + m.count(lifecycle.Starting); n < m.spec.MinInstances {
			return fmt.Errorf("%s leaves for %s, and there are %d of the %d to keep", in.ID(), in.Reason, n, m.spec.MinInstances)
		}
	}
	maps.DeleteFunc(w.leaving, func(in *lifecycle.Instance, _ bool) bool {
		if in.State == lifecycle.Ready {
			w.seen["rescue"]++
		}
		return in.State != lifecycle.Draining
	})
	return nil
}

// check says what does not hold.
func (w *world) check() error {
	s := &w.st
	if n := len(s.live); n > w.limit {
		return fmt.Errorf("%d instances alive, limit %d", n, w.limit)
	}
	w.limit = max(s.set.MaxInstances, min(w.limit, len(s.live)))
	queued, bytes := 0, int64(0)
	for key, m := range s.models {
		if m.key != key {
			return fmt.Errorf("model %s filed under %s", m.key, key)
		}
		if err := w.checkModel(m); err != nil {
			return err
		}
		queued += m.queue.n
		bytes += m.queue.bytes
	}
	if queued != s.queued || queued != len(w.waiters) || queued > s.set.QueueTotal {
		return fmt.Errorf("%d in queues, %d counted, %d wait", queued, s.queued, len(w.waiters))
	}
	if bytes != s.bytes || bytes > s.set.QueueBytesTotal {
		return fmt.Errorf("%d bytes in queues, %d counted", bytes, s.bytes)
	}
	for _, in := range s.live {
		if m := s.models[in.Model.Key]; m == nil || !slices.Contains(m.instances, in) {
			return fmt.Errorf("%s is alive and its model does not know", in.ID())
		}
		out := 0
		for _, l := range w.leases {
			if l.in == in {
				out++
			}
		}
		if in.Leases != out {
			return fmt.Errorf("%s counts %d leases, %d are out", in.ID(), in.Leases, out)
		}
	}
	return errors.Join(w.checkKept(), w.checkMemory(), w.checkWaits(), w.checkNobodyIsForgotten())
}

func (w *world) checkModel(m *modelState) error {
	s := &w.st
	serving := 0
	for _, in := range m.instances {
		if !slices.Contains(s.live, in) {
			return fmt.Errorf("%s is not among the living", in.ID())
		}
		if in.State == lifecycle.Starting || in.State == lifecycle.Ready {
			serving++
		}
		if slots := in.Model.Concurrency; slots > 0 && in.Leases > slots {
			return fmt.Errorf("%s has %d leases on %d slots", in.ID(), in.Leases, slots)
		}
		if in.Free() && m.queue.n > 0 {
			return fmt.Errorf("%s has a free slot while %d wait", in.ID(), m.queue.n)
		}
	}
	if serving > 1 {
		w.seen["replica"]++
	}
	if m.spec != nil && m.spec.Port > 0 && len(m.instances) > 1 {
		return fmt.Errorf("%d instances of %s on one port", len(m.instances), m.key)
	}
	if m.spec != nil && serving > max(1, m.spec.MaxInstances) {
		return fmt.Errorf("%d instances of %s serve", serving, m.key)
	}
	var clients [simClients]int
	n, lines := 0, 0
	for wt := m.queue.oldest; wt != nil; wt = wt.newer {
		n++
		if clients[wt.Client]++; clients[wt.Client] == 1 {
			lines++
		}
		if wt.newer != nil && wt.newer.seq < wt.seq {
			return fmt.Errorf("%s: the queue is out of order", m.key)
		}
	}
	if n != m.queue.n || n > s.set.Queue || m.queue.bytes > s.set.QueueBytes || lines != len(m.queue.lines) {
		return fmt.Errorf("%d wait for %s, %d counted, of %d clients and %d", n, m.key, m.queue.n, lines, len(m.queue.lines))
	}
	for client, n := range clients {
		if have, _ := m.queue.of(uint64(client)); have != n || n > s.set.QueueClient {
			return fmt.Errorf("%d of client %d wait for %s, %d counted", n, client, m.key, have)
		}
	}
	if hot := slices.Contains(s.hot, m); hot != (m.queue.n > 0) {
		return fmt.Errorf("%s: hot is %v with %d waiting", m.key, hot, m.queue.n)
	}
	return nil
}

// checkMemory: what is reserved, and what the devices have not given back, is not more than there is, unless there was more, or less was
// reserved, when it was.
func (w *world) checkMemory() error {
	s := &w.st
	if !s.machine.Limited {
		return nil
	}
	var reserved machine.Amount
	for _, h := range w.held {
		reserved = reserved.Plus(h.amount)
	}
	var loads [machine.MaxDevices]int
	for _, in := range s.live {
		taken, need := in.Reserved, w.need(in.Model)
		hard, _ := need.Host(in.Placement.Layers)
		taken.Host = max(taken.Host, hard)
		reserved = reserved.Plus(taken)
		for i, used := range in.Reserved.Device {
			if used > 0 && in.State == lifecycle.Starting {
				loads[i]++
			}
		}
	}
	if !reserved.FitsIn(most(s.machine.Room, w.budget)) {
		return fmt.Errorf("reserved %v of %v (%v)", reserved, s.machine.Room, w.budget)
	}
	w.budget = reserved // it may stay, but not become more than there is
	for i, n := range loads {
		if n > 1 {
			return fmt.Errorf("%d loads at once on device %d", n, i)
		}
	}
	return nil
}

func most(a, b machine.Amount) machine.Amount {
	a.Host = max(a.Host, b.Host)
	for i := range a.Device {
		a.Device[i] = max(a.Device[i], b.Device[i])
	}
	return a
}

// checkWaits: nobody waits for room, for others to leave, or for a slot, longer than max_wait each.
func (w *world) checkWaits() error {
	const slack = time.Nanosecond
	for wt, c := range w.clocks {
		if wt.ended != waiting {
			c.without = c.room + c.leaving
			w.longest = longer(w.longest, *c)
			delete(w.clocks, wt)
			continue
		}
		bound := w.set.MaxWait + slack
		if c.room > bound || c.slot > bound || c.room+c.leaving > 2*bound {
			return fmt.Errorf("a request for %s waits for room for %v, while others leave for %v, for a slot for %v", wt.Key, c.room, c.leaving, c.slot)
		}
	}
	return nil
}

func longer(a, b waitedFor) waitedFor {
	return waitedFor{
		max(a.room, b.room), max(a.leaving, b.leaving), max(a.start, b.start), max(a.slot, b.slot),
		max(a.without, b.without),
	}
}

// checkNobodyIsForgotten: who waits has something to wait for: an instance that starts, works or leaves, a rest
// that ends, a need being found out, or room that others hold.
func (w *world) checkNobodyIsForgotten() error {
	s := &w.st
	for _, m := range s.hot {
		if len(m.instances) == 0 && m.needs == needKnown && !m.resting(w.now) && !m.coming && !s.machine.Limited {
			for _, in := range s.live {
				if other := s.models[in.Model.Key]; in.State == lifecycle.Starting && other.queue.n == 0 && other.kept() == 0 && !in.Model.Pinned {
					return fmt.Errorf("%d wait for %s while %s starts and nobody waits for it", m.queue.n, m.key, in.ID())
				}
			}
		}
		if len(m.instances) > 0 || m.resting(w.now) || m.needs != needKnown || len(s.live) >= s.set.MaxInstances || m.coming {
			continue
		}
		if s.machine.Limited && len(s.live) > 0 {
			continue // others have the memory, or load on the same device
		}
		if s.machine.Limited && len(s.freeing) > 0 {
			continue
		}
		if _, fits := memory.Place(m.need, s.wanted(m), s.machine.Room, s.machine.Devices, [machine.MaxDevices]bool{}); s.machine.Limited && !fits {
			continue // others than we have it
		}
		return fmt.Errorf("%d wait for %s in vain: there is room and nothing starts", m.queue.n, m.key)
	}
	for _, in := range s.live {
		if in.State == lifecycle.Draining && in.Leases == 0 && !in.Stopping && !in.Dying && !in.Saving {
			return fmt.Errorf("%s drains without leases and nobody stops it", in.ID())
		}
		if in.Saving && !slices.Contains(w.saving, save{in, in.Attempt}) {
			return fmt.Errorf("%s is thought to be saving", in.ID())
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
			w.release()
		case len(w.starting) > 0 && !w.stopping[w.starting[0]]:
			w.ready(w.starting[0])
		case len(w.saving) > 0:
			at := w.saving[0]
			w.saving = w.saving[1:]
			w.do(event{kind: evSaved, in: at.in, attempt: at.attempt})
		case len(w.stopping) > 0:
			w.exit(slices.SortedFunc(maps.Keys(w.stopping), byGen)[0], nil)
		case len(w.asked) > 0:
			w.survey()
		default:
			next := w.st.next()
			if next.IsZero() || w.st.queued == 0 && w.st.oracle != nil {
				if len(w.waiters) > 0 {
					return fmt.Errorf("%d wait for ever", len(w.waiters))
				}
				return w.check()
			}
			w.spend(max(0, next.Sub(w.now)))
			w.do(event{kind: evTick})
		}
		if err := w.check(); err != nil {
			return err
		}
	}
	return errors.New("it never comes to rest")
}

// run lets so many things happen and everything come to rest, and returns what did not hold.
func (w *world) run(turns int) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(violation); !ok && w.rig == nil {
				panic(p) // a fault of ours, with its stack
			}
			err = fmt.Errorf("after event %d: %v", w.events, p)
		}
	}()
	for range turns {
		if err := w.turn(); err != nil {
			return fmt.Errorf("after event %d (%s): %w", w.events, w.last, err)
		}
	}
	if err := w.settle(); err != nil {
		return fmt.Errorf("when everything came to rest: %w", err)
	}
	return nil
}

// rig is a fault put into the world or into the state, as a test of the checks.
type rig struct {
	policy lifecycle.Policy                                    // instead of ours
	before func(w *world, ev *event) bool                      // false: the event is lost
	after  func(w *world, ev event, effects []effect) []effect // what is to be done instead
}
