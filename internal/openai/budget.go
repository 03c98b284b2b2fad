package openai

import "sync/atomic"

// DefaultBudget is how many bytes of memory all bodies together may take unless somebody says otherwise.
const DefaultBudget = 256 << 20

// Budget bounds the memory that bodies hold while their requests wait and run. It is safe for concurrent use.
type Budget struct {
	limit int64
	used  atomic.Int64
}

// NewBudget makes a budget of limit bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// TryReserve takes n bytes, or nothing if they aren't there.
func (b *Budget) TryReserve(n int64) bool {
	if b.used.Add(n) <= b.limit {
		return true
	}
	b.used.Add(-n)
	return false
}

// Release gives back n bytes that were reserved.
func (b *Budget) Release(n int64) { b.used.Add(-n) }

// Used is how many bytes are reserved now.
func (b *Budget) Used() int64 { return b.used.Load() }
