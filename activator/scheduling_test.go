package activator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"assistant/lifecycle"
	"assistant/lifecycle/machine"
	"assistant/lifecycle/memory"
	"assistant/modeldir"
)

// settings are the defaults with changes.
func settings(change func(*Settings)) Settings {
	set := DefaultSettings()
	set.StartTimeout = time.Hour
	change(&set)
	return set
}

// hold takes a lease on the model in the background, holds it for so long once it has it, and reports when that was.
func hold(t *testing.T, a *Activator, wg *sync.WaitGroup, r Request, d time.Duration, got func(Lease, error)) {
	t.Helper()
	wg.Go(func() {
		lease, err := a.Acquire(t.Context(), r)
		got(lease, err)
		if err == nil {
			time.Sleep(d)
			lease.Release()
		}
	})
	synctest.Wait()
}

func TestWaitersOfOneClientDoNotHoldUpOthers(t *testing.T) {
	inBubble(t, &fakeRunner{}, func(t *testing.T, a *Activator) {
		var wg sync.WaitGroup
		var order []string
		first := mustAcquire(t, a, "m")
		for _, who := range []string{"a1", "a2", "a3", "a4", "b1", "c1", "b2"} {
			hold(t, a, &wg, Request{Key: "m", Client: uint64(who[0])}, time.Second, func(Lease, error) { order = append(order, who) })
		}
		first.Release()
		wg.Wait()
		if want := []string{"a1", "b1", "c1", "a2", "b2", "a3", "a4"}; !slices.Equal(order, want) {
			t.Errorf("served %v, want %v", order, want)
		}
	}, &modeldir.Model{Name: "m", Concurrency: 1})
}

func TestQueueIsBoundedByClientAndBytes(t *testing.T) {
	inBubble(t, &fakeRunner{startTakes: time.Hour}, func(t *testing.T, a *Activator) {
		a.Configure(settings(func(s *Settings) {
			s.MaxWait, s.QueueClient, s.QueueBytes, s.QueueBytesTotal, s.QueueBytesClient = time.Hour, 3, 1000, 1500, 600
		}))
		ctx, cancel := context.WithCancel(t.Context())
		ask := func(key string, client uint64, bytes int64) (err error) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, err = a.Acquire(ctx, Request{Key: key, Client: client, Bytes: bytes})
			}()
			synctest.Wait()
			select {
			case <-done:
				return err
			default:
				return nil
			}
		}
		for _, tt := range []struct {
			key    string
			client uint64
			bytes  int64
			full   bool
		}{
			{"m", 1, 100, false},
			{"m", 1, 600, true}, // 700 of 600 for a client
			{"m", 1, 500, false},
			{"m", 2, 500, true}, // 1,100 of 1,000 for a model
			{"n", 2, 600, false},
			{"m", 3, 400, true}, // 1,600 of 1,500 altogether
			{"m", 1, 0, false},
			{"m", 1, 0, true}, // the client's fourth
			{"m", 2, 0, false},
		} {
			err := ask(tt.key, tt.client, tt.bytes)
			if tt.full != (faultOf(err) == FaultFull) {
				t.Errorf("%+v: got %v", tt, err)
			}
		}
		cancel()
		synctest.Wait()
		if a.state.bytes != 0 || a.state.queued != 0 {
			t.Errorf("%d bytes of %d requests are still counted", a.state.bytes, a.state.queued)
		}
	}, &modeldir.Model{Name: "m", Concurrency: 1}, &modeldir.Model{Name: "n", Concurrency: 1})
}

func TestRetryAfterIsWhatTheQueueTakes(t *testing.T) {
	inBubble(t, &fakeRunner{startTakes: 5 * time.Second}, func(t *testing.T, a *Activator) {
		a.Configure(settings(func(s *Settings) { s.Queue, s.QueueTotal = 6, 6 }))
		warm := mustAcquire(t, a, "m")
		time.Sleep(20 * time.Second)
		warm.Release() // an answer takes 20 s
		var wg sync.WaitGroup
		for range 2 + 6 {
			hold(t, a, &wg, Request{Key: "m"}, 20*time.Second, func(Lease, error) {})
		}
		var e *Error
		if _, err := a.Acquire(t.Context(), Request{Key: "m"}); !errors.As(err, &e) || e.Fault != FaultFull || e.RetryAfter != time.Minute {
			t.Errorf("got %v, RetryAfter %v, want FaultFull and 6 × 20 s on 2 slots", err, e.RetryAfter)
		}
		wg.Wait()
	}, &modeldir.Model{Name: "m", Concurrency: 2})
}

