//go:build linux

package memory

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"assistant/internal/enginetest"
	"assistant/lifecycle/engine"
	"assistant/lifecycle/machine"
	"assistant/modeldir"
)

// pretended is a machine with pretended devices of 8 GiB each.
type pretended struct {
	dir, server string
	samples     chan machine.Sample
	watch       *machine.Watch
}

// pretend makes one, whose watch hands on each sample.
func pretend(t *testing.T, n int, release time.Duration) *pretended {
	t.Helper()
	p := &pretended{server: enginetest.Binary(t), samples: make(chan machine.Sample, 1000)}
	var gpus []enginetest.GPU
	for i := range n {
		gpus = append(gpus, enginetest.GPU{
			UUID: "GPU-" + strconv.Itoa(i), Bus: "00000000:0" + strconv.Itoa(i) + ":00.0",
			Name: "NVIDIA GeForce RTX 3070", Total: 8 * gib, ReleaseDelay: release,
		})
	}
	var bin string
	p.dir, bin = enginetest.NewGPUs(t, p.server, gpus...)
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("LLAMA_SERVER", p.server)
	t.Setenv(enginetest.EnvArgs, "--gpu-dir "+p.dir)
	p.watch = machine.NewWatch(machine.Options{LlamaServer: p.server}, func(s machine.Sample) { p.samples <- s })
	t.Cleanup(p.watch.Close)
	return p
}

// awaitFree waits until so much is seen free on device i, and returns that sample.
func (p *pretended) awaitFree(t *testing.T, i int, bytes int64) machine.Sample {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case s := <-p.samples:
			if len(s.Devices) > i && s.Devices[i].Free >= bytes {
				return s
			}
		case <-deadline:
			t.Fatalf("device %d never had %s free", i, machine.GiB(bytes))
		}
	}
}

// started is an engine started by a plan.
type started struct {
	*enginetest.Engine
	events string
}

// start places a model of so many bytes in what the sample shows, and starts the pretended engine by the plan.
func (p *pretended) start(t *testing.T, s machine.Sample, bytes int64, flags ...string) started {
	t.Helper()
	need := Need{Source: Header, Output: Block{Weights: bytes / 2}, Blocks: []Block{{Weights: bytes / 2}}}
	m := &modeldir.Model{Name: "m", Kind: modeldir.Chat, Engine: modeldir.EngineLlamaServer, ModelPath: p.server}
	w := Want(m, s.Host.Total)
	place, ok := Place(need, w, s.Room(), s.Devices, [machine.MaxDevices]bool{})
	if !ok || place.Layers != 2 {
		t.Fatalf("placed %v with %d layers in %s", ok, place.Layers, s.Room().Text(s.Devices))
	}
	plan, err := engine.For(m).Plan(m, engine.Place{Port: 1, Offload: place.Offload(m, need, w, s.Devices)})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range plan.Env {
		k, v, _ := strings.Cut(e, "=")
		t.Setenv(k, v)
	}
	events := filepath.Join(t.TempDir(), "events")
	e := enginetest.Start(t, append(append(plan.Argv[1:], "--port", "0", "--gpu-memory", strconv.FormatInt(bytes>>20, 10), "--events", events), flags...)...)
	for _, k := range []string{"CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"} { // the router's own environment has none of it
		os.Unsetenv(k)
	}
	return started{e, events}
}

// After an engine has ended, its device's memory comes back late. Urged, the watch sees it come back, and the next start then has
// it all: it neither fails nor fits itself to less.
func TestNextStartWaitsForFreedMemory(t *testing.T) {
	const release = 700 * time.Millisecond
	p := pretend(t, 1, release)
	first := p.start(t, p.awaitFree(t, 0, 8*gib), 6*gib)
	p.watch.Urge()
	if s := <-p.samples; len(s.Devices) != 1 {
		t.Fatalf("%+v", s)
	}
	_ = first.Cmd.Process.Kill()
	_ = first.Cmd.Wait()
	ended := time.Now()
	for len(p.samples) > 0 { // taken before
		<-p.samples
	}
	p.watch.Urge()
	s := p.awaitFree(t, 0, 8*gib)
	if took := time.Since(ended); took < release-100*time.Millisecond {
		t.Fatalf("seen free after %s: the samples before the end were not used up", took)
	}
	second := p.start(t, s, 6*gib)
	events, err := enginetest.ReadEvents(second.events)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.Name == enginetest.EventSlow || e.Name == enginetest.EventNoRoom {
			t.Errorf("the second engine: %s", e.Name)
		}
	}
}

// What the fake tools and the real parsers make of each other, and what a process holds.
func TestHoldingsOfAnEngine(t *testing.T) {
	p := pretend(t, 2, 0)
	s := p.awaitFree(t, 1, 8*gib)
	if got := s.Devices[1]; got.Name != "CUDA1" || got.ID != "GPU-1" || got.Vendor != machine.NVIDIA || !got.Listed {
		t.Fatalf("%+v", got)
	}
	e := p.start(t, s, 4*gib)
	var held int64
	for _, h := range machine.Holdings(t.Context()) {
		if h.PID == e.Cmd.Process.Pid {
			held += h.Bytes
		}
	}
	if held != 4*gib {
		t.Errorf("it holds %s, want 4 GiB", machine.GiB(held))
	}
}

// Two loads at once on a device that has room for one each: why they are serial. With loading set, the second is refused.
func TestLoadsAreSerial(t *testing.T) {
	p := pretend(t, 1, 0)
	s := p.awaitFree(t, 0, 8*gib)
	need := Need{Source: Header, Output: Block{Weights: 3 * gib}, Blocks: []Block{{Weights: 3 * gib}}}
	var loading [machine.MaxDevices]bool
	if _, ok := Place(need, Wanted{}, s.Room(), s.Devices, loading); !ok {
		t.Fatal("the first has no room")
	}
	loading[0] = true
	if place, ok := Place(need, Wanted{}, s.Room(), s.Devices, loading); ok {
		t.Fatalf("the second is placed while the first loads: %+v", place)
	}
	// And were it not refused:
	argv := enginetest.Command("--port", "0", "--gpu-memory", "6144", "-ngl", "2", "--start-delay", "600ms", "--exit-code", "0", "--exit-after", "2s")
	failed := make(chan bool, 2)
	for range 2 {
		go func() {
			out, _ := exec.Command(argv[0], argv[1:]...).CombinedOutput()
			failed <- strings.Contains(string(out), "out of memory")
		}()
	}
	if a, b := <-failed, <-failed; !a && !b {
		t.Error("two engines of 6 GiB run on 8 GiB")
	}
}
