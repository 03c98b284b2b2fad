package activator

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"assistant/lifecycle"
	"assistant/modeldir"
)

// unsteady is a machine on which engines take any time to start and to stop, fail to start, and crash, idle or not. It sees that the
// shell keeps to the rules: how many are alive, and that none is told to stop while it has leases.
type unsteady struct {
	t     *testing.T
	limit int

	mu     sync.Mutex
	rng    *rand.Rand
	stops  map[*lifecycle.Instance]context.CancelFunc // of those that live
	most   int
	failed int // starts
	died   int // after that
}

const (
	shellMaxWait = 20 * time.Second
	shellStart   = 5 * time.Second // the longest
	shellStop    = 2 * time.Second
	shellPlaces  = 3
)

func (u *unsteady) Start(in *lifecycle.Instance, _ time.Duration, to lifecycle.Reporter) {
	u.mu.Lock()
	defer u.mu.Unlock()
	ctx, stop := context.WithCancel(context.Background())
	u.stops[in] = stop
	u.most = max(u.most, len(u.stops))
	if len(u.stops) > u.limit {
		u.t.Errorf("%d instances are alive, %d allowed", len(u.stops), u.limit)
	}
	starts, ends := u.upTo(shellStart), u.upTo(shellStop)
	fails, lives := u.rng.IntN(20) == 0, time.Duration(u.rng.ExpFloat64()*float64(5*time.Minute))
	id, slots := in.ID(), in.Model.Concurrency
	go func() {
		defer stop()
		err := func() error {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(starts):
			}
			if fails {
				return errors.New("out of memory")
			}
			to.Ready(in, &lifecycle.Running{ID: id, Slots: slots, ReadyAt: time.Now()})
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(lives):
				err := errors.New("segmentation fault")
				to.Dying(in, err)
				return err
			}
		}()
		time.Sleep(ends)
		u.mu.Lock()
		delete(u.stops, in)
		switch {
		case err == nil:
		case fails:
			u.failed++
		default:
			u.died++
		}
		u.mu.Unlock()
		to.Exited(in, err)
	}()
}

// Stop is called under the activator's lock, so that the instance can be looked at.
func (u *unsteady) Stop(in *lifecycle.Instance) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if in.Leases > 0 {
		u.t.Errorf("%s was told to stop, for %q, with %d leases", in.ID(), in.Reason, in.Leases)
	}
	if stop := u.stops[in]; stop != nil {
		stop()
	}
}

func (u *unsteady) Save(in *lifecycle.Instance, attempt int, _ time.Time, to lifecycle.Reporter) {
	go to.Saved(in, attempt)
}

// upTo draws a duration. u.mu is held.
func (u *unsteady) upTo(d time.Duration) time.Duration { return time.Duration(u.rng.Int64N(int64(d))) }

// shellCatalog has eight models, some of them changed or gone.
func shellCatalog(rng *rand.Rand) *modeldir.Catalog {
	var models []*modeldir.Model
	for i := range 8 {
		if i > 5 && rng.IntN(4) == 0 {
			continue
		}
		idle := time.Duration(5+10*i) * time.Second
		models = append(models, &modeldir.Model{
			Name: fmt.Sprintf("m%d", i), Concurrency: 1 + i%3, MaxInstances: 1 + i%2, IdleTimeout: &idle,
			Priority: i % 2, CtxSize: 1024 + rng.IntN(2)*rng.IntN(2)*1024,
		})
	}
	return catalogOf(models...)
}

// TestShellForAnHour has clients come, wait, leave and be served for a simulated hour, by goroutines as in real life, while engines
// fail and models are edited. Everybody's wait ends once, by a lease or for a reason that is true, and within its bounds.
func TestShellForAnHour(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { anHour(t, seed) })
		})
	}
}

