package enginetest

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// TB is what the helpers need of a testing.TB. (Importing testing would put it
// into the fakeengine binary.)
type TB interface {
	Helper()
	Cleanup(f func())
	Fatalf(format string, args ...any)
	TempDir() string
}

// Engine is a fake engine that a test has started by itself.
type Engine struct {
	URL string // http://host:port, or unix:/path
	Cmd *exec.Cmd
}

// Start runs the engine as a child, on a free port unless flags say otherwise,
// and returns when it listens. It is killed at the end of the test.
func Start(tb TB, flags ...string) *Engine {
	tb.Helper()
	argv := Command(append([]string{"--port", "0"}, flags...)...)
	cmd := exec.Command(argv[0], argv[1:]...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		tb.Fatalf("fake engine: %v", err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatalf("fake engine: %v", err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for s := bufio.NewScanner(stderr); s.Scan(); {
		if _, url, ok := strings.Cut(s.Text(), "listening on "); ok {
			return &Engine{URL: url, Cmd: cmd}
		}
	}
	tb.Fatalf("fake engine: ended before it listened: %v", flags)
	return nil
}

var build = sync.OnceValues(func() (exe []byte, err error) {
	dir, err := os.MkdirTemp("", "fakeengine")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "fakeengine")
	if out, err := exec.Command("go", "build", "-trimpath", "-o", file, "assistant/internal/enginetest/fakeengine").CombinedOutput(); err != nil {
		return nil, &exec.Error{Name: "go build: " + string(bytes.TrimSpace(out)), Err: err}
	}
	return os.ReadFile(file)
})

// Binary builds the command fakeengine, once a test process, and returns the
// path of a copy that lives as long as the test. It starts faster than a test
// binary that has Caddy in it.
func Binary(tb TB) string {
	tb.Helper()
	exe, err := build()
	if err != nil {
		tb.Fatalf("fake engine: %v", err)
	}
	file := filepath.Join(tb.TempDir(), "fakeengine")
	if err := os.WriteFile(file, exe, 0o700); err != nil {
		tb.Fatalf("fake engine: %v", err)
	}
	return file
}
