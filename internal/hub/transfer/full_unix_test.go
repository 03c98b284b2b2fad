//go:build unix

package transfer

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// envFull has this test's program bound how large its files may be, in place of a disk that is full.
const envFull = "ASSISTANT_TEST_TRANSFER_FULL"

// A disk that fills up is told as such, with what is needed and what is free, and what was brought is not taken for the file.
func TestFullDisk(t *testing.T) {
	if os.Getenv(envFull) != "" {
		fetchWithoutRoom(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestFullDisk$", "-test.v")
	cmd.Env = append(os.Environ(), envFull+"=1")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}

func fetchWithoutRoom(t *testing.T) {
	const room = 5 * part
	signal.Ignore(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: room, Max: room}); err != nil {
		t.Fatal(err)
	}
	data := content(40, 20*part)
	for name, plain := range map[string]bool{"parts": false, "whole": true} {
		s := serve(t, data)
		s.plain = plain
		path := filepath.Join(t.TempDir(), name)
		_, err := Fetch(t.Context(), path, file(data, s), small(t))
		if !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "free in") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: it is in place: %v", name, err)
		}
	}
}
