package activator

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"assistant/lifecycle"
	"assistant/lifecycle/engine"
	"assistant/modeldir"
)

var discard = slog.New(slog.DiscardHandler)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeRunner is a machine on which engines take a set time to start and stop. It works on the bubble's clock.
type fakeRunner struct {
	startTakes, stopTakes time.Duration
	saveTakes             time.Duration
	keeps                 bool                  // contexts
	fail                  atomic.Pointer[error] // what a start ends in instead of readiness

	mu     sync.Mutex
	stops  map[*lifecycle.Instance]context.CancelCauseFunc
	spawns atomic.Int32
	saves  atomic.Int32
}

var errTold = errors.New("told to stop")

func (r *fakeRunner) Start(in *lifecycle.Instance, timeout time.Duration, to lifecycle.Reporter) {
	r.spawns.Add(1)
	ctx, stop := context.WithCancelCause(context.Background())
	r.mu.Lock()
	if r.stops == nil {
		r.stops = map[*lifecycle.Instance]context.CancelCauseFunc{}
	}
	r.stops[in] = stop
	r.mu.Unlock()
	slots := in.Model.Concurrency
	id := in.ID()
	go func() {
		defer stop(nil)
		select {
		case <-time.After(r.startTakes):
			if err := r.fail.Load(); err != nil {
				to.Exited(in, *err)
				return
			}
			to.Ready(in, &lifecycle.Running{ID: id, Slots: slots, ReadyAt: time.Now(), KeepsContexts: r.keeps})
		case <-time.After(timeout):
			to.Exited(in, errors.New("not ready in time"))
			return
		case <-ctx.Done():
		}
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), errTold) {
			to.Exited(in, context.Cause(ctx))
			return
		}
		time.Sleep(r.stopTakes)
		to.Exited(in, nil)
	}()
}

func (r *fakeRunner) Stop(in *lifecycle.Instance) { r.end(in, errTold) }

func (r *fakeRunner) Save(in *lifecycle.Instance, attempt int, by time.Time, to lifecycle.Reporter) {
	r.saves.Add(1)
	go func() {
		select {
		case <-time.After(r.saveTakes):
		case <-time.After(time.Until(by)):
		}
		to.Saved(in, attempt)
	}()
}

// crash ends an instance by itself.
func (r *fakeRunner) crash(in *lifecycle.Instance) { r.end(in, errors.New("segmentation fault")) }

func (r *fakeRunner) end(in *lifecycle.Instance, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stops[in](why)
}

func catalogOf(models ...*modeldir.Model) *modeldir.Catalog {
	for _, m := range models {
		if m.Key == "" {
			m.Key = m.Name
		}
		m.Kind, m.File = modeldir.Chat, "/models/"+m.Key+".toml"
	}
	return modeldir.NewCatalog(models)
}

// inBubble runs f with an activator over a fake machine, on a fake clock, and closes it in the end.
func inBubble(t *testing.T, r *fakeRunner, f func(t *testing.T, a *Activator), models ...*modeldir.Model) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a := New(r, nil, slog.New(slog.DiscardHandler))
		a.SetCatalog(catalogOf(models...))
		f(t, a)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		a.Close(ctx)
	})
}

func mustAcquire(t *testing.T, a *Activator, key string) Lease {
	t.Helper()
	lease, err := a.Acquire(t.Context(), Request{Key: key})
	if err != nil {
		t.Fatalf("Acquire(%s): %v", key, err)
	}
	return lease
}

func faultOf(err error) Fault {
	var e *Error
	if errors.As(err, &e) {
		return e.Fault
	}
	return 255
}

func state1(a *Activator) string {
	list := a.Instances()
	if len(list) != 1 {
		return ""
	}
	return list[0].State
}

func TestFirstRequestStartsAndIsAnswered(t *testing.T) {
	inBubble(t, &fakeRunner{startTakes: 3 * time.Second}, func(t *testing.T, a *Activator) {
		began := time.Now()
		lease := mustAcquire(t, a, "m")
		defer lease.Release()
		if got := time.Since(began); got != 3*time.Second {
			t.Errorf("waited %v, want the 3s of the start", got)
		}
		if !lease.Cold || lease.Waited != 3*time.Second {
			t.Errorf("Cold, Waited = %v, %v, want true, 3s", lease.Cold, lease.Waited)
		}
		warm := mustAcquire(t, a, "m")
		if warm.Cold || warm.Waited != 0 {
			t.Errorf("second request: Cold, Waited = %v, %v, want false, 0", warm.Cold, warm.Waited)
		}
		warm.Release()
	}, &modeldir.Model{Name: "m"})
}

