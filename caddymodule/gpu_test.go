//go:build linux

package caddymodule

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"assistant/internal/enginetest"
)

// Devices of 8 GiB, and models that take 60 % of one, and more while they load.
const (
	deviceMiB  = 8192
	modelMiB   = deviceMiB * 6 / 10
	loadingMiB = 512
	gpuLayers  = 4 // the output layer counted
	gpuLoad    = 300 * time.Millisecond
	gpuRelease = 1500 * time.Millisecond
)

// headerOf is a GGUF header of a model of so many bytes of weights, all in layers that may go to devices.
func headerOf(layers int, bytes int64) (header []byte, size int64) {
	le := binary.LittleEndian
	str := func(b []byte, s string) []byte { return append(le.AppendUint64(b, uint64(len(s))), s...) }
	const typeU32, typeString = 4, 8
	b := le.AppendUint32([]byte("GGUF"), 3)
	b = le.AppendUint64(le.AppendUint64(b, uint64(layers)), 5) // tensors, pairs
	b = str(le.AppendUint32(str(b, "general.architecture"), typeString), "llama")
	for _, pair := range []struct {
		key   string
		value uint32
	}{{"block_count", uint32(layers - 1)}, {"embedding_length", 64}, {"context_length", 4096}, {"attention.head_count", 4}} {
		b = le.AppendUint32(le.AppendUint32(str(b, "llama."+pair.key), typeU32), pair.value)
	}
	for i := range layers {
		name := fmt.Sprintf("blk.%d.ffn_up.weight", i)
		if i == layers-1 {
			name = "output.weight"
		}
		each := bytes / int64(layers)
		b = le.AppendUint64(le.AppendUint32(str(b, name), 1), uint64(each/2)) // one dimension, of two bytes each
		b = le.AppendUint64(le.AppendUint32(b, 1), uint64(int64(i)*each))     // F16
	}
	return b, int64(len(b)) + bytes
}

// onGPUs makes the site one with two pretended devices, which give memory back late, and writes files of models that do not fit beside
// another on one of them.
func (s *site) onGPUs(t *testing.T, models ...string) (dir string) {
	t.Helper()
	card := enginetest.GPU{Name: "NVIDIA GeForce RTX 3070", Total: deviceMiB << 20, ReleaseDelay: gpuRelease}
	cards := []enginetest.GPU{card, card}
	for i := range cards {
		cards[i].UUID, cards[i].Bus = fmt.Sprintf("GPU-%d", i), fmt.Sprintf("00000000:0%d:00.0", i+1)
	}
	dir, bin := enginetest.NewGPUs(t, s.engine, cards...)
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	s.asLlamaServer(t, gpuFlags(dir), nil)
	header, size := headerOf(gpuLayers, modelMiB<<20)
	for _, name := range models {
		gguf := filepath.Join(s.root, name+".gguf")
		if err := os.WriteFile(gguf, header, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(gguf, size); err != nil { // sparse
			t.Fatal(err)
		}
		s.file(name, fmt.Sprintf("engine = \"llama-server\"\nmodel_path = %q\nconcurrency = 2\n", gguf))
	}
	return dir
}

func gpuFlags(dir string) string {
	return fmt.Sprintf("--gpu-dir %s --gpu-memory %d --gpu-all %d --gpu-load-extra %d --start-delay %v --token-delay 10ms",
		dir, modelMiB, gpuLayers, loadingMiB, gpuLoad)
}

// TestDevicesUnderTraffic has clients ask more models than devices hold. An engine that is started before the memory of the last one is
// back, or while another loads, would fail for want of memory.
func TestDevicesUnderTraffic(t *testing.T) {
	s := newSite(t)
	models := []string{"a", "b", "c", "d", "e"}
	s.onGPUs(t, models...)
	s.start()
	const clients, starts = 12, 10
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			for len(s.happened(enginetest.EventReady)) < starts && !t.Failed() {
				model := models[rng.IntN(len(models))]
				if a, err := do(t.Context(), http.MethodPost, s.url+chatPath, question(model)); err != nil || a.status != http.StatusOK || a.err != nil {
					t.Errorf("%s: %v, status %d: %s", model, err, a.status, a.body)
				}
			}
		})
	}
	all.Wait()
	for _, event := range []string{enginetest.EventNoRoom, enginetest.EventSlow} {
		if n := len(s.happened(event)); n > 0 {
			t.Errorf("%d engines noted %q", n, event)
		}
	}
	s.checkLoads(t)
	var metrics bytes.Buffer
	current(t).writeMetrics(&metrics)
	released := 0
	for line := range strings.Lines(metrics.String()) {
		if strings.HasPrefix(line, "assistant_device_release_seconds_count ") {
			_, _ = fmt.Sscanf(line, "assistant_device_release_seconds_count %d", &released)
			t.Log(strings.TrimSpace(line))
		}
	}
	if released == 0 {
		t.Errorf("no device is known to have given memory back:\n%s", metrics.String())
	}
}

