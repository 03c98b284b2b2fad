package modeldir

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
)

// rawModel is a model file as written. Values of more than one possible type are any.
type rawModel struct {
	Name           *string           `toml:"name"`
	ModelPath      string            `toml:"model_path"`
	ModelSource    string            `toml:"model_source"`
	EmbeddingModel string            `toml:"embedding_model_path"`
	Port           int               `toml:"port"`
	CtxSize        int               `toml:"ctx_size"`
	BatchSize      int               `toml:"batch_size"`
	Kind           string            `toml:"kind"`
	Engine         string            `toml:"engine"`
	Aliases        []string          `toml:"aliases"`
	Args           []string          `toml:"args"`
	Threads        int               `toml:"threads"`
	Wasm           string            `toml:"wasm"`
	PromptTemplate string            `toml:"prompt_template"`
	Env            map[string]string `toml:"env"`
	NGPULayers     *int              `toml:"n_gpu_layers"`
	Devices        []string          `toml:"devices"`
	SplitMode      string            `toml:"split_mode"`
	TensorSplit    []float64         `toml:"tensor_split"`
	MainGPU        *int              `toml:"main_gpu"`
	Command        []string          `toml:"command"`
	StopCommand    []string          `toml:"stop_command"`
	CleanupCommand []string          `toml:"cleanup_command"`
	Upstream       string            `toml:"upstream"`
	Identity       string            `toml:"identity"`
	TokenIDs       string            `toml:"token_ids"`
	Fallbacks      []string          `toml:"fallbacks"`
	SystemPrompt   string            `toml:"system_prompt"`
	Defaults       map[string]any    `toml:"defaults"`
	Forced         map[string]any    `toml:"forced"`
	Caps           map[string]any    `toml:"caps"`
	Variants       []rawVariant      `toml:"variants"`
	Dialect        string            `toml:"dialect"`
	ReadyPath      string            `toml:"ready_path"`
	IdleTimeout    any               `toml:"idle_timeout"`
	StartTimeout   any               `toml:"start_timeout"`
	StopTimeout    any               `toml:"stop_timeout"`
	FirstByte      any               `toml:"first_byte_timeout"`
	Token          any               `toml:"token_timeout"`
	Answer         any               `toml:"answer_timeout"`
	MinInstances   int               `toml:"min_instances"`
	MaxInstances   int               `toml:"max_instances"`
	Concurrency    int               `toml:"concurrency"`
	Memory         any               `toml:"memory"`
	Priority       int               `toml:"priority"`
	Pinned         bool              `toml:"pinned"`
	Preload        bool              `toml:"preload"`
	KeepContext    bool              `toml:"keep_context"`
	CancelByStream *bool             `toml:"cancel_by_stream"`
}

var modelSchema = schemaOf[rawModel]()

// ParseModel reads one model file strictly. File is its absolute path: it names the
// model that has no name, anchors relative paths, and appears in errors, which
// are of type [*FieldError]. Whether the files that the model names exist is
// not looked at: that shows when the model starts.
//
// Empty strings, 0 for counts and sizes, and keys left out mean the default; a
// fixed port caps MaxInstances at 1.
func ParseModel(file string, data []byte) (*Model, error) {
	raw, doc, err := readModel(file, data)
	if err != nil {
		return nil, err
	}
	return raw.model(doc)
}

// readModel decodes a model file without judging its values. The raw model is
// never nil: after an error it holds what could be read, such as the name.
func readModel(file string, data []byte) (*rawModel, *document, error) {
	raw := &rawModel{}
	if len(bytes.TrimSpace(data)) == 0 { // half-way through being written, most likely
		return raw, nil, &FieldError{File: file, Reason: "the file is empty: a model needs at least model_path, model_source or command"}
	}
	doc, err := decode(file, data, raw, modelSchema)
	return raw, doc, err
}

// modelName is the name a raw model of that file has, given or not.
func (r *rawModel) modelName(file string) string {
	if r.Name != nil {
		return *r.Name
	}
	return stem(file)
}

// label is what to call a model of that file that may be no good.
func (r *rawModel) label(file string) string {
	if name := r.modelName(file); name != "" {
		return name
	}
	return stem(file)
}

