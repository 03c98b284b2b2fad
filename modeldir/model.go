// Package modeldir turns a directory of TOML files, and the user's own
// config.toml, into an immutable [Catalog] of models, and keeps it current.
package modeldir

import (
	"maps"
	"slices"
	"time"
)

// Kind says what a model is for; it decides which endpoints reach it.
type Kind string

// The kinds a model can have. An empty kind in a file means [Chat].
const (
	Chat          Kind = "chat"
	Embedding     Kind = "embedding"
	Rerank        Kind = "rerank"
	Speech        Kind = "speech"
	Transcription Kind = "transcription"
	Image         Kind = "image"
	Moderation    Kind = "moderation"
)

// Names of engine kinds a model file may ask for.
const (
	EngineAuto        = "auto"
	EngineLlamaServer = "llama-server"
	EngineWasmEdge    = "wasmedge"
	EngineCommand     = "command"
)

// WasmGuest as a model's wasm is the guest that comes with us, also where llama-api-server.wasm is installed.
const WasmGuest = "guest"

// DialectLlamaAPIServer is the dialect of engines that speak as LlamaEdge's llama-api-server.
const DialectLlamaAPIServer = "llama-api-server"

// TokensModel as a model's token_ids says that numbers in an input are tokens of its own vocabulary.
const TokensModel = "model"

// IdentityNone is the identity of a model whose listener cannot be proven to be
// ours, such as a container's.
const IdentityNone = "none"

// Model is one entry of the catalog: everything needed to start an instance and
// to decide about it. It is immutable once it is in a [Catalog].
//
// Zero values mean "not given": the server's default applies.
type Model struct {
	// Name is the id clients use. It is unique over the whole catalog, aliases included.
	Name string
	// Key identifies what one set of instances serves: the name, or "name#role"
	// for a further role of a multi-role entry. It is unique over the catalog.
	Key string
	// Entry says that the model is of an entry of [[llama_servers]] in config.toml.
	Entry bool
	// File is the absolute path of the file the model was read from.
	File string
	// Kind is never empty in a catalog.
	Kind Kind

	ModelPath string // absolute; "" when the engine needs none
	// ModelSource is where the model is published, such as "hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M"; "" = nowhere that is known. ModelPath is
	// "" then until it was brought here.
	ModelSource        string
	EmbeddingModelPath string // absolute; a model for embeddings that the same wasmedge instance serves; "" = none
	Port               int    // fixed listening port; 0 = chosen at each start
	CtxSize            int    // tokens; 0 = the engine's default
	BatchSize          int    // tokens; 0 = the engine's default

	Engine         string // one of the Engine… names; never empty in a catalog
	Aliases        []string
	Args           []string // appended to the engine's own arguments
	Threads        int      // 0 = the engine kind's default
	Wasm           string   // absolute path of what runs in WasmEdge, WasmGuest for ours; "" = what is installed, else ours
	PromptTemplate string   // llama-api-server's name for how a chat is written; "" = the model's own
	Env            map[string]string
	NGPULayers     *int
	Devices        []string  // the engine's names, or ids, of the devices to use; nil = placed where there is room
	SplitMode      string    // how a model is spread over several devices: none, layer, row; "" = layer
	TensorSplit    []float64 // shares of the devices; nil = by their free memory
	MainGPU        *int      // index among the devices for what is not split; nil = the first
	Command        []string  // argv of a command engine, placeholders unexpanded
	StopCommand    []string
	CleanupCommand []string
	Upstream       string   // where a command engine listens, if not on our port: host:port or unix//path
	Identity       string   // "" or IdentityNone
	TokenIDs       string   // whose tokens an embedding's input of numbers is: "" = OpenAI's cl100k_base, or TokensModel
	Shape          *Shape   // what is done to requests before the engine has them; nil = nothing
	Fallbacks      []string // names of models that answer when this one can't be had, in turn
	Variants       []*Model // other names of it with a Shape of their own: alike but for Name, Shape, Aliases and Variants
	Dialect        string   // what of a command engine's HTTP is made up for: "" = nothing, or DialectLlamaAPIServer
	ReadyPath      string   // HTTP path probed for readiness; "" = the engine kind's default, TCP accept for command

	IdleTimeout  *time.Duration // nil = server default, 0 = never retire
	StartTimeout time.Duration  // 0 = server default
	StopTimeout  time.Duration  // 0 = DefaultStopTimeout

	FirstByteTimeout time.Duration // from the request's way to the engine to the answer's first byte; 0 = no bound
	TokenTimeout     time.Duration // between two pieces of an answer; 0 = no bound
	AnswerTimeout    time.Duration // for the whole answer; 0 = no bound

	MinInstances int // kept running; 0 = scale to zero
	MaxInstances int // 0 = 1
	Concurrency  int // slots an instance has; 0 = the engine kind's default

	Memory   int64 // bytes one instance needs; 0 = unknown
	Priority int
	Pinned   bool // never evicted to make room
	Preload  bool // started when the server starts, in room that is free

	// KeepContext saves what the engine has computed of its conversations when an
	// instance stops, and gives it back to the next when one of them goes on.
	KeepContext bool

	// CancelByStream asks engines that do not notice a vanished client on a
	// plain request to stream instead; nil = the engine kind's default.
	CancelByStream *bool
}

// DefaultStopTimeout is how long an engine may take to stop before it is killed.
const DefaultStopTimeout = 10 * time.Second

// SameLaunch reports whether a and b start the same process, so that an instance of
// one can go on serving as the other. Names, timeouts and limits are metadata
// and do not count.
func (m *Model) SameLaunch(o *Model) bool {
	return m.Key == o.Key && m.Kind == o.Kind &&
		m.ModelPath == o.ModelPath && m.EmbeddingModelPath == o.EmbeddingModelPath && m.Port == o.Port &&
		m.CtxSize == o.CtxSize && m.BatchSize == o.BatchSize &&
		m.Engine == o.Engine && m.Threads == o.Threads && m.Wasm == o.Wasm && m.PromptTemplate == o.PromptTemplate &&
		slices.Equal(m.Args, o.Args) && maps.Equal(m.Env, o.Env) &&
		samePtr(m.NGPULayers, o.NGPULayers) && slices.Equal(m.Devices, o.Devices) &&
		m.SplitMode == o.SplitMode && slices.Equal(m.TensorSplit, o.TensorSplit) && samePtr(m.MainGPU, o.MainGPU) &&
		slices.Equal(m.Command, o.Command) && slices.Equal(m.StopCommand, o.StopCommand) &&
		slices.Equal(m.CleanupCommand, o.CleanupCommand) && m.Upstream == o.Upstream &&
		m.Identity == o.Identity && m.Dialect == o.Dialect && m.ReadyPath == o.ReadyPath && m.Concurrency == o.Concurrency &&
		m.KeepContext == o.KeepContext
}

func samePtr[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
