// Package engine holds what the router knows about each kind of engine: its command
// line, where it can listen, how it tells that it is ready, how many requests it
// serves at a time and what of its behaviour must be made up for. Adding a kind is
// adding one file.
package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"assistant/internal/gguf"
	"assistant/internal/openai"
	"assistant/modeldir"
)

// Kind is a kind of engine. It is data and a few functions; the zero of an optional field
// means that the kind has no such thing.
type Kind struct {
	Name string

	// Socket says that the engine can listen on a unix socket, which is then used
	// unless the model has a fixed port: a socket in a directory of our own cannot be anybody else's.
	Socket bool

	// Plan makes the command to run.
	Plan func(m *modeldir.Model, at Place) (Plan, error)

	// Find reports what of the engine or the model is not on this machine, for kinds whose plan takes more than a look: thousands of
	// models may be looked at. nil = Plan does.
	Find func(m *modeldir.Model) error

	// ReadyPath is the HTTP path whose 200 says "ready"; "" = accepting connections does. A
	// model's ready_path goes before it.
	ReadyPath string

	// SlotsPath is the HTTP path that tells the number of slots (as total_slots), asked when
	// the plan does not know it.
	SlotsPath string

	// OneRequestEach says that a connection to the engine is good for one request only.
	OneRequestEach bool

	// CancelByStream says that the engine does not notice that the client of a plain request
	// left, but that of a streamed one: plain requests are then streamed from it and joined.
	CancelByStream bool

	// Repairs are what of the engine's dialect is made up for; none for an engine that speaks as clients expect.
	Repairs openai.Repairs

	// Context is the number of tokens that the engine's context holds where the model file does not say, for Repairs.
	Context int

	// Kinds are the kinds of models that the engine serves; nil = any.
	Kinds []modeldir.Kind

	// Also reports whether a model serves a further kind beside its own, for engines whose models serve their own only; nil = the
	// engine is asked, whatever the model's kind.
	Also func(m *modeldir.Model, kind modeldir.Kind) bool

	// Explain tells what the last output of an engine that failed means, and what to do about it; "" if that is not known.
	Explain func(output string) string

	// Contexts says that the engine can save what it has computed of a conversation, and be given it back, by
	// llama-server's /slots. It then gets a directory for that by Place.ContextDir.
	Contexts bool
}

// Place is where an instance is to listen, and to put what it saves.
type Place struct {
	Instance string // unique name of the instance, fit for a container's name
	Socket   string // path of a unix socket; "" = use Port
	Port     int    // on 127.0.0.1

	// Offload says which devices the instance uses; nil = the engine decides, within what the model file says.
	Offload *Offload

	// ContextDir is where the engine saves what it has computed, see Kind.Contexts; "" = nowhere.
	ContextDir string
}

// Plan is a command to run.
type Plan struct {
	Argv  []string
	Env   []string // "K=V", added to the router's own
	Slots int      // requests served at a time; 0 = unlimited, SlotsUnknown = ask

	// Guest is the configuration of a program that speaks frames over stdin and stdout instead of listening (package guest),
	// and that says itself when it is ready. nil = the program listens.
	Guest json.RawMessage

	// Compile is what to compile for the next start, once this instance has stopped; nil = nothing.
	Compile *Compilation
}

// SlotsUnknown is the number of slots of an engine that has to be asked.
const SlotsUnknown = -1

// MissingError says that something a model needs is not on this machine.
type MissingError struct {
	What   string // "model file", "program"
	Path   string
	Remedy string // what to do about it
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("%s not found: %s (%s)", e.What, e.Path, e.Remedy)
}

// Prepare makes the plan for an instance of the model by its kind of engine.
func (k Kind) Prepare(m *modeldir.Model, at Place) (Plan, error) {
	if why := k.Unserved(m); why != "" {
		return Plan{}, errors.New(why)
	}
	return k.Plan(m, at)
}

// Check reports what is missing on this machine to run the model, nil if nothing is.
func Check(m *modeldir.Model) error {
	kind := For(m)
	if kind.Find != nil && kind.Unserved(m) == "" {
		return kind.Find(m)
	}
	plan, err := kind.Prepare(m, Place{Instance: "check", Port: 1})
	if err != nil {
		return err
	}
	_, err = program(plan.Argv[0])
	return err
}