func Test200FirstRequestsStartOneInstance(t *testing.T) {
	r := &fakeRunner{startTakes: time.Second}
	inBubble(t, r, func(t *testing.T, a *Activator) {
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				lease := mustAcquire(t, a, "m")
				time.Sleep(time.Second)
				lease.Release()
			})
		}
		wg.Wait()
		if n := r.spawns.Load(); n != 1 {
			t.Errorf("%d spawns, want 1", n)
		}
	}, &modeldir.Model{Name: "m"})
}

func TestSlotsAreGrantedInOrder(t *testing.T) {
	inBubble(t, &fakeRunner{}, func(t *testing.T, a *Activator) {
		first := mustAcquire(t, a, "m")
		var order []int
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				lease := mustAcquire(t, a, "m")
				order = append(order, i) // one at a time: there is one slot
				lease.Release()
			})
			synctest.Wait()
		}
		first.Release()
		wg.Wait()
		for i, got := range order {
			if got != i {
				t.Fatalf("order %v, want that of arrival", order)
			}
		}
	}, &modeldir.Model{Name: "m", Concurrency: 1})
}

func TestIdleInstanceRetires(t *testing.T) {
	idle := time.Minute
	inBubble(t, &fakeRunner{startTakes: 10 * time.Minute}, func(t *testing.T, a *Activator) {
		a.Configure(Settings{MaxInstances: 1, StartTimeout: time.Hour, Queue: 1, QueueTotal: 1, IdleTimeout: time.Hour})
		lease := mustAcquire(t, a, "m") // a clock that began at the spawn would kill this slow starter
		time.Sleep(time.Hour)           // one that ignored streams would kill this one
		synctest.Wait()
		if got := state1(a); got != "ready" {
			t.Fatalf("an hour into a stream it is %q, want ready", got)
		}
		lease.Release()
		time.Sleep(idle - time.Nanosecond)
		synctest.Wait()
		if got := state1(a); got != "ready" {
			t.Fatalf("just before the idle timeout it is %q, want ready", got)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if n := len(a.Instances()); n != 0 {
			t.Fatalf("%d instances at the idle timeout, want 0", n)
		}
	}, &modeldir.Model{Name: "m", IdleTimeout: &idle})
}

func TestIdleTimeoutZeroNeverRetires(t *testing.T) {
	never := time.Duration(0)
	inBubble(t, &fakeRunner{}, func(t *testing.T, a *Activator) {
		lease := mustAcquire(t, a, "m")
		lease.Release()
		time.Sleep(1000 * time.Hour)
		synctest.Wait()
		if got := state1(a); got != "ready" {
			t.Fatalf("it is %q, want ready", got)
		}
	}, &modeldir.Model{Name: "m", IdleTimeout: &never})
}

func TestClientThatLeavesDuringColdStart(t *testing.T) {
	r := &fakeRunner{startTakes: time.Second}
	inBubble(t, r, func(t *testing.T, a *Activator) {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := a.Acquire(ctx, Request{Key: "m"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Acquire: %v, want the context's end", err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := state1(a); got != "ready" {
			t.Errorf("the start nobody needs the room of ended as %q, want ready: warm for the next", got)
		}
	}, &modeldir.Model{Name: "m"})
}

func TestUnwantedStartGivesWayAtOnce(t *testing.T) {
	r := &fakeRunner{startTakes: time.Minute}
	inBubble(t, r, func(t *testing.T, a *Activator) {
		a.Configure(Settings{MaxInstances: 1, StartTimeout: time.Hour, MaxWait: time.Hour, Queue: 9, QueueTotal: 9})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, _ = a.Acquire(ctx, Request{Key: "a"}) }()
		synctest.Wait()
		began := time.Now()
		got := make(chan time.Duration, 1)
		go func() {
			lease := mustAcquire(t, a, "b")
			got <- time.Since(began)
			lease.Release()
		}()
		time.Sleep(10 * time.Second)
		cancel()
		if took := <-got; took != 70*time.Second {
			t.Errorf("b came after %v, want 10s of a's wanted start and 60s of its own", took)
		}
	}, &modeldir.Model{Name: "a"}, &modeldir.Model{Name: "b"})
}

func TestRoomIsMadeByEvictingTheLongestIdle(t *testing.T) {
	inBubble(t, &fakeRunner{startTakes: time.Second, stopTakes: time.Second}, func(t *testing.T, a *Activator) {
		a.Configure(Settings{MaxInstances: 2, StartTimeout: time.Hour, MaxWait: time.Hour, Queue: 9, QueueTotal: 9})
		for _, key := range []string{"pinned", "old"} {
			lease := mustAcquire(t, a, key)
			lease.Release()
			time.Sleep(time.Second)
		}
		lease := mustAcquire(t, a, "new")
		defer lease.Release()
		var left []string
		for _, in := range a.Instances() {
			left = append(left, in.Model)
		}
		if len(left) != 2 || left[0] != "pinned" || left[1] != "new" {
			t.Errorf("left: %v, want pinned and new", left)
		}
		if lease.Waited != 2*time.Second {
			t.Errorf("waited %v, want 1s of stop and 1s of start", lease.Waited)
		}
	}, &modeldir.Model{Name: "pinned", Pinned: true}, &modeldir.Model{Name: "old"}, &modeldir.Model{Name: "new"})
}

func TestBusyInstanceIsNotEvictedAndTheWaitIsBounded(t *testing.T) {
	inBubble(t, &fakeRunner{startTakes: time.Second}, func(t *testing.T, a *Activator) {
		a.Configure(Settings{MaxInstances: 1, StartTimeout: time.Hour, MaxWait: 30 * time.Second, Queue: 9, QueueTotal: 9})
		busy := mustAcquire(t, a, "a")
		began := time.Now()
		_, err := a.Acquire(t.Context(), Request{Key: "b"})
		if got := time.Since(began); faultOf(err) != FaultWait || got != time.Minute {
			t.Errorf("b: %v after %v, want FaultWait after 30s for room and 30s of a's draining", err, got)
		}
		if got := state1(a); got != "ready" {
			t.Errorf("a, whose answer outlasts who wanted its room, is %q, want ready again", got)
		}
		busy.Release()
	}, &modeldir.Model{Name: "a"}, &modeldir.Model{Name: "b"})
}

func TestFullQueueRefuses(t *testing.T) {
	inBubble(t, &fakeRunner{startTakes: time.Second}, func(t *testing.T, a *Activator) {
		a.Configure(Settings{MaxInstances: 2, StartTimeout: time.Hour, MaxWait: time.Hour, Queue: 2, QueueTotal: 3})
		var wg sync.WaitGroup
		for _, key := range []string{"a", "a", "b"} {
			wg.Go(func() {
				lease := mustAcquire(t, a, key)
				lease.Release()
			})
		}
		synctest.Wait()
		for _, key := range []string{"a", "b"} { // a's own queue is full, and the queue of all
			_, err := a.Acquire(t.Context(), Request{Key: key})
			var e *Error
			if !errors.As(err, &e) || e.Fault != FaultFull || e.RetryAfter <= 0 {
				t.Errorf("Acquire(%s): %v, want FaultFull with a RetryAfter", key, err)
			}
		}
		wg.Wait()
	}, &modeldir.Model{Name: "a"}, &modeldir.Model{Name: "b"})
}

func TestFailedStartIsToldToAllAndRests(t *testing.T) {
	r := &fakeRunner{startTakes: time.Second}
	boom := errors.New("out of memory")
	r.fail.Store(&boom)
	inBubble(t, r, func(t *testing.T, a *Activator) {
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := a.Acquire(t.Context(), Request{Key: "m"}); faultOf(err) != FaultStart || !errors.Is(err, boom) {
					t.Errorf("Acquire: %v, want the engine's own error", err)
				}
			})
		}
		wg.Wait()
		spawns := r.spawns.Load()
		_, err := a.Acquire(t.Context(), Request{Key: "m"})
		var e *Error
		if !errors.As(err, &e) || e.Fault != FaultStart || e.RetryAfter != firstBackoff || r.spawns.Load() != spawns {
			t.Errorf("while it rests: %v with %d more spawns, want FaultStart, %v and none", err, r.spawns.Load()-spawns, firstBackoff)
		}
		other := mustAcquireFails(t, a, "n")
		if faultOf(other) != FaultStart {
			t.Errorf("another model: %v", other)
		}
		time.Sleep(firstBackoff)
		r.fail.Store(nil)
		lease := mustAcquire(t, a, "m")
		lease.Release()
	}, &modeldir.Model{Name: "m"}, &modeldir.Model{Name: "n"})
}

