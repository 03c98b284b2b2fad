package activator

import (
	"context"
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

// The second release (warm, quiet) begins the lull that retires the *other* instance; nobody arms the timer for it.
func TestLullOfOneInstanceBeginsWithAnothersRelease(t *testing.T) {
	never := time.Duration(0)
	inBubble(t, &fakeRunner{startTakes: time.Second}, func(t *testing.T, a *Activator) {
		time.Sleep(2 * time.Second)
		one := mustAcquire(t, a, "m")
		two := mustAcquire(t, a, "m")
		if one.in == two.in { // slots 1
			t.Fatal("one instance")
		}
		a.SetCatalog(catalogOf(&modeldir.Model{Name: "m", Concurrency: 1, MaxInstances: 2, IdleTimeout: &never}))
		time.Sleep(time.Minute)
		two.Release()
		time.Sleep(time.Second)
		one.Release()
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := len(a.Instances()); n != 1 {
			t.Errorf("%d instances an hour after the load has gone, want 1 (lull 30 s)", n)
		}
	}, &modeldir.Model{Name: "m", Concurrency: 1, MaxInstances: 2, MinInstances: 2, IdleTimeout: &never})
}

func TestReplicaDoesNotTakeTheTurnsOfAModelThatComesBack(t *testing.T) {
	r := &fakeRunner{startTakes: 2 * time.Second}
	inBubble(t, r, func(t *testing.T, a *Activator) {
		a.Configure(settings(func(s *Settings) { s.MaxInstances, s.MaxWait = 2, time.Minute }))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				for ctx.Err() == nil {
					l, err := a.Acquire(ctx, Request{Key: "a", Client: uint64(i + 1)})
					if err != nil {
						return
					}
					time.Sleep(3 * time.Second)
					l.Release()
				}
			})
		}
		var worst, sum time.Duration
		n := 0
		for range 60 {
			l, err := a.Acquire(t.Context(), Request{Key: "b", Client: 99})
			if err != nil {
				t.Errorf("b refused: %v", err)
				continue
			}
			worst = max(worst, l.Waited)
			sum += l.Waited
			n++
			time.Sleep(time.Second)
			l.Release()
			time.Sleep(9 * time.Second)
		}
		t.Logf("b, asked every 10 s: waited at worst %v, mean %v; spawns %d", worst, sum/time.Duration(max(n, 1)), r.spawns.Load())
		if worst > 5*time.Second || sum > time.Duration(n)*time.Second/2 || r.spawns.Load() > 12 {
			t.Error("the replica and the model that is asked for every 10 s took one another's place")
		}
		cancel()
		wg.Wait()
	}, &modeldir.Model{Name: "a", Concurrency: 1, MaxInstances: 2}, &modeldir.Model{Name: "b", Concurrency: 1})
}

// TestNoModelStarvesUnderOverload: with far more asked for than there is room for, and answers nearly as long as max_wait, whole cohorts of
// requests are refused, again and again. Their model keeps its place in the line; one whose start takes longer too.
func TestNoModelStarvesUnderOverload(t *testing.T) {
	for _, clients := range []int{60, 600} {
		l := workload{
			models: 6, places: 2, clients: clients, slots: 1, start: 2 * time.Second, answer: 20 * time.Second, maxWait: 30 * time.Second,
			policy: lifecycle.Decide, startOf: func(key string) time.Duration {
				if key == "m00" {
					return 5 * time.Second
				}
				return 2 * time.Second
			},
		}
		got := l.run(30 * time.Minute)
		t.Logf("%d clients: %d answers, refused %d, by model %v", clients, got.answered, got.refused, got.byModel)
		least, most := got.answered, 0
		for _, n := range got.byModel {
			least, most = min(least, n), max(most, n)
		}
		if len(got.byModel) != l.models || 3*least < 2*most {
			t.Errorf("%d clients: one model had %d answers, another %d", clients, most, least)
		}
	}
}

