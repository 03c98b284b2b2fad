package engine

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"assistant/modeldir"
)

func TestContextDir(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("LLAMA_SERVER", exe)
	file := filepath.Join(t.TempDir(), "m.gguf")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		kind modeldir.Kind
		keep bool
		dir  string
		want bool
	}{
		{"kept", modeldir.Chat, true, "/slots", true},
		{"not asked for", modeldir.Chat, false, "/slots", false},
		{"nowhere", modeldir.Chat, true, "", false},
		{"embedding", modeldir.Embedding, true, "/slots", false},
		{"rerank", modeldir.Rerank, true, "/slots", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := &modeldir.Model{
				Name: "m", Kind: tt.kind, Engine: modeldir.EngineLlamaServer, ModelPath: file, KeepContext: tt.keep,
				Env: map[string]string{"A": "b"},
			}
			kind := For(m)
			if got := kind.KeepsContexts(m); got != (tt.keep && tt.kind == modeldir.Chat) {
				t.Errorf("KeepsContexts: got %v", got)
			}
			plan, err := kind.Plan(m, Place{Port: 1, ContextDir: tt.dir})
			if err != nil {
				t.Fatal(err)
			}
			at := slices.Index(plan.Argv, "--slot-save-path")
			if got := at >= 0 && plan.Argv[at+1] == tt.dir; got != tt.want {
				t.Errorf("directory in %q: got %v, want %v", plan.Argv, got, tt.want)
			}
			if got := slices.Contains(plan.Env, llamaKeepIdleSlots); got != tt.want || !slices.Contains(plan.Env, "A=b") {
				t.Errorf("idle slots kept by %q: got %v, want %v", plan.Env, got, tt.want)
			}
		})
	}
	if (Kind{}).KeepsContexts(&modeldir.Model{Kind: modeldir.Chat, KeepContext: true}) {
		t.Error("an engine without contexts keeps some")
	}
}
