package engine

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"assistant/modeldir"
)

// llamaServer is llama.cpp's llama-server. Flags and behaviour are those of build 11669 (0.7.0),
// run here; all flags used are years older.
var llamaServer = Kind{
	Name:           modeldir.EngineLlamaServer,
	Socket:         true,
	ReadyPath:      "/health", // 503 while loading, 200 when ready
	SlotsPath:      "/props",
	OneRequestEach: true, // it closes one in eight kept-alive connections right after a stream (measured: 200 of 1,600)
	Contexts:       true, // --slot-save-path and POST /slots/{id}?action=save|restore, since 2024
	CancelByStream: true, // a plain request generates to its end, whoever left (ggml-org/llama.cpp, measured)
	Kinds:          []modeldir.Kind{modeldir.Chat, modeldir.Embedding, modeldir.Rerank},
	Also:           llamaAlso,
	Plan: func(m *modeldir.Model, at Place) (Plan, error) {
		path, err := LlamaServerPath()
		if err != nil {
			return Plan{}, err
		}
		if err := modelFile(m); err != nil {
			return Plan{}, err
		}
		argv := append([]string{path, "-m", m.ModelPath, "--alias", llamaAlias(m.Name)}, llamaKindArgs(m.Kind)...)
		if at.Socket != "" {
			argv = append(argv, "--host", at.Socket)
		} else {
			argv = append(argv, "--host", "127.0.0.1", "--port", strconv.Itoa(at.Port))
		}
		argv = appendInt(argv, "-c", m.CtxSize)
		argv = appendInt(argv, "-b", m.BatchSize)
		argv = appendInt(argv, "-np", m.Concurrency)
		argv = appendInt(argv, "-t", m.Threads)
		env, devices := environmentAt(m, at)
		if at.Offload != nil {
			argv = append(argv, at.Offload.arguments(m, path, devices)...)
		} else {
			argv = append(argv, llamaOffload(m)...)
		}
		env = append([]string{llamaNoPing}, env...)
		if at.ContextDir != "" && keepsContexts(m) {
			argv = append(argv, "--slot-save-path", at.ContextDir)
			env = append([]string{llamaKeepIdleSlots}, env...)
		}
		return Plan{
			Argv:  append(argv, m.Args...),
			Env:   env,
			Slots: llamaSlots(m),
		}, nil
	},
}

// llamaKeepIdleSlots leaves idle slots as they are. With the default number of slots the server would otherwise move
// what they hold to its memory cache whenever another request starts (--cache-idle-slots, measured), and saving them
// would save nothing. A server too old for this knows neither the habit nor the variable; a flag would end it.
const llamaKeepIdleSlots = "LLAMA_ARG_CACHE_IDLE_SLOTS=0"

// llamaNoPing keeps the server from sending ":" and a blank line where it has nothing to say for 30 s (ggml-org/llama.cpp#24013): openai-go
// before 3.43 takes that for an event, and fails. A model's own env may ask for it again.
const llamaNoPing = "LLAMA_ARG_SSE_PING_INTERVAL=-1"

// LlamaServerPath returns the program: $LLAMA_SERVER, else llama-server in PATH.
func LlamaServerPath() (string, error) {
	name := os.Getenv("LLAMA_SERVER")
	if name == "" {
		name = "llama-server"
	}
	path, err := program(name)
	if err != nil {
		return "", &MissingError{What: "program", Path: name, Remedy: "install llama.cpp's server, or name it by LLAMA_SERVER=/path/llama-server"}
	}
	return path, nil
}

// llamaOffload is what the model file says about devices, where there is no plan.
func llamaOffload(m *modeldir.Model) []string {
	var argv []string
	if m.NGPULayers != nil {
		argv = append(argv, "-ngl", strconv.Itoa(*m.NGPULayers))
	}
	if len(m.Devices) > 0 {
		argv = append(argv, "--device", strings.Join(m.Devices, ","))
	}
	if m.SplitMode != "" {
		argv = append(argv, "-sm", m.SplitMode)
	}
	if len(m.TensorSplit) > 0 {
		argv = append(argv, "-ts", joinFloats(m.TensorSplit))
	}
	if m.MainGPU != nil {
		argv = append(argv, "-mg", strconv.Itoa(*m.MainGPU))
	}
	return argv
}

func llamaKindArgs(kind modeldir.Kind) []string {
	switch kind {
	case modeldir.Embedding:
		return []string{"--embeddings"}
	case modeldir.Rerank:
		return []string{"--reranking"}
	default:
		return nil
	}
}

// llamaAlso reports whether the model's own arguments make the server one for a further kind.
func llamaAlso(m *modeldir.Model, kind modeldir.Kind) bool {
	switch kind {
	case modeldir.Embedding:
		return slices.Contains(m.Args, "--embedding") || slices.Contains(m.Args, "--embeddings")
	case modeldir.Rerank:
		return slices.Contains(m.Args, "--rerank") || slices.Contains(m.Args, "--reranking")
	default:
		return false
	}
}

// llamaAlias makes a name of the model that llama-server does not take for a list.
func llamaAlias(name string) string { return strings.ReplaceAll(name, ",", "_") }

// llamaSlots is what concurrency or -np say; else the server's own default has to be asked for.
func llamaSlots(m *modeldir.Model) int {
	for i, arg := range slices.Backward(m.Args) { // the server's last one counts
		if i+1 < len(m.Args) && (arg == "-np" || arg == "--parallel") {
			if n, err := strconv.Atoi(m.Args[i+1]); err == nil && n > 0 {
				return n
			}
			return SlotsUnknown
		}
	}
	if m.Concurrency > 0 {
		return m.Concurrency
	}
	return SlotsUnknown
}

func appendInt(argv []string, flag string, n int) []string {
	if n > 0 {
		argv = append(argv, flag, strconv.Itoa(n))
	}
	return argv
}
