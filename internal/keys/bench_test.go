package keys

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// BenchmarkVerify shows that how much of a key was guessed makes no difference to how long it takes to refuse it: its SHA-256 is looked up.
func BenchmarkVerify(b *testing.B) {
	secret, sum := New()
	file := filepath.Join(b.TempDir(), "keys.toml")
	if err := os.WriteFile(file, Entry{Name: "a", SHA256: sum}.TOML(), 0o600); err != nil {
		b.Fatal(err)
	}
	store, err := Open(file, slog.New(slog.DiscardHandler), NewUses())
	if err != nil {
		b.Fatal(err)
	}
	half := len(secret) / 2
	for name, key := range map[string]string{
		"right": secret, "all but the last": secret[:len(secret)-1] + "-", "half of it": secret[:half] + strings.Repeat("-", len(secret)-half),
		"nothing of it": strings.Repeat("-", len(secret)),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := store.Verify(key); (err == nil) != (key == secret) {
					b.Fatal(err)
				}
			}
		})
	}
}
