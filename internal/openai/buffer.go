package openai

import (
	"math/bits"
	"sync"
)

// Buffers come in four sizes to each power of two, from 4 KiB, the size of most requests, to 32 MiB: fresh memory for each body
// with an image costs more than moving the body, as all of it is cleared and brings the next garbage collection nearer. Longer
// ones are made to measure and left to the garbage collector, which empties the pools of what two of its rounds found unused too.
const (
	minShift = 10 // the smallest size is 4 << minShift
	maxShift = 23 // the largest is 4 << maxShift
)

var pools [4*(maxShift-minShift) + 1]sync.Pool

// classOf returns the smallest size that holds n bytes, and its place among all: q << shift with q from 5 to 8.
func classOf(n int64) (class int, size int64) {
	n = max(n, 4<<minShift)
	shift := bits.Len64(uint64(n-1)) - 3
	q := (n-1)>>shift + 1
	return 4*(shift-minShift) + int(q) - 4, q << shift
}

// buffer is a piece of pooled memory.
type buffer struct {
	b     []byte
	class int // index of its pool, -1 = too big for any
}

// takeBuffer returns a buffer of n bytes or more, if the budget has them; a nil budget has everything.
func takeBuffer(n int64, budget *Budget) (*buffer, bool) {
	class, size := classOf(n)
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