func mustAcquireFails(t *testing.T, a *Activator, key string) error {
	t.Helper()
	lease, err := a.Acquire(t.Context(), Request{Key: key})
	if err == nil {
		lease.Release()
		t.Fatalf("Acquire(%s) succeeded", key)
	}
	return err
}

func TestCrashWhileServingDoesNotRest(t *testing.T) {
	r := &fakeRunner{startTakes: time.Second}
	inBubble(t, r, func(t *testing.T, a *Activator) {
		lease := mustAcquire(t, a, "m")
		r.crash(lease.in)
		synctest.Wait()
		lease.Release()
		next := mustAcquire(t, a, "m")
		if next.in == lease.in {
			t.Error("the dead instance was given out again")
		}
		r.crash(next.in) // again before anybody was served to the end: now it rests
		synctest.Wait()
		next.Release()
		if err := mustAcquireFails(t, a, "m"); faultOf(err) != FaultStart {
			t.Errorf("after two crashes: %v", err)
		}
	}, &modeldir.Model{Name: "m"})
}

func TestReloadTouchesOnlyWhatChanged(t *testing.T) {
	r := &fakeRunner{startTakes: time.Second}
	inBubble(t, r, func(t *testing.T, a *Activator) {
		same, changed, removed := mustAcquire(t, a, "same"), mustAcquire(t, a, "changed"), mustAcquire(t, a, "removed")
		defer same.Release()
		a.SetCatalog(catalogOf(
			&modeldir.Model{Name: "same", Priority: 3}, // metadata
			&modeldir.Model{Name: "changed", CtxSize: 8192},
		))
		synctest.Wait()
		states := map[string]string{}
		for _, in := range a.Instances() {
			states[in.Model] = in.State
		}
		if states["same"] != "ready" || states["changed"] != "draining" || states["removed"] != "draining" {
			t.Fatalf("states with leases out: %v", states)
		}
		next := mustAcquire(t, a, "changed") // a new generation starts beside the draining one
		if next.in.Gen == changed.in.Gen {
			t.Error("a changed model went on with its old instance")
		}
		if err := mustAcquireFails(t, a, "removed"); faultOf(err) != FaultUnknown {
			t.Errorf("removed: %v", err)
		}
		again := mustAcquire(t, a, "same")
		if again.in != same.in {
			t.Error("an unchanged model was started again")
		}
		again.Release()
		next.Release()
		changed.Release()
		removed.Release()
		synctest.Wait()
		if n := len(a.Instances()); n != 2 {
			t.Errorf("%d instances left, want same and the new changed", n)
		}
	}, &modeldir.Model{Name: "same"}, &modeldir.Model{Name: "changed"}, &modeldir.Model{Name: "removed"})
}

