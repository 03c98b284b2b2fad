package movein

import (
	"path/filepath"
	"strings"
	"testing"

	"assistant/internal/gguf/gguftest"
)

func TestDescribe(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name    string
		file    *gguftest.File
		kind    string
		context int
		says    string
	}{
		{"chat", new(gguftest.File).Add("general.architecture", "llama").Add("llama.context_length", 131072).Add("tokenizer.chat_template", "{{x}}").
			Add("general.file_type", 15), "", sensibleContext, "Q4_K_M"},
		{"base", new(gguftest.File).Add("general.architecture", "llama").Add("llama.context_length", 2048), "", 2048, "no template"},
		{"bert", new(gguftest.File).Add("general.architecture", "bert").Add("bert.context_length", 512), "embedding", 512, "bert"},
		{"pooled", new(gguftest.File).Add("general.architecture", "qwen3").Add("qwen3.pooling_type", 3), "embedding", 0, "qwen3"},
		{"ranker", new(gguftest.File).Add("general.architecture", "bert").Add("bert.pooling_type", 4), "rerank", 0, "bert"},
	} {
		e, err := Describe(c.file.Write(t, filepath.Join(dir, c.name+".gguf")), "")
		if err != nil || e.Kind != c.kind || e.CtxSize != c.context || !strings.Contains(strings.Join(e.Comments, "\n"), c.says) {
			t.Errorf("%s: %+v, %v", c.name, e, err)
		}
	}
	if _, err := Describe(filepath.Join(dir, "none.gguf"), ""); err == nil {
		t.Error("what is not there was described")
	}
}

func TestRender(t *testing.T) {
	got := string(Render(Entry{
		Name: "a\"b\\c\x01", ModelPath: "/m/ü.gguf", Kind: "embedding", CtxSize: 512, Args: []string{"--mmproj", "/m/p q.gguf"},
		Comments: []string{"one\ntwo"},
	}))
	want := "# one\n# two\nname = \"a\\\"b\\\\c\\u0001\"\nkind = \"embedding\"\nmodel_path = \"/m/ü.gguf\"\nctx_size = 512\nargs = [\"--mmproj\", \"/m/p q.gguf\"]\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
