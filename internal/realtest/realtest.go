// Package realtest hands tests the real engines and models that make test fetches.
package realtest

import (
	"os"
	"testing"
)

// Need returns an environment variable's value, such as the path of a real engine. With -short the test is skipped;
// otherwise it fails where the variable is not set, so that a test run can't leave it out unnoticed.
func Need(t testing.TB, name string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a real engine: run make test")
	}
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set: run this by make test, which fetches what it needs", name)
	}
	return value
}