func TestReplicaStartsWhenTheQueueIsLongerThanAStart(t *testing.T) {
	r := &fakeRunner{startTakes: 10 * time.Second}
	inBubble(t, r, func(t *testing.T, a *Activator) {
		warm := mustAcquire(t, a, "m")
		time.Sleep(4 * time.Second)
		warm.Release() // a start takes 10 s, an answer 4
		var wg sync.WaitGroup
		for range 3 { // the last would wait 8 s
			hold(t, a, &wg, Request{Key: "m"}, 4*time.Second, func(Lease, error) {})
		}
		if n := r.spawns.Load(); n != 1 {
			t.Fatalf("%d instances for a queue shorter than a start", n)
		}
		hold(t, a, &wg, Request{Key: "m"}, 4*time.Second, func(Lease, error) {}) // this one 12 s
		if n := r.spawns.Load(); n != 2 {
			t.Fatalf("%d instances, want a replica", n)
		}
		hold(t, a, &wg, Request{Key: "m"}, 4*time.Second, func(Lease, error) {}) // what is on its way counts
		if n := r.spawns.Load(); n != 2 {
			t.Fatalf("%d instances: the one on its way was not counted", n)
		}
		wg.Wait()
		time.Sleep(shortestLull + 10*time.Second)
		synctest.Wait()
		if n := len(a.Instances()); n != 1 {
			t.Errorf("%d instances after the rush, want one", n)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if n := len(a.Instances()); n != 0 {
			t.Errorf("%d instances after the idle timeout, want none", n)
		}
	}, &modeldir.Model{Name: "m", Concurrency: 1, MaxInstances: 3})
}

func TestReplicaStartsWhenNothingIsKnownButTheWait(t *testing.T) {
	r := &fakeRunner{startTakes: 10 * time.Second}
	inBubble(t, r, func(t *testing.T, a *Activator) {
		var wg sync.WaitGroup
		began := time.Now()
		for range 2 {
			hold(t, a, &wg, Request{Key: "m"}, time.Minute, func(l Lease, _ error) {
				if waited := time.Since(began); waited > 31*time.Second {
					t.Errorf("waited %v, want the start, as long again, and the replica's start", waited)
				}
			})
		}
		wg.Wait()
		if n := r.spawns.Load(); n != 2 {
			t.Errorf("%d instances, want 2", n)
		}
	}, &modeldir.Model{Name: "m", Concurrency: 1, MaxInstances: 2})
}

func TestLoadHoldsBackReplicasButNoFirstInstance(t *testing.T) {
	r := &fakeRunner{startTakes: time.Second}
	inBubble(t, r, func(t *testing.T, a *Activator) {
		a.SetMachine(Machine{Busy: true})
		var wg sync.WaitGroup
		for range 10 {
			hold(t, a, &wg, Request{Key: "m"}, 5*time.Second, func(Lease, error) {})
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if n := r.spawns.Load(); n != 1 {
			t.Errorf("%d instances under load, want the first only", n)
		}
		a.SetMachine(Machine{})
		synctest.Wait()
		if n := r.spawns.Load(); n != 3 {
			t.Errorf("%d instances once the load is gone, want 3", n)
		}
		wg.Wait()
		time.Sleep(6 * time.Second)
		a.SetMachine(Machine{Busy: true})
		synctest.Wait()
		if n := len(a.Instances()); n != 1 {
			t.Errorf("%d instances under load and idle, want the replicas gone", n)
		}
	}, &modeldir.Model{Name: "m", Concurrency: 1, MaxInstances: 3})
}

// holdForever keeps a model busy: a new lease is taken before the old one is released.
func keepBusy(ctx context.Context, a *Activator, key string, d time.Duration) {
	for ctx.Err() == nil {
		lease, err := a.Acquire(ctx, Request{Key: key, Client: 7})
		if err != nil {
			return
		}
		go func() {
			time.Sleep(d)
			lease.Release()
		}()
		time.Sleep(d / 2)
	}
}

func TestSwitchComesAtMaxWaitAndLosesNobody(t *testing.T) {
	inBubble(t, &fakeRunner{startTakes: 2 * time.Second, stopTakes: time.Second}, func(t *testing.T, a *Activator) {
		a.Configure(settings(func(s *Settings) { s.MaxInstances, s.MaxWait = 1, 30*time.Second }))
		ctx, cancel := context.WithCancel(t.Context())
		go keepBusy(ctx, a, "a", 4*time.Second)
		time.Sleep(10 * time.Second)
		began := time.Now()
		lease := mustAcquire(t, a, "b")
		// 30 s, at most 4 s until a's answers are given, 1 s to stop it, 2 s to start b.
		if waited := time.Since(began); waited < 30*time.Second || waited > 37*time.Second {
			t.Errorf("b waited %v, want max_wait, a drain and a start", waited)
		}
		lease.Release()
		time.Sleep(time.Minute)
		if list := a.Instances(); len(list) != 1 || list[0].Model != "a" {
			t.Errorf("%+v: b, idle, did not yield to a", list)
		}
		cancel()
		synctest.Wait()
	}, &modeldir.Model{Name: "a"}, &modeldir.Model{Name: "b"})
}

func TestDrainingInstanceIsRescuedWhenNobodyWantsItsRoomAnyMore(t *testing.T) {
	r := &fakeRunner{startTakes: time.Second}
	inBubble(t, r, func(t *testing.T, a *Activator) {
		a.Configure(settings(func(s *Settings) { s.MaxInstances, s.MaxWait = 1, 10*time.Second }))
		long := mustAcquire(t, a, "a")
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, _ = a.Acquire(ctx, Request{Key: "b"}) }()
		time.Sleep(11 * time.Second)
		if got := state1(a); got != "draining" {
			t.Fatalf("a is %q, want draining", got)
		}
		cancel()
		synctest.Wait()
		again := mustAcquire(t, a, "a")
		if again.in != long.in || r.spawns.Load() != 1 {
			t.Error("a draining instance that nobody needs gone was not rescued")
		}
		again.Release()
		long.Release()
	}, &modeldir.Model{Name: "a"}, &modeldir.Model{Name: "b"})
}

func TestUnwantedStartIsAbortedAtOnceWhenItsRoomIsWanted(t *testing.T) {
	inBubble(t, &fakeRunner{startTakes: time.Minute}, func(t *testing.T, a *Activator) {
		a.Configure(settings(func(s *Settings) { s.MaxInstances = 1 }))
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, _ = a.Acquire(ctx, Request{Key: "a"}) }()
		time.Sleep(time.Second)
		cancel()
		synctest.Wait()
		if got := state1(a); got != "starting" {
			t.Fatalf("a is %q: nobody wants its room", got)
		}
		began := time.Now()
		lease := mustAcquire(t, a, "b")
		if waited := time.Since(began); waited != time.Minute {
			t.Errorf("b waited %v, want its own start only", waited)
		}
		lease.Release()
	}, &modeldir.Model{Name: "a"}, &modeldir.Model{Name: "b"})
}