func stem(file string) string {
	base := filepath.Base(file)
	return strings.TrimSuffix(base, filepath.Ext(base))
}

// model judges the values and makes the model of them. Errors are placed by doc.
func (r *rawModel) model(doc *document) (*Model, error) {
	c := &checker{doc: doc}
	m := &Model{
		Name:           c.name("name", r.modelName(doc.file)),
		File:           doc.file,
		Kind:           Kind(c.oneOf("kind", r.Kind, kinds)),
		ModelPath:      c.path("model_path", r.ModelPath),
		ModelSource:    c.source(r),
		Threads:        c.between("threads", r.Threads, 0, maxThreads),
		Wasm:           c.wasm("wasm", r.Wasm),
		PromptTemplate: c.text("prompt_template", r.PromptTemplate),
		Port:           c.between("port", r.Port, 0, maxPort),
		CtxSize:        c.between("ctx_size", r.CtxSize, 0, maxInt32),
		BatchSize:      c.between("batch_size", r.BatchSize, 0, maxInt32),
		Engine:         c.engine(r),
		Args:           c.texts("args", r.Args),
		Env:            c.env(r.Env),
		NGPULayers:     r.NGPULayers,
		Devices:        c.texts("devices", r.Devices),
		SplitMode:      c.oneOf("split_mode", r.SplitMode, splitModes),
		TensorSplit:    c.shares("tensor_split", r.TensorSplit),
		MainGPU:        r.MainGPU,
		Command:        c.argv("command", r.Command),
		StopCommand:    c.argv("stop_command", r.StopCommand),
		CleanupCommand: c.argv("cleanup_command", r.CleanupCommand),
		Upstream:       c.upstream("upstream", r.Upstream),
		Identity:       c.oneOf("identity", r.Identity, identities),
		TokenIDs:       c.oneOf("token_ids", r.TokenIDs, tokens),
		Dialect:        c.oneOf("dialect", r.Dialect, dialects),
		ReadyPath:      c.readyPath("ready_path", r.ReadyPath),
		MinInstances:   c.between("min_instances", r.MinInstances, 0, maxInt32),
		MaxInstances:   c.between("max_instances", r.MaxInstances, 0, maxInt32),
		Concurrency:    c.between("concurrency", r.Concurrency, 0, maxInt32),
		Memory:         c.bytes("memory", r.Memory),
		Priority:       c.between("priority", r.Priority, -maxInt32, maxInt32),
		Pinned:         r.Pinned,
		Preload:        r.Preload,
		KeepContext:    r.KeepContext,
		CancelByStream: r.CancelByStream,
	}
	m.EmbeddingModelPath = c.path("embedding_model_path", r.EmbeddingModel)
	if r.EmbeddingModel != "" && m.Kind != Chat {
		c.failf("embedding_model_path", "is for a model of kind %q, which then serves embeddings as well, but kind is %q: set model_path instead", Chat, m.Kind)
	}
	m.Key = m.Name
	m.Aliases = c.aliases("", m.Name, r.Aliases)
	if r.NGPULayers != nil {
		c.between("n_gpu_layers", *r.NGPULayers, -1, maxInt32)
	}
	if r.MainGPU != nil {
		c.between("main_gpu", *r.MainGPU, 0, maxDevices-1)
	}
	if len(r.TensorSplit) > 0 && len(r.Devices) > 0 && len(r.TensorSplit) != len(r.Devices) {
		c.failf("tensor_split", "has %d shares for %d devices: give one for each", len(r.TensorSplit), len(r.Devices))
	}
	if r.IdleTimeout != nil {
		m.IdleTimeout = new(c.duration("idle_timeout", r.IdleTimeout))
	}
	m.StartTimeout = c.optionalDuration("start_timeout", r.StartTimeout)
	m.StopTimeout = c.optionalDuration("stop_timeout", r.StopTimeout)
	m.FirstByteTimeout = c.optionalDuration("first_byte_timeout", r.FirstByte)
	m.TokenTimeout = c.optionalDuration("token_timeout", r.Token)
	m.AnswerTimeout = c.optionalDuration("answer_timeout", r.Answer)
	c.instances(m)
	m.Fallbacks = c.fallbacks(m, r.Fallbacks)
	m.Shape = c.shape("", m.Kind, r.SystemPrompt, r.Defaults, r.Forced, r.Caps)
	m.Variants = c.variants(m, r.Variants)
	if c.err != nil {
		return nil, c.err
	}
	return m, nil
}

