package machine

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// files is a directory to read small files of: the root of a machine, or of a recorded one.
type files string

func (f files) path(name string) string { return filepath.Join(string(f), filepath.FromSlash(name)) }

// text returns a file's content without the white space around it; "" if it cannot be read. What the
// kernel has to say is short: 1 MiB is read at most.
func (f files) text(name string) string {
	file, err := os.Open(f.path(name))
	if err != nil {
		return ""
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, 1<<20))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

const (
	// toolTime is how long a vendor's tool may take. nvidia-smi needs 50 ms to 1 s where the driver is loaded, and
	// several seconds where it has to load it first (persistence mode off).
	toolTime = 5 * time.Second

	toolOutput = 1 << 20 // bytes read of a tool
)

// tools runs programs that tell about devices.
type tools struct {
	env []string // added to our own
}

// run returns what the program prints; one that is not installed is an error at once.
func (t tools) run(ctx context.Context, name string, args ...string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, toolTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...) //nolint:gosec // a vendor's tool, or the engine
	cmd.Env = append(os.Environ(), t.env...)
	cmd.WaitDelay = time.Second // a grandchild may hold the pipe
	var out limited
	cmd.Stdout = &out
	err = cmd.Run()
	return out.String(), err
}

// limited keeps the beginning of what is written to it.
type limited struct{ strings.Builder }

func (l *limited) Write(b []byte) (int, error) {
	if room := toolOutput - l.Len(); room > 0 {
		l.Builder.Write(b[:min(room, len(b))])
	}
	return len(b), nil
}
