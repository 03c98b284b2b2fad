package machine

import "runtime"

// CPUs is how many processors this process may really use: those it is bound to, within the quota of its control groups,
// rounded down, at least 1. Engines that compute with more threads than that wait for one another: a decode of 64 tokens
// a second fell to 1 with one thread too many (measured, ggml's barriers spin).
func CPUs() int {
	n := runtime.NumCPU()
	if quota, _ := findCgroup("/").cpuQuota(); quota > 0 {
		n = min(n, int(quota))
	}
	return max(1, n)
}
