package launcher

import (
	"os"
	"syscall"
)

func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

func ownSession() *syscall.SysProcAttr { return ownGroup() }

// signalGroup ends the group's leader: Windows knows no signals and no groups to send them to.
func signalGroup(pgid int, sig syscall.Signal) { signalOne(pgid, sig) }

func signalOne(pid int, _ syscall.Signal) {
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill()
	}
}

func groupAlive(int) bool { return false }
