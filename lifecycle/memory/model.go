package memory

import (
	"errors"
	"strconv"
	"strings"

	"assistant/internal/gguf"
)

// header is a model's, with what a need is reckoned from.
type header struct{ *gguf.Header }

func readHeader(path string) (header, error) {
	h, err := gguf.Read(path)
	return header{h}, err
}

const (
	mib = 1 << 20

	// processBytes is what llama-server takes without a model: about 6 MiB of heap and 17 MiB of its own program's
	// and libraries' pages (build 11669, x86-64, measured; see docs/memory.md).
	processBytes = 24 * mib

	// wasmBytes is what WasmEdge takes beside that, with libLLVM in it, and our guest; see docs/wasm.md.
	wasmBytes = 56 * mib

	// tokenBytes is what an entry of the vocabulary takes in the tokenizer's tables. Measured: 6 MiB for 49,152 entries; large
	// vocabularies have merges as well.
	tokenBytes = 200

	// driverBytes is what a process takes on a device besides its buffers, for the driver's context and the library's
	// work space. Ollama's number for CUDA and ROCm (ml/device.go, MinimumMemory).
	driverBytes = 457 * mib
)

var errShape = errors.New("the header has no number of layers or no width: is it a language model?")

// need reckons with the header. Weights are exact, and so is the context of the usual architectures; the buffers of the computation are
// an upper bound that fits what was measured.
func (s settings) need(h header) (Need, error) {
	layers := int(h.Number("block_count", 0)) - int(h.Number("nextn_predict_layers", 0)) // the latter are for drafts
	if layers <= 0 || layers > gguf.MaxLayers || h.Number("embedding_length", 0) <= 0 {
		return Need{}, errShape
	}
	n := Need{
		Source: Header, Blocks: make([]Block, layers), Context: s.context, Anonymous: !s.mapped,
		Process: processBytes + tokenBytes*int64(h.Vocab),
	}
	if s.wasm {
		n.Process += wasmBytes
	}
	s.weights(&n, h)
	for i := range n.Blocks {
		context := s.layerContext(h, i, layers)
		if s.keepKV {
			n.Rest.Context += context
		} else {
			n.Blocks[i].Context = context
		}
	}
	n.Compute = s.compute(h)
	// Builds before 2026 keep logits for a whole batch; on a device, where what does not fit is an error, they are counted in.
	n.DeviceCompute = n.Compute + 4*int64(s.batch)*int64(h.Vocab) + driverBytes
	return n, s.others(&n)
}

// weights shares the tensors out as llama.cpp does: the blocks' own to the layers, the output and its norm to the output layer,
// and token embeddings to the host, with a copy for the output layer where it has no weights of its own.
func (s settings) weights(n *Need, h header) {
	var embedding gguf.Tensor
	output := false
	for _, t := range h.Tensors {
		i, ok := blockOf(t.Name)
		switch {
		case ok && i >= len(n.Blocks): // for drafts, not loaded
		case ok && strings.Contains(t.Name, "_exps") && (s.cpuExperts || i < s.cpuExpertLayers):
			s.add(&n.Rest, t)
		case ok:
			s.add(&n.Blocks[i], t)
		case strings.HasPrefix(t.Name, "output"):
			s.add(&n.Output, t)
			output = output || t.Name == "output.weight"
		default:
			n.Rest.Weights += t.Bytes // rows are looked up in it, which needs no other order
			if t.Name == "token_embd.weight" {
				embedding = t
			}
		}
	}
	if !output && !h.encoder() {
		s.add(&n.Output, embedding)
		n.Copied = embedding.Bytes
	}
}

func (s settings) add(b *Block, t gguf.Tensor) {
	b.Weights += t.Bytes
	if s.packs != nil && s.packs(t.Kind) {
		b.Packed += t.Bytes
	}
}

// encoder reports whether the model looks at a text as a whole, without a cache: BERT and its kin.
func (h header) encoder() bool {
	causal, ok := h.Numbers[h.Arch+".attention.causal"]
	return ok && causal == 0
}

// layerContext is the KV cache of a layer, tokens × heads × (length of a key + length of a value), or the state of a recurrent one.
func (s settings) layerContext(h header, i, layers int) int64 {
	switch {
	case h.encoder():
		return 0
	case h.recurrent(i):
		return h.stateBytes() * int64(s.slots)
	case i >= layers-int(h.Number("attention.shared_kv_layers", 0)): // they use an earlier layer's
		return 0
	}
	heads := h.Layer("attention.head_count_kv", i, h.Layer("attention.head_count", i, 1))
	head := h.Number("embedding_length", 0) / max(1, h.Layer("attention.head_count", i, 1))
	key, value := h.Number("attention.key_length", head), h.Number("attention.value_length", head)
	tokens := s.context
	if window := int(h.Number("attention.sliding_window", 0)); window > 0 && !s.fullWindow && h.windowed(i) {
		key, value = h.Number("attention.key_length_swa", key), h.Number("attention.value_length_swa", value)
		tokens = s.windowTokens(window)
	}
	if h.Number("attention.key_length_mla", 0) > 0 { // one compressed key that holds the value too (llama-kv-cache.cpp: has_v = !is_mla)
		value = 0
	}
	return int64(float64(tokens) * heads * (key*s.keyBits + value*s.valueBits) / 8)
}

