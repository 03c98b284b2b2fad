package memory

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"assistant/lifecycle/engine"
	"assistant/lifecycle/machine"
	"assistant/modeldir"
)

// layers is a need of n blocks of 1 GiB and an output layer of 1 GiB, with nothing else but what is said.
func layers(n int) Need {
	need := Need{Source: Header, Output: Block{Weights: gib}}
	for range n {
		need.Blocks = append(need.Blocks, Block{Weights: gib})
	}
	return need
}

// cards makes devices, each of 100 GiB so that the margin is 1 GiB, and what is free: on the host first.
func cards(host int64, free ...int64) ([]machine.Device, machine.Amount) {
	var devices []machine.Device
	a := machine.Amount{Host: host * gib}
	for i, f := range free {
		devices = append(devices, machine.Device{Name: "CUDA" + itoa(i)[1:], ID: "GPU-" + itoa(i)[1:], Total: 100 * gib, Free: f * gib, Listed: true})
		a.Device[i] = f * gib
	}
	return devices, a
}

func ptr(n int) *int { return &n }

// said is a placement in short: devices and layers on each, and what is reserved, in GiB.
type said struct {
	Devices []int
	Counts  []int
	Layers  int
	Host    int64
	Device  []int64
}

func say(p Placement, devices []machine.Device) said {
	s := said{Devices: p.Devices, Counts: p.Counts, Layers: p.Layers, Host: p.Amount.Host / gib}
	for i := range devices {
		s.Device = append(s.Device, p.Amount.Device[i]/gib)
	}
	return s
}

