package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"assistant/internal/enginetest"
)

func TestLives(t *testing.T) {
	events := []enginetest.Event{
		{Name: enginetest.EventStart, Time: 10, Pid: 1, Alias: "a"},  // before what is looked at, and alive in it
		{Name: enginetest.EventStart, Time: 130, Pid: 3, Alias: "c"}, // a file's order is not that of time
		{Name: enginetest.EventBegin, Time: 105, Pid: 1, Alias: "a", Model: "a"},
		{Name: enginetest.EventStart, Time: 110, Pid: 2, Alias: "b"},
		{Name: enginetest.EventBegin, Time: 115, Pid: 2, Alias: "b", Model: "a"},
		{Name: enginetest.EventStop, Time: 120, Pid: 1, Alias: "a"},
		{Name: enginetest.EventStop, Time: 140, Pid: 2, Alias: "b"},
		{Name: enginetest.EventStart, Time: 150, Pid: 4, Alias: "b"},
	}
	got := lives(events, 100)
	if diff := cmp.Diff(map[string]int{"b": 2, "c": 1}, got.starts); diff != "" || got.all() != 3 {
		t.Errorf("starts: want (-), got (+):\n%s", diff)
	}
	if got.most != 2 || got.strangers != 1 {
		t.Errorf("got %d alive and %d strangers, want 2 and 1", got.most, got.strangers)
	}
}

func TestStopped(t *testing.T) {
	events := []enginetest.Event{
		{Name: enginetest.EventStop, Time: 50, Alias: "slow"}, // of an earlier trial
		{Name: enginetest.EventStop, Time: 150, Alias: "quick"},
		{Name: enginetest.EventStop, Time: 160, Alias: "slow"},
	}
	if at, ok := stopped(events, "slow", 100); at != 160 || !ok {
		t.Errorf("got %d, %v; want 160", at, ok)
	}
	if _, ok := stopped(events, "slow", 200); ok {
		t.Error("an end was found after the last one")
	}
}

func TestStarted(t *testing.T) {
	events := []enginetest.Event{
		{Name: enginetest.EventStart, Time: 1, Alias: "a"},
		{Name: enginetest.EventStart, Time: 2, Alias: "b"},
		{Name: enginetest.EventReady, Time: 3, Alias: "b"},
		{Name: enginetest.EventReady, Time: 4, Alias: "a"},
	}
	if starts, ready := started(events, "a"); starts != 1 || ready != 4 {
		t.Errorf("got %d starts, ready at %d; want 1 and 4", starts, ready)
	}
}

func TestInForce(t *testing.T) {
	events := []enginetest.Event{
		{Name: enginetest.EventStart, Time: 20, Alias: "new"},
		{Name: enginetest.EventBegin, Time: 25, Alias: "old"},
		{Name: enginetest.EventBegin, Time: 30, Alias: "new"},
		{Name: enginetest.EventBegin, Time: 40, Alias: "new"},
	}
	if got := since(events, "new", 10); got != 20 {
		t.Errorf("got %v, want 20ns", got)
	}
	if got := since(events, "other", 10); got != 0 {
		t.Errorf("got %v, want 0", got)
	}
}

func TestParseStat(t *testing.T) {
	pid, parent, name, state, ok := parseStat("17 (a (b) c) S 5 17 17 0 -1")
	if pid != 17 || parent != 5 || name != "a (b) c" || state != "S" || !ok {
		t.Errorf("got %d %d %q %q %v", pid, parent, name, state, ok)
	}
	for _, bad := range []string{"", "1", "1 (a)", "1 (a) S", "x (a) S 1", "1 (a) S x"} {
		if _, _, _, _, ok := parseStat(bad); ok {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestLlamaSwapConfig(t *testing.T) {
	models := []model{
		{name: "a", argv: []string{"/e", "--port", "{{port}}"}},
		{name: "b", argv: []string{"/e"}},
		{name: "c", argv: []string{"/e"}},
	}
	tests := []struct {
		name    string
		fleet   fleet
		has     []string
		without string
	}{
		{"any two", fleet{models: models, room: 2}, []string{"use: matrix", `pairs: "b & a | c & a | c & b"`, "cmd: /e --port ${PORT}\n", "concurrencyLimit: 1000", "startPort: 7\n"}, "groups"},
		{"two groups", fleet{models: models, room: 2, split: true}, []string{"use: group", "members: [a, c]", "members: [b]", "swap: true"}, "matrix"},
		{"all", fleet{models: models, room: 3}, []string{"members: [a, b, c]", "swap: false"}, "matrix"},
		{"one", fleet{models: models, room: 1, defaults: true}, nil, "routing"},
		{"its own limit", fleet{models: models, room: 1, defaults: true}, nil, "concurrencyLimit"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := llamaSwapConfig(tt.fleet, 7)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.has {
				if !strings.Contains(got, want) {
					t.Errorf("lacks %q:\n%s", want, got)
				}
			}
			if strings.Contains(got, tt.without) {
				t.Errorf("has %q:\n%s", tt.without, got)
			}
		})
	}
	four := slices.Concat(models, []model{{name: "d"}})
	if _, err := llamaSwapConfig(fleet{models: four, room: 3}, 7); err == nil {
		t.Error("any three of four were written, which are too many to list in general")
	}
}

// The crowd counts what came in time apart from what was owed at the end, and
// nothing that came is lost.
func TestCrowdCountsTheLate(t *testing.T) {
	t.Parallel()
	e := enginetest.Start(t, "--answer-delay", "1s")
	// A first answer has 900 ms to spare, a second one can't be in time.
	m, inTime := crowd{}.ask(t.Context(), strings.TrimPrefix(e.URL, "http://"), 1900*time.Millisecond)
	if m.failed > 0 {
		t.Fatal(m.failure)
	}
	if inTime == 0 || inTime > crowdClients || m.requests <= inTime || m.requests > 2*crowdClients || len(m.whole) != m.requests {
		t.Errorf("got %d answers, %d of them in time; of %d clients each has one in time and one late", m.requests, inTime, crowdClients)
	}
}

func TestChoose(t *testing.T) {
	names := func(only string, when occasion) string {
		all, err := choose(only, when)
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for _, s := range all {
			list = append(list, s.name)
		}
		return strings.Join(list, ",")
	}
	if got := names("", alone); got != "warm1,warm64,chain,body200k,stream,memory,cold,herd,scale" {
		t.Errorf("alone: got %s", got)
	}
	if got := names("", against); !strings.Contains(got, "room") || strings.Contains(got, "memory") {
		t.Errorf("against: got %s", got)
	}
	if got := names("edit,cold", alone); got != "edit,cold" {
		t.Errorf("by name: got %s", got)
	}
}

func TestPlural(t *testing.T) {
	for n, want := range map[int]string{1: "1 model", 10: "10 models", 1000: "1,000 models", 1234567: "1,234,567 models"} {
		if got := plural(n); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
