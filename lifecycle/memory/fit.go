package memory

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"assistant/modeldir"
)

// fitTime is how long llama-fit-params may take. It reads the header and plans the graph without loading anything: 10 ms to
// 0.5 s here for the like inside llama-server.
const fitTime = 5 * time.Second

// fitLine is what the engine itself reckons for a device or the host, in bytes.
type fitLine struct {
	device                  string // "Host" for the host
	model, context, compute int64
}

// parseFit reads what llama-fit-params --fit-print on prints: "NAME model context compute", in MiB, a line a device
// and one for the host, last (common/fit.cpp, common_fit_print). nil if the host's is not there.
func parseFit(out string) []fitLine {
	var lines []fitLine
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) != 4 {
			continue
		}
		var numbers [3]int64
		bad := false
		for i := range numbers {
			n, err := strconv.ParseInt(f[i+1], 10, 64)
			bad = bad || err != nil || n < 0 || n > 1<<30
			numbers[i] = n * mib
		}
		if bad {
			continue
		}
		lines = append(lines, fitLine{f[0], numbers[0], numbers[1], numbers[2]})
		if f[0] == "Host" {
			return lines
		}
	}
	return nil
}

// calibrate puts what the engine's own tool says of the context and the buffers into the need; as it is, where there is no such tool or it
// fails. Weights stay: the tool rounds them to MiB.
func calibrate(ctx context.Context, n Need, m *modeldir.Model, s settings, here Here) Need {
	tool := filepath.Join(filepath.Dir(here.LlamaServer), "llama-fit-params")
	if here.LlamaServer == "" || s.wasm {
		return n
	}
	if _, err := exec.LookPath(tool); err != nil {
		return n
	}
	ctx, cancel := context.WithTimeout(ctx, fitTime)
	defer cancel()
	args := append([]string{"-m", m.ModelPath, "-c", strconv.Itoa(n.Context), "-np", strconv.Itoa(s.slots), "-ub", strconv.Itoa(s.batch)}, forFit(m.Args)...)
	if s.streams == 1 && s.slots > 1 {
		args = append(args, "--kv-unified")
	}
	cmd := exec.CommandContext(ctx, tool, append(args, "-ngl", "999", "--fit-print", "on")...) //nolint:gosec // the engine's own tool
	cmd.Env = os.Environ()
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return n
	}
	return n.fit(parseFit(string(out)))
}

// forFit returns of a model file's args those that change the need and that the tool knows, with their values.
func forFit(args []string) []string {
	var kept []string
	for _, flags := range [][]string{{"-ctk", "--cache-type-k"}, {"-ctv", "--cache-type-v"}, {"-fa", "--flash-attn"}, {"-sm", "--split-mode"}} {
		if v, ok := arguments(args).value(flags...); ok {
			kept = append(kept, flags[1], v)
		}
	}
	for _, flag := range []string{"--swa-full", "--no-kv-offload", "--cpu-moe"} {
		if arguments(args).has(flag) {
			kept = append(kept, flag)
		}
	}
	return kept
}

// fit returns the need as the engine reckons it.
func (n Need) fit(lines []fitLine) Need {
	if len(lines) == 0 {
		return n
	}
	n.Source = Fit
	var cache, most int64
	for _, l := range lines {
		cache += l.context
		most = max(most, l.compute)
	}
	if header := n.KV(); header > 0 && cache > 0 {
		n.Blocks = append([]Block(nil), n.Blocks...)
		for i := range n.Blocks {
			n.Blocks[i].Context = int64(float64(n.Blocks[i].Context) * float64(cache) / float64(header))
		}
	}
	n.Compute = most + mib // they are rounded down
	n.DeviceCompute = most + mib + driverBytes
	return n
}
