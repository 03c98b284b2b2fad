package lifecycle

import (
	"fmt"
	"time"

	"assistant/lifecycle/engine"
	"assistant/lifecycle/machine"
	"assistant/lifecycle/memory"
	"assistant/modeldir"
)

// State is where an instance stands. A model without instances is "cold".
type State uint8

// The states of an instance, in the order it goes through them.
const (
	Starting State = iota // spawned or about to be; counts in every budget
	Ready                 // proven to be ours and able to serve
	Draining              // no new leases; stops when the last one ends, or is stopping
	Stopped               // gone because it was told to
	Failed                // gone by itself
)

func (s State) String() string {
	return [...]string{"starting", "ready", "draining", "stopped", "failed"}[s]
}

// Reason says why an instance was told to stop.
type Reason string

// The reasons there are; they label logs and the evictions metric.
const (
	ReasonIdle     Reason = "idle"        // idle timeout: retired
	ReasonRoom     Reason = "room"        // evicted for another model
	ReasonLoad     Reason = "load"        // retired under system load or memory pressure
	ReasonUnload   Reason = "unload"      // asked for
	ReasonChanged  Reason = "changed"     // its launch spec is no longer in force
	ReasonRemoved  Reason = "removed"     // its model is gone
	ReasonUnwanted Reason = "unwanted"    // nobody waits for this start any more, and others need the room
	ReasonDead     Reason = "unreachable" // its process lives but does not accept connections
	ReasonShutdown Reason = "shutdown"
)

// Saves reports whether contexts are worth saving from an instance that leaves for this reason: its next generation may
// use them.
func (r Reason) Saves() bool { return r.Rescuable() || r == ReasonUnload || r == ReasonShutdown }

// Instance is one engine, running or about to. The fields below are the scheduler's
// and are read and written under the activator's lock only; what the running
// process needs is in the [Running] it gets when ready.
type Instance struct {
	Model *modeldir.Model // the spec in force; replaced when only metadata changed
	Gen   uint64          // generation: unique over the life of the router

	State    State
	Reason   Reason // why it drains or stopped
	Stopping bool   // the runner was told to stop it; it cannot be rescued
	Dying    bool   // it failed by itself, and the runner clears away what is left
	Saving   bool   // it drains and has no leases; the runner saves its contexts before it is told to stop
	Leases   int
	Served   int // leases ended, ever
	Slots    int // leases it can hold at a time; 0 = unlimited

	Created   time.Time // when the start was decided
	ReadyAt   time.Time
	IdleSince time.Time // when the last lease ended, or ReadyAt; meaningful while Leases == 0
	SaveBy    time.Time // when saving has to end
	Attempt   int       // to save: the number of the last
	Saved     int       // Served when its contexts were last saved

	Offload   *engine.Offload  // what the engine is told of devices; nil = nothing
	Placement memory.Placement // where its memory was reserved when it was started
	Reserved  machine.Amount   // what is reserved: the placement's, or more where more was measured
	Used      machine.Amount   // what it had when it was measured last; zero = it was not yet

	// Running is nil until ready.
	Running *Running

	handle *handle // the runner's own; nil in simulations
}

// ID names the instance in logs and state files: "key#generation".
func (in *Instance) ID() string { return fmt.Sprintf("%s#%d", in.Model.Key, in.Gen) }

// Live reports whether the instance holds room: its process exists or is about to.
func (in *Instance) Live() bool { return in.State <= Draining }

// Free reports whether a new lease may be taken.
func (in *Instance) Free() bool {
	return in.State == Ready && (in.Slots == 0 || in.Leases < in.Slots)
}

// Idle reports whether the instance is ready and nobody uses it.
func (in *Instance) Idle() bool { return in.State == Ready && in.Leases == 0 }

// StartTook is the time from the decision to start to readiness; 0 before that.
func (in *Instance) StartTook() time.Duration {
	if in.ReadyAt.IsZero() {
		return 0
	}
	return in.ReadyAt.Sub(in.Created)
}