func TestSavingInstanceIsRescued(t *testing.T) {
	r := &fakeRunner{startTakes: time.Minute, keeps: true, saveTakes: 3 * time.Second}
	idle := time.Minute
	inBubble(t, r, func(t *testing.T, a *Activator) {
		lease := mustAcquire(t, a, "m")
		lease.Release()
		time.Sleep(idle + time.Second)
		if got := state1(a); got != "draining" || r.saves.Load() != 1 {
			t.Fatalf("it is %q with %d saves, want draining and saving", got, r.saves.Load())
		}
		again := mustAcquire(t, a, "m")
		if again.in != lease.in || again.Waited != 0 {
			t.Errorf("got another instance after %v: the one that saves its contexts was not rescued", again.Waited)
		}
		time.Sleep(5 * time.Second) // the save ends and must stop nothing
		if got := state1(a); got != "ready" {
			t.Errorf("it is %q with a lease", got)
		}
		again.Release()
		time.Sleep(idle + 4*time.Second)
		synctest.Wait()
		if n := len(a.Instances()); n != 0 || r.saves.Load() != 2 {
			t.Errorf("%d instances and %d saves after the second idle time, want none and 2", n, r.saves.Load())
		}
	}, &modeldir.Model{Name: "m", IdleTimeout: &idle})
}

