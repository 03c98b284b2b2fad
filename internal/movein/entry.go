// Package movein makes model files of what is here already: of GGUF files, wherever a program has put them, and of a rival's configuration.
package movein

import (
	"fmt"
	"slices"
	"strings"

	"assistant/internal/gguf"
)

// Entry is what a model file is made of. What is empty is left out.
type Entry struct {
	Comments []string // lines at the file's beginning

	Name           string
	Aliases        []string
	Kind           string // "" = chat
	ModelPath      string // absolute; "" where there is a source
	ModelSource    string
	CtxSize        int // tokens; 0 = the engine's default
	SystemPrompt   string
	Defaults       map[string]any
	Forced         map[string]any
	Variants       []Variant
	FirstByte      string // a duration
	Engine         string
	Args           []string
	Env            map[string]string
	Command        []string
	StopCommand    []string
	CleanupCommand []string
	Upstream       string
	Identity       string
	ReadyPath      string
	IdleTimeout    string // a duration
	StartTimeout   string // a duration
	StopTimeout    string // a duration
	Concurrency    int
	Pinned         bool
	Preload        bool
}

// Variant is another name of a model, answered in another way.
type Variant struct {
	Name   string
	Forced map[string]any
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
	return describe(h, path, projector), nil
}

func describe(h *gguf.Header, path, projector string) Entry {
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
	return e
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
