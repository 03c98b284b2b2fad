package activator

import (
	"fmt"
	"time"
)

// Fault says why no lease could be given.
type Fault uint8

// The faults there are.
const (
	FaultUnknown  Fault = iota // no such model in the catalog (any more)
	FaultFull                  // the queue is full
	FaultWait                  // waited too long for room or a slot
	FaultStart                 // the engine could not be started, or died before it was ready
	FaultShutdown              // the server is going down
	FaultTooLarge              // the model does not fit this machine, whatever else is stopped
)

// Error is the reason an activation ended without a lease.
type Error struct {
	Fault      Fault
	Model      string
	RetryAfter time.Duration // when trying again makes sense; 0 = unknown
	Cause      error         // what the engine said, for FaultStart; the numbers, for FaultTooLarge
}

func (e *Error) Error() string {
	switch e.Fault {
	case FaultUnknown:
		return fmt.Sprintf("model %q does not exist", e.Model)
	case FaultFull:
		return fmt.Sprintf("too many requests wait for model %q", e.Model)
	case FaultWait:
		return fmt.Sprintf("model %q had no room to answer in time", e.Model)
	case FaultShutdown:
		return "the server is shutting down"
	case FaultTooLarge:
		return fmt.Sprintf("model %q is too large for this machine: %v", e.Model, e.Cause)
	default:
		return fmt.Sprintf("model %q could not be started: %v", e.Model, e.Cause)
	}
}

func (e *Error) Unwrap() error { return e.Cause }