func TestOracleTriesOnce(t *testing.T) {
	r := &fakeRunner{startTakes: time.Second}
	idle := 5 * time.Second
	inBubble(t, r, func(t *testing.T, a *Activator) {
		a.Configure(settings(func(s *Settings) { s.Predict = true }))
		for range 3 {
			day := time.Now()
			time.Sleep(9 * time.Hour)
			l := mustAcquire(t, a, "report")
			l.Release()
			time.Sleep(time.Until(day.Add(24 * time.Hour)))
		}
		before := r.spawns.Load()
		time.Sleep(12 * time.Hour) // the fourth day: nobody asks
		if n := r.spawns.Load() - before; n > 1 {
			t.Errorf("started %d times ahead of one request that never came", n)
		}
	}, &modeldir.Model{Name: "report", IdleTimeout: &idle})
}

// number of ticks while room is being made a little before the bound
func TestNoTicksWhileRoomIsBeingMade(t *testing.T) {
	for _, eps := range []time.Duration{time.Nanosecond, time.Microsecond, 100 * time.Microsecond} {
		st := newState(false)
		st.set.MaxInstances, st.set.MaxWait = 1, 20*time.Second
		now := time.Unix(0, 0)
		step := func(ev event) []effect { return append([]effect(nil), st.step(ev, now)...) }
		step(event{kind: evCatalog, cat: modeldir.NewCatalog([]*modeldir.Model{{Key: "a", Name: "a"}, {Key: "b", Name: "b"}})})
		step(event{kind: evArrive, w: &waiter{Request: Request{Key: "a"}, arrived: now}})
		in := st.live[0]
		step(event{kind: evReady, in: in, run: &lifecycle.Running{}})
		step(event{kind: evArrive, w: &waiter{Request: Request{Key: "b"}, arrived: now}})
		now = now.Add(20*time.Second - eps)
		step(event{kind: evRelease, in: in, held: held{}}) // idle: makes room for b; it takes a while to stop
		ticks := 0
		for end := now.Add(5 * time.Second); ticks < 1_000_000; ticks++ {
			next := st.next()
			if next.IsZero() || next.After(end) {
				break
			}
			now = next
			step(event{kind: evTick})
		}
		if ticks > 100 {
			t.Errorf("eps %v: %d ticks in 5 s", eps, ticks)
		}
	}
}

// learningSurvey knows nothing of a model until it was measured, as overseer does of a command engine without memory.
type learningSurvey struct {
	learnt atomic.Int64
	asked  atomic.Int32
}

func (l *learningSurvey) Survey(*modeldir.Model) Facts {
	l.asked.Add(1)
	return Facts{Need: memory.Need{Source: memory.Measured, Process: l.learnt.Load()}}
}

func TestWhatWasLearntCountsAtTheNextStart(t *testing.T) {
	idle := time.Minute
	synctest.Test(t, func(t *testing.T) {
		sv := &learningSurvey{}
		a := New(&fakeRunner{startTakes: time.Second}, sv, discard)
		a.SetMachine(sixteenGiB)
		a.SetCatalog(catalogOf(&modeldir.Model{Name: "m", IdleTimeout: &idle}))
		l := mustAcquire(t, a, "m")
		sv.learnt.Store(12 * gib)
		a.Measured("m", a.Instances()[0].Generation, machine.Amount{Host: 12 * gib})
		l.Release()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := len(a.Instances()); n != 0 {
			t.Fatal("not retired")
		}
		l = mustAcquire(t, a, "m")
		if got := a.Instances()[0].Memory; got != 12*gib {
			t.Errorf("second start reserves %d GiB of the 12 that the first used (surveyed %d times)", got>>30, sv.asked.Load())
		}
		l.Release()
		a.Close(t.Context())
	})
}

