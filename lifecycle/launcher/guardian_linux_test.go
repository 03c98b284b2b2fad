package launcher

import (
	"bytes"
	"errors"
	"os"
	"syscall"
	"testing"
)

// A guardian that was killed is replaced at the next start, and nothing of it is left open.
func TestDeadGuardianIsReplaced(t *testing.T) {
	l := New()
	defer l.Close()
	first, err := l.guardian()
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range allPIDs() {
		if cmd, _ := os.ReadFile(procPath(pid, "cmdline")); bytes.Contains(cmd, []byte(l.ID)) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	<-first.done
	second, err := l.guardian()
	if err != nil || second == first {
		t.Fatalf("got %p after %p, %v", second, first, err)
	}
	if _, err := first.pipe.Write([]byte("+1\n")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the pipe to the dead one: %v, want it closed", err)
	}
}
