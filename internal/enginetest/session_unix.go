//go:build unix

package enginetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// ownSession makes cmd the leader of a new session, out of its parent's process group.
func ownSession(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }

// lock makes this process the only one that works on the directory; the lock ends with it.
func (g gpus) lock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(string(g), "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}
