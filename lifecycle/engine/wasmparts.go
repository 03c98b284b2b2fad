package engine

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"assistant/modeldir"
)

// WasmParts is what an engine in WasmEdge is made of, by path.
type WasmParts struct {
	Program string // wasmedge
	Plugin  string // the WASI-NN plug-in
	Wasm    string // llama-api-server.wasm; "" = our own guest, which is in this program
}

// Environment variables that name the parts. The first two are WasmEdge's own.
const (
	envWasmEdgeDir = "WASMEDGE_DIR"         // the folder it was installed to
	envPluginPath  = "WASMEDGE_PLUGIN_PATH" // folders or files, as PATH has them
	envServerWasm  = "WASMEDGE_LLAMA_API_SERVER"
)

const (
	serverWasm = "llama-api-server.wasm"

	wasmEdgeRemedy = "install WasmEdge with its WASI-NN ggml plug-in: " +
		"curl -sSf https://raw.githubusercontent.com/WasmEdge/WasmEdge/master/utils/install_v2.sh | bash, then source ~/.wasmedge/env; " +
		"or name the folder by " + envWasmEdgeDir
	pluginRemedy = "install WasmEdge's WASI-NN ggml plug-in, as its installer does by default " +
		"(curl -sSf https://raw.githubusercontent.com/WasmEdge/WasmEdge/master/utils/install_v2.sh | bash, then source ~/.wasmedge/env), " +
		"or build ours with scripts/build-wasi-nn.sh, and name its folder by " + envPluginPath
	serverWasmRemedy = "download it: curl -LO https://github.com/LlamaEdge/LlamaEdge/releases/latest/download/" + serverWasm +
		", or set wasm = \"" + modeldir.WasmGuest + "\" for the guest that comes with the assistant"
)

// FindWasmParts looks for the parts: where the model file says, where the environment says, where they are usually
// installed. m may be nil, for what any model would get. The error is a [MissingError] with the remedy; what was found before
// is returned with it.
func FindWasmParts(m *modeldir.Model) (WasmParts, error) {
	if m == nil {
		m = &modeldir.Model{}
	}
	var parts WasmParts
	var err error
	if parts.Program, err = findWasmEdge(m); err != nil {
		return parts, err
	}
	if parts.Plugin, err = findPlugin(m, parts.Program); err != nil {
		return parts, err
	}
	parts.Wasm, err = findWasm(m)
	return parts, err
}

// variable is the model's own environment before the router's.
func variable(m *modeldir.Model, name string) string {
	if v, ok := m.Env[name]; ok {
		return v
	}
	return os.Getenv(name)
}

func findWasmEdge(m *modeldir.Model) (string, error) {
	const name = "wasmedge"
	if dir := variable(m, envWasmEdgeDir); dir != "" {
		if path := firstFile(filepath.Join(dir, name), filepath.Join(dir, "bin", name)); path != "" {
			return path, nil
		}
		return "", &MissingError{What: "program", Path: filepath.Join(dir, name), Remedy: "mend " + envWasmEdgeDir + ", or " + wasmEdgeRemedy}
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	if path := firstFile(atHome(".wasmedge", "bin", name), "/usr/local/bin/"+name, "/opt/wasmedge/bin/"+name); path != "" {
		return path, nil
	}
	return "", &MissingError{What: "program", Path: name, Remedy: wasmEdgeRemedy}
}

// pluginFile is the plug-in's name, upstream's and ours.
func pluginFile() string {
	if runtime.GOOS == "darwin" {
		return "libwasmedgePluginWasiNN.dylib"
	}
	return "libwasmedgePluginWasiNN.so"
}

func findPlugin(m *modeldir.Model, program string) (string, error) {
	name := pluginFile()
	if list := variable(m, envPluginPath); list != "" {
		for _, at := range filepath.SplitList(list) {
			if path := firstFile(at, filepath.Join(at, name)); path != "" {
				return path, nil
			}
		}
		return "", &MissingError{What: "plug-in", Path: name + " in " + list, Remedy: "mend " + envPluginPath + ", or " + pluginRemedy}
	}
	if target, err := filepath.EvalSymlinks(program); err == nil {
		program = target
	}
	prefix := filepath.Dir(filepath.Dir(program))
	candidates := []string{
		filepath.Join(prefix, "plugin", name), filepath.Join(prefix, "lib", "wasmedge", name), filepath.Join(prefix, "lib64", "wasmedge", name),
		atHome(".wasmedge", "plugin", name), "/usr/local/lib/wasmedge/" + name, "/usr/lib/wasmedge/" + name,
	}
	multiarch, _ := filepath.Glob(filepath.Join(prefix, "lib", "*", "wasmedge", name)) // Debian's
	if path := firstFile(append(candidates, multiarch...)...); path != "" {
		return path, nil
	}
	return "", &MissingError{What: "plug-in", Path: name, Remedy: pluginRemedy}
}

// findWasm returns "" for our own guest.
func findWasm(m *modeldir.Model) (string, error) {
	switch m.Wasm {
	case modeldir.WasmGuest:
		return "", nil
	case "":
	default:
		if firstFile(m.Wasm) == "" {
			return "", &MissingError{What: "wasm", Path: m.Wasm, Remedy: "put it there, mend wasm in " + m.File + ", or " + serverWasmRemedy}
		}
		return m.Wasm, nil
	}
	if path := variable(m, envServerWasm); path != "" {
		if firstFile(path) == "" {
			return "", &MissingError{What: "wasm", Path: path, Remedy: "mend " + envServerWasm + ", or " + serverWasmRemedy}
		}
		return path, nil
	}
	candidates := []string{
		atHome(".wasmedge", serverWasm), "/usr/local/share/wasmedge/" + serverWasm, "/usr/share/wasmedge/" + serverWasm,
	}
	if m.ModelPath != "" { // where LlamaEdge's instructions have it
		candidates = append([]string{filepath.Join(filepath.Dir(m.ModelPath), serverWasm)}, candidates...)
	}
	return firstFile(candidates...), nil
}

func atHome(elements ...string) string {
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(append([]string{home}, elements...)...)
}

// firstFile returns the first of some paths that is a file, "" if none is.
func firstFile(paths ...string) string {
	for _, path := range paths {
		if path == "" {
			continue
		}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	return ""
}

// lacksPlugin reports whether output says that WasmEdge did not take the plug-in: its option is then unknown, or a guest asks
// for a module nobody has, or WasmEdge died of loading it.
func lacksPlugin(output string) bool {
	return strings.Contains(output, "unknown option: nn-preload") ||
		strings.Contains(output, "unknown import") && strings.Contains(output, "wasi_ephemeral_nn") ||
		strings.Contains(output, "WasmEdge::Plugin::Plugin::load")
}
