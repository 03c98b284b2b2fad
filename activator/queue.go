package activator

import (
	"iter"
	"time"

	"assistant/lifecycle"
)

// outcome is how a waiter ended. Exactly one is ever set, under the lock: the grant
// and the client's leaving are decided by whoever sets it first.
type outcome uint8

const (
	waiting outcome = iota
	granted
	refused
	cancelled
)

// waiter is one request without a lease, in its model's queue.
type waiter struct {
	Request
	model   *modelState
	seq     uint64 // order of arrival over all models
	arrived time.Time
	began   waited // what its model's clocks showed when it arrived

	ended outcome
	in    *lifecycle.Instance // of a grant
	err   error
	done  chan struct{} // closed when granted or refused; nil in simulations

	line       *line
	prev, next *waiter // of the same client
	older      *waiter // of the same model
	newer      *waiter
}

// line is what one client has waiting for one model, oldest first.
type line struct {
	client     uint64
	head, tail *waiter
	n          int
	bytes      int64
	prev, next *line // the ring of those to be served in turn
}

// queue is what waits for a model: a line a client, served in turn, so that who sends much waits for himself. A waiter
// can leave from anywhere. All operations are O(1).
type queue struct {
	lines  map[uint64]*line
	turn   *line   // whose turn it is; nil if nobody waits
	oldest *waiter // over all clients
	newest *waiter
	n      int
	bytes  int64
}

func (q *queue) push(w *waiter) {
	l := q.lines[w.Client]
	if l == nil {
		l = &line{client: w.Client}
		if q.lines == nil {
			q.lines = map[uint64]*line{}
		}
		q.lines[w.Client] = l
		q.join(l)
	}
	w.line, w.prev, w.next = l, l.tail, nil
	if l.tail == nil {
		l.head = w
	} else {
		l.tail.next = w
	}
	l.tail = w
	w.older, w.newer = q.newest, nil
	if q.newest == nil {
		q.oldest = w
	} else {
		q.newest.newer = w
	}
	q.newest = w
	l.n++
	l.bytes += w.Bytes
	q.n++
	q.bytes += w.Bytes
}

// join puts a client's line at the end of the round.
func (q *queue) join(l *line) {
	if q.turn == nil {
		l.prev, l.next, q.turn = l, l, l
		return
	}
	l.prev, l.next = q.turn.prev, q.turn
	l.prev.next, l.next.prev = l, l
}

// pop takes out whose turn it is; the next client is next. The queue must not be empty.
func (q *queue) pop() *waiter {
	l := q.turn
	q.turn = l.next
	w := l.head
	q.remove(w)
	return w
}

func (q *queue) remove(w *waiter) {
	l := w.line
	if w.prev == nil {
		l.head = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		l.tail = w.prev
	} else {
		w.next.prev = w.prev
	}
	if w.older == nil {
		q.oldest = w.newer
	} else {
		w.older.newer = w.newer
	}
	if w.newer == nil {
		q.newest = w.older
	} else {
		w.newer.older = w.older
	}
	w.line, w.prev, w.next, w.older, w.newer = nil, nil, nil, nil, nil
	l.n--
	l.bytes -= w.Bytes
	q.n--
	q.bytes -= w.Bytes
	if l.n == 0 {
		q.leave(l)
	}
}

// leave takes a client out of the round.
func (q *queue) leave(l *line) {
	delete(q.lines, l.client)
	switch {
	case l.next == l:
		q.turn = nil
		return
	case q.turn == l:
		q.turn = l.next
	}
	l.prev.next, l.next.prev = l.next, l.prev
}

// of returns how much a client has waiting.
func (q *queue) of(client uint64) (n int, bytes int64) {
	if l := q.lines[client]; l != nil {
		return l.n, l.bytes
	}
	return 0, 0
}

// turns yields the waiters in the order in which pop would give them.
func (q *queue) turns() iter.Seq[*waiter] {
	return func(yield func(*waiter) bool) {
		if q.turn == nil {
			return
		}
		next := make(map[*line]*waiter, len(q.lines))
		for _, l := range q.lines {
			next[l] = l.head
		}
		for l, left := q.turn, q.n; left > 0; l = l.next {
			w := next[l]
			if w == nil {
				continue
			}
			next[l] = w.next
			left--
			if !yield(w) {
				return
			}
		}
	}
}
