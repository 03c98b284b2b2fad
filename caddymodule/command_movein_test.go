package caddymodule

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"assistant/internal/gguf/gguftest"
	"assistant/modeldir"
)

// Model files of what lies here are good, and to scan again changes nothing.
func TestScanWritesModelFilesOnce(t *testing.T) {
	root := t.TempDir()
	ggufs, dir := filepath.Join(root, "ggufs"), filepath.Join(root, "models")
	if err := os.Mkdir(ggufs, 0o755); err != nil {
		t.Fatal(err)
	}
	new(gguftest.File).Add("general.architecture", "llama").Add("llama.context_length", 32768).Tensor("t", 64).Write(t, filepath.Join(ggufs, "a-Q4_K_M.gguf"))
	new(gguftest.File).Add("general.architecture", "bert").Tensor("t", 64).Write(t, filepath.Join(ggufs, "b.gguf"))
	run := func(dry bool) scanned {
		t.Helper()
		var out strings.Builder
		m := &mover{client: &client{json: true}, configDir: dir, dry: dry}
		if err := m.scan(&out, []string{ggufs}); err != nil {
			t.Fatal(err)
		}
		var got scanned
		if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := run(true); len(got.Models) != 2 || exists(dir) {
		t.Errorf("--dry-run: %+v", got)
	}
	if got := run(false); len(got.Models) != 2 || got.Models[0].File == "" || got.Models[0].CtxSize != 8192 {
		t.Errorf("%+v", got)
	}
	c, err := modeldir.LoadDir(dir)
	if err != nil || len(c.Models()) != 2 || len(c.Faults()) != 0 {
		t.Fatalf("%v, %v", c, err)
	}
	if m, ok := c.Resolve("b", modeldir.Embedding); !ok || m.Kind != modeldir.Embedding {
		t.Errorf("%+v", m)
	}
	for _, m := range run(false).Models {
		if m.File != "" || !strings.Contains(m.Why, "served already") {
			t.Errorf("the second time: %+v", m)
		}
	}
	var table strings.Builder
	if err := (&mover{client: &client{}, configDir: dir}).scan(&table, []string{ggufs}); err != nil || !strings.Contains(table.String(), "QUANT") {
		t.Errorf("%v\n%s", err, table.String())
	}
}

// A rival's configuration becomes files that are good; what is there already is not overwritten.
func TestImportWritesModelFiles(t *testing.T) {
	root := t.TempDir()
	file, dir := filepath.Join(root, "config.yaml"), filepath.Join(root, "models")
	text := "models:\n  org/a:tag:\n    cmd: llama-server --port ${PORT} -m a.gguf\n  b:\n    cmd: serve --port ${PORT}\n    metadata: {}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	m := &mover{client: &client{}, configDir: dir}
	if err := m.translate(&out, []string{file}); err != nil || !strings.Contains(out.String(), "models.b.metadata") {
		t.Fatalf("%v\n%s", err, out.String())
	}
	c, err := modeldir.LoadDir(dir)
	if err != nil || len(c.Faults()) != 0 || !c.Has("org/a:tag") || !c.Has("b") {
		t.Errorf("%v, %v", c, err)
	}
	out.Reset()
	if err := m.translate(&out, []string{file}); err != nil || strings.Count(out.String(), "is there already") != 2 {
		t.Errorf("the second time: %v\n%s", err, out.String())
	}
	if err := m.translate(&out, []string{filepath.Join(root, "none")}); err == nil {
		t.Error("a file that is not there was translated")
	}
}
