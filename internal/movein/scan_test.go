package movein

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"assistant/internal/gguf/gguftest"
)

func model(arch string, more ...any) *gguftest.File {
	f := new(gguftest.File).Add("general.architecture", arch).Add(arch+".context_length", 4096).Tensor("token_embd.weight", 1024)
	for i := 0; i+1 < len(more); i += 2 {
		f.Add(more[i].(string), more[i+1]) //nolint:errcheck,forcetypeassert // of this file
	}
	return f
}

func put(tb testing.TB, path string, content []byte) {
	tb.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		tb.Fatal(err)
	}
}

// write writes a model, whose content differs by what it is.
func write(tb testing.TB, path string, f *gguftest.File) {
	tb.Helper()
	put(tb, path, nil)
	f.Write(tb, path)
}

func names(found []Found) (list []string) {
	for _, f := range found {
		list = append(list, f.Name)
	}
	slices.Sort(list)
	return list
}

func TestScanADirectory(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a", "Some Model-Q4_K_M.gguf"), model("llama"))
	write(t, filepath.Join(dir, "b", "Some Model-Q4_K_M.gguf"), model("qwen2"))
	write(t, filepath.Join(dir, "vision", "gemma-Q8_0.gguf"), model("gemma3"))
	write(t, filepath.Join(dir, "vision", "mmproj-F32.gguf"), model("clip"))
	write(t, filepath.Join(dir, "vision", "mmproj-BF16.gguf"), model("clip"))
	write(t, filepath.Join(dir, "vision", "mmproj-F16.gguf"), model("clip"))
	write(t, filepath.Join(dir, "many", "one-Q4_0.gguf"), model("llama"))
	write(t, filepath.Join(dir, "many", "two-Q4_0.gguf"), model("llama"))
	write(t, filepath.Join(dir, "many", "mmproj-two-f16.gguf"), model("clip"))
	write(t, filepath.Join(dir, "lora.gguf"), model("llama").Tensor("blk.0.attn_q.weight.lora_a", 64))
	write(t, filepath.Join(dir, "minilm.gguf"), model("bert"))
	put(t, filepath.Join(dir, "broken.gguf"), []byte("GGUF and no more"))
	put(t, filepath.Join(dir, "half.gguf.part"), []byte("GGUF"))
	put(t, filepath.Join(dir, "readme.txt"), []byte("GGUF"))
	if err := os.Symlink(filepath.Join(dir, "minilm.gguf"), filepath.Join(dir, "same.gguf")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(dir, "loop")); err != nil {
		t.Fatal(err)
	}
	found, skipped := Scan([]string{dir, filepath.Join(dir, "nowhere")}, func(name string) bool { return name == "minilm" })
	want := []string{"gemma-q8_0", "minilm-2", "one-q4_0", "some-model-q4_k_m", "some-model-q4_k_m-2", "two-q4_0"}
	if got := names(found); !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	for _, f := range found {
		args := strings.Join(f.Args, " ")
		switch {
		case f.Name == "gemma-q8_0" && !strings.HasSuffix(args, "mmproj-F16.gguf"),
			f.Name == "two-q4_0" && !strings.HasSuffix(args, "mmproj-two-f16.gguf"),
			f.Name == "one-q4_0" && args != "":
			t.Errorf("%s has the projector %q", f.Name, args)
		case f.Name == "minilm-2" && f.Kind != "embedding":
			t.Errorf("%s is for %q", f.Name, f.Kind)
		}
	}
	whys := fmt.Sprint(skipped)
	for _, want := range []string{"adapter", "not ended", "broken.gguf", "nowhere"} {
		if !strings.Contains(whys, want) {
			t.Errorf("%q is not told: %s", want, whys)
		}
	}
	if len(skipped) != 4 {
		t.Errorf("skipped %d: %s", len(skipped), whys)
	}
}

// The three stores, in the places that their programs have them.
func TestScanStores(t *testing.T) {
	home := t.TempDir()
	hub := filepath.Join(home, ".cache", "huggingface", "hub", "models--a--b")
	write(t, filepath.Join(hub, "blobs", "abc123"), model("llama"))
	snapshot := filepath.Join(hub, "snapshots", "c0ffee")
	for _, dir := range []string{snapshot, filepath.Join(hub, "snapshots", "older")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("../../blobs/abc123", filepath.Join(dir, "b-Q4_K_M.gguf")); err != nil {
			t.Fatal(err)
		}
	}
	put(t, filepath.Join(hub, "blobs", "def.incomplete"), []byte("GGUF"))
	write(t, filepath.Join(home, ".lmstudio", "models", "pub", "c-GGUF", "c-Q8_0.gguf"), model("qwen3"))
	ollama := filepath.Join(home, ".ollama", "models")
	write(t, filepath.Join(ollama, "blobs", "sha256-1"), model("llama", "general.name", "x"))
	write(t, filepath.Join(ollama, "blobs", "sha256-2"), model("clip"))
	put(t, filepath.Join(ollama, "blobs", "sha256-3"), []byte("You are short."))
	put(t, filepath.Join(ollama, "blobs", "sha256-4"), []byte(`{"temperature":0.5,"num_ctx":100,"stop":["a"]}`))
	put(t, filepath.Join(ollama, "manifests", "registry.ollama.ai", "library", "llava", "7b"), []byte(`{"layers":[
		{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:1"},
		{"mediaType":"application/vnd.ollama.image.projector","digest":"sha256:2"},
		{"mediaType":"application/vnd.ollama.image.system","digest":"sha256:3"},
		{"mediaType":"application/vnd.ollama.image.params","digest":"sha256:4"}]}`))
	put(t, filepath.Join(ollama, "manifests", "registry.ollama.ai", "library", "odd", "latest"), []byte(`{`))
	dirs := Stores(func(string) string { return "" }, home)
	found, skipped := Scan(dirs, nil)
	if got, want := names(found), []string{"b-q4_k_m", "c-q8_0", "llava:7b"}; !slices.Equal(got, want) {
		t.Fatalf("found %q in %q, want %q; skipped %+v", got, dirs, want, skipped)
	}
	for _, f := range found {
		if f.Name == "b-q4_k_m" && !strings.HasSuffix(f.ModelPath, "b-Q4_K_M.gguf") {
			t.Errorf("%s: %s", f.Name, f.ModelPath)
		}
		if f.Name == "llava:7b" && (f.SystemPrompt != "You are short." || len(f.Defaults) != 2 || len(f.Args) != 2) {
			t.Errorf("%+v", f)
		}
	}
	if len(skipped) != 2 {
		t.Errorf("skipped %+v", skipped)
	}
	elsewhere := filepath.Join(home, "elsewhere")
	put(t, filepath.Join(elsewhere, "x"), nil)
	if got := Stores(func(name string) string {
		return map[string]string{"OLLAMA_MODELS": elsewhere, "HF_HUB_CACHE": elsewhere}[name]
	}, ""); !slices.Equal(got, []string{elsewhere}) {
		t.Errorf("%q", got)
	}
}