func TestSavingDoesNotHoldUpAnUrgentEviction(t *testing.T) {
	r := &fakeRunner{startTakes: time.Second, keeps: true, saveTakes: time.Hour}
	inBubble(t, r, func(t *testing.T, a *Activator) {
		a.Configure(settings(func(s *Settings) { s.MaxInstances = 1 }))
		lease := mustAcquire(t, a, "a")
		lease.Release()
		began := time.Now()
		b := mustAcquire(t, a, "b")
		if waited := time.Since(began); waited != saveUrgent+time.Second {
			t.Errorf("b waited %v, want the bound of saving and its start", waited)
		}
		b.Release()
	}, &modeldir.Model{Name: "a"}, &modeldir.Model{Name: "b"})
}

func TestSessionsGraceKeepsAnAgentsPlace(t *testing.T) {
	r := &fakeRunner{startTakes: 20 * time.Second}
	inBubble(t, r, func(t *testing.T, a *Activator) {
		a.Configure(settings(func(s *Settings) { s.MaxInstances, s.MaxWait = 1, 5*time.Minute }))
		turn := func() Lease {
			lease, err := a.Acquire(t.Context(), Request{Key: "agent", Client: 1})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			return lease
		}
		for range 8 { // its turns come 2 s after the answers
			lease := turn()
			lease.Release()
			time.Sleep(2 * time.Second)
		}
		var wg sync.WaitGroup
		began := time.Now()
		hold(t, a, &wg, Request{Key: "other", Client: 2}, time.Second, func(Lease, error) {})
		for range 5 {
			lease := turn()
			if lease.Waited > 0 {
				t.Fatalf("a turn waited %v: its place was not kept", lease.Waited)
			}
			lease.Release()
			time.Sleep(2 * time.Second)
		}
		time.Sleep(10 * time.Second) // no turn more: the place is kept a quarter of a start at most
		wg.Wait()
		if waited := time.Since(began); waited > 5*3*time.Second+5*time.Second+22*time.Second {
			t.Errorf("the other waited %v", waited)
		}
	}, &modeldir.Model{Name: "agent"}, &modeldir.Model{Name: "other"})
}

func TestPriorityGoesFirstButStarvesNobody(t *testing.T) {
	inBubble(t, &fakeRunner{startTakes: time.Second}, func(t *testing.T, a *Activator) {
		a.Configure(settings(func(s *Settings) { s.MaxInstances, s.MaxWait = 1, 30*time.Second }))
		var wg sync.WaitGroup
		var order []string
		first := mustAcquire(t, a, "first")
		for _, key := range []string{"low", "middle", "high"} {
			hold(t, a, &wg, Request{Key: key}, time.Second, func(Lease, error) { order = append(order, key) })
		}
		first.Release()
		wg.Wait()
		if want := []string{"high", "middle", "low"}; !slices.Equal(order, want) {
			t.Errorf("served %v, want %v", order, want)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go keepBusy(ctx, a, "high", time.Second)
		time.Sleep(5 * time.Second)
		began := time.Now()
		lease := mustAcquire(t, a, "low")
		if waited := time.Since(began); waited > 34*time.Second {
			t.Errorf("low waited %v, want max_wait, a drain and a start at most", waited)
		}
		lease.Release()
		cancel()
		synctest.Wait()
	}, &modeldir.Model{Name: "first"}, &modeldir.Model{Name: "low", Priority: -1}, &modeldir.Model{Name: "middle"}, &modeldir.Model{Name: "high", Priority: 5})
}

// fixedSurvey tells what models need.
type fixedSurvey map[string]memory.Need

func (f fixedSurvey) Survey(m *modeldir.Model) Facts {
	time.Sleep(time.Millisecond)
	return Facts{Need: f[m.Key]}
}

// withMemory runs f with an activator that counts memory.
func withMemory(t *testing.T, r *fakeRunner, needs fixedSurvey, f func(t *testing.T, a *Activator), models ...*modeldir.Model) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a := New(r, needs, discard)
		a.SetMachine(sixteenGiB)
		a.SetCatalog(catalogOf(models...))
		f(t, a)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		a.Close(ctx)
		time.Sleep(time.Second) // a survey may be under way
	})
}