// In a rush the one that answers its very first request is drained, not the one that has held its place for an hour.
func TestRushDrainsWhoHasHadHisPlaceLongest(t *testing.T) {
	inBubble(t, &fakeRunner{startTakes: time.Second}, func(t *testing.T, a *Activator) {
		a.Configure(settings(func(s *Settings) { s.MaxInstances, s.MaxWait = 2, 30*time.Second }))
		ctx, cancel := context.WithCancel(t.Context())
		go keepBusy(ctx, a, "hog", 4*time.Second)
		time.Sleep(time.Hour)
		newcomer := mustAcquire(t, a, "newcomer") // its first answer takes long
		time.Sleep(time.Second)
		go func() {
			l, err := a.Acquire(ctx, Request{Key: "third"})
			if err == nil {
				l.Release()
			}
		}()
		time.Sleep(31 * time.Second)
		for _, in := range a.Instances() {
			t.Logf("%s %s served %d", in.Model, in.State, in.Served)
			if in.Model == "newcomer" && in.State == "draining" {
				t.Error("drained before it has given one answer, while the hog goes on")
			}
		}
		newcomer.Release()
		cancel()
		synctest.Wait()
	}, &modeldir.Model{Name: "hog"}, &modeldir.Model{Name: "newcomer"}, &modeldir.Model{Name: "third"})
}

// keep_last: the one that was last until now must get its deadline on the quiet path.
func TestKeepLastPassesOn(t *testing.T) {
	never, idle := time.Duration(0), time.Minute
	inBubble(t, &fakeRunner{startTakes: time.Second}, func(t *testing.T, a *Activator) {
		a.Configure(settings(func(s *Settings) { s.KeepLast = true }))
		for _, k := range []string{"b", "a"} {
			l := mustAcquire(t, a, k)
			l.Release()
			time.Sleep(time.Second)
		}
		time.Sleep(10 * time.Minute)
		l := mustAcquire(t, a, "b") // warm
		time.Sleep(time.Second)
		l.Release()
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := len(a.Instances()); n != 1 {
			t.Errorf("%d instances an hour later: a, idle_timeout 1m, was last until b was used", n)
		}
	}, &modeldir.Model{Name: "a", IdleTimeout: &idle}, &modeldir.Model{Name: "b", IdleTimeout: &never})
}

// first-instance demand blocked on memory, replicas take what is free
func TestReplicasDoNotGrowWhileAFirstInstanceWaits(t *testing.T) {
	r := &fakeRunner{startTakes: 2 * time.Second}
	withMemory(t, r, fixedSurvey{"a": onHost(4 * gib), "big": onHost(10 * gib), "c": onHost(4 * gib)}, func(t *testing.T, a *Activator) {
		a.Configure(settings(func(s *Settings) { s.MaxWait = time.Minute }))
		ctx, cancel := context.WithCancel(t.Context())
		c := mustAcquire(t, a, "c")
		l := mustAcquire(t, a, "a")
		time.Sleep(3 * time.Second)
		l.Release()
		began := time.Now()
		waited := make(chan time.Duration, 1)
		go func() {
			l, err := a.Acquire(ctx, Request{Key: "big", Client: 3})
			if err != nil {
				t.Errorf("big: %v", err)
				return
			}
			waited <- time.Since(began)
			l.Release()
		}()
		synctest.Wait()
		for i := range 8 {
			go func() {
				for ctx.Err() == nil {
					l, err := a.Acquire(ctx, Request{Key: "a", Client: uint64(i)})
					if err != nil {
						return
					}
					time.Sleep(3 * time.Second)
					l.Release()
				}
			}()
		}
		time.Sleep(5 * time.Second)
		c.Release() // 4 + 8 free would be 12: enough for big
		if got := <-waited; got > 15*time.Second {
			t.Errorf("big waited %v, while a, which has one, got more", got)
		}
		time.Sleep(3 * time.Minute)
		cancel()
		synctest.Wait()
	}, &modeldir.Model{Name: "a", Concurrency: 1, MaxInstances: 4}, &modeldir.Model{Name: "big"}, &modeldir.Model{Name: "c"})
}
