package activator

import (
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
	model   *modelState
	seq     uint64 // order of arrival over all models
	arrived time.Time

	ended outcome
	in    *lifecycle.Instance // of a grant
	err   error
	done  chan struct{} // closed when granted or refused; nil in simulations

	prev, next *waiter
}

// queue is a FIFO of waiters; one can leave from the middle.
type queue struct {
	head, tail *waiter
	n          int
}

func (q *queue) push(w *waiter) {
	w.prev, w.next = q.tail, nil
	if q.tail == nil {
		q.head = w
	} else {
		q.tail.next = w
	}
	q.tail = w
	q.n++
}

func (q *queue) remove(w *waiter) {
	if w.prev == nil {
		q.head = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		q.tail = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next = nil, nil
	q.n--
}
