package openai

import (
	"math/bits"
	"sync"
)

// Buffers come in powers of two from 4 KiB, the size of most requests, to 1 MiB. Longer ones, which hold images, are
// made to measure and left to the garbage collector.
const (
	minClass = 12
	maxClass = 20
)

var pools [maxClass - minClass + 1]sync.Pool

// buffer is a piece of pooled memory.
type buffer struct {
	b     []byte
	class int // index of its pool, -1 = too big for any
}

// takeBuffer returns a buffer of n bytes or more, if the budget has them; a nil budget has everything.
func takeBuffer(n int64, budget *Budget) (*buffer, bool) {
	class := max(bits.Len64(uint64(n-1)), minClass) - minClass //nolint:gosec // lengths are not negative
	size := int64(1) << (class + minClass)
	if class >= len(pools) {
		class, size = -1, n
	}
	if budget != nil && !budget.TryReserve(size) {
		return nil, false
	}
	if class >= 0 {
		if buf, ok := pools[class].Get().(*buffer); ok {
			return buf, true
		}
	}
	return &buffer{b: make([]byte, size), class: class}, true
}

// giveBack returns the buffer to its pool and its bytes to the budget.
func (buf *buffer) giveBack(budget *Budget) {
	if budget != nil {
		budget.Release(int64(len(buf.b)))
	}
	if buf.class >= 0 {
		pools[buf.class].Put(buf)
	}
}
