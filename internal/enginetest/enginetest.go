// Package enginetest is a fake engine for tests: a real process that listens,
// answers in llama-server's shapes, and misbehaves as told.
//
// A test binary becomes the engine by executing itself:
//
//	func TestMain(m *testing.M) {
//		enginetest.MaybeRun()
//		os.Exit(m.Run())
//	}
//
//	argv := enginetest.Command("--port", "{{port}}", "--start-delay", "200ms")
//
// The command fakeengine is the same engine as a small binary of its own.
// See [Options] for its flags. An engine left behind ends by itself after
// ten minutes (--max-life).
package enginetest

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
)

const (
	// Word as the first argument makes a test binary the fake engine.
	Word = "fake-engine"
	// EnvRun makes a test binary the fake engine whatever its arguments are,
	// when it is set to 1. It is how a test binary poses as llama-server.
	EnvRun = "ASSISTANT_FAKE_ENGINE"
	// EnvArgs holds flags, separated by spaces, that are read before those of argv.
	EnvArgs = "ASSISTANT_FAKE_ENGINE_ARGS"
)

// MaybeRun runs the fake engine and does not return if this process was
// started as one; otherwise it does nothing. Call it first in TestMain.
func MaybeRun() {
	switch {
	case len(os.Args) > 1 && os.Args[1] == Word:
		os.Exit(Main(os.Args[2:]))
	case os.Getenv(EnvRun) == "1":
		os.Exit(Main(os.Args[1:]))
	}
	if os.Getenv("GORACE") == "" {
		// A program with the race detector sleeps for a second before it ends, and every engine, and guardian, of a
		// test is one (https://go.dev/doc/articles/race_detector#Options).
		_ = os.Setenv("GORACE", "atexit_sleep_ms=0")
	}
}

// Command returns the argument vector that runs this test binary as a fake
// engine with the given flags. It needs no environment. It panics if the
// test binary's own path is unknown.
func Command(flags ...string) []string {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return append([]string{exe, Word}, flags...)
}

// Main runs the fake engine with args, the program's name not among them, and
// returns its exit status.
func Main(args []string) int {
	if len(args) > 0 && args[0] == "nvidia-smi" {
		return nvidiaSMI(args[1:])
	}
	isGuest := posesAsWasmEdge(args)
	if isGuest {
		args = nil // they are WasmEdge's
	}
	o, err := parse(append(strings.Fields(os.Getenv(EnvArgs)), args...))
	o.guest = isGuest
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	if o.List {
		return listDevices(o)
	}
	if o.Version {
		fmt.Fprintln(os.Stderr, "version: 0.7.0 (build 11669, commit fake)")
		return 0
	}
	return run(o)
}
