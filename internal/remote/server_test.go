package remote

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// setOf is a set of servers that are never asked for their lists.
func setOf(tb testing.TB, configs ...Config) *Set {
	tb.Helper()
	s := &Set{log: slog.New(slog.DiscardHandler), known: make(chan struct{})}
	for _, c := range configs {
		server, err := newServer(c)
		if err != nil {
			tb.Fatal(err)
		}
		s.servers = append(s.servers, server)
	}
	s.collect()
	return s
}

func two(tb testing.TB) *Set {
	return setOf(tb, Config{URL: "http://a/v1", Models: []string{"m"}}, Config{URL: "http://b", Name: "b", Models: []string{"m", "n"}})
}

func take(tb testing.TB, s *Set, tried ...*Server) *Turn {
	tb.Helper()
	turn, err := s.Take("m", "", tried)
	if err != nil {
		tb.Fatal(err)
	}
	return turn
}

// The least busy is asked, by its weight; among equals the quickest.
func TestLeastOutstanding(t *testing.T) {
	s := setOf(t, Config{URL: "http://a", Models: []string{"m"}, Weight: 3}, Config{URL: "http://b", Models: []string{"m"}})
	count := map[string]int{}
	for range 8 {
		count[take(t, s).Name]++
	}
	if count["a"] != 6 || count["b"] != 2 {
		t.Errorf("%v", count)
	}
	s = two(t)
	s.servers[0].first, s.servers[1].first = 2*time.Second, time.Second
	if turn := take(t, s); turn.Name != "b" {
		t.Errorf("the slower was asked: %s", turn.Name)
	}
	if first, ok := s.Quickest("m"); !ok || first != time.Second {
		t.Errorf("%v, %v", first, ok)
	}
}

func TestRoomIsBounded(t *testing.T) {
	s := setOf(t, Config{URL: "http://a", Models: []string{"m"}, MaxConcurrency: 1})
	turn := take(t, s)
	if _, err := s.Take("m", "", nil); !errors.Is(err, ErrFull) {
		t.Errorf("%v", err)
	}
	turn.End(Answered)
	turn.End(Answered) // again does nothing
	take(t, s)
	if _, err := s.Take("other", "", nil); !errors.Is(err, ErrNone) {
		t.Errorf("%v", err)
	}
}

// After failures in a row a server is left alone, then one request tries; its success brings all back, its failure doubles the time.
func TestCircuitBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := two(t)
		bad, good := s.servers[0], s.servers[1]
		fail := func() {
			turn, ok := bad.take()
			if !ok {
				t.Fatal("no room")
			}
			turn.End(Failed)
		}
		before := take(t, s, good) // that goes on until after the breaker opens
		fail()
		if turn := take(t, s, good); turn.Server != bad {
			t.Error("one failure shuts it out")
		} else {
			turn.End(Left)
		}
		fail()
		for range 3 {
			if turn := take(t, s); turn.Server != good {
				t.Error("it is asked while it is open")
			}
		}
		if turn := take(t, s, good); turn.Server != bad {
			t.Error("if there is no other, better try than refuse")
		} else {
			turn.End(Left)
		}
		time.Sleep(firstBreak)
		trial := take(t, s)
		if trial.Server != bad {
			t.Fatal("nobody tries whether it is well again")
		}
		before.End(Left)
		if turn := take(t, s); turn.Server != good {
			t.Error("two try at a time")
		}
		trial.End(Failed)
		time.Sleep(firstBreak)
		if turn := take(t, s); turn.Server != good {
			t.Error("the second time is no longer")
		}
		time.Sleep(firstBreak)
		trial = take(t, s)
		trial.Heard()
		trial.End(Answered)
		if bad.status(time.Now()).State != "closed" {
			t.Errorf("%+v", bad.status(time.Now()))
		}
	})
}

// One that is found to be gone ends what waits for it; when it answers small questions again, one request may try at once.
func TestGoneServerLetsGo(t *testing.T) {
	s := two(t)
	turn := take(t, s)
	turn.gone()
	if !errors.Is(context.Cause(turn.Lost), ErrGone) {
		t.Errorf("%v", context.Cause(turn.Lost))
	}
	turn.End(Failed)
	if other := take(t, s); other.Server == turn.Server {
		t.Error("it is asked again")
	}
	turn.well(turn.Models)
	if again := take(t, s); again.Server != turn.Server || again.Lost.Err() != nil {
		t.Errorf("it is not tried again: %+v", turn.status(time.Now()))
	}
}

func TestFind(t *testing.T) {
	s := two(t)
	for name, want := range map[string][3]string{
		"m": {"m", "", "yes"}, "n": {"n", "", "yes"}, "b/m": {"m", "b", "yes"}, "a/m": {"m", "a", "yes"}, "a/n": {"", "", ""}, "x": {"", "", ""}, "": {"", "", ""},
	} {
		model, only, ok := s.Find(name)
		if model != want[0] || only != want[1] || ok != (want[2] != "") {
			t.Errorf("%q: %q, %q, %v", name, model, only, ok)
		}
	}
	if turn, err := s.Take("m", "b", nil); err != nil || turn.Name != "b" {
		t.Errorf("%v, %v", turn, err)
	}
	if list := *s.Models(); len(list) != 2 || len(list[0].Servers) != 2 {
		t.Errorf("%+v", list)
	}
}