// Unserved says what to do about a model of a kind that the engine does not serve; "" if it does.
func (k Kind) Unserved(m *modeldir.Model) string {
	if k.Kinds == nil || slices.Contains(k.Kinds, m.Kind) {
		return ""
	}
	why := fmt.Sprintf("%s does not serve models of kind %q: ", k.Name, m.Kind)
	switch {
	case m.Kind == modeldir.Rerank:
		return why + "set engine = \"" + modeldir.EngineLlamaServer + "\""
	case k.Name == modeldir.EngineWasmEdge && m.Kind == modeldir.Speech:
		return why + "it takes LlamaEdge's tts-api-server.wasm or " + serverWasm + ", with upstream's WASI-NN plug-in, an OuteTTS model and its codec: " +
			"install them, and run them by engine = \"" + modeldir.EngineCommand + "\""
	default:
		return why + "set engine = \"" + modeldir.EngineCommand + "\", and command to a server that does"
	}
}

// Serves reports whether the model's engine may answer requests of a kind: whether it can is its own affair where that is not known.
func (k Kind) Serves(m *modeldir.Model, kind modeldir.Kind) bool {
	return m.Kind == kind || k.Also == nil || k.Also(m, kind)
}

// StreamsPlain reports whether plain requests to the model are streamed from its engine, so that
// a client that leaves frees the slot.
func (k Kind) StreamsPlain(m *modeldir.Model) bool {
	if m.CancelByStream != nil {
		return *m.CancelByStream
	}
	return k.CancelByStream
}

// Dialect is what has to be known of the engine to make up for its dialect. It has no repairs if nothing has to be.
func (k Kind) Dialect(m *modeldir.Model) openai.Dialect {
	d := openai.Dialect{Repairs: k.Repairs, Context: m.CtxSize}
	if d.Context == 0 {
		d.Context = k.Context
	}
	if m.Dialect == modeldir.DialectLlamaAPIServer {
		d.Repairs = openai.LlamaAPIServer
	}
	if d.Repairs != 0 {
		d.Images = slices.Contains(m.Command, llavaProjector) || slices.Contains(m.Args, llavaProjector)
	}
	return d
}

// llavaProjector is the flag by which llama-api-server gets what it needs to see images.
const llavaProjector = "--llava-mmproj"

// KeepsContexts reports whether the contexts of the model's instances are kept: its file asks for it, and it has
// conversations.
func (k Kind) KeepsContexts(m *modeldir.Model) bool {
	return k.Contexts && keepsContexts(m)
}

func keepsContexts(m *modeldir.Model) bool { return m.KeepContext && m.Kind == modeldir.Chat }

// program returns the path of a program that is a path already or is to be looked up.
func program(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", &MissingError{What: "program", Path: name, Remedy: "install it, or name it by its path"}
	}
	return path, nil
}

// readHeader reads what the model file at path says of itself.
func readHeader(path string) (*gguf.Header, error) {
	h, err := gguf.Read(path)
	if err != nil {
		return nil, fmt.Errorf("model file: %w: was it downloaded to its end?", err)
	}
	return h, nil
}

// modelFile checks that the model's file is there.
func modelFile(m *modeldir.Model) error {
	if m.ModelPath == "" {
		return &MissingError{What: "model file", Path: `""`, Remedy: "set model_path"}
	}
	info, err := os.Stat(m.ModelPath)
	if err != nil || info.IsDir() {
		return &MissingError{What: "model file", Path: m.ModelPath, Remedy: "put it there, or mend model_path in " + m.File}
	}
	return nil
}

// environment is the model's own environment, placeholders filled in, in a fixed order.
func environment(m *modeldir.Model, fill *strings.Replacer) []string {
	env := make([]string, 0, len(m.Env))
	for k, v := range m.Env {
		env = append(env, k+"="+fill.Replace(v))
	}
	slices.Sort(env)
	return env
}

// environmentAt is the model's own environment after that of the place: the model's wins.
func environmentAt(m *modeldir.Model, at Place) (env, devices []string) {
	if at.Offload != nil && !choosesDevices(m) {
		env, devices = at.Offload.environment()
	}
	return append(env, environment(m, placeholders(m, at))...), devices
}

// placeholders fills in what a model's commands may ask for.
func placeholders(m *modeldir.Model, at Place) *strings.Replacer {
	return strings.NewReplacer(
		"{{port}}", strconv.Itoa(at.Port),
		"{{model_path}}", m.ModelPath,
		"{{name}}", m.Name,
		"{{ctx_size}}", strconv.Itoa(m.CtxSize),
		"{{batch_size}}", strconv.Itoa(m.BatchSize),
		"{{instance}}", at.Instance,
	)
}

// Fill returns argv with its placeholders filled in.
func Fill(argv []string, m *modeldir.Model, at Place) []string {
	fill := placeholders(m, at)
	out := make([]string, len(argv))
	for i, arg := range argv {
		out[i] = fill.Replace(arg)
	}
	return out
}
