//go:build unix

package launcher

import (
	"errors"
	"syscall"
)

// ownGroup makes the child the leader of a new process group, so that a Ctrl-C on the
// router's terminal does not reach it and a signal to the group reaches all of it.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// ownSession detaches the guardian from the terminal altogether.
func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

func signalGroup(pgid int, sig syscall.Signal) { _ = syscall.Kill(-pgid, sig) }

func signalOne(pid int, sig syscall.Signal) { _ = syscall.Kill(pid, sig) }

// groupAlive reports whether any process is in the group.
func groupAlive(pgid int) bool {
	err := syscall.Kill(-pgid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}