func TestPlace(t *testing.T) {
	var none [machine.MaxDevices]bool
	first := none
	first[0] = true
	for name, c := range map[string]struct {
		need    Need
		w       Wanted
		host    int64
		free    []int64
		loading [machine.MaxDevices]bool
		want    *said
	}{
		"no devices":                {need: layers(4), host: 8, want: &said{Host: 5}},
		"no room":                   {need: layers(4), host: 4},
		"the one that fits best":    {need: layers(4), host: 8, free: []int64{20, 6, 10}, want: &said{[]int{1}, nil, 5, 0, []int64{0, 5, 0}}},
		"the margin counts":         {need: layers(4), host: 8, free: []int64{5, 20}, want: &said{[]int{1}, nil, 5, 0, []int64{0, 5}}},
		"two, by what is free":      {need: layers(8), host: 8, free: []int64{4, 9, 3}, want: &said{[]int{0, 1}, []int{3, 6}, 9, 0, []int64{3, 6, 0}}},
		"all three":                 {need: layers(9), host: 8, free: []int64{5, 5, 5}, want: &said{[]int{0, 1, 2}, []int{4, 3, 3}, 10, 0, []int64{4, 3, 3}}},
		"as many as fit":            {need: layers(9), host: 8, free: []int64{5}, want: &said{[]int{0}, nil, 4, 6, []int64{4}}},
		"the rest must fit":         {need: layers(9), host: 5, free: []int64{5}},
		"at least so many":          {need: layers(9), w: Wanted{AtLeast: 5}, host: 8, free: []int64{5}},
		"not beside a load":         {need: layers(4), host: 8, free: []int64{20}, loading: first},
		"on the other meanwhile":    {need: layers(4), host: 8, free: []int64{20, 20}, loading: first, want: &said{[]int{1}, nil, 5, 0, []int64{0, 5}}},
		"the host while one loads":  {need: layers(4), w: Wanted{Layers: ptr(0)}, host: 8, free: []int64{20}, loading: first, want: &said{Host: 5, Device: []int64{0}}},
		"none asked for":            {need: layers(4), w: Wanted{Layers: ptr(0)}, host: 8, free: []int64{20}, want: &said{Host: 5, Device: []int64{0}}},
		"device none":               {need: layers(4), w: Wanted{Devices: []string{"none"}}, host: 8, free: []int64{20}, want: &said{Host: 5, Device: []int64{0}}},
		"-1 is all":                 {need: layers(4), w: Wanted{Layers: ptr(-1)}, host: 8, free: []int64{20}, want: &said{[]int{0}, nil, 5, 0, []int64{5}}},
		"99 is all":                 {need: layers(4), w: Wanted{Layers: ptr(99)}, host: 8, free: []int64{20}, want: &said{[]int{0}, nil, 5, 0, []int64{5}}},
		"exactly two":               {need: layers(4), w: Wanted{Layers: ptr(2)}, host: 8, free: []int64{20}, want: &said{[]int{0}, nil, 2, 3, []int64{2}}},
		"exactly, or not":           {need: layers(4), w: Wanted{Layers: ptr(5)}, host: 8, free: []int64{4}},
		"a device by name":          {need: layers(4), w: Wanted{Devices: []string{"cuda1"}}, host: 8, free: []int64{6, 20}, want: &said{[]int{1}, nil, 5, 0, []int64{0, 5}}},
		"a device by id":            {need: layers(4), w: Wanted{Devices: []string{"GPU-1"}}, host: 8, free: []int64{6, 20}, want: &said{[]int{1}, nil, 5, 0, []int64{0, 5}}},
		"no split":                  {need: layers(8), w: Wanted{SplitMode: SplitNone, AtLeast: 9}, host: 8, free: []int64{9, 9}},
		"the main one alone":        {need: layers(4), w: Wanted{SplitMode: SplitNone, MainGPU: ptr(1)}, host: 8, free: []int64{7, 20}, want: &said{[]int{1}, nil, 5, 0, []int64{0, 5}}},
		"shares as said":            {need: layers(7), w: Wanted{TensorSplit: []float64{1, 3}}, host: 8, free: []int64{20, 20}, want: &said{[]int{0, 1}, []int{2, 6}, 8, 0, []int64{2, 6}}},
		"shares in their order":     {need: layers(7), w: Wanted{TensorSplit: []float64{1, 3}, Devices: []string{"CUDA1", "CUDA0"}}, host: 8, free: []int64{20, 20}, want: &said{[]int{1, 0}, []int{2, 6}, 8, 0, []int64{6, 2}}},
		"rows":                      {need: layers(7), w: Wanted{SplitMode: SplitRow, TensorSplit: []float64{1, 1}}, host: 8, free: []int64{20, 20}, want: &said{[]int{0, 1}, nil, 8, 0, []int64{4, 4}}},
		"weights above the machine": {need: layers(9), w: Wanted{Host: 6 * gib}, host: 5, want: &said{Host: 5}},
		"weights that fit the machine, but not now": {need: layers(4), w: Wanted{Host: 6 * gib}, host: 4},
		"an engine of its own":                      {need: Need{Source: Declared, Process: gib, Fixed: []Share{{"CUDA1", 3 * gib}}}, host: 2, free: []int64{20, 4}, want: &said{[]int{1}, nil, 0, 1, []int64{0, 3}}},
		"an engine of its own, no room":             {need: Need{Fixed: []Share{{"CUDA1", 4 * gib}}}, host: 2, free: []int64{20, 4}},
		"an engine of its own, elsewhere":           {need: Need{Fixed: []Share{{"CUDA7", gib}}}, host: 2, free: []int64{20, 4}},
		"an engine of its own, a load":              {need: Need{Fixed: []Share{{"CUDA0", gib}}}, host: 2, free: []int64{20, 4}, loading: first},
		"nothing known":                             {need: Need{Source: Unknown}, host: 0, want: &said{}},
	} {
		t.Run(name, func(t *testing.T) {
			devices, free := cards(c.host, c.free...)
			p, ok := Place(c.need, c.w, free, devices, c.loading)
			if ok != (c.want != nil) {
				t.Fatalf("placed %v: %+v", ok, say(p, devices))
			}
			if ok {
				if diff := cmp.Diff(*c.want, say(p, devices)); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestPlaceOnlyWhatTheEngineSees(t *testing.T) {
	devices, free := cards(8, 20)
	devices[0].Listed = false
	if p, ok := Place(layers(4), Wanted{LlamaServer: true}, free, devices, [machine.MaxDevices]bool{}); !ok || len(p.Devices) != 0 {
		t.Errorf("%+v, %v", p, ok)
	}
}

func TestUnifiedMemoryIsOnePool(t *testing.T) {
	devices, free := cards(10, 20)
	devices[0].Unified, free.Device[0] = true, 0
	p, ok := Place(layers(4), Wanted{}, free, devices, [machine.MaxDevices]bool{})
	if !ok || p.Layers != 5 || p.Amount.Host != 5*gib || p.Amount.Device[0] != 0 {
		t.Errorf("%+v, %v", p, ok)
	}
	if p, ok = Place(layers(10), Wanted{}, free, devices, [machine.MaxDevices]bool{}); ok {
		t.Errorf("11 of 10 GiB: %+v", p)
	}
}

func TestNeverFits(t *testing.T) {
	devices, capacity := cards(23, 24)
	need := layers(80)
	need.Output.Context, need.Compute = 4*gib, gib
	err := NeverFits(need, Wanted{}, capacity, devices)
	if want := "needs 86.0 GiB (weights 81.0 GiB, context 4.0 GiB, buffers 1.0 GiB) but this machine has 23.0 GiB of memory and CUDA0 24.0 GiB; lower ctx_size, use a smaller quantisation, or set memory"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if err := NeverFits(layers(40), Wanted{}, capacity, devices); err != nil {
		t.Errorf("41 of 23 + 24 - 1 GiB: %v", err)
	}
	if err := NeverFits(layers(4), Wanted{Devices: []string{"CUDA9"}}, capacity, devices); err == nil || !strings.Contains(err.Error(), `no device "CUDA9": it has CUDA0`) {
		t.Errorf("a device that is not there: %v", err)
	}
	// Weights that are mapped and exceed the machine can page: slow, and not refused.
	if err := NeverFits(layers(80), Wanted{Host: capacity.Host}, capacity, devices); err != nil {
		t.Errorf("mapped: %v", err)
	}
}

// random makes a need and a machine out of small and odd sizes.
func random(r *rand.Rand) (Need, Wanted, machine.Amount, []machine.Device, [machine.MaxDevices]bool) {
	size := func(most int64) int64 { return r.Int64N(most + 1) }
	n := Need{Source: Header, Output: Block{Weights: size(2 * gib), Context: size(gib / 8)}, Rest: Block{Weights: size(gib)}, Compute: size(gib), DeviceCompute: size(gib), Process: size(gib / 4), Anonymous: r.IntN(4) == 0}
	if r.IntN(2) == 0 {
		n.Copied = size(min(n.Output.Weights, n.Rest.Weights))
	}
	for range r.IntN(60) {
		n.Blocks = append(n.Blocks, Block{Weights: size(gib), Context: size(gib / 2)})
	}
	var devices []machine.Device
	free := machine.Amount{Host: size(60 * gib)}
	for i := range r.IntN(6) {
		d := machine.Device{Name: "CUDA" + itoa(i), Total: size(40 * gib), Unified: r.IntN(8) == 0, Listed: r.IntN(8) != 0}
		d.Free = size(d.Total)
		if !d.Unified {
			free.Device[i] = d.Free
		}
		devices = append(devices, d)
	}
	w := Wanted{SplitMode: []string{"", "", "", SplitNone, SplitLayer, SplitRow}[r.IntN(6)], LlamaServer: r.IntN(2) == 0, AtLeast: r.IntN(3) * 10}
	if r.IntN(3) == 0 {
		w.Layers = ptr(r.IntN(70) - 1)
	}
	if r.IntN(4) == 0 {
		for range devices {
			w.TensorSplit = append(w.TensorSplit, float64(r.IntN(4)))
		}
	}
	if r.IntN(4) == 0 {
		w.MainGPU = ptr(r.IntN(3))
	}
	if r.IntN(2) == 0 {
		w.Host = free.Host + size(8*gib)
	}
	var loading [machine.MaxDevices]bool
	for i := range devices {
		loading[i] = r.IntN(8) == 0
	}
	return n, w, free, devices, loading
}

// Whatever the machine: what is placed has room, with the margin; nothing is lost; and the same question has the same answer.
func TestPlaceProperties(t *testing.T) {
	placed := 0
	for seed := range uint64(20_000) {
		n, w, free, devices, loading := random(rand.New(rand.NewPCG(seed, 1)))
		p, ok := Place(n, w, free, devices, loading)
		again, okAgain := Place(n, w, free, devices, loading)
		if ok != okAgain || !cmp.Equal(p, again) {
			t.Fatalf("seed %d: %+v and %+v", seed, p, again)
		}
		if !ok {
			continue
		}
		placed++
		hard, soft := n.Host(p.Layers)
		onDevices := p.Amount.OnDevices()
		unified := false
		for i, bytes := range p.Amount.Device {
			if bytes > 0 && bytes > free.Device[i]-margin(devices[i]) {
				t.Fatalf("seed %d: %d on device %d with %d free", seed, bytes, i, free.Device[i])
			}
		}
		for _, i := range p.Devices {
			unified = unified || devices[i].Unified
			if loading[i] || w.LlamaServer && !devices[i].Listed {
				t.Fatalf("seed %d: device %d is not to be used", seed, i)
			}
		}
		if p.Amount.Host > free.Host || p.Amount.Host < 0 {
			t.Fatalf("seed %d: %d on the host with %d free", seed, p.Amount.Host, free.Host)
		}
		total := sum(n.offloaded(p.Layers)) + int64(len(p.Devices))*n.DeviceCompute
		paged := w.Host > 0 && hard+soft+total > w.Host
		if got := p.Amount.Host + onDevices; got < hard+soft+total && !paged {
			t.Fatalf("seed %d: reserved %d of %d", seed, got, hard+soft+total)
		}
		if len(p.Counts) > 0 {
			all := 0
			for _, c := range p.Counts {
				all += c
			}
			if all != p.Layers {
				t.Fatalf("seed %d: %v are not %d layers", seed, p.Counts, p.Layers)
			}
		}
		if !unified && len(w.TensorSplit) == 0 && len(p.Counts) > 0 && w.SplitMode != SplitRow && !slices.Equal(p.Counts, byWeight(p.Layers, p.Split)) {
			t.Fatalf("seed %d: told %v, the engine makes %v of it, not %v", seed, p.Split, byWeight(p.Layers, p.Split), p.Counts)
		}
	}
	if placed < 5000 {
		t.Errorf("only %d of 20,000 were placed: the property says little", placed)
	}
}

// With everything free but one byte less than Best needs there, the best is not reached.
func TestBestIsWhatPlaceReaches(t *testing.T) {
	for seed := range uint64(3000) {
		n, w, free, devices, _ := random(rand.New(rand.NewPCG(seed, 2)))
		best, ok := Best(n, w, free, devices)
		if !ok {
			continue
		}
		w.AtLeast = best.Layers
		if p, ok := Place(n, w, free, devices, [machine.MaxDevices]bool{}); !ok || p.Layers != best.Layers {
			t.Fatalf("seed %d: %+v, %v, best %+v", seed, p, ok, best)
		}
	}
}

func TestOffload(t *testing.T) {
	devices, free := cards(8, 4, 9)
	n := layers(8)
	n.Context = 8192
	m := &modeldir.Model{Engine: modeldir.EngineLlamaServer}
	p, _ := Place(n, Wanted{}, free, devices, [machine.MaxDevices]bool{})
	want := &engine.Offload{
		Layers: 9, Split: []float64{3, 6}, Context: 8192,
		Devices: []engine.OffloadDevice{{Name: "CUDA0", ID: "GPU-0"}, {Name: "CUDA1", ID: "GPU-1"}},
	}
	if diff := cmp.Diff(want, p.Offload(m, n, Wanted{}, devices)); diff != "" {
		t.Error(diff)
	}
	onHost, _ := Place(layers(4), Wanted{Layers: ptr(0)}, free, devices, [machine.MaxDevices]bool{})
	if o := onHost.Offload(m, n, Wanted{}, devices); o == nil || !o.None || o.Layers != 0 {
		t.Errorf("on the host of a machine with devices: %+v", o)
	}
	if o := onHost.Offload(m, n, Wanted{}, nil); o == nil || o.None {
		t.Errorf("on a machine without: %+v", o)
	}
	if o := onHost.Offload(&modeldir.Model{Engine: modeldir.EngineCommand}, Need{}, Wanted{}, devices); o != nil {
		t.Errorf("a command of its own: %+v", o)
	}
}

func TestWant(t *testing.T) {
	m := &modeldir.Model{Engine: modeldir.EngineLlamaServer, NGPULayers: ptr(5), Devices: []string{"CUDA0"}, Args: []string{"-ngl", "all", "--device", "CUDA1,CUDA2", "-sm", "row"}}
	w := Want(m, gib)
	if *w.Layers != -1 || !slices.Equal(w.Devices, []string{"CUDA1", "CUDA2"}) || w.SplitMode != SplitRow || !w.LlamaServer || w.Host != gib {
		t.Errorf("%+v", w)
	}
}

func BenchmarkPlace(b *testing.B) {
	devices, free := cards(200, 20, 20, 20, 20, 20, 20, 20, 20)
	n := layers(126) // nothing fits: the longest search
	n.DeviceCompute = 19 * gib
	for b.Loop() {
		Place(n, Wanted{}, free, devices, [machine.MaxDevices]bool{})
	}
}
