package activator

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// naive is a queue by its definition: a list of waiters, and whose turn it is.
type naive struct {
	all   []*waiter // by arrival
	round []uint64  // clients with waiters, whose turn it is first
}

func (n *naive) push(w *waiter) {
	if !slices.Contains(n.round, w.Client) {
		n.round = append(n.round, w.Client)
	}
	n.all = append(n.all, w)
}

func (n *naive) pop() *waiter {
	client := n.round[0]
	n.round = append(n.round[1:], client)
	w := n.all[slices.IndexFunc(n.all, func(w *waiter) bool { return w.Client == client })]
	n.remove(w)
	return w
}

func (n *naive) remove(w *waiter) {
	n.all = remove(n.all, w)
	if !slices.ContainsFunc(n.all, func(o *waiter) bool { return o.Client == w.Client }) {
		n.round = remove(n.round, w.Client)
	}
}

// turns is the order in which pop would empty it.
func (n *naive) turns() (out []*waiter) {
	c := naive{slices.Clone(n.all), slices.Clone(n.round)}
	for len(c.all) > 0 {
		out = append(out, c.pop())
	}
	return out
}

func TestQueueDoesAsItsDefinition(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 3))
		var q queue
		var want naive
		for range 2000 {
			switch n := rng.IntN(10); {
			case n < 5 || q.n == 0:
				w := &waiter{Request: Request{Client: uint64(rng.IntN(5)), Bytes: int64(rng.IntN(100))}}
				q.push(w)
				want.push(w)
			case n < 8:
				if got, w := q.pop(), want.pop(); got != w {
					t.Fatalf("seed %d: the wrong one's turn", seed)
				}
			default:
				w := want.all[rng.IntN(len(want.all))]
				q.remove(w)
				want.remove(w)
			}
			bytes := int64(0)
			for _, w := range want.all {
				bytes += w.Bytes
			}
			if q.n != len(want.all) || q.bytes != bytes || len(q.lines) != len(want.round) {
				t.Fatalf("seed %d: %d waiters of %d clients with %d bytes, want %d, %d, %d", seed, q.n, len(q.lines), q.bytes, len(want.all), len(want.round), bytes)
			}
			if q.n > 0 && (q.oldest != want.all[0] || q.newest != want.all[len(want.all)-1]) {
				t.Fatalf("seed %d: wrong ends", seed)
			}
			if rng.IntN(20) == 0 && !slices.Equal(slices.Collect(q.turns()), want.turns()) {
				t.Fatalf("seed %d: turns are not those of pop", seed)
			}
		}
	}
}
