package lifecycle

import "time"

// Victim returns the instance to stop so that another model can start: of those that
// are idle and not kept, the one idle longest. It returns nil if there is none. wanted
// reports whether requests wait for the instance's own model, which spares it.
func Victim(live []*Instance, wanted func(*Instance) bool) *Instance {
	var victim *Instance
	for _, in := range live {
		if !in.Idle() || kept(in) || wanted(in) {
			continue
		}
		if victim == nil || in.IdleSince.Before(victim.IdleSince) {
			victim = in
		}
	}
	return victim
}

// minLoadGrace is the least time an instance stays idle before pressure may retire it.
const minLoadGrace = 5 * time.Second

// PressureVictim returns the idle instance to retire while the machine is under
// pressure, or nil. One is spared for as long as starting it took, and at least 5 s:
// by the ski-rental argument, keeping for as long as it costs to bring back is at
// most twice as bad as knowing the future (Karlin et al., Algorithmica 3, 1988).
func PressureVictim(live []*Instance, now time.Time, wanted func(*Instance) bool) *Instance {
	return Victim(live, func(in *Instance) bool {
		return wanted(in) || now.Sub(in.IdleSince) < max(minLoadGrace, in.StartTook())
	})
}

// kept reports whether configuration says that the instance stays.
func kept(in *Instance) bool { return in.Model.Pinned || in.Model.MinInstances > 0 }

// RetireAt is when an idle instance retires; the zero time means never.
// fallback is the server's idle timeout, used when the model has none of its own.
func (in *Instance) RetireAt(fallback time.Duration) time.Time {
	timeout := fallback
	if in.Model.IdleTimeout != nil {
		timeout = *in.Model.IdleTimeout
	}
	if timeout <= 0 || in.Model.MinInstances > 0 || !in.Idle() {
		return time.Time{}
	}
	return in.IdleSince.Add(timeout)
}
