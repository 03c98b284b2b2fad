package contexts

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"assistant/internal/enginetest"
)

func TestIdentify(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	weights := make([]byte, 5<<20)
	changed := slices.Clone(weights)
	changed[len(changed)/64*32] = 1 // in the middle
	model, other := write("m.gguf", weights), write("o.gguf", changed)
	when := time.Now().Add(-time.Hour)
	for _, path := range []string{model, other} {
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	lora := write("lora", []byte("1"))

	s := open(t, t.TempDir(), 0)
	run := enginetest.EnvRun + "=1"
	of := func(model string, env []string, args ...string) Identity {
		t.Helper()
		id, err := s.Identify(t.Context(), Launch{Argv: append([]string{exe, "-m", model}, args...), Env: append(env, run), ModelPath: model})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	base := of(model, nil, "--host", "/a", "-c", "4096")
	for name, same := range map[string]Identity{
		"again":  of(model, nil, "--host", "/a", "-c", "4096"),
		"places": of(model, nil, "-a", "x", "--port", "1", "-c", "4096", "-t", "3", "--slot-save-path", "/d", "--threads=2"),
		"secret": of(model, []string{"LLAMA_API_KEY=1"}, "-c", "4096"),
	} {
		if same != base {
			t.Errorf("%s: got %+v, want %+v", name, same, base)
		}
	}
	seen := []Identity{base}
	for name, id := range map[string]Identity{
		"model":       of(other, nil, "-c", "4096"),
		"context":     of(model, nil, "-c", "2048"),
		"divided":     of(model, nil, "-c4096"),
		"rope":        of(model, nil, "-c", "4096", "--rope-freq-base", "1"),
		"environment": of(model, []string{"LLAMA_ARG_ROPE_SCALE=2"}, "-c", "4096"),
		"device":      of(model, []string{"CUDA_VISIBLE_DEVICES=1"}, "-c", "4096"),
		"adapter":     of(model, nil, "-c", "4096", "--lora", lora),
	} {
		if slices.Contains(seen, id) {
			t.Errorf("%s: not another identity: %+v", name, id)
		}
		seen = append(seen, id)
	}
	write("lora", []byte("22"))
	if slices.Contains(seen, of(model, nil, "-c", "4096", "--lora", lora)) {
		t.Error("another adapter under the same name: the same identity")
	}
	t.Setenv("LLAMA_ARG_CACHE_TYPE_K", "q8_0") // ours is the engine's as well
	if of(model, nil, "-c", "4096") == base {
		t.Error("our own environment does not count")
	}
	write("m.gguf", changed)
	if got := of(model, nil, "-c", "4096"); got.Model == base.Model {
		t.Error("another model under the same name: the same identity")
	}
	for name, l := range map[string]Launch{
		"no program":    {Argv: []string{filepath.Join(dir, "none")}, ModelPath: model},
		"no arguments":  {ModelPath: model},
		"no model":      {Argv: []string{exe}, Env: []string{run}, ModelPath: filepath.Join(dir, "none")},
		"a directory":   {Argv: []string{exe}, Env: []string{run}, ModelPath: dir},
		"not an engine": {Argv: []string{lora}, ModelPath: model},
	} {
		if id, err := s.Identify(t.Context(), l); err == nil {
			t.Errorf("%s: got %+v, want an error", name, id)
		}
	}
}

// A build that was replaced takes what it saved with it.
func TestIdentifyDropsOtherBuilds(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, t.TempDir(), 1<<30)
	launch := Launch{Argv: []string{exe}, Env: []string{enginetest.EnvRun + "=1"}, ModelPath: exe}
	id, err := s.Identify(t.Context(), launch)
	if err != nil {
		t.Fatal(err)
	}
	keep(t, s, chat("rivers", 300), nil)
	s.mu.Lock()
	for _, e := range s.entries {
		e.Identity = Identity{id.Model, id.Args, "before"}
	}
	s.mu.Unlock()
	if _, err := s.Identify(t.Context(), launch); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.Files != 0 || st.Dropped[OtherBuild] != 1 {
		t.Errorf("got %+v", st)
	}
}
