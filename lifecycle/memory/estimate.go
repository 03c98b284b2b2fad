package memory

import (
	"context"
	"fmt"
	"os"
	"strings"

	"assistant/lifecycle/engine"
	"assistant/lifecycle/machine"
	"assistant/modeldir"
)

// Here is what an estimate has to know of the machine.
type Here struct {
	Host        machine.Memory
	Devices     []machine.Device
	LlamaServer string // the program's path; llama-fit-params is looked for beside it; "" = unknown
}

// capacity is all there is, as [machine.Sample.Capacity] has it.
func (h Here) capacity() machine.Amount {
	return machine.Sample{Host: h.Host, Devices: h.Devices}.Capacity()
}

// Estimate returns what one instance of the model needs, before anything was learnt of it: what is declared, shared out as
// the header says; else what the engine's own tool says (llama-fit-params, where it is); else what the header says. An engine of
// kind command has what is declared, or nothing is known of it.
//
// It reads the model file's header and may run a program for up to 5 s: not for the path of a request. An error is a
// file that cannot be read, and leaves the need unknown or as declared.
func Estimate(ctx context.Context, m *modeldir.Model, here Here) (Need, error) {
	if m.Engine == modeldir.EngineCommand {
		return opaque(m), nil
	}
	h, err := readHeader(m.ModelPath)
	if err != nil {
		return opaque(m), fmt.Errorf("memory of %s: %w", m.Name, err)
	}
	s := settingsOf(m, h)
	n, err := s.need(h)
	if err != nil {
		return opaque(m), fmt.Errorf("memory of %s: %w", m.Name, err)
	}
	if m.Memory > 0 {
		n = s.fitted(n, h, func(n Need) bool { return n.all() <= m.Memory })
		return n.scaledTo(m.Memory), nil
	}
	if here.Host.Total > 0 {
		w := Want(m, 0) // all weights in memory
		n = s.fitted(n, h, func(n Need) bool {
			_, ok := Best(n, w, here.capacity(), here.Devices)
			return ok
		})
	}
	return calibrate(ctx, n, m, s, here), nil
}

// opaque is the need of an engine that we cannot look into: what is declared, on the devices that the model file names, in the
// shares it names, else on the host.
func opaque(m *modeldir.Model) Need {
	switch {
	case m.Memory == 0:
		return Need{Source: Unknown}
	case len(m.Devices) == 0 || m.Devices[0] == SplitNone:
		return Need{Source: Declared, Process: m.Memory}
	}
	n := Need{Source: Declared}
	total := 0.0
	for i := range m.Devices {
		total += shareOf(m, i)
	}
	for i, d := range m.Devices {
		if x := shareOf(m, i); x > 0 {
			n.Fixed = append(n.Fixed, Share{d, int64(float64(m.Memory) * x / total)})
		}
	}
	return n
}

func shareOf(m *modeldir.Model, i int) float64 {
	if len(m.TensorSplit) == 0 {
		return 1
	}
	if i < len(m.TensorSplit) {
		return m.TensorSplit[i]
	}
	return 0
}

// scaledTo returns the need with its parts scaled so that all of it is total bytes.
func (n Need) scaledTo(total int64) Need {
	n.Source = Declared
	all := n.all()
	if all <= 0 {
		n.Process = total
		return n
	}
	scale := func(v *int64) { *v = int64(float64(*v) * float64(total) / float64(all)) }
	n.Blocks = append([]Block(nil), n.Blocks...)
	for i := range n.Blocks {
		scale(&n.Blocks[i].Weights)
		scale(&n.Blocks[i].Packed)
		scale(&n.Blocks[i].Context)
	}
	for _, v := range []*int64{&n.Output.Weights, &n.Output.Packed, &n.Output.Context, &n.Rest.Weights, &n.Rest.Packed, &n.Rest.Context, &n.Copied, &n.Compute, &n.DeviceCompute, &n.Process} {
		scale(v)
	}
	n.Process += total - n.all() // what rounding took
	return n
}

// leastContext is the context, in tokens for each slot, below which it is not shrunk: llama.cpp's own least (--fit-ctx).
const leastContext = 4096

// fitted shrinks a context that nobody asked for to what was declared or what the whole machine holds, as llama-server's --fit does:
// models of today are trained for more than most machines can hold. A context that was asked for stays, and so does one that
// does not help.
func (s settings) fitted(n Need, h header, fits func(Need) bool) Need {
	least := padded(leastContext) * s.streams
	if s.given || s.context <= least || fits(n) {
		return n
	}
	best := n
	for low, high := least, s.context; low <= high; {
		s.context = (low + high) / 2 / (256 * s.streams) * (256 * s.streams)
		s.context = max(s.context, least)
		try, err := s.need(h)
		if err == nil && fits(try) {
			best, low = try, s.context+256*s.streams
		} else {
			high = s.context - 256*s.streams
		}
	}
	return best
}

