package machine

import (
	"regexp"
	"strconv"
	"strings"
)

// Listed is a line of llama-server --list-devices.
type Listed struct {
	Name        string // CUDA0
	Model       string // NVIDIA GeForce RTX 3090
	Total, Free int64  // bytes
}

// listedLine is "  CUDA0: NVIDIA GeForce RTX 3090 (24124 MiB, 23862 MiB free)". The model may hold brackets.
var listedLine = regexp.MustCompile(`^\s+([A-Za-z][A-Za-z0-9_]*?\d*): (.*) \((\d+) MiB, (\d+) MiB free\)\s*$`)

// ParseListed reads what llama-server --list-devices prints (since build 4409, 2025-01). Lines of
// back ends that load, before and after, are skipped. RPC devices are not this machine's and are left out, and so are
// back ends that compute on the host's CPU.
//
// ok is false if there is no list in it.
func ParseListed(out string) (listed []Listed, ok bool) {
	_, list, ok := strings.Cut(out, "Available devices:")
	if !ok {
		return nil, false
	}
	for line := range strings.Lines(list) {
		m := listedLine.FindStringSubmatch(strings.TrimRight(line, "\r\n"))
		if m == nil || strings.HasPrefix(m[1], "BLAS") || strings.HasPrefix(m[1], "CPU") {
			continue
		}
		total, free := mebibytes(m[3]), mebibytes(m[4])
		if total <= 0 || free < 0 {
			continue
		}
		listed = append(listed, Listed{Name: m[1], Model: m[2], Total: total, Free: min(free, total)})
	}
	return listed, true
}

func mebibytes(s string) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil || n < 0 || n > 1<<40 {
		return -1
	}
	return n << 20
}

func (l Listed) vendor() string {
	switch {
	case strings.HasPrefix(l.Name, "CUDA"), strings.Contains(l.Model, "NVIDIA"):
		return NVIDIA
	case strings.HasPrefix(l.Name, "ROCm"), strings.Contains(l.Model, "AMD"), strings.Contains(l.Model, "Radeon"):
		return AMD
	}
	return ""
}

// unified reports what the name alone tells: Apple's GPUs share the host's memory.
func (l Listed) unified() bool {
	return strings.HasPrefix(l.Name, "Metal") || strings.HasPrefix(l.Name, "MTL")
}

// again reports whether an earlier line is the same device through another back end. Two equal cards on one back end are two.
func (l Listed) again(listed []Listed) bool {
	for _, o := range listed {
		if o.Name == l.Name {
			return false
		}
		if o.backend() != l.backend() && o.vendor() != "" && o.vendor() == l.vendor() && alike(o.Model, l.Model) {
			return true
		}
	}
	return false
}

func (l Listed) backend() string { return strings.TrimRight(l.Name, "0123456789") }

// alike compares models as back ends write them: Vulkan adds the driver's name, "AMD Radeon RX 7900 XTX (RADV NAVI31)".
func alike(a, b string) bool {
	return a == b || strings.HasPrefix(b, a+" (") || strings.HasPrefix(a, b+" (")
}

// generic is 1 for a back end that works with any vendor's devices.
func (l Listed) generic() int {
	if strings.HasPrefix(l.Name, "Vulkan") || strings.HasPrefix(l.Name, "OpenCL") || strings.HasPrefix(l.Name, "GPUOpenCL") {
		return 1
	}
	return 0
}