func TestPressureRetiresTheIdleOnly(t *testing.T) {
	inBubble(t, &fakeRunner{startTakes: time.Second}, func(t *testing.T, a *Activator) {
		busy := mustAcquire(t, a, "busy")
		idle := mustAcquire(t, a, "idle")
		idle.Release()
		a.SetMachine(Machine{Short: true})
		synctest.Wait()
		if n := len(a.Instances()); n != 2 {
			t.Fatalf("%d instances right after use, want 2: pressure spares what was just used", n)
		}
		time.Sleep(5 * time.Second)
		a.SetMachine(Machine{Short: true})
		a.SetMachine(Machine{Short: true})
		synctest.Wait()
		if list := a.Instances(); len(list) != 1 || list[0].Model != "busy" {
			t.Errorf("left: %+v, want busy", list)
		}
		busy.Release()
	}, &modeldir.Model{Name: "busy"}, &modeldir.Model{Name: "idle"})
}

func TestMinInstancesIsKeptWarm(t *testing.T) {
	r := &fakeRunner{startTakes: time.Second}
	inBubble(t, r, func(t *testing.T, a *Activator) {
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := state1(a); got != "ready" {
			t.Errorf("it is %q, want ready without any request", got)
		}
	}, &modeldir.Model{Name: "m", MinInstances: 1})
}

