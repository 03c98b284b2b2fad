package engine

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"

	"assistant/internal/gguf"
	"assistant/internal/openai"
	"assistant/lifecycle/machine"
	"assistant/modeldir"
)

// What --nn-preload calls the models. llama-api-server has these names by default.
const (
	chatGraph      = "default"
	embeddingGraph = "embedding"
)

const (
	wasmContext          = 4096 // tokens, where neither the model file nor the model sets fewer: llama-api-server's default
	wasmEmbeddingContext = 8192 // the most for embeddings, whose memory grows with its square
)

var wasmKinds = []modeldir.Kind{modeldir.Chat, modeldir.Embedding}

// wasmGuest runs our own guest in WasmEdge, which speaks over stdin and stdout: it has no network, no files and no environment,
// and says by itself when it is ready.
var wasmGuest = Kind{
	Name:    modeldir.EngineWasmEdge,
	Socket:  true, // ours: the guest has none
	Kinds:   wasmKinds,
	Also:    wasmAlso,
	Find:    findForWasm,
	Explain: explainWasm,
	Plan: func(m *modeldir.Model, at Place) (Plan, error) {
		parts, err := wasmParts(m)
		if err != nil {
			return Plan{}, err
		}
		if len(m.Args) > 0 {
			return Plan{}, fmt.Errorf("args: the guest takes none; they are for a %s, named by wasm", serverWasm)
		}
		configuration, err := guestConfiguration(m, at)
		if err != nil {
			return Plan{}, err
		}
		wasm, err := guestFile()
		if err != nil {
			return Plan{}, err
		}
		argv := append(wasmCommand(parts, &wasm), preloads(m)...)
		return Plan{
			Argv: append(argv, wasm), Env: wasmEnvironment(m, at, parts),
			Slots: guestSlots(m), Guest: configuration, Compile: compilation(parts, wasm),
		}, nil
	},
}

// wasmServer runs LlamaEdge's llama-api-server.wasm. It is ready when it accepts connections, and deaf while it computes.
var wasmServer = Kind{
	Name:    modeldir.EngineWasmEdge,
	Repairs: openai.LlamaAPIServer,
	Context: wasmContext,
	Kinds:   wasmKinds,
	Also:    wasmAlso,
	Find:    findForWasm,
	Explain: explainWasm,
	Plan: func(m *modeldir.Model, at Place) (Plan, error) {
		parts, err := wasmParts(m)
		if err != nil {
			return Plan{}, err
		}
		arguments, err := serverArguments(m, at)
		if err != nil {
			return Plan{}, err
		}
		wasm := parts.Wasm
		argv := append(wasmCommand(parts, &wasm),
			"--dir", ".:"+filepath.Dir(m.ModelPath)+":readonly",
			"--env", "LLAMA_LOG=warn", // at info it logs prompts
		)
		argv = append(append(argv, preloads(m)...), wasm)
		return Plan{
			Argv: append(append(argv, arguments...), m.Args...), Env: wasmEnvironment(m, at, parts),
			Slots:   1, // a second request would overwrite the first one's prompt
			Compile: compilation(parts, parts.Wasm),
		}, nil
	},
}

// wasmParts finds the parts and the models.
func wasmParts(m *modeldir.Model) (WasmParts, error) {
	parts, err := FindWasmParts(m)
	if err != nil {
		return parts, err
	}
	if err := modelFile(m); err != nil {
		return parts, err
	}
	if m.EmbeddingModelPath != "" && firstFile(m.EmbeddingModelPath) == "" {
		return parts, &MissingError{What: "model file", Path: m.EmbeddingModelPath, Remedy: "put it there, or mend embedding_model_path in " + m.File}
	}
	return parts, nil
}

func findForWasm(m *modeldir.Model) error {
	_, err := wasmParts(m)
	return err
}

// wasmCommand begins the command line. Where wasm has been compiled for this machine, that is run instead.
func wasmCommand(parts WasmParts, wasm *string) []string {
	argv := []string{parts.Program}
	if compiled := compiledWasm(parts.Program, *wasm); compiled != "" {
		*wasm = compiled
		argv = append(argv, "--run-mode", "aot") // without it even compiled code is interpreted (0.17)
	}
	return argv
}

// preloads names the models to the plug-in. Its option ends with the path, which may hold colons.
func preloads(m *modeldir.Model) []string {
	name := chatGraph
	argv := []string{"--nn-preload", name + ":GGML:AUTO:" + m.ModelPath}
	if m.EmbeddingModelPath != "" {
		argv = append(argv, "--nn-preload", embeddingGraph+":GGML:AUTO:"+m.EmbeddingModelPath)
	}
	return argv
}

func wasmEnvironment(m *modeldir.Model, at Place, parts WasmParts) []string {
	env, _ := environmentAt(m, at)
	return append([]string{envPluginPath + "=" + filepath.Dir(parts.Plugin)}, env...)
}

// wasmThreads is never more than there are processors.
func wasmThreads(m *modeldir.Model) int {
	cpus := machine.CPUs()
	if m.Threads > 0 {
		return min(m.Threads, cpus)
	}
	return cpus
}

func guestSlots(m *modeldir.Model) int { return max(1, m.Concurrency) }

// graph is what our guest is told of a model.
type graph struct {
	Graph     string `json:"graph"`
	Context   int    `json:"context"`
	Batch     int    `json:"batch,omitempty"`
	Parallel  int    `json:"parallel,omitempty"`
	GPULayers *int   `json:"gpu_layers,omitempty"`
	Template  string `json:"template,omitempty"`
	BOS       string `json:"bos,omitempty"`
	EOS       string `json:"eos,omitempty"`
}

