package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"assistant/internal/enginetest"
	"assistant/modeldir"
)

func TestMain(m *testing.M) {
	enginetest.MaybeRun()
	os.Exit(m.Run())
}

// server puts a llama-server in place whose help says help, and returns its path.
func server(t *testing.T, help string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "llama-server")
	if err := os.WriteFile(path, []byte("#!/bin/sh\ncat <<'E'\n"+help+"\nE\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("LLAMA_SERVER", path)
	return path
}

// newHelp is of build 11669; oldHelp is of a build before --fit (2025-12).
const (
	newHelp = "-fit,  --fit [on|off]                   whether to adjust unset arguments to fit in device memory ('on' or\n"
	oldHelp = "-dev,  --device <dev1,dev2,..>          comma-separated list of devices to use for offloading (none = don't"
)

func ptr(n int) *int { return &n }

func TestOffloadArguments(t *testing.T) {
	two := []OffloadDevice{{"CUDA1", "GPU-b"}, {"CUDA0", "GPU-a"}}
	for name, c := range map[string]struct {
		help    string
		model   modeldir.Model
		offload *Offload
		argv    string // after the port
		env     string
	}{
		"no plan":           {newHelp, modeldir.Model{}, nil, "", ""},
		"no plan, its own":  {newHelp, modeldir.Model{NGPULayers: ptr(7), Devices: []string{"CUDA0", "CUDA1"}, SplitMode: "row", TensorSplit: []float64{1, 0.5}, MainGPU: ptr(1)}, nil, "-ngl 7 --device CUDA0,CUDA1 -sm row -ts 1,0.5 -mg 1", ""},
		"one by id":         {newHelp, modeldir.Model{}, &Offload{Layers: 33, Devices: two[:1]}, "-ngl 33 --device CUDA0 --fit off", "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=GPU-b"},
		"two by id":         {newHelp, modeldir.Model{}, &Offload{Layers: 33, Devices: two, Split: []float64{20, 13}}, "-ngl 33 --device CUDA0,CUDA1 -sm layer -ts 20,13 --fit off", "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=GPU-b,GPU-a"},
		"rows":              {newHelp, modeldir.Model{}, &Offload{Layers: 33, Devices: two, Split: []float64{0.5, 0.5}, SplitMode: "row", MainGPU: ptr(1)}, "-ngl 33 --device CUDA0,CUDA1 -sm row -ts 0.5,0.5 -mg 1 --fit off", "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=GPU-b,GPU-a"},
		"AMD":               {newHelp, modeldir.Model{}, &Offload{Layers: 9, Devices: []OffloadDevice{{"ROCm2", "GPU-7f3c"}}}, "-ngl 9 --device ROCm0 --fit off", "HIP_VISIBLE_DEVICES=0 ROCR_VISIBLE_DEVICES=GPU-7f3c"},
		"without ids":       {newHelp, modeldir.Model{}, &Offload{Layers: 9, Devices: []OffloadDevice{{"Vulkan1", ""}}}, "-ngl 9 --device Vulkan1 --fit off", ""},
		"one without id":    {newHelp, modeldir.Model{}, &Offload{Layers: 9, Devices: []OffloadDevice{{"CUDA1", ""}}}, "-ngl 9 --device CUDA1 --fit off", "CUDA_DEVICE_ORDER=PCI_BUS_ID"},
		"mixed":             {newHelp, modeldir.Model{}, &Offload{Layers: 9, Devices: []OffloadDevice{{"CUDA1", "GPU-b"}, {"ROCm0", "GPU-7"}}, Split: []float64{1, 2}}, "-ngl 9 --device CUDA1,ROCm0 -sm layer -ts 1,2 --fit off", "CUDA_DEVICE_ORDER=PCI_BUS_ID"},
		"none of them":      {newHelp, modeldir.Model{}, &Offload{None: true}, "-ngl 0 --device none --fit off", "CUDA_VISIBLE_DEVICES=-1 HIP_VISIBLE_DEVICES=-1"},
		"there are none":    {newHelp, modeldir.Model{}, &Offload{Context: 4096}, "-ngl 0 -c 4096 --fit off", ""},
		"context asked for": {newHelp, modeldir.Model{CtxSize: 512}, &Offload{Context: 4096}, "-c 512 -ngl 0 --fit off", ""},
		"an older build":    {oldHelp, modeldir.Model{}, &Offload{Layers: 33, Devices: two[:1]}, "-ngl 33 --device CUDA0", "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=GPU-b"},
		"args win":          {newHelp, modeldir.Model{Args: []string{"-ngl", "5"}}, &Offload{Layers: 33, Devices: two[:1]}, "-ngl 33 --device CUDA0 --fit off -ngl 5", "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=GPU-b"},
		"env chooses":       {newHelp, modeldir.Model{Env: map[string]string{"CUDA_VISIBLE_DEVICES": "3"}}, &Offload{Layers: 33, Devices: two[:1]}, "-ngl 33 --fit off", "CUDA_VISIBLE_DEVICES=3"},
		"env":               {newHelp, modeldir.Model{Env: map[string]string{"A": "b"}}, &Offload{Layers: 33, Devices: two[:1]}, "-ngl 33 --device CUDA0 --fit off", "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=GPU-b A=b"},
	} {
		t.Run(name, func(t *testing.T) {
			path := server(t, c.help)
			m := c.model
			m.Name, m.Kind, m.Engine, m.ModelPath = "m", modeldir.Chat, modeldir.EngineLlamaServer, path
			plan, err := llamaServer.Plan(&m, Place{Port: 1, Offload: c.offload})
			if err != nil {
				t.Fatal(err)
			}
			_, after, _ := strings.Cut(strings.Join(plan.Argv, " "), "--port 1")
			if diff := cmp.Diff(c.argv, strings.TrimSpace(after)); diff != "" {
				t.Error(diff)
			}
			quiet, env := plan.Env[0], plan.Env[1:]
			if quiet != llamaNoPing {
				t.Errorf("it begins with %q, want %q", quiet, llamaNoPing)
			}
			if diff := cmp.Diff(c.env, strings.Join(env, " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCommandGetsTheDevices(t *testing.T) {
	m := &modeldir.Model{Engine: modeldir.EngineCommand, Command: []string{"sh", "{{port}}"}, Env: map[string]string{"A": "b"}}
	plan, err := command.Plan(m, Place{Port: 1, Offload: &Offload{Devices: []OffloadDevice{{"CUDA1", "GPU-b"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(plan.Env, " "), "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=GPU-b A=b"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := strings.Join(plan.Argv, " "); got != "sh 1" {
		t.Errorf("got %q", got)
	}
}

func TestHelpIsAskedForOnce(t *testing.T) {
	path := server(t, newHelp)
	runs := filepath.Join(t.TempDir(), "runs")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho >>"+runs+"\necho '-fit, --fit [on|off]'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if !knows(path, "--fit") || knows(path, "--fi") {
			t.Fatal("it does not know what it knows")
		}
	}
	if b, _ := os.ReadFile(runs); len(b) != 1 {
		t.Errorf("asked %d times", len(b))
	}
	if knows(filepath.Join(t.TempDir(), "none"), "--fit") {
		t.Error("a program that is not there knows a flag")
	}
}

// The fake engine takes what a plan says: on the device that was chosen by its id.
func TestPlanOnPretendedDevices(t *testing.T) {
	const gib = int64(1) << 30
	card := enginetest.GPU{UUID: "GPU-a", Bus: "00000000:01:00.0", Name: "NVIDIA GeForce RTX 3090", Total: 4 * gib}
	other := card
	other.UUID, other.Bus = "GPU-b", "00000000:02:00.0"
	dir, _ := enginetest.NewGPUs(t, "none", card, other)
	t.Setenv("LLAMA_SERVER", enginetest.Binary(t))
	m := &modeldir.Model{Name: "m", Kind: modeldir.Chat, Engine: modeldir.EngineLlamaServer, ModelPath: os.Args[0]}
	plan, err := llamaServer.Plan(m, Place{Port: 1, Offload: &Offload{Layers: 5, Devices: []OffloadDevice{{"CUDA1", "GPU-b"}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range plan.Env {
		k, v, _ := strings.Cut(e, "=")
		t.Setenv(k, v)
	}
	enginetest.Start(t, append(plan.Argv[1:], "--port", "0", "--gpu-dir", dir, "--gpu-memory", "1024")...)
	free, err := enginetest.GPUFree(dir)
	if err != nil || free[0] != 4*gib || free[1] != 3*gib {
		t.Errorf("free %v, %v, want 4 and 3 GiB", free, err)
	}
}
