//go:build wasip1

// Command guest does what the lines of its standard input say to do by WASI-NN, one JSON
// object each, and answers each with a line. It is what the plug-in's tests run in WasmEdge.
package main

import (
	"bufio"
	"encoding/json"
	"os"
	"runtime"
	"unsafe"
)

//go:wasmimport wasi_ephemeral_nn load
func load(parts, count, encoding, target, handle uint32) uint32

//go:wasmimport wasi_ephemeral_nn load_by_name
func loadByName(name, length, handle uint32) uint32

//go:wasmimport wasi_ephemeral_nn load_by_name_with_config
func loadByNameWithConfig(name, length, config, configLength, handle uint32) uint32

//go:wasmimport wasi_ephemeral_nn unload
func unload(graph uint32) uint32

//go:wasmimport wasi_ephemeral_nn init_execution_context
func initExecutionContext(graph, handle uint32) uint32

//go:wasmimport wasi_ephemeral_nn finalize_execution_context
func finalizeExecutionContext(context uint32) uint32

//go:wasmimport wasi_ephemeral_nn set_input
func setInput(context, index, tensor uint32) uint32

//go:wasmimport wasi_ephemeral_nn compute
func compute(context uint32) uint32

//go:wasmimport wasi_ephemeral_nn compute_single
func computeSingle(context uint32) uint32

//go:wasmimport wasi_ephemeral_nn fini_single
func finiSingle(context uint32) uint32

//go:wasmimport wasi_ephemeral_nn get_output
func getOutput(context, index, buffer, size, written uint32) uint32

//go:wasmimport wasi_ephemeral_nn get_output_single
func getOutputSingle(context, index, buffer, size, written uint32) uint32

type request struct {
	Do      string `json:"do"`
	Handle  uint32 `json:"handle"` // of a graph or a context
	Index   uint32 `json:"index"`
	Name    string `json:"name"`
	Config  string `json:"config"`
	Data    string `json:"data"`
	Size    uint32 `json:"size"` // of the buffer; 0: large, and its size is not told, as llama-core does
	Address uint32 `json:"address"`
	Length  uint32 `json:"length"`
}

type answer struct {
	Errno  uint32   `json:"errno"`
	Handle uint32   `json:"handle"`
	Data   string   `json:"data"`
	Length uint32   `json:"length"`
	Pieces []string `json:"pieces,omitempty"`
	// Since the call of the first token.
}

var (
	buffer  = make([]byte, 1<<18)
	handle  uint32
	written uint32
	tensor  [5]uint32
	parts   [4]uint32
)

func address[T any](p *T) uint32 { return uint32(uintptr(unsafe.Pointer(p))) }

func text(s string) (at, length uint32) {
	if s == "" {
		return 0, 0
	}
	return address(unsafe.StringData(s)), uint32(len(s))
}

func do(r *request) (a answer) {
	defer runtime.KeepAlive(r)
	name, nameLength := text(r.Name)
	config, configLength := text(r.Config)
	data, dataLength := text(r.Data)
	switch r.Do {
	case "load_by_name":
		a.Errno = loadByName(name, nameLength, address(&handle))
		a.Handle = handle
	case "load":
		a.Errno = loadByNameWithConfig(name, nameLength, config, configLength, address(&handle))
		a.Handle = handle
	case "load_file":
		model, err := os.ReadFile(r.Name)
		if err != nil {
			panic(err)
		}
		parts = [4]uint32{address(&model[0]), uint32(len(model)), config, configLength}
		a.Errno = load(address(&parts), 2, r.Index, 3, address(&handle))
		a.Handle = handle
		runtime.KeepAlive(model)
	case "load_at": // pointers that are wrong
		a.Errno = load(r.Address, r.Length, 6, 3, address(&handle))
	case "load_into":
		a.Errno = loadByName(name, nameLength, r.Address)
	case "load_name_at":
		a.Errno = loadByName(r.Address, r.Length, address(&handle))
	case "unload":
		a.Errno = unload(r.Handle)
	case "init":
		a.Errno = initExecutionContext(r.Handle, address(&handle))
		a.Handle = handle
	case "finalize":
		a.Errno = finalizeExecutionContext(r.Handle)
	case "input":
		tensor = [5]uint32{0, 0, 3, data, dataLength}
		a.Errno = setInput(r.Handle, r.Index, address(&tensor))
	case "input_at":
		tensor = [5]uint32{0, 0, 3, r.Address, r.Length}
		a.Errno = setInput(r.Handle, r.Index, address(&tensor))
	case "input_tensor_at":
		a.Errno = setInput(r.Handle, r.Index, r.Address)
	case "compute":
		a.Errno = compute(r.Handle)
	case "single":
		a.Errno = computeSingle(r.Handle)
	case "fini":
		a.Errno = finiSingle(r.Handle)
	case "output":
		a.Errno = getOutput(r.Handle, r.Index, address(&buffer[0]), r.Size, address(&written))
		a.Length = written
		if a.Errno == 0 {
			a.Data = string(buffer[:written])
		}
	case "output_at":
		a.Errno = getOutput(r.Handle, r.Index, r.Address, r.Length, address(&written))
	case "stream": // all tokens, one by one
		for a.Errno = computeSingle(r.Handle); a.Errno == 0; a.Errno = computeSingle(r.Handle) {
			if e := getOutputSingle(r.Handle, 0, address(&buffer[0]), uint32(len(buffer)), address(&written)); e != 0 {
				panic(e)
			}
			a.Pieces = append(a.Pieces, string(buffer[:written]))
		}
	default:
		panic("unknown: " + r.Do)
	}
	return a
}

func main() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<24)
	out := json.NewEncoder(os.Stdout)
	for in.Scan() {
		var r request
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			panic(err)
		}
		if err := out.Encode(do(&r)); err != nil {
			panic(err)
		}
	}
}
