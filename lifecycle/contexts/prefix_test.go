package contexts

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestCommon(t *testing.T) {
	tokens := func(n int, from int32) (out []int32) {
		for i := range n {
			out = append(out, from+int32(i))
		}
		return out
	}
	changed := func(n, at int) []int32 {
		out := tokens(n, 0)
		out[at] = -1
		return out
	}
	for _, tt := range []struct {
		name    string
		request []int32
		kept    []int32
		want    int
	}{
		{"nothing", nil, tokens(100, 0), 0},
		{"other", tokens(200, 1), tokens(200, 0), 0},
		{"equal", tokens(200, 0), tokens(200, 0), 200},
		{"goes on", tokens(300, 0), tokens(201, 0), 201},
		{"goes on at a block", tokens(300, 0), tokens(192, 0), 192},
		{"shorter", tokens(200, 0), tokens(300, 0), 192},
		{"shorter by one", tokens(199, 0), tokens(200, 0), 192},
		{"first token", changed(300, 0), tokens(300, 0), 0},
		{"in a block", changed(300, 130), tokens(300, 0), 128},
		{"end of a block", changed(300, 127), tokens(300, 0), 64},
		{"in the rest", changed(300, 199), tokens(200, 0), 192},
		{"behind it", changed(300, 200), tokens(200, 0), 200},
	} {
		if got := rowOf(tt.request).common(prefixOf(tt.kept)); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}

// Against a comparison token by token.
func TestCommonAtRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		a := make([]int32, 1+r.IntN(400))
		for i := range a {
			a[i] = r.Int32N(3)
		}
		b := append([]int32(nil), a[:1+r.IntN(len(a))]...)
		for range r.IntN(200) {
			b = append(b, r.Int32N(3))
		}
		n := 0
		for n < min(len(a), len(b)) && a[n] == b[n] {
			n++
		}
		want := n / block * block
		if n == len(b) {
			want = n
		}
		if got := rowOf(a).common(prefixOf(b)); got != want {
			t.Fatalf("%v and %v: got %d, want %d", a, b, got, want)
		}
	}
}

func TestWorthwhile(t *testing.T) {
	e := entry{prefix: prefix{Tokens: 1000}, Size: 100e6, Cost: time.Millisecond} // 100 ms to restore
	for common, want := range map[int]bool{0: false, 63: false, 64: false, 100: false, 101: true, 1000: true} {
		if got := e.worthwhile(common); got != want {
			t.Errorf("%d tokens: got %v, want %v", common, got, want)
		}
	}
	e.wholeOnly = true
	if e.worthwhile(500) || !e.worthwhile(950) {
		t.Error("only as a whole: not so")
	}
}

func TestServed(t *testing.T) {
	var s Served
	if s.Note(0) || !s.Note(1) || s.Note(1) || !s.Note(2) {
		t.Error("first is not first")
	}
	for i := range uint64(maxServed) {
		s.Note(100 + i)
		s.Note(2) // which goes on
	}
	if !s.Note(1) || s.Note(2) {
		t.Error("the one idle longest was not forgotten, or another was")
	}
	if keys, cost := s.snapshot(); len(keys) != maxServed || cost != defaultCost {
		t.Errorf("got %d conversations at %v", len(keys), cost)
	}
	s.Computed(100, 300*time.Millisecond)
	s.Computed(0, time.Second)
	s.Computed(100, 100*time.Millisecond)
	if _, cost := s.snapshot(); cost != 2*time.Millisecond {
		t.Errorf("a token costs %v, want 2 ms", cost)
	}
	if keys, cost := (*Served)(nil).snapshot(); keys != nil || cost != defaultCost {
		t.Errorf("nobody: %v at %v", keys, cost)
	}
}