// settings are what of a model's configuration changes its need.
type settings struct {
	context int  // tokens over all slots
	given   bool // the context was asked for
	slots   int
	streams int // parts the context is divided into: the slots, or 1 where they share it
	batch   int // tokens computed at once

	keyBits, valueBits float64 // of an element of the KV cache

	noFlash, fullWindow, keepKV, cpuExperts, mapped bool

	packs           func(kind uint32) bool // the processor's own back end copies weights of this type
	cpuExpertLayers int
	beside          []string // files loaded beside the model, onto the device
	hostBeside      []string // and onto the host
	second          string   // file of a model that is loaded as well, for drafts or for embeddings
	wasm            bool     // it runs in WasmEdge
}

const (
	autoSlots        = 4   // llama-server's own number where none is given; they then share one context
	defaultBatch     = 512 // --ubatch-size
	contextUnknown   = 4096
	defaultCacheType = "f16"
)

func settingsOf(m *modeldir.Model, h header) settings {
	args := arguments(m.Args)
	s := settings{slots: autoSlots, batch: defaultBatch, mapped: true}
	if m.Concurrency > 0 {
		s.slots = m.Concurrency
	}
	explicit := m.Concurrency > 0
	if n, ok := args.number("-np", "--parallel"); ok {
		explicit = n > 0
		s.slots = autoSlots
		if explicit {
			s.slots = n
		}
	}
	s.wasm = engine.For(m).Name == modeldir.EngineWasmEdge
	if s.wasm {
		s.slots, explicit = max(1, m.Concurrency), true
		s.second = m.EmbeddingModelPath
	}
	s.streams = 1
	if explicit && !args.has("-kvu", "--kv-unified") || args.has("-no-kvu", "--no-kv-unified") {
		s.streams = s.slots
	}
	if n, ok := args.number("-ub", "--ubatch-size"); ok && n > 0 {
		s.batch = n
	}
	if n, ok := args.number("-b", "--batch-size"); ok && n > 0 {
		s.batch = min(s.batch, n)
	} else if m.BatchSize > 0 {
		s.batch = min(s.batch, m.BatchSize)
	}
	s.setContext(m, args, h)

	cacheType := func(flags ...string) float64 {
		t, ok := args.value(flags...)
		if !ok {
			t = defaultCacheType
		}
		return cacheBits(t)
	}
	s.keyBits, s.valueBits = cacheType("-ctk", "--cache-type-k"), cacheType("-ctv", "--cache-type-v")
	if fa, ok := args.value("-fa", "--flash-attn"); ok {
		s.noFlash = fa == "off" || fa == "0"
	}
	s.fullWindow = args.has("--swa-full")
	if !args.has("-nr", "--no-repack") {
		s.packs = packs
	}
	s.keepKV = args.has("-nkvo", "--no-kv-offload")
	s.cpuExperts = args.has("-cmoe", "--cpu-moe")
	s.cpuExpertLayers, _ = args.number("-ncmoe", "--n-cpu-moe")
	mode, _ := args.value("-lm", "--load-mode")
	s.mapped = !args.has("--no-mmap") && (mode == "" || mode == "auto" || strings.Contains(mode, "mmap"))
	if f, ok := args.value("-mm", "--mmproj"); ok {
		if args.has("--no-mmproj-offload") {
			s.hostBeside = append(s.hostBeside, f)
		} else {
			s.beside = append(s.beside, f)
		}
	}
	if draft, ok := args.value("-md", "--model-draft", "--spec-draft-model"); ok {
		s.second = draft
	}
	return s
}

// setContext finds the number of tokens: of args, of the model file, else of the model's training, then for each slot that has a
// part of its own, as llama-server does by itself (common/fit.cpp).
func (s *settings) setContext(m *modeldir.Model, args arguments, h header) {
	s.context = m.CtxSize
	if n, ok := args.number("-c", "--ctx-size"); ok {
		s.context = max(0, n)
	}
	s.given = s.context > 0
	if !s.given {
		s.context = int(h.Number("context_length", contextUnknown)) * s.streams
	}
	if s.wasm { // a slot there has all of ctx_size
		s.context, s.given = engine.WasmContext(m, h.Header)*s.slots, true
	}
	s.context = padded((s.context+s.streams-1)/s.streams) * s.streams
}

// padded rounds a number of tokens up as llama.cpp does (llama_context: GGML_PAD(n_ctx, 256)).
func padded(n int) int { return (n + 255) / 256 * 256 }

// cacheBits is the size of an element of the cache, in bits: a block of 32 and its scales (ggml/src/ggml-common.h).
func cacheBits(kind string) float64 {
	switch kind {
	case "f32":
		return 32
	case "q8_0":
		return 34 * 8 / 32.0
	case "q5_1":
		return 24 * 8 / 32.0
	case "q5_0":
		return 22 * 8 / 32.0
	case "q4_1":
		return 20 * 8 / 32.0
	case "q4_0", "iq4_nl":
		return 18 * 8 / 32.0
	default: // f16, bf16
		return 16
	}
}

// fileSize is 0 for a file that is not there: the engine will say so.
func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}