// guestConfiguration is the guest's first frame, see docs/wasm.md.
func guestConfiguration(m *modeldir.Model, at Place) (json.RawMessage, error) {
	var c struct {
		Chat      *graph `json:"chat,omitempty"`
		Embedding *graph `json:"embedding,omitempty"`
		Threads   int    `json:"threads"`
	}
	c.Threads = wasmThreads(m)
	header, err := readHeader(m.ModelPath)
	if err != nil {
		return nil, err
	}
	main := &graph{Graph: chatGraph, Batch: m.BatchSize, GPULayers: gpuLayers(m, at)}
	if m.Kind == modeldir.Embedding {
		main.Context = embeddingContext(header, m.CtxSize)
		c.Embedding = main
		return json.Marshal(c)
	}
	main.Context, main.Parallel = chatContext(header, m.CtxSize), guestSlots(m)
	main.BOS, main.EOS = header.BOS, header.EOS
	if main.Template, err = chatTemplate(m, header); err != nil {
		return nil, err
	}
	c.Chat = main
	if m.EmbeddingModelPath != "" {
		beside, err := readHeader(m.EmbeddingModelPath)
		if err != nil {
			return nil, err
		}
		c.Embedding = &graph{Graph: embeddingGraph, Context: embeddingContext(beside, 0)}
	}
	return json.Marshal(c)
}

// chatTemplate is the one that the model file names, else the model's own, else that of its architecture.
func chatTemplate(m *modeldir.Model, h *gguf.Header) (string, error) {
	switch {
	case m.PromptTemplate != "":
		return guestTemplate(m.PromptTemplate)
	case h.Template != "":
		return h.Template, nil
	}
	if name := guessTemplate(h); name != "" {
		return guestTemplate(name)
	}
	return "", unknownTemplate(guestTemplates())
}

// serverArguments are llama-api-server's.
func serverArguments(m *modeldir.Model, at Place) ([]string, error) {
	header, err := readHeader(m.ModelPath)
	if err != nil {
		return nil, err
	}
	names, template, context := chatGraph, m.PromptTemplate, serverContext(m)
	if m.Kind == modeldir.Embedding {
		template, context = "embedding", embeddingContext(header, m.CtxSize)
	}
	if template == "" {
		template = guessTemplate(header)
	}
	if template == "" {
		return nil, unknownTemplate(serverTemplates)
	}
	contexts, batches := strconv.Itoa(context), strconv.Itoa(serverBatch(m, context))
	if m.EmbeddingModelPath != "" {
		beside, err := readHeader(m.EmbeddingModelPath)
		if err != nil {
			return nil, err
		}
		n := strconv.Itoa(embeddingContext(beside, 0))
		names, template, contexts, batches = names+","+embeddingGraph, template+",embedding", contexts+","+n, batches+","+n
	}
	argv := []string{
		"--model-name", names, "--model-alias", names, "--prompt-template", template, "--ctx-size", contexts,
		"--batch-size", batches, "--ubatch-size", batches,
		"--threads", strconv.Itoa(wasmThreads(m)), "--socket-addr", "127.0.0.1:" + strconv.Itoa(at.Port),
	}
	if n := gpuLayers(m, at); n != nil {
		argv = append(argv, "--n-gpu-layers", strconv.Itoa(*n))
	}
	return argv, nil
}

// serverContext is what [Kind.Dialect] counts with as well.
func serverContext(m *modeldir.Model) int {
	if m.CtxSize > 0 {
		return m.CtxSize
	}
	return wasmContext
}

// serverBatch is llama-api-server's default, but a whole text for embeddings, which are not computed in parts.
func serverBatch(m *modeldir.Model, context int) int {
	switch {
	case m.Kind == modeldir.Embedding:
		return context
	case m.BatchSize > 0:
		return m.BatchSize
	default:
		return 512
	}
}

func gpuLayers(m *modeldir.Model, at Place) *int {
	if at.Offload != nil {
		return &at.Offload.Layers
	}
	return m.NGPULayers
}

// WasmContext is how many tokens each slot of the model has in WasmEdge.
func WasmContext(m *modeldir.Model, h *gguf.Header) int {
	if m.Kind == modeldir.Embedding {
		return embeddingContext(h, m.CtxSize)
	}
	return chatContext(h, m.CtxSize)
}

// chatContext is what was asked for, else what the model was trained with, within the default.
func chatContext(h *gguf.Header, asked int) int {
	if asked > 0 {
		return asked
	}
	return int(min(h.Number("context_length", wasmContext), wasmContext))
}

// embeddingContext is never more than what the model was trained with: such models know no further places.
func embeddingContext(h *gguf.Header, asked int) int {
	trained := int(min(h.Number("context_length", 512), wasmEmbeddingContext))
	if asked > 0 {
		return min(asked, trained)
	}
	return trained
}

// explainWasm tells what the last output of an engine in WasmEdge means.
func explainWasm(output string) string {
	if lacksPlugin(output) {
		return "WasmEdge did not take the WASI-NN plug-in, which is most likely of another version than it: " + pluginRemedy
	}
	return ""
}

// wasmAlso reports whether a second model is there that the same instance serves.
func wasmAlso(m *modeldir.Model, kind modeldir.Kind) bool {
	return kind == modeldir.Embedding && m.EmbeddingModelPath != ""
}
