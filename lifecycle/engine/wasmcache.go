package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	assistantguest "assistant/engines/assistant-guest"
)

// What runs in WasmEdge is kept in the user's cache directory: our guest, as WasmEdge reads files, and what was compiled ahead of
// time for this machine. Names change with what is in the files, so nothing there is ever out of date.

// wasmCache is the directory, made when first needed.
func wasmCache() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil { // a service without a home
		base = filepath.Join(os.TempDir(), fmt.Sprintf("assistant-%d", os.Getuid()))
	}
	dir := filepath.Join(base, "assistant", "wasm")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make a directory for what runs in WasmEdge: %w (set XDG_CACHE_HOME to one that can be written)", err)
	}
	return dir, nil
}

// guestFile puts our guest into the cache, if it is not there, and returns its path.
func guestFile() (string, error) {
	dir, err := wasmCache()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "guest-"+assistantguest.SHA256()[:16]+".wasm")
	if info, err := os.Stat(path); err == nil && info.Size() == int64(len(assistantguest.Wasm)) {
		return path, nil
	}
	return path, writeAtOnce(path, assistantguest.Wasm)
}

// writeAtOnce gives a file its name when all of it is there.
func writeAtOnce(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // unless it has its name by then
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Compilation is a wasm to be compiled ahead of time for this machine.
type Compilation struct{ program, wasm string }

// Wasm is the path of what is compiled.
func (c *Compilation) Wasm() string { return c.wasm }

// compilation returns what is to be compiled, nil if nothing is: it has been, or this WasmEdge can't run it.
func compilation(parts WasmParts, wasm string) *Compilation {
	if !strings.HasSuffix(wasm, ".wasm") || compiledWasm(parts.Program, wasm) != "" {
		return nil
	}
	return &Compilation{parts.Program, wasm}
}

// Begin returns the command that compiles, and what to call when it has ended well. It is nil if there is nothing to do: it has been
// compiled by now, or this WasmEdge cannot run what is compiled.
func (c *Compilation) Begin() (argv []string, finish func() error, err error) {
	to, err := compiledPath(c.program, c.wasm)
	if err != nil || firstFile(to) != "" || !knows(c.program, runMode) {
		return nil, nil, err
	}
	work := to + ".new"
	return []string{c.program, "compile", c.wasm, work}, func() error { return os.Rename(work, to) }, nil
}

const runMode = "--run-mode"

// compiledWasm is the path of what has been compiled of wasm for this machine, "" if nothing has. It runs no program unless
// something has.
func compiledWasm(program, wasm string) string {
	dir, err := wasmCache()
	if err != nil {
		return ""
	}
	sum, err := wasmSum(wasm)
	if err != nil {
		return ""
	}
	if some, _ := filepath.Glob(filepath.Join(dir, compiledPrefix+sum+"-*.wasm")); len(some) == 0 {
		return ""
	}
	path, err := compiledPath(program, wasm)
	if err != nil || !knows(program, runMode) {
		return ""
	}
	return firstFile(path)
}

const compiledPrefix = "compiled-"

// compiledPath names what is compiled of a wasm by a WasmEdge for a processor.
func compiledPath(program, wasm string) (string, error) {
	dir, err := wasmCache()
	if err != nil {
		return "", err
	}
	sum, err := wasmSum(wasm)
	if err != nil {
		return "", err
	}
	version := Version(program)
	machine := sha256.Sum256([]byte(version + "\n" + processor()))
	return filepath.Join(dir, compiledPrefix+sum+"-"+hex.EncodeToString(machine[:8])+".wasm"), nil
}

var sums sync.Map // path, size and time of a file → the first 8 bytes of its SHA-256, in hex

func wasmSum(path string) (string, error) {
	key, err := fileKey(path)
	if err != nil {
		return "", err
	}
	if sum, ok := sums.Load(key); ok {
		return sum.(string), nil //nolint:errcheck,forcetypeassert // stored below
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	sum := hex.EncodeToString(h.Sum(nil)[:8])
	sums.Store(key, sum)
	return sum, nil
}

// fileKey changes when a file is replaced.
func fileKey(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	return fmt.Sprint(path, info.Size(), info.ModTime().UnixNano()), nil
}

// processor says for what processor is compiled.
var processor = sync.OnceValue(func() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "flags") || strings.HasPrefix(line, "Features") {
			return runtime.GOARCH + line
		}
	}
	return runtime.GOARCH
})
