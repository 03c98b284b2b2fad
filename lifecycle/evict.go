package lifecycle

import "time"

// RetireAt is when an idle instance retires; the zero time means never. fallback is the server's idle
// timeout, used when the model has none of its own.
func (in *Instance) RetireAt(fallback time.Duration) time.Time {
	timeout := fallback
	if in.Model.IdleTimeout != nil {
		timeout = *in.Model.IdleTimeout
	}
	if timeout <= 0 || !in.Idle() {
		return time.Time{}
	}
	return in.IdleSince.Add(timeout)
}
