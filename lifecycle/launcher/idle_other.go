//go:build !linux

package launcher

// Idle is to let the program have of the processors only what nobody else wants. This system is not asked to.
func (p *Process) Idle() {}
