package launcher

import "golang.org/x/sys/unix"

// Idle lets the program have of the processors only what nobody else wants. A failure leaves it as fast as others.
func (p *Process) Idle() {
	_ = unix.SchedSetAttr(p.PID, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
}
