package activator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"assistant/lifecycle"
	"assistant/modeldir"
)

// brief is what events tell, in a word or few each.
func brief(events []Event) (out []string) {
	for _, e := range events {
		words := []string{string(e.Kind)}
		for _, word := range []string{e.Instance, e.Reason, e.Error} {
			if word != "" {
				words = append(words, word)
			}
		}
		switch e.Kind {
		case EventWaiting:
			words = append(words, e.Model, fmt.Sprint(e.Queued))
		case EventCatalog:
			words = append(words, fmt.Sprint(e.Models))
		case EventSnapshot:
			for _, m := range e.InUse {
				words = append(words, m.Model, m.State)
			}
		case EventLost:
			words = append(words, fmt.Sprint(e.Lost))
		default:
		}
		out = append(out, strings.Join(words, " "))
	}
	return out
}

// happens takes what has happened by now and compares it.
func happens(t *testing.T, s *Subscription, want ...string) {
	t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, brief(s.Take())); diff != "" {
		t.Errorf("events (- wanted):\n%s", diff)
	}
}

func TestEventsOfAnInstancesLife(t *testing.T) {
	r := &fakeRunner{startTakes: time.Second, stopTakes: time.Second}
	inBubble(t, r, func(t *testing.T, a *Activator) {
		s := a.Subscribe()
		defer s.Close()
		happens(t, s, "snapshot")
		done := make(chan Lease, 2)
		for range 2 {
			go func() { done <- mustAcquire(t, a, "m") }()
			synctest.Wait()
		}
		happens(t, s, "starting m#1 request", "waiting m 1", "waiting m 2")
		first := <-done
		happens(t, s, "ready m#1", "waiting m 1")
		first.Release()
		second := <-done
		happens(t, s, "waiting m 0")
		a.Unload("m", false)
		happens(t, s, "draining m#1 unload")
		second.Release()
		happens(t, s, "stopping m#1 unload")
		time.Sleep(time.Second)
		happens(t, s, "stopped m#1 unload")
	}, &modeldir.Model{Name: "m", Concurrency: 1})
}

func TestEventsOfFailures(t *testing.T) {
	r := &fakeRunner{startTakes: time.Second}
	inBubble(t, r, func(t *testing.T, a *Activator) {
		s := a.Subscribe()
		defer s.Close()
		boom := errors.New("boom")
		r.fail.Store(&boom)
		_ = a.Load(t.Context(), "m")
		happens(t, s, "snapshot", "starting m#1 request", "waiting m 1", "failed m#1 boom", "stopped m#1", "waiting m 0")
		late := a.Subscribe()
		defer late.Close()
		happens(t, late, "snapshot m failed")

		r.fail.Store(nil)
		time.Sleep(firstBackoff)
		lease := mustAcquire(t, a, "m")
		happens(t, s, "starting m#2 request", "waiting m 1", "ready m#2", "waiting m 0")
		r.crash(lease.in)
		happens(t, s, "failed m#2 segmentation fault", "stopped m#2")
		lease.Release()
	}, &modeldir.Model{Name: "m"})
}

// What failed is told when it fails, and that it is gone when it is.
func TestEventsOfADyingInstance(t *testing.T) {
	r := &fakeRunner{}
	inBubble(t, r, func(t *testing.T, a *Activator) {
		lease := mustAcquire(t, a, "m")
		in := lease.in
		lease.Release()
		s := a.Subscribe()
		defer s.Close()
		happens(t, s, "snapshot m ready")
		a.Dying(in, errors.New("it died"))
		happens(t, s, "failed m#1 it died")
		r.crash(in)
		happens(t, s, "stopped m#1")
	}, &modeldir.Model{Name: "m"})
}

func TestEventsOfTheCatalog(t *testing.T) {
	inBubble(t, &fakeRunner{}, func(t *testing.T, a *Activator) {
		s := a.Subscribe()
		defer s.Close()
		m := func(name string) *modeldir.Model {
			return &modeldir.Model{Name: name, Key: name, Kind: modeldir.Chat, File: "/models/" + name + ".toml"}
		}
		kept := m("kept")
		kept.Preload = true
		bad := modeldir.Fault{File: "/models/bad.toml", Name: "bad", Err: errors.New("line 1: no")}
		a.SetCatalog(modeldir.NewCatalog([]*modeldir.Model{kept}, bad))
		happens(t, s, "snapshot", "catalog 1", "fault line 1: no", "starting kept#1 kept", "ready kept#1")
		again := bad
		again.Err = errors.New("line 1: no") // it was read anew
		a.SetCatalog(modeldir.NewCatalog([]*modeldir.Model{kept, m("new")}, again))
		happens(t, s, "catalog 2")
		a.SetCatalog(modeldir.NewCatalog(nil))
		happens(t, s, "catalog 0", "stopping kept#1 removed", "stopped kept#1 removed")
	})
}

