package memory

import (
	"runtime"

	"golang.org/x/sys/cpu"
)

// Numbers of ggml's types (ggml.h, enum ggml_type).
const (
	q40   = 2
	q41   = 3
	q80   = 8
	q2K   = 10
	q4K   = 12
	q5K   = 13
	q6K   = 14
	iq4NL = 20
	iq4XS = 23
)

// packs reports whether llama.cpp's back end for this processor keeps weights of a type in an order of its own, as it does by
// default (--repack): a second copy, in anonymous memory, beside the mapped file. Measured with AMX: 95 MiB of SmolLM2's 98 MiB.
// Which types: ggml-cpu/amx/common.h (qtype_has_amx_kernels) and ggml-cpu/repack.cpp
// (ggml_repack_get_optimal_repack_type), both as of ggml 0.27.
func packs(kind uint32) bool {
	switch kind {
	case q40, q4K, iq4NL:
		return cpu.X86.HasAVX2 || runtime.GOARCH == "arm64"
	case q2K:
		return cpu.X86.HasAVX512 || cpu.X86.HasAMXInt8
	case q41, iq4XS:
		return cpu.X86.HasAMXInt8
	case q80, q5K, q6K:
		return cpu.X86.HasAMXInt8 || runtime.GOARCH == "arm64"
	default:
		return false
	}
}
