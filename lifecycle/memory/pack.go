package memory

import (
	"runtime"

	"golang.org/x/sys/cpu"
)

// Numbers of ggml's types (ggml.h, enum ggml_type).
const (
	q4_0  = 2
	q4_1  = 3
	q8_0  = 8
	q2_K  = 10
	q4_K  = 12
	q5_K  = 13
	q6_K  = 14
	iq4NL = 20
	iq4XS = 23
)

// packs reports whether llama.cpp's back end for this processor keeps weights of a type in an order of its own, as it does by
// default (--repack): a second copy, in anonymous memory, beside the mapped file. Measured with AMX: 95 MiB of SmolLM2's 98 MiB.
// Which types: ggml-cpu/amx/common.h (qtype_has_amx_kernels) and ggml-cpu/repack.cpp
// (ggml_repack_get_optimal_repack_type), both as of ggml 0.27.
func packs(kind uint32) bool {
	switch kind {
	case q4_0, q4_K, iq4NL:
		return cpu.X86.HasAVX2 || runtime.GOARCH == "arm64"
	case q2_K:
		return cpu.X86.HasAVX512 || cpu.X86.HasAMXInt8
	case q4_1, iq4XS:
		return cpu.X86.HasAMXInt8
	case q8_0, q5_K, q6_K:
		return cpu.X86.HasAMXInt8 || runtime.GOARCH == "arm64"
	default:
		return false
	}
}
