//go:build unix

package enginetest

import (
	"os/exec"
	"syscall"
)

// ownSession makes cmd the leader of a new session, out of its parent's process group.
func ownSession(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