// windowTokens is how many tokens the cache of a layer with a sliding window has (llama-kv-cache-iswa.cpp).
func (s settings) windowTokens(window int) int {
	each := s.context / s.streams
	if s.streams == 1 {
		window *= s.slots
	}
	return padded(min(each, window+s.batch)) * s.streams
}

// windows is for architectures whose files do not say which layers have the window: every layer but each n-th (llama-model.cpp).
var windows = map[string]int{
	"gemma2": 2, "gemma3": 6, "gemma3n": 5, "cohere2": 4, "gpt-oss": 2, "exaone4": 4, "llama4": 4,
}

// windowed reports whether layer i looks back no further than the window.
func (h header) windowed(i int) bool {
	if pattern, ok := h.Arrays[h.Arch+".attention.sliding_window_pattern"]; ok {
		return i < len(pattern) && pattern[i] != 0
	}
	every := int(h.Number("attention.sliding_window_pattern", float64(windows[h.Arch])))
	return every > 1 && i%every != every-1
}

// recurrent reports whether layer i keeps a state instead of a cache.
func (h header) recurrent(i int) bool {
	if h.Number("ssm.state_size", 0) == 0 {
		return false
	}
	if every := int(h.Number("full_attention_interval", 0)); every > 0 {
		return (i+1)%every != 0
	}
	return h.Layer("attention.head_count_kv", i, 0) == 0
}

// stateBytes is a recurrent layer's state for one slot: what the convolution looks back on, and the state proper, as f32
// (llama-hparams.cpp: n_embd_r, n_embd_s).
func (h header) stateBytes() int64 {
	inner, state, groups := h.Number("ssm.inner_size", 0), h.Number("ssm.state_size", 0), h.Number("ssm.group_count", 0)
	convolution := max(0, h.Number("ssm.conv_kernel", 1)-1) * (inner + 2*groups*state)
	return int64(4 * (convolution + state*inner))
}

// compute is a bound on the buffers of the computation of one batch. The form is llama.cpp's graph: for each token two rows as
// wide as the feed-forward and some as wide as the model, f32; the mask of the attention, f16; without flash attention the scores of all
// heads as well. The factor 8 is the least whole number that bounds what build 11669 prints for the models of docs/memory.md.
func (s settings) compute(h header) int64 {
	width := h.Number("embedding_length", 0)
	forward := h.Layer("feed_forward_length", 0, 0)
	for i := range int(h.Number("block_count", 0)) {
		forward = max(forward, h.Layer("feed_forward_length", i, 0))
	}
	forward = max(forward, h.Number("expert_feed_forward_length", 0)*h.Number("expert_used_count", 0))
	batch, seen := float64(s.batch), float64(s.context/s.streams)
	if h.encoder() {
		seen = batch
	}
	bytes := 4*batch*(2*forward+8*width) + 2*batch*seen
	if s.noFlash {
		bytes += 4 * batch * seen * h.Layer("attention.head_count", 0, 1)
	}
	return int64(bytes)
}

// others adds the files that are loaded beside the model. A second model has a context of its own; of a projector only
// the weights are known, its buffers are not.
func (s settings) others(n *Need) error {
	for _, f := range s.beside {
		n.Output.Weights += fileSize(f)
	}
	for _, f := range s.hostBeside {
		n.Rest.Weights += fileSize(f)
	}
	if s.second == "" {
		return nil
	}
	h, err := readHeader(s.second)
	if err != nil {
		return err
	}
	second, path := s, s.second
	second.second, second.beside, second.hostBeside = "", nil, nil
	d, err := second.need(h)
	if err != nil {
		return errors.New(path + ": " + err.Error())
	}
	n.Output.Weights += d.Weights()
	n.Output.Context += d.KV()
	n.Compute += d.Compute
	n.DeviceCompute += d.Compute
	return nil
}

// blockOf returns the number of the block a tensor is of, as in "blk.12.attn_q.weight".
func blockOf(name string) (int, bool) {
	rest, ok := strings.CutPrefix(name, "blk.")
	if !ok {
		return 0, false
	}
	number, _, _ := strings.Cut(rest, ".")
	i, err := strconv.Atoi(number)
	return i, err == nil && i >= 0
}