func TestShutdownRefusesWaitersAndLetsLeasesEnd(t *testing.T) {
	r := &fakeRunner{startTakes: time.Minute}
	synctest.Test(t, func(t *testing.T) {
		a := New(r, nil, slog.New(slog.DiscardHandler))
		a.SetCatalog(catalogOf(&modeldir.Model{Name: "m", Concurrency: 1}))
		lease := mustAcquire(t, a, "m")
		waited := make(chan error, 1)
		go func() {
			_, err := a.Acquire(t.Context(), Request{Key: "m"})
			waited <- err
		}()
		synctest.Wait()
		a.RefuseWaiting()
		if err := <-waited; faultOf(err) != FaultShutdown {
			t.Errorf("the waiter got %v, want FaultShutdown", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		closed := make(chan struct{})
		go func() { a.Close(ctx); close(closed) }()
		time.Sleep(30 * time.Second)
		select {
		case <-closed:
			t.Error("closed over a running lease")
		default:
		}
		lease.Release()
		<-closed
		if got := ctx.Err(); got != nil {
			t.Error("closing waited for its deadline although the lease had ended")
		}
	})
}

func TestCloseKillsWhatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(&fakeRunner{}, nil, slog.New(slog.DiscardHandler))
		a.SetCatalog(catalogOf(&modeldir.Model{Name: "m"}))
		lease := mustAcquire(t, a, "m")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		a.Close(ctx)
		lease.Release()
	})
}

func TestGrantAndCancelAreDecidedOnce(t *testing.T) {
	// The client leaves at the very moment of readiness, over and over: every lease comes back.
	r := &fakeRunner{startTakes: 100 * time.Millisecond}
	inBubble(t, r, func(t *testing.T, a *Activator) {
		for range 50 {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			if lease, err := a.Acquire(ctx, Request{Key: "m"}); err == nil {
				lease.Release()
			}
			cancel()
			synctest.Wait()
			if list := a.Instances(); len(list) == 1 && list[0].Leases != 0 {
				t.Fatalf("a lease was lost: %+v", list[0])
			}
			a.Unload("m", false)
			synctest.Wait()
		}
	}, &modeldir.Model{Name: "m", Concurrency: 1})
}

// TestIdleInstanceRetiresAfterALeaseAcrossItsDeadline: the timer fires while the instance is busy again, and must be armed anew.
func TestIdleInstanceRetiresAfterALeaseAcrossItsDeadline(t *testing.T) {
	idle := time.Minute
	inBubble(t, &fakeRunner{}, func(t *testing.T, a *Activator) {
		first := mustAcquire(t, a, "m")
		first.Release()
		time.Sleep(30 * time.Second)
		second := mustAcquire(t, a, "m")
		time.Sleep(time.Hour)
		second.Release()
		time.Sleep(idle)
		synctest.Wait()
		if n := len(a.Instances()); n != 0 {
			t.Errorf("%d instances a minute after the last lease, want 0", n)
		}
	}, &modeldir.Model{Name: "m", IdleTimeout: &idle})
}