var sixteenGiB = Machine{Limited: true, Capacity: machine.Amount{Host: 16 * gib}, Room: machine.Amount{Host: 16 * gib}}

func TestMemoryIsReservedBeforeTheStart(t *testing.T) {
	r := &fakeRunner{startTakes: time.Second}
	withMemory(t, r, fixedSurvey{"a": onHost(7 * gib), "b": onHost(8 * gib), "c": onHost(4 * gib)}, func(t *testing.T, a *Activator) {
		var wg sync.WaitGroup
		for _, key := range []string{"a", "b", "c"} {
			hold(t, a, &wg, Request{Key: key}, 10*time.Second, func(Lease, error) {})
			time.Sleep(10 * time.Millisecond)
		}
		if n := r.spawns.Load(); n != 2 {
			t.Errorf("%d starts at once, want a and b: c has no room beside them", n)
		}
		wg.Wait()
		if n := r.spawns.Load(); n != 3 {
			t.Errorf("%d starts, want c's when room was there", n)
		}
		for _, in := range a.Instances() {
			if in.Model == "a" {
				t.Error("a is still there, which was idle first and frees enough")
			}
		}
	}, &modeldir.Model{Name: "a"}, &modeldir.Model{Name: "b"}, &modeldir.Model{Name: "c"})
}

func TestModelThatNeverFitsIsRefusedAtOnceWithTheNumbers(t *testing.T) {
	withMemory(t, &fakeRunner{}, fixedSurvey{"huge": onHost(80 * gib)}, func(t *testing.T, a *Activator) {
		for range 2 { // when it is not known yet, and when it is
			began := time.Now()
			_, err := a.Acquire(t.Context(), Request{Key: "huge"})
			if faultOf(err) != FaultTooLarge || time.Since(began) > time.Second {
				t.Errorf("got %v after %v, want FaultTooLarge at once", err, time.Since(began))
			}
		}
	}, &modeldir.Model{Name: "huge"})
}

func TestMemoryThatIsNotThereAtTheMomentIsWaitedFor(t *testing.T) {
	r := &fakeRunner{startTakes: time.Second}
	withMemory(t, r, fixedSurvey{"m": onHost(10 * gib)}, func(t *testing.T, a *Activator) {
		a.Configure(settings(func(s *Settings) { s.MaxWait = time.Minute }))
		others := sixteenGiB
		others.Room.Host = 4 * gib
		a.SetMachine(others)
		time.AfterFunc(30*time.Second, func() { a.SetMachine(sixteenGiB) })
		var wg sync.WaitGroup
		hold(t, a, &wg, Request{Key: "m"}, time.Minute, func(l Lease, err error) {
			if err != nil || l.Waited < 30*time.Second {
				t.Errorf("%v after %v, want an instance once others have given memory back", err, l.Waited)
			}
		})
		wg.Wait()
		if list := a.Instances(); len(list) != 1 {
			t.Fatalf("%d instances", len(list))
		}
		a.Measured("m", a.Instances()[0].Generation, machine.Amount{Host: 12 * gib})
		if got := a.state.live[0].Reserved.Host; got != 12*gib {
			t.Errorf("reserved %d, want what was measured", got)
		}
	}, &modeldir.Model{Name: "m"})
}