func anHour(t *testing.T, seed uint64) {
	u := &unsteady{t: t, limit: shellPlaces, rng: rand.New(rand.NewPCG(seed, 0)), stops: map[*lifecycle.Instance]context.CancelFunc{}}
	a := New(u, nil, discard)
	a.SetCatalog(shellCatalog(u.rng))
	a.Configure(Settings{
		MaxInstances: shellPlaces, MaxWait: shellMaxWait, StartTimeout: time.Minute, IdleTimeout: time.Minute, Queue: 8, QueueTotal: 25,
	})
	var (
		all  sync.WaitGroup
		mu   sync.Mutex
		ends = map[string]int{}
		long time.Duration
	)
	over := time.Now().Add(time.Hour)
	for i := range 30 {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i+1)))
			for time.Now().Before(over) {
				time.Sleep(time.Duration(rng.ExpFloat64() * float64(3*time.Second)))
				what, waited, err := visit(a, rng, uint64(1+i%4))
				mu.Lock()
				ends[what]++
				long = max(long, waited)
				mu.Unlock()
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Go(func() { // somebody edits models, and unloads some
		rng := rand.New(rand.NewPCG(seed, 1<<32))
		for time.Now().Before(over) {
			time.Sleep(time.Duration(rng.ExpFloat64() * float64(30*time.Second)))
			if rng.IntN(2) == 0 {
				a.SetCatalog(shellCatalog(rng))
			} else {
				a.Unload(fmt.Sprintf("m%d", rng.IntN(8)), false)
			}
		}
	})
	all.Wait()
	for _, in := range a.Instances() {
		if in.Leases != 0 {
			t.Errorf("all have gone, and %s#%d has %d leases", in.Key, in.Generation, in.Leases)
		}
	}
	for key, m := range a.Statuses() {
		if m.Queued != 0 {
			t.Errorf("all have gone, and %d wait for %s", m.Queued, key)
		}
	}
	a.Close(t.Context())
	t.Logf("%v; %d starts failed, %d engines died, at most %d alive; longest wait %v", ends, u.failed, u.died, u.most, long.Round(time.Millisecond))
	if u.failed == 0 || u.died == 0 || u.most != shellPlaces || ends["served"] == 0 || ends["left"] == 0 || ends["waited in vain"] == 0 {
		t.Error("not all that may happen did: this shows too little")
	}
	// Clocks for room, for others' ends and for a slot; and the start, which an edit may have begin anew.
	if bound := 3*shellMaxWait + 2*(shellStart+shellStop); long > bound {
		t.Errorf("somebody waited %v, more than %v", long, bound)
	}
}

// visit is one request. It tells how it ended, and the error if it should not have ended so.
func visit(a *Activator, rng *rand.Rand, client uint64) (what string, waited time.Duration, err error) {
	ctx, leave := context.WithCancelCause(context.Background())
	defer leave(nil)
	gone := errors.New("gone")
	if rng.IntN(8) == 0 {
		stay := time.AfterFunc(time.Duration(rng.ExpFloat64()*float64(5*time.Second)), func() { leave(gone) })
		defer stay.Stop()
	}
	r := Request{Key: fmt.Sprintf("m%d", rng.IntN(8)), Client: client, Conversation: rng.Uint64N(5), Bytes: 100}
	began := time.Now()
	lease, err := a.Acquire(ctx, r)
	waited = time.Since(began)
	if err == nil {
		time.Sleep(time.Duration(rng.ExpFloat64() * float64(2*time.Second)))
		lease.Release()
		return "served", waited, nil
	}
	if errors.Is(err, gone) {
		return "left", waited, nil
	}
	switch faultOf(err) {
	case FaultStart:
		return "start failed", waited, nil
	case FaultUnknown:
		if r.Key >= "m6" {
			return "model gone", waited, nil
		}
	case FaultFull:
		if waited == 0 {
			return "queue full", waited, nil
		}
	case FaultWait:
		if waited >= shellMaxWait {
			return "waited in vain", waited, nil
		}
	default:
	}
	return "lost", waited, fmt.Errorf("%s after %v: %w", r.Key, waited, err)
}