// An instance that is needed after all is ready again.
func TestEventsOfARescue(t *testing.T) {
	inBubble(t, &fakeRunner{keeps: true, saveTakes: time.Second}, func(t *testing.T, a *Activator) {
		mustRelease(t, a, "m")
		s := a.Subscribe()
		defer s.Close()
		time.Sleep(DefaultSettings().IdleTimeout)
		happens(t, s, "snapshot m ready", "draining m#1 idle")
		mustRelease(t, a, "m")
		happens(t, s, "ready m#1")
	}, &modeldir.Model{Name: "m"})
}

func mustRelease(t *testing.T, a *Activator, key string) {
	t.Helper()
	lease := mustAcquire(t, a, key)
	lease.Release()
}

// Who does not take events gets how things stand when he does, and nobody waits for him.
func TestASlowReaderLosesEvents(t *testing.T) {
	inBubble(t, &fakeRunner{}, func(t *testing.T, a *Activator) {
		slow, quick := a.Subscribe(), a.Subscribe()
		defer quick.Close()
		const rounds = maxEvents // of several events each
		seen := 0
		for range rounds {
			mustRelease(t, a, "m")
			a.Unload("m", false)
			synctest.Wait()
			seen += len(quick.Take())
		}
		select {
		case <-slow.News():
		default:
			t.Error("no news")
		}
		happens(t, slow, fmt.Sprint("lost ", seen), "snapshot m cold")
		mustRelease(t, a, "m")
		got := slow.Take()
		if len(got) == 0 || got[0].Kind != EventStarting {
			t.Errorf("after that it gets %q, want events again", brief(got))
		}
		slow.Close()
		slow.Close()
		mustRelease(t, a, "m")
		if got := slow.Take(); len(got) != 0 {
			t.Errorf("after Close it gets %q", brief(got))
		}
	}, &modeldir.Model{Name: "m"})
}

// What a subscriber has seen is how things stand, whatever happened: told by an unsteady machine and compared in the end.
func TestEventsAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &fakeRunner{startTakes: 10 * time.Millisecond, stopTakes: 5 * time.Millisecond}
		a := New(r, nil, slog.New(slog.DiscardHandler))
		var models []*modeldir.Model
		for i := range 5 {
			models = append(models, &modeldir.Model{Name: fmt.Sprint("m", i), Concurrency: 1})
		}
		a.SetCatalog(catalogOf(models...))
		set := DefaultSettings()
		set.MaxInstances = 2
		a.Configure(set)
		s := a.Subscribe()
		defer s.Close()
		instances, queued := map[string]EventKind{}, map[string]int{}
		follow := func() {
			for _, e := range s.Take() {
				switch e.Kind {
				case EventSnapshot, EventCatalog:
				case EventLost:
					t.Error("events were lost")
				case EventWaiting:
					queued[e.Key] = e.Queued
				case EventStopped:
					delete(instances, e.Instance)
				default:
					instances[e.Instance] = e.Kind
				}
			}
		}
		for round := range 300 {
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(round%40)*time.Millisecond)
				defer cancel()
				if lease, err := a.Acquire(ctx, Request{Key: fmt.Sprint("m", round*7%5)}); err == nil {
					time.Sleep(3 * time.Millisecond)
					lease.Release()
				}
			}()
			time.Sleep(2 * time.Millisecond)
			synctest.Wait()
			follow()
			for _, in := range a.state.live {
				if got := instances[in.ID()]; got != standing(in) {
					t.Fatalf("round %d: %s was told to be %q and is %q", round, in.ID(), got, standing(in))
				}
			}
			if len(instances) != len(a.state.live) {
				t.Fatalf("round %d: %v were told, %d live", round, instances, len(a.state.live))
			}
			for key, m := range a.state.models {
				if queued[key] != m.queue.n {
					t.Fatalf("round %d: %d were told to wait for %s, %d do", round, queued[key], key, m.queue.n)
				}
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		a.Close(ctx)
		follow()
		if len(instances) > 0 {
			t.Errorf("in the end there are %v", instances)
		}
	})
}

// Nobody pays for events that nobody wants.
func TestNoEventsWithoutSubscribers(t *testing.T) {
	var j journal
	s := newState(false)
	in := &lifecycle.Instance{Model: &modeldir.Model{Name: "m", Key: "m"}}
	s.live = append(s.live, in)
	if n := testing.AllocsPerRun(100, func() { j.look(&s, &event{}, time.Time{}) }); n != 0 || len(j.told) != 0 {
		t.Errorf("%v allocations, %d told", n, len(j.told))
	}
}