func TestNextLoadWaitsForDeviceMemoryToBeSeenFree(t *testing.T) {
	r := &fakeRunner{startTakes: time.Second}
	gpu := sixteenGiB
	gpu.Devices = simDevices[:1]
	gpu.Room.Device[0], gpu.Capacity.Device[0] = 8*gib, 8*gib
	large := onDevice(10, gib/2)
	withMemory(t, r, fixedSurvey{"a": large, "b": large, "c": large}, func(t *testing.T, a *Activator) {
		var urged atomic.Int32
		a.OnUrge(func() { urged.Add(1) })
		a.SetMachine(gpu)
		lease := mustAcquire(t, a, "a")
		lease.Release()
		var wg sync.WaitGroup
		hold(t, a, &wg, Request{Key: "b"}, time.Second, func(Lease, error) {})
		time.Sleep(2 * time.Second)
		if n, urge := r.spawns.Load(), urged.Load(); n != 1 || urge != 1 {
			t.Fatalf("%d starts, urged %d times: b was to wait for the memory of a", n, urge)
		}
		held := gpu
		held.Room.Device[0] -= 5*gib + gib/4
		a.SetMachine(held) // the driver has not given it back
		early := gpu
		early.Looked = time.Now().Add(-3 * time.Second) // a look that began before the end of a, and has it as if it lived
		a.SetMachine(early)
		synctest.Wait()
		if n := r.spawns.Load(); n != 1 {
			t.Fatalf("%d starts while the device shows the memory as taken", n)
		}
		a.SetMachine(gpu)
		synctest.Wait()
		if n := r.spawns.Load(); n != 2 {
			t.Fatalf("%d starts once it is free", n)
		}
		wg.Wait()
		hold(t, a, &wg, Request{Key: "c"}, time.Second, func(Lease, error) {})
		time.Sleep(longestFreeing + time.Second) // nobody looks: the wait is bounded
		if n := r.spawns.Load(); n != 3 {
			t.Errorf("%d starts after the bound", n)
		}
		wg.Wait()
	}, &modeldir.Model{Name: "a"}, &modeldir.Model{Name: "b"}, &modeldir.Model{Name: "c"})
}

