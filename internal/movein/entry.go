// Package movein makes model files of what is here already: of GGUF files, wherever a program has put them, and of a rival's configuration.
package movein

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"assistant/internal/gguf"
)

// Entry is what a model file is made of.
type Entry struct {
	Name        string
	ModelPath   string // absolute; "" where there is a source
	ModelSource string
	Kind        string // "" = chat
	CtxSize     int    // tokens; 0 = the engine's default
	Args        []string
	Comments    []string // lines at the file's beginning
}

// sensibleContext is the most tokens of context that a model gets without being asked, in tokens: what its makers trained it for is often more than a
// machine has memory for, and most chats are shorter (Ollama's default is 4,096, too few for tools).
const sensibleContext = 8192

// Describe fills an entry with what the model's file says of itself: its kind, its context, its projector ("" = none).
func Describe(path, projector string) (Entry, error) {
	h, err := gguf.Read(path)
	if err != nil {
		return Entry{}, fmt.Errorf("read %s: %w", path, err)
	}
	e := Entry{ModelPath: path, Kind: KindOf(h), CtxSize: min(h.ContextLength(), sensibleContext)}
	if projector != "" {
		e.Args = []string{"--mmproj", projector}
	}
	e.Comments = append(e.Comments, summary(h))
	if trained := h.ContextLength(); trained > e.CtxSize {
		e.Comments = append(e.Comments, fmt.Sprintf("It was trained for a context of %d tokens; ctx_size takes memory for each.", trained))
	}
	if e.Kind == "" && h.Template == "" {
		e.Comments = append(e.Comments, "Its file has no template for chats: it may be a base model, which continues texts.")
	}
	return e, nil
}

// Architectures that are for nothing but vectors (llama.cpp, src/llama-arch.cpp).
var embedders = []string{"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert", "gemma-embedding", "t5encoder"}

// poolingRank is the pooling type of models that rerank (llama.h, LLAMA_POOLING_TYPE_RANK).
const poolingRank = 4

// KindOf is what a model is for, in the words of model files; "" = chats.
func KindOf(h *gguf.Header) string {
	pooling := int(h.Number("pooling_type", 0))
	if pooling == poolingRank {
		return "rerank"
	}
	if pooling > 0 || slices.Contains(embedders, h.Arch) {
		return "embedding"
	}
	return ""
}

// summary says in a line what the model is.
func summary(h *gguf.Header) string {
	parts := []string{h.Arch}
	if h.Parameters > 0 {
		parts = append(parts, fmt.Sprintf("%.3g billion parameters", float64(h.Parameters)/1e9))
	}
	if q := h.Quantization(); q != "" {
		parts = append(parts, q)
	}
	return strings.Join(parts, ", ")
}

// Render is the model file of an entry.
func Render(e Entry) []byte {
	var b strings.Builder
	for _, c := range e.Comments {
		for line := range strings.Lines(c) {
			fmt.Fprintf(&b, "# %s\n", strings.TrimSpace(strings.ToValidUTF8(line, "?")))
		}
	}
	text := func(key, v string) {
		if v != "" {
			fmt.Fprintf(&b, "%s = %s\n", key, quote(v))
		}
	}
	text("name", e.Name)
	text("model_path", e.ModelPath)
	text("model_source", e.ModelSource)
	text("kind", e.Kind)
	if e.CtxSize > 0 {
		fmt.Fprintf(&b, "ctx_size = %d\n", e.CtxSize)
	}
	if len(e.Args) > 0 {
		quoted := make([]string, len(e.Args))
		for i, a := range e.Args {
			quoted[i] = quote(a)
		}
		fmt.Fprintf(&b, "args = [%s]\n", strings.Join(quoted, ", "))
	}
	return []byte(b.String())
}

// quote writes a basic string of TOML, whose escapes are other than Go's.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range strings.ToValidUTF8(s, "\uFFFD") {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			b.WriteString(`\u` + fmt.Sprintf("%04s", strconv.FormatInt(int64(r), 16)))
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
