package activator

import (
	"time"

	"assistant/lifecycle"
)

// Lease is a request's hold on a slot of an instance: while it lasts the instance is not
// stopped. Release it exactly when the request is over; a second release does nothing.
type Lease struct {
	a     *Activator
	in    *lifecycle.Instance
	model *modelState // stays the model's as long as it has leases
	held  held

	Waited time.Duration // from asking to getting it; 0 on the warm path
	Cold   bool          // the request waited for a start
}

// Running is what the instance is reached by.
func (l *Lease) Running() *lifecycle.Running { return l.in.Running }

// Instance names the instance, for logs: "key#generation".
func (l *Lease) Instance() string { return l.in.Running.ID }

// Release gives the slot back.
func (l *Lease) Release() {
	if l.a == nil {
		return
	}
	a, now := l.a, time.Now()
	l.a = nil
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state.quiet(l.in) {
		a.state.give(l.model, l.in, l.held, now)
		if l.in.Idle() {
			a.arm(now) // it may retire one day, or another one instead
		}
		return
	}
	a.apply(event{kind: evRelease, in: l.in, held: l.held}, now)
}

// Unreachable says that the instance did not accept a connection, although its process lives. It
// gets no more leases and stops when those it has are released.
func (l *Lease) Unreachable() {
	if l.a != nil {
		l.a.step(event{kind: evUnreachable, in: l.in})
	}
}