func TestPreloadKeepLastAndLimits(t *testing.T) {
	r := &fakeRunner{startTakes: time.Second}
	idle := time.Minute
	inBubble(t, r, func(t *testing.T, a *Activator) {
		a.Configure(settings(func(s *Settings) { s.KeepLast, s.MaxInstances = true, 2 }))
		time.Sleep(2 * time.Second)
		if list := a.Instances(); len(list) != 1 || list[0].Model != "early" {
			t.Fatalf("%+v, want the preloaded one", list)
		}
		for _, key := range []string{"a", "b"} {
			lease := mustAcquire(t, a, key)
			lease.Release()
			time.Sleep(time.Second)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if list := a.Instances(); len(list) != 1 || list[0].Model != "b" {
			t.Errorf("%+v, want the one that was used last", list)
		}
		lease := mustAcquire(t, a, "early")
		lease.Release()
		time.Sleep(time.Hour)
		synctest.Wait()
		if list := a.Instances(); len(list) != 1 || list[0].Model != "early" {
			t.Errorf("%+v, want the one that was used last, once", list)
		}
	}, &modeldir.Model{Name: "early", Preload: true, IdleTimeout: &idle}, &modeldir.Model{Name: "a", IdleTimeout: &idle}, &modeldir.Model{Name: "b", IdleTimeout: &idle})
}

// TestPickKeepsConversations: further turns go where the first went, loads stay near their share, and the load that one instance bears
// half full is left to it.
func TestPickKeepsConversations(t *testing.T) {
	m := &modelState{slots: 8}
	for gen := range uint64(4) {
		m.instances = append(m.instances, &lifecycle.Instance{Gen: gen + 1, State: lifecycle.Ready, Slots: 8})
	}
	take := func(conversation uint64) *lifecycle.Instance {
		in := m.pick(conversation)
		if in == nil {
			t.Fatal("no free slot")
		}
		in.Leases++
		m.leases++
		return in
	}
	for range 3 {
		if in := take(0); in != m.instances[0] {
			t.Fatalf("%s: the load of half an instance is to stay on the first", in.ID())
		}
	}
	for m.leases < 12 {
		take(0)
	}
	home := map[uint64]*lifecycle.Instance{}
	for turn := range 3 {
		for conversation := uint64(1); conversation <= 16; conversation++ {
			in := take(mix(conversation))
			if turn == 0 {
				home[conversation] = in
			} else if in != home[conversation] {
				t.Errorf("turn %d of conversation %d is on %d, not on %d", turn, conversation, in.Gen, home[conversation].Gen)
			}
			in.Leases--
			m.leases--
		}
	}
	for conversation := range uint64(20) {
		if in := m.pick(7); in == nil || in.Leases > 8 {
			t.Fatalf("conversation %d: %v", conversation, in)
		}
		take(7) // one conversation in many requests must not fill one instance
	}
	for _, in := range m.instances {
		if in.Leases < 4 {
			t.Errorf("instance %d has %d leases of %d: the others bear its share", in.Gen, in.Leases, m.leases)
		}
	}
	for m.leases < 32 {
		take(7)
	}
	if in := m.pick(7); in != nil {
		t.Errorf("%s is full", fmt.Sprint(in.Gen))
	}
}

// TestOracleStartsFollowersAndLearnsTheDay plays one trace with and without the oracle, and counts what waited for a start.
func TestOracleStartsFollowersAndLearnsTheDay(t *testing.T) {
	play := func(predict bool) (cold int, wasted int) {
		r := &fakeRunner{startTakes: 5 * time.Second}
		idle := 2 * time.Minute
		inBubble(t, r, func(t *testing.T, a *Activator) {
			a.Configure(settings(func(s *Settings) { s.MaxInstances, s.Predict = 3, predict }))
			asks := 0
			ask := func(key string) {
				asks++
				lease := mustAcquire(t, a, key)
				if lease.Cold {
					cold++
				}
				time.Sleep(2 * time.Second)
				lease.Release()
			}
			for range 5 { // days, of which each begins with a report and has four questions
				day := time.Now()
				time.Sleep(9 * time.Hour)
				ask("report")
				for range 4 {
					time.Sleep(time.Hour)
					ask("chat")
					time.Sleep(8 * time.Second)
					ask("embed")
				}
				time.Sleep(time.Until(day.Add(24 * time.Hour)))
			}
			wasted = int(r.spawns.Load()) - asks
		}, &modeldir.Model{Name: "report", IdleTimeout: &idle}, &modeldir.Model{Name: "chat", IdleTimeout: &idle}, &modeldir.Model{Name: "embed", IdleTimeout: &idle})
		return cold, wasted
	}
	without, _ := play(false)
	with, wasted := play(true)
	t.Logf("of 45 requests %d waited for a start without the oracle, %d with it, which started %d in vain", without, with, wasted)
	if without != 45 || with > 25 || wasted > 10 {
		t.Errorf("%d cold without, %d with, %d in vain", without, with, wasted)
	}
}

func TestOracleGivesWay(t *testing.T) {
	r := &fakeRunner{startTakes: 5 * time.Second}
	inBubble(t, r, func(t *testing.T, a *Activator) {
		a.Configure(settings(func(s *Settings) { s.MaxInstances, s.Predict = 2, true }))
		for range 3 {
			for _, key := range []string{"chat", "embed"} {
				lease := mustAcquire(t, a, key)
				lease.Release()
			}
			time.Sleep(10 * time.Minute)
		}
		lease := mustAcquire(t, a, "chat")
		time.Sleep(time.Second)
		synctest.Wait()
		if n := len(a.Instances()); n != 2 {
			t.Fatalf("%d instances, want the follower on its way", n)
		}
		began := time.Now()
		other := mustAcquire(t, a, "other")
		if waited := time.Since(began); waited != 5*time.Second {
			t.Errorf("another model waited %v for what was started ahead, want its own start only", waited)
		}
		other.Release()
		lease.Release()
	}, &modeldir.Model{Name: "chat"}, &modeldir.Model{Name: "embed"}, &modeldir.Model{Name: "other"})
}
