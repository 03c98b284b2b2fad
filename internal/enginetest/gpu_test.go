//go:build linux

package enginetest

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const gib = int64(1) << 30

var card = GPU{UUID: "GPU-0", Bus: "00000000:01:00.0", Name: "NVIDIA GeForce RTX 3090", Total: 4 * gib}

// startOn starts an engine on pretended GPUs.
func startOn(t *testing.T, dir string, flags ...string) *Engine {
	t.Helper()
	return Start(t, append([]string{"--gpu-dir", dir}, flags...)...)
}

func free(t *testing.T, dir string) []int64 {
	t.Helper()
	f, err := GPUFree(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// output runs this engine to its end and returns what it says.
func output(t *testing.T, env []string, flags ...string) (string, error) {
	t.Helper()
	argv := Command(flags...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(cmd.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestGPUMemoryIsHeldAndGivenBackLate(t *testing.T) {
	slow := card
	slow.ReleaseDelay = 300 * time.Millisecond
	dir, _ := NewGPUs(t, "none", slow)
	e := startOn(t, dir, "--gpu-memory", "1024", "-ngl", "99")
	if got := free(t, dir)[0]; got != 3*gib {
		t.Fatalf("free %d while it runs, want 3 GiB", got)
	}
	_ = e.Cmd.Process.Kill()
	_ = e.Cmd.Wait()
	ended := time.Now()
	if got := free(t, dir)[0]; got != 3*gib {
		t.Fatalf("free %d right after its end, want 3 GiB still", got)
	}
	for free(t, dir)[0] != 4*gib {
		if time.Since(ended) > 5*time.Second {
			t.Fatal("never given back")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if took := time.Since(ended); took < slow.ReleaseDelay {
		t.Errorf("given back after %s, want %s", took, slow.ReleaseDelay)
	}
}

func TestGPUWithoutRoomFailsAsCUDADoes(t *testing.T) {
	dir, _ := NewGPUs(t, "none", card)
	startOn(t, dir, "--gpu-memory", "3072", "-ngl", "99")
	out, err := output(t, nil, "--gpu-dir", dir, "--gpu-memory", "2048", "-ngl", "99", "--port", "0")
	if err == nil || !strings.Contains(out, "cudaMalloc failed: out of memory") {
		t.Errorf("got %v and %q, want it to fail for want of memory", err, out)
	}
	if got := free(t, dir)[0]; got != gib {
		t.Errorf("free %d after the second failed, want 1 GiB", got)
	}
}

// Two engines that each would fit, loading at once: at least one of them fails.
func TestGPULoadsRace(t *testing.T) {
	dir, _ := NewGPUs(t, "none", card)
	failed := make(chan bool, 2)
	for range 2 {
		go func() {
			out, _ := output(t, nil, "--gpu-dir", dir, "--gpu-memory", "3072", "-ngl", "99", "--port", "0",
				"--start-delay", "1s", "--exit-code", "0", "--exit-after", "3s")
			failed <- strings.Contains(out, "out of memory")
		}()
	}
	if a, b := <-failed, <-failed; !a && !b {
		t.Error("both have 3 of 4 GiB")
	}
}

func TestGPUChoice(t *testing.T) {
	other := card
	other.UUID, other.Bus = "GPU-1", "00000000:02:00.0"
	for name, c := range map[string]struct {
		env   []string
		flags []string
		want  []int64 // GiB free
	}{
		"all":           {nil, []string{"-ngl", "99"}, []int64{3, 3}},
		"by name":       {nil, []string{"-ngl", "99", "--device", "CUDA1"}, []int64{4, 2}},
		"by id":         {[]string{"CUDA_VISIBLE_DEVICES=GPU-1"}, []string{"-ngl", "99", "--device", "CUDA0"}, []int64{4, 2}},
		"split":         {nil, []string{"-ngl", "99", "-ts", "0,1"}, []int64{4, 2}},
		"no layers":     {nil, []string{"-ngl", "0"}, []int64{4, 4}},
		"no device":     {nil, []string{"--device", "none"}, []int64{4, 4}},
		"half of it":    {nil, []string{"-ngl", "5", "--gpu-all", "10", "--device", "CUDA0"}, []int64{3, 4}},
		"none visible":  {[]string{"CUDA_VISIBLE_DEVICES=-1"}, []string{"-ngl", "99"}, []int64{4, 4}},
		"loading extra": {nil, []string{"-ngl", "99", "--gpu-load-extra", "512"}, []int64{3, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, e := range c.env {
				k, v, _ := strings.Cut(e, "=")
				t.Setenv(k, v)
			}
			dir, _ := NewGPUs(t, "none", card, other)
			startOn(t, dir, append([]string{"--gpu-memory", "2048"}, c.flags...)...)
			got := free(t, dir)
			for i := range got {
				if got[i] != c.want[i]*gib {
					t.Errorf("GPU %d has %d free, want %d GiB", i, got[i], c.want[i])
				}
			}
		})
	}
}

func TestEngineLeftToItselfIsSlow(t *testing.T) {
	dir, _ := NewGPUs(t, "none", card)
	startOn(t, dir, "--gpu-memory", "3072", "-ngl", "99")
	events := filepath.Join(t.TempDir(), "events")
	startOn(t, dir, "--gpu-memory", "3072", "--events", events)
	await(t, events, EventSlow)
	if got := free(t, dir)[0]; got != 0 {
		t.Errorf("free %d, want it to have taken what there was", got)
	}
}

func TestFakeDeviceTools(t *testing.T) {
	dir, bin := NewGPUs(t, Binary(t), card)
	e := startOn(t, dir, "--gpu-memory", "1024", "-ngl", "99")
	for _, c := range []struct {
		argv []string
		want string
	}{
		{
			[]string{filepath.Join(bin, "nvidia-smi"), "--query-gpu=uuid,pci.bus_id,memory.total,memory.free,name", "--format=csv,noheader,nounits"},
			"GPU-0, 00000000:01:00.0, 4096, 3072, NVIDIA GeForce RTX 3090",
		},
		{
			[]string{filepath.Join(bin, "nvidia-smi"), "--query-compute-apps=pid,gpu_uuid,used_memory", "--format=csv,noheader,nounits"},
			strconv.Itoa(e.Cmd.Process.Pid) + ", GPU-0, 1024",
		},
		{Command("--gpu-dir", dir, "--list-devices"), "Available devices:\n  CUDA0: NVIDIA GeForce RTX 3090 (4096 MiB, 3072 MiB free)"},
		{Command("--list-devices"), "Available devices:\n  (none)"},
	} {
		out, err := exec.Command(c.argv[0], c.argv[1:]...).Output()
		if got := strings.TrimSpace(string(out)); err != nil || got != c.want {
			t.Errorf("%v: got %q, %v, want %q", c.argv, got, err, c.want)
		}
	}
	if out, _ := output(t, nil, "--help"); !strings.Contains(out, "--fit ") {
		t.Errorf("help %q has no --fit", out)
	}
}