// engine settles the kind of engine and what goes with it.
func (c *checker) engine(r *rawModel) string {
	engine := c.oneOf("engine", r.Engine, engines)
	switch {
	case r.Engine == "" && len(r.Command) > 0:
		engine = EngineCommand
	case engine == EngineAuto && (r.Wasm != "" || r.PromptTemplate != "" || r.EmbeddingModel != ""):
		engine = EngineWasmEdge // no other has these
	}
	c.wasmOnly(engine, r)
	if r.KeepContext && engine != EngineLlamaServer && engine != EngineAuto {
		c.failf("keep_context", "only for engine = %q, but engine is %q: remove it", EngineLlamaServer, engine)
	}
	if engine == EngineCommand {
		if len(r.Command) == 0 {
			c.failf("command", `required by engine = "command": give the program and its arguments, such as ["my-server", "--port", "{{port}}"]`)
		}
		return engine
	}
	for _, only := range []struct {
		field string
		given bool
	}{
		{"command", len(r.Command) > 0},
		{"stop_command", len(r.StopCommand) > 0},
		{"cleanup_command", len(r.CleanupCommand) > 0},
		{"upstream", r.Upstream != ""},
		{"identity", r.Identity != ""},
		{"dialect", r.Dialect != ""},
	} {
		if only.given {
			c.failf(only.field, "only for engine = %q, but engine is %q: remove one of them", EngineCommand, engine)
		}
	}
	if r.ModelPath == "" && r.ModelSource == "" {
		c.failf("model_path", "required by engine = %q: give the path of the model's file (or a model_source, or a command)", engine)
	}
	return engine
}

// source checks only what can be told without knowing where models are published.
func (c *checker) source(r *rawModel) string {
	switch {
	case r.ModelSource == "":
	case r.ModelPath != "":
		c.failf("model_source", "model_path is given too: remove one of them")
	case strings.TrimSpace(r.ModelSource) != r.ModelSource || strings.ContainsFunc(r.ModelSource, unicode.IsControl):
		c.failf("model_source", "%q begins or ends with a space or has control characters in it: remove them", r.ModelSource)
	}
	return r.ModelSource
}

// wasmOnly refuses what only a guest in WasmEdge can have.
func (c *checker) wasmOnly(engine string, r *rawModel) {
	if engine == EngineWasmEdge {
		return
	}
	for _, only := range []struct{ field, given string }{
		{"wasm", r.Wasm}, {"prompt_template", r.PromptTemplate}, {"embedding_model_path", r.EmbeddingModel},
	} {
		if only.given != "" {
			c.failf(only.field, "only for engine = %q, but engine is %q: remove one of them", EngineWasmEdge, engine)
		}
	}
}

// wasm makes a path absolute, and leaves the name of our own guest.
func (c *checker) wasm(field, s string) string {
	if s == WasmGuest {
		return s
	}
	return c.path(field, s)
}

// instances checks the counts of instances against one another and the port.
func (c *checker) instances(m *Model) {
	why := "max_instances"
	switch {
	case m.Port > 0:
		m.MaxInstances = 1 // a port can be listened on once
		why = "the most that a fixed port allows"
	case m.MaxInstances == 0:
		why = "the default of max_instances"
	}
	if most := max(m.MaxInstances, 1); m.MinInstances > most {
		c.failf("min_instances", "%d is more than %d, which is %s", m.MinInstances, most, why)
	}
}

// optionalDuration reads a duration that may be missing; 0 is the server's default.
func (c *checker) optionalDuration(field string, v any) time.Duration {
	if v == nil {
		return 0
	}
	return c.duration(field, v)
}

func (c *checker) aliases(at, name string, aliases []string) []string {
	field := at + "aliases"
	for i, a := range aliases {
		c.name(field, a)
		switch {
		case a == name:
			c.failf(field, "%q is the model's own name: remove it", a)
		case slices.Contains(aliases[:i], a):
			c.failf(field, "%q is listed twice: remove one", a)
		}
	}
	return none(aliases)
}