// checkLoads sees that each engine got its plan, and that no two loaded on a device at a time.
func (s *site) checkLoads(t *testing.T) {
	t.Helper()
	ready := map[int]int64{} // by pid: no number comes twice in so short a time
	for _, e := range s.happened(enginetest.EventReady) {
		ready[e.Pid] = e.Time
	}
	busy := map[string]int64{} // until when, by device
	for _, e := range s.happened(enginetest.EventStart) {
		args := strings.Join(e.Args, " ")
		for _, want := range []string{fmt.Sprintf("-ngl %d", gpuLayers), "--device CUDA0", "--fit off"} {
			if !strings.Contains(args, want) {
				t.Errorf("engine %d of %s was not told %q: %s", e.Pid, e.Alias, want, args)
			}
		}
		if !slices.Contains([]string{"GPU-0", "GPU-1"}, e.Visible) {
			t.Errorf("engine %d of %s sees devices %q, want one, by its id", e.Pid, e.Alias, e.Visible)
		}
		if e.Time < busy[e.Visible] {
			t.Errorf("engine %d of %s loads on %s while another does", e.Pid, e.Alias, e.Visible)
		}
		busy[e.Visible] = ready[e.Pid]
	}
	if len(busy) != 2 {
		t.Errorf("devices in use: %v, want both", busy)
	}
}

// TestFullDevicesAreNotTakenForEmpty: while nobody urges, devices are asked every 5 s and instances are measured every 2 s. What they showed
// before two engines loaded is not room for a third, whose clients wait until it may start with what is really free, or are refused.
func TestFullDevicesAreNotTakenForEmpty(t *testing.T) {
	s := newSite(t)
	s.onGPUs(t, "a", "b", "c")
	t.Setenv(enginetest.EnvArgs, os.Getenv(enginetest.EnvArgs)+" --tokens 100000")
	s.app["max_wait"] = "3s"
	s.start()
	s.stream("a")
	s.stream("b")
	a := s.ask(http.MethodPost, chatPath, question("c"))
	if a.status != http.StatusOK && a.status != http.StatusServiceUnavailable {
		t.Errorf("status %d: %s", a.status, a.body)
	}
	if n := len(s.happened(enginetest.EventNoRoom)); n > 0 {
		t.Errorf("%d engines found no room", n)
	}
}

// TestDevicesGiveMemoryBackLate shows that the test above can fail: on the same devices an engine that is started as soon as the last one has
// ended finds no room.
func TestDevicesGiveMemoryBackLate(t *testing.T) {
	s := newSite(t)
	dir := s.onGPUs(t)
	flags := append(strings.Fields(gpuFlags(dir)), "--events", s.events, "--port", "0", "-ngl", "4", "--device", "CUDA0")
	first := enginetest.Start(t, flags...)
	_ = first.Cmd.Process.Kill()
	_ = first.Cmd.Wait()
	argv := enginetest.Command(append(flags, "--exit-code", "0", "--exit-after", "5s")...)
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err == nil || !strings.Contains(string(out), "out of memory") {
		t.Errorf("the next one ended with %v: %s", err, out)
	}
	if n := len(s.happened(enginetest.EventNoRoom)); n != 1 {
		t.Errorf("%d engines found no room, want the second", n)
	}
}
