package memory

import "assistant/lifecycle/machine"

// Source says where a need is known from.
type Source string

// The sources, the surest first.
const (
	Declared Source = "declared" // the model file's memory
	Measured Source = "learnt"   // earlier runs, on top of the header
	Fit      Source = "fit"      // llama-fit-params
	Header   Source = "header"   // the GGUF file's header
	Unknown  Source = "unknown"  // nothing is known: nothing is reserved
)

// Need is what one instance of a model needs, in bytes, in parts that can be put together for any number of layers on devices.
type Need struct {
	Source Source

	Blocks []Block // the layers, in the model's order; none = nothing can be put on a device
	Output Block   // the output layer, which goes to a device before any other, and what goes with it (mmproj)
	Rest   Block   // what stays on the host whatever goes elsewhere, token embeddings above all

	// Copied is the part of the output layer's weights that is a copy of what the host has as well: token embeddings that
	// serve as output too. Only a device needs the copy.
	Copied int64

	Compute       int64 // buffers of the computation on the host
	DeviceCompute int64 // on each device in use: buffers, and what the driver takes for a process
	Process       int64 // the engine itself: heap, and buffers of its own

	// Anonymous says that weights on the host are read into memory, not mapped.
	Anonymous bool

	// Context is the number of tokens, over all slots, that was reckoned with. Where the model file does not say, the engine is
	// to be told, or it may choose another.
	Context int

	// Fixed is the need of an engine whose devices we do not choose: it is there or the engine cannot start. The
	// rest of the need is then on the host.
	Fixed []Share
}

// Block is a part of the model.
type Block struct {
	Weights int64
	Packed  int64 // weights that the processor's own back end keeps a copy of, in an order of its own
	Context int64 // KV cache, or the state of a recurrent layer
}

// Share is memory on one device.
type Share struct {
	Device string // a name or an id, as in [machine.Device]
	Bytes  int64
}

// Layers is how many layers can go to devices, the output layer counted.
func (n *Need) Layers() int {
	if len(n.Blocks) == 0 {
		return 0
	}
	return len(n.Blocks) + 1
}

// Weights is the size of all weights.
func (n *Need) Weights() int64 {
	sum := n.Output.Weights - n.Copied + n.Rest.Weights
	for _, b := range n.Blocks {
		sum += b.Weights
	}
	return sum
}

// KV is the size of the whole context.
func (n *Need) KV() int64 {
	sum := n.Output.Context + n.Rest.Context
	for _, b := range n.Blocks {
		sum += b.Context
	}
	return sum
}

// Host returns what is needed on the host when the last layers (the output layer first) are on devices: hard is anonymous and
// shared memory, soft is mapped weights, which can be read again.
func (n *Need) Host(layers int) (hard, soft int64) {
	weights, packed, context := n.Rest.Weights, n.Rest.Packed, n.Rest.Context
	onHost := n.Blocks
	if layers > 0 {
		onHost = n.Blocks[:max(0, len(n.Blocks)-(layers-1))]
	} else {
		weights, packed, context = weights+n.Output.Weights-n.Copied, packed+n.Output.Packed, context+n.Output.Context
	}
	for _, b := range onHost {
		weights, packed, context = weights+b.Weights, packed+b.Packed, context+b.Context
	}
	hard = context + n.Compute + n.Process
	if n.Anonymous {
		// What is read is packed at once; only embeddings that serve as output are there in both orders.
		if layers <= 0 {
			weights += min(n.Copied, n.Output.Packed)
		}
		return hard + weights, 0
	}
	return hard + packed, weights
}

// offloaded returns the layers that go to devices, in the model's order: the last blocks, then the output layer.
func (n *Need) offloaded(layers int) []Block {
	if layers <= 0 {
		return nil
	}
	first := max(0, len(n.Blocks)-(layers-1))
	return append(append(make([]Block, 0, layers), n.Blocks[first:]...), n.Output)
}

func (b Block) bytes() int64 { return b.Weights + b.Context }

func sum(blocks []Block) int64 {
	var n int64
	for _, b := range blocks {
		n += b.bytes()
	}
	return n
}

// all is the whole need as one number: on the host, without devices.
func (n *Need) all() int64 {
	hard, soft := n.Host(0)
	for _, s := range n.Fixed {
		hard += s.Bytes
	}
	return hard + soft
}

// margin is what is left free on a device, for what grows after the start and for what the estimate misses: llama.cpp's own
// target, 1024 MiB (--fit-target's default), but no more than a tenth of small devices.
func margin(d machine.Device) int64 { return min(1<<30, d.Total/10) }