// TestMissingFileIsNotLookedForInALoop: of a model that is kept warm, or one whose spec changed under those who wait.
func TestMissingFileIsNotLookedForInALoop(t *testing.T) {
	r := &fakeRunner{startTakes: time.Millisecond}
	var missing error = &engine.MissingError{What: "model file", Path: "/gone"}
	r.fail.Store(&missing)
	inBubble(t, r, func(t *testing.T, a *Activator) {
		time.Sleep(time.Second)
		if n := r.spawns.Load(); n != 1 {
			t.Errorf("%d starts in a second, want 1", n)
		}
		spawns := r.spawns.Load()
		if err := mustAcquireFails(t, a, "kept"); !errors.Is(err, missing) || r.spawns.Load() != spawns+1 {
			t.Errorf("a request made %d starts and got %v, want one look and the missing file", r.spawns.Load()-spawns, err)
		}
		r.fail.Store(nil)
		lease := mustAcquire(t, a, "m")
		waited := make(chan error, 1)
		r.fail.Store(&missing)
		a.SetCatalog(catalogOf(&modeldir.Model{Name: "m", ModelPath: "/gone"}))
		go func() {
			_, err := a.Acquire(t.Context(), Request{Key: "m"})
			waited <- err
		}()
		if err := <-waited; !errors.Is(err, missing) {
			t.Errorf("the waiter got %v, want the missing file", err)
		}
		lease.Release()
	}, &modeldir.Model{Name: "kept", MinInstances: 1}, &modeldir.Model{Name: "m"})
}

func TestWaiterGetsTheNextGenerationAfterUnload(t *testing.T) {
	inBubble(t, &fakeRunner{startTakes: time.Second}, func(t *testing.T, a *Activator) {
		busy := mustAcquire(t, a, "m")
		got := make(chan time.Duration, 1)
		began := time.Now()
		go func() {
			lease := mustAcquire(t, a, "m")
			got <- time.Since(began)
			lease.Release()
		}()
		synctest.Wait()
		a.Unload("m", false)
		if took := <-got; took != time.Second {
			t.Errorf("the waiter was served after %v, want the second that a start takes", took)
		}
		busy.Release()
	}, &modeldir.Model{Name: "m", Concurrency: 1})
}

func TestDyingInstanceGetsNoMoreLeases(t *testing.T) {
	r := &fakeRunner{startTakes: time.Second}
	inBubble(t, r, func(t *testing.T, a *Activator) {
		lease := mustAcquire(t, a, "m")
		a.Dying(lease.in, errors.New("the shell around it died"))
		next := mustAcquire(t, a, "m")
		if next.in == lease.in {
			t.Error("a lease on an instance that is being cleared away")
		}
		next.Release()
		lease.Release()
		r.crash(lease.in)
	}, &modeldir.Model{Name: "m"})
}

// TestMetadataChangesWhileRequestsAreGranted is for the race detector: a reload gives a running instance another model to read.
func TestMetadataChangesWhileRequestsAreGranted(t *testing.T) {
	inBubble(t, &fakeRunner{startTakes: time.Millisecond}, func(t *testing.T, a *Activator) {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 50 {
					lease := mustAcquire(t, a, "m")
					time.Sleep(time.Millisecond)
					lease.Release()
				}
			})
		}
		for i := range 100 {
			a.SetCatalog(catalogOf(&modeldir.Model{Name: "m", Concurrency: 1, Priority: i}))
			time.Sleep(time.Millisecond)
		}
		wg.Wait()
	}, &modeldir.Model{Name: "m", Concurrency: 1})
}

func TestReleaseTwiceReleasesOnce(t *testing.T) {
	inBubble(t, &fakeRunner{}, func(t *testing.T, a *Activator) {
		one, two := mustAcquire(t, a, "m"), mustAcquire(t, a, "m")
		one.Release()
		one.Release()
		if got := a.Instances()[0].Leases; got != 1 {
			t.Errorf("%d leases, want 1", got)
		}
		two.Release()
	}, &modeldir.Model{Name: "m"})
}

func BenchmarkAcquireWarm(b *testing.B) {
	a := New(&fakeRunner{}, nil, slog.New(slog.DiscardHandler))
	a.SetCatalog(catalogOf(&modeldir.Model{Name: "m"}))
	if err := a.Load(b.Context(), "m"); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		lease, err := a.Acquire(b.Context(), Request{Key: "m"})
		if err != nil {
			b.Fatal(err)
		}
		lease.Release()
	}
	a.Close(b.Context())
}

// TestWarmAcquireAllocatesNothing guards what the benchmark shows.
func TestWarmAcquireAllocatesNothing(t *testing.T) {
	a := New(&fakeRunner{}, nil, slog.New(slog.DiscardHandler))
	a.SetCatalog(catalogOf(&modeldir.Model{Name: "m"}))
	if err := a.Load(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() {
		lease, _ := a.Acquire(ctx, Request{Key: "m"})
		lease.Release()
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
	a.Close(ctx)
}
