package caddymodule

import (
	"os/exec"
	"strings"
	"testing"
)

// TestImportsPointOneWay keeps the direction of DESIGN §3: caddymodule → activator → lifecycle → modeldir, with
// internal/* as leaves, and Caddy known to caddymodule alone.
func TestImportsPointOneWay(t *testing.T) {
	const ours = "assistant/"
	const patterns = "assistant/internal/glob" // what names in files may hold is no more than strings: all may know it
	forbidden := map[string][]string{          // package prefix → what it must not reach
		"assistant/modeldir":  {"assistant/lifecycle", "assistant/activator", "assistant/caddymodule", "assistant/internal", "github.com/caddyserver/"},
		"assistant/lifecycle": {"assistant/activator", "assistant/caddymodule", "github.com/caddyserver/"},
		"assistant/activator": {"assistant/caddymodule", "github.com/caddyserver/"},
		"assistant/internal":  {"assistant/modeldir", "assistant/lifecycle", "assistant/activator", "assistant/caddymodule", "github.com/caddyserver/"},
		"assistant/bench":     {"assistant/caddymodule", "github.com/caddyserver/"},
	}
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Deps " "}}`, ours+"...").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	checked := 0
	for line := range strings.Lines(string(out)) {
		pkg, deps, _ := strings.Cut(strings.TrimSpace(line), " ")
		for prefix, banned := range forbidden {
			if !strings.HasPrefix(pkg, prefix) {
				continue
			}
			checked++
			for dep := range strings.FieldsSeq(deps) {
				for _, b := range banned {
					if strings.HasPrefix(dep, b) && dep != patterns {
						t.Errorf("%s reaches %s", pkg, dep)
					}
				}
			}
		}
	}
	if checked < 8 {
		t.Errorf("only %d packages were looked at: the pattern is wrong", checked)
	}
}
