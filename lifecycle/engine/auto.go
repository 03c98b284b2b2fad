package engine

import (
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"assistant/modeldir"
)

// For returns the kind of engine that runs the model.
func For(m *modeldir.Model) Kind {
	kind, _ := Choose(m)
	return kind
}

// Choose returns the kind of engine that runs the model, and why, where the model file leaves that to us.
func Choose(m *modeldir.Model) (kind Kind, why string) {
	switch m.Engine {
	case modeldir.EngineCommand:
		return command, ""
	case modeldir.EngineWasmEdge:
		return wasmKind(m), ""
	case modeldir.EngineLlamaServer:
		return llamaServer, ""
	}
	if needs := needsLlamaServer(m); needs != "" {
		return llamaServer, "auto: " + needs + ", which llama-server has"
	}
	if m.Entry && hasWasmEdge() {
		return wasmKind(m), "auto: it is an entry of [[llama_servers]], and WasmEdge is installed"
	}
	if _, err := LlamaServerPath(); err == nil {
		return llamaServer, "auto: llama-server is installed"
	}
	if hasWasmEdge() {
		return wasmKind(m), "auto: llama-server is not installed, WasmEdge is"
	}
	return llamaServer, "auto: neither llama-server nor WasmEdge is installed"
}

// needsLlamaServer names what of a model only llama-server can do; "" if nothing.
func needsLlamaServer(m *modeldir.Model) string {
	switch {
	case m.Kind == modeldir.Rerank:
		return "it ranks"
	case len(m.Args) > 0:
		return "args are llama-server's"
	case m.KeepContext:
		return "its contexts are to be kept"
	case m.NGPULayers != nil && *m.NGPULayers != 0, len(m.Devices) > 0:
		return "it is to be on a GPU"
	default:
		return ""
	}
}

// hasWasmEdge reports whether the parts of an engine in WasmEdge are installed. It is asked for each request to some models, so it
// looks once, and again a second later as long as they are not.
func hasWasmEdge() bool {
	if last := wasmEdgeSeen.Load(); last != nil && (last.complete || time.Since(last.at) < time.Second) {
		return last.complete
	}
	_, err := FindWasmParts(nil)
	wasmEdgeSeen.Store(&sighting{complete: err == nil, at: time.Now()})
	return err == nil
}

// sighting is what was found when it was last looked.
type sighting struct {
	complete bool
	path     string
	at       time.Time
}

var (
	wasmEdgeSeen   atomic.Pointer[sighting]
	serverWasmSeen sync.Map // folder of a model → *sighting
)

// wasmKind is the kind that the model's wasm is for. As hasWasmEdge, it looks no more than once a second.
func wasmKind(m *modeldir.Model) Kind {
	switch m.Wasm {
	case "":
	case modeldir.WasmGuest:
		return wasmGuest
	default:
		return wasmServer
	}
	dir := filepath.Dir(m.ModelPath)
	if last, ok := serverWasmSeen.Load(dir); ok {
		if last := last.(*sighting); time.Since(last.at) < time.Second { //nolint:errcheck,forcetypeassert // stored below
			return kindOfWasm(last.path)
		}
	}
	path, err := findWasm(m)
	if err != nil {
		return wasmServer // whose plan says what is missing
	}
	serverWasmSeen.Store(dir, &sighting{path: path, at: time.Now()})
	return kindOfWasm(path)
}

func kindOfWasm(path string) Kind {
	if path == "" {
		return wasmGuest
	}
	return wasmServer
}
