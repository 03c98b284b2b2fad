package engine

import (
	"context"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"assistant/modeldir"
)

// Offload is a plan of which devices an instance uses. It is pinned in the engine's arguments and environment: an engine that
// fits itself to what is free at its start finds too little beside a neighbour that is about to end, and is slow for as long as
// it lives, without a word.
type Offload struct {
	Layers    int // on devices, the output layer counted
	Devices   []OffloadDevice
	SplitMode string    // "" = layer
	Split     []float64 // shares of Devices; nil = the engine's own way
	MainGPU   *int      // index among Devices

	// Context is the number of tokens the plan was made for, given to an engine whose model file has no ctx_size; 0 = not given.
	Context int

	// None says that the machine has devices and this instance is to touch none of them: an engine that sees one takes
	// memory on it even without layers there.
	None bool
}

// OffloadDevice is a device to use.
type OffloadDevice struct {
	Name string // llama-server's: CUDA1
	ID   string // UUID; "" = only by name
}

// Environment variables that choose devices.
const (
	cudaVisible = "CUDA_VISIBLE_DEVICES"
	cudaOrder   = "CUDA_DEVICE_ORDER"
	hipVisible  = "HIP_VISIBLE_DEVICES"
	rocrVisible = "ROCR_VISIBLE_DEVICES"
	vkVisible   = "GGML_VK_VISIBLE_DEVICES"
)

// environment returns the variables that make the chosen devices the only ones the engine sees, and the names the devices
// then have.
//
// Where all have ids and one back end, the devices are chosen by id: an index means another device after a card was added or lost,
// and a CUDA or ROCm engine makes a context of some hundred MiB on every device it sees (llama.cpp asks each for its memory),
// a full one included. The engine counts what it sees from 0, in the order given. Otherwise they keep their names and the
// engine sees all.
func (o *Offload) environment() (env, names []string) {
	for _, d := range o.Devices {
		names = append(names, d.Name)
	}
	switch backend := o.backend(); {
	case o.None:
		return []string{cudaVisible + "=-1", hipVisible + "=-1"}, nil
	case backend == "CUDA":
		return []string{cudaOrder + "=PCI_BUS_ID", cudaVisible + "=" + o.ids()}, counted(backend, len(names))
	case backend == "ROCm": // HIP counts within what ROCR leaves
		return []string{hipVisible + "=" + strings.Join(counted("", len(names)), ","), rocrVisible + "=" + o.ids()}, counted(backend, len(names))
	case slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "CUDA") }):
		return []string{cudaOrder + "=PCI_BUS_ID"}, names // the order the names are of
	}
	return nil, names
}

// backend is CUDA or ROCm if all devices are of it and have ids.
func (o *Offload) backend() string {
	found := ""
	for _, d := range o.Devices {
		backend := strings.TrimRight(d.Name, "0123456789")
		if d.ID == "" || backend != "CUDA" && backend != "ROCm" || found != "" && found != backend {
			return ""
		}
		found = backend
	}
	return found
}

func (o *Offload) ids() string {
	var ids []string
	for _, d := range o.Devices {
		ids = append(ids, d.ID)
	}
	return strings.Join(ids, ",")
}

func counted(prefix string, n int) []string {
	var names []string
	for i := range n {
		names = append(names, prefix+strconv.Itoa(i))
	}
	return names
}

// choosesDevices reports whether the model's own environment does; then it is left alone.
func choosesDevices(m *modeldir.Model) bool {
	for _, k := range []string{cudaVisible, hipVisible, rocrVisible, vkVisible} {
		if _, ok := m.Env[k]; ok {
			return true
		}
	}
	return false
}

// arguments are llama-server's for the plan. devices are the names to use; nil = it is not for us to say.
func (o *Offload) arguments(m *modeldir.Model, program string, devices []string) []string {
	argv := []string{"-ngl", strconv.Itoa(o.Layers)}
	switch {
	case o.None:
		argv = append(argv, "--device", "none")
	case len(devices) > 0:
		argv = append(argv, "--device", strings.Join(devices, ","))
	}
	if len(o.Devices) > 1 {
		mode := o.SplitMode
		if mode == "" {
			mode = "layer"
		}
		argv = append(argv, "-sm", mode)
	}
	if len(o.Split) > 1 {
		argv = append(argv, "-ts", joinFloats(o.Split))
	}
	if o.MainGPU != nil && len(o.Devices) > 1 {
		argv = append(argv, "-mg", strconv.Itoa(*o.MainGPU))
	}
	if m.CtxSize == 0 && o.Context > 0 {
		argv = append(argv, "-c", strconv.Itoa(o.Context))
	}
	if knows(program, "--fit") {
		argv = append(argv, "--fit", "off")
	}
	return argv
}

func joinFloats(numbers []float64) string {
	var words []string
	for _, n := range numbers {
		words = append(words, strconv.FormatFloat(n, 'g', -1, 64))
	}
	return strings.Join(words, ",")
}

// helpTime is how long an engine may take to print its help. llama-server loads its back ends for that: 20 ms to 1 s.
const helpTime = 5 * time.Second

var helps sync.Map // program, size and time of its file → help

// knows reports whether the program's help has the flag. The help is asked for once for each version of the program.
func knows(program, flag string) bool {
	key, err := fileKey(program)
	if err != nil {
		return false
	}
	help, ok := helps.Load(key)
	if !ok {
		ctx, cancel := context.WithTimeout(context.Background(), helpTime)
		defer cancel()
		cmd := exec.CommandContext(ctx, program, "--help")
		cmd.WaitDelay = time.Second
		out, err := cmd.CombinedOutput()
		if err != nil && len(out) == 0 {
			return false // ask again next time
		}
		help = string(out)
		helps.Store(key, help)
	}
	words := strings.FieldsFunc(help.(string), func(r rune) bool { return strings.ContainsRune(" ,\n\t=\x1b", r) }) //nolint:errcheck,forcetypeassert // stored above
	return slices.Contains(words, flag)
}
