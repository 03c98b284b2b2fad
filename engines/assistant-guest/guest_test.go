package assistantguest

import (
	"os/exec"
	"testing"
)

// run runs a command in this folder; what it prints is told if it fails.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("wants Rust: run make test")
	}
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Errorf("%s %q: %v\n%s", name, args, err, out)
	}
}

// TestRust runs the guest's own tests, which need no WASI-NN.
func TestRust(t *testing.T) { run(t, "../../scripts/build-guest.sh", "--test") }

// TestWasmIsWhatItsSourceGives: nobody can tell from a binary in git what it was made of.
func TestWasmIsWhatItsSourceGives(t *testing.T) { run(t, "../../scripts/build-guest.sh", "--check") }
