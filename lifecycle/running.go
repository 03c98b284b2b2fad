package lifecycle

import (
	"sync/atomic"
	"time"

	"assistant/internal/upstream"
	"assistant/lifecycle/engine"
)

// Reporter is told what became of an instance. Its methods may be called from any goroutine.
type Reporter interface {
	// Ready says that the instance is proven to be ours and can serve.
	Ready(in *Instance, run *Running)
	// Waiting asks for the first so many requests that wait for the instance's model, in the order of their turns.
	Waiting(in *Instance, most int) []Waiting
	// Saved says that saving the contexts of an instance has ended, well or not.
	Saved(in *Instance, attempt int)
	// Dying says that a ready instance has failed by itself. What is left of it is stopped; Exited follows.
	Dying(in *Instance, err error)
	// Exited says that nothing is left of the instance. It is said exactly once, ready or
	// not. err tells why, with the engine's last output, unless it was stopped.
	Exited(in *Instance, err error)
}

// Running is a ready instance's process and the way to it. Its connections end with it, and
// only with it: no change of configuration touches them.
type Running struct {
	ID      string // "key#generation"
	PID     int
	Slots   int // leases it can hold at a time; 0 = unlimited
	Network string
	Address string
	Kind    engine.Kind

	KeepsContexts bool // what it computed of its conversations can be saved

	Spawned time.Duration // from the decision to start to the process's existence
	Loaded  time.Duration // from the process's existence to readiness
	ReadyAt time.Time

	Lean upstream.Transport // our own data path
	Std  upstream.Transport // the standard library's

	kept      *kept        // nil = its contexts are not kept
	firstByte atomic.Int64 // nanoseconds from readiness to the first byte of the first answer; 0 = none yet
}

// Answered notes that a first byte of an answer came, and reports whether it was the first ever,
// and how long after readiness.
func (r *Running) Answered() (time.Duration, bool) {
	if r.firstByte.Load() != 0 {
		return 0, false
	}
	took := max(time.Since(r.ReadyAt), 1)
	return took, r.firstByte.CompareAndSwap(0, int64(took))
}

// FirstByte is the time from readiness to the first byte of the first answer; 0 before that.
func (r *Running) FirstByte() time.Duration { return time.Duration(r.firstByte.Load()) }

func (r *Running) close() {
	r.Lean.Close()
	r.Std.Close()
}
