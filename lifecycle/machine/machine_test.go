package machine

import (
	"context"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"assistant/internal/enginetest"
)

func TestMain(m *testing.M) {
	enginetest.MaybeRun()
	goleak.VerifyTestMain(m)
}

const gib = int64(1) << 30

func recorded(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "tools", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAmount(t *testing.T) {
	a := Amount{Host: gib}
	a.Device[1] = 3 * gib
	b := Amount{Host: 2 * gib}
	b.Device[1] = 3 * gib
	if got := a.Plus(b).Minus(b); got != a {
		t.Errorf("a + b - b = %v, want %v", got, a)
	}
	if !a.FitsIn(b) || b.FitsIn(a) {
		t.Errorf("%v in %v, and not the other way", a, b)
	}
	overdrawn := Amount{Host: 2 * gib}
	overdrawn.Device[0] = -1
	if (Amount{Host: gib}).FitsIn(overdrawn) == false {
		t.Error("a device that is not asked for is in the way")
	}
	devices := []Device{{Name: "CUDA0"}, {Name: "CUDA1"}}
	if got, want := a.Text(devices), "1.0 GiB, CUDA1 3.0 GiB"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := a.String(), "1.0 GiB, device 1 3.0 GiB"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if n := testing.AllocsPerRun(100, func() { _ = a.Plus(b).FitsIn(b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// lines says devices in short, for comparing.
func lines(devices []Device) string {
	var b strings.Builder
	for _, d := range devices {
		id, _, _ := strings.Cut(d.ID, "-1f0a4f6e-6f6a-4f2f-9a3e-00000000000")
		if id != "" {
			id += "…" + d.ID[len(d.ID)-1:]
		}
		b.WriteString(strings.Join([]string{d.Name, id, d.Bus, d.Vendor, strconv.FormatInt(d.Total>>20, 10), strconv.FormatInt(d.Free>>20, 10)}, " "))
		if d.Unified {
			b.WriteString(" unified")
		}
		if !d.Listed {
			b.WriteString(" unlisted")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestMerge(t *testing.T) {
	amd := amdCards("testdata/amd")
	for name, c := range map[string]struct {
		list  string
		cards []Card
		want  string
	}{
		"CUDA and nvidia-smi": {
			"list-two-cuda.txt", ParseNVIDIA(recorded(t, "smi-two.txt")),
			"CUDA0 GPU…1 0000:01:00.0 nvidia 12288 11900\nCUDA1 GPU…2 0000:05:00.0 nvidia 24467 24000\n",
		},
		"CUDA alone":                           {"list-two-cuda.txt", nil, "CUDA0    11909 11650\nCUDA1    24026 23795\n"},
		"a build without CUDA":                 {"list-none.txt", ParseNVIDIA(recorded(t, "smi-two.txt")), "CUDA0 GPU…1 0000:01:00.0 nvidia 12288 11900 unlisted\nCUDA1 GPU…2 0000:05:00.0 nvidia 24467 24000 unlisted\n"},
		"RPC is elsewhere":                     {"list-rpc.txt", nil, "CUDA0    24124 23862\n"},
		"a card through two back ends is once": {"list-cuda-vulkan.txt", ParseNVIDIA(recorded(t, "smi-two.txt")), "CUDA0 GPU…1 0000:01:00.0 nvidia 12288 11900\nCUDA1 GPU…2 0000:05:00.0 nvidia 24467 24000\nVulkan2    31871 20000\n"},
		"also without nvidia-smi":              {"list-cuda-vulkan.txt", nil, "CUDA0    11909 11650\nCUDA1    24026 23795\nVulkan2    31871 20000\n"},
		"Vulkan on AMD, the right of two by its size": {
			"list-vulkan-amd.txt", amd,
			"Vulkan0  0000:c5:00.0 amd 108032 106656 unified\nROCm0 GPU-7f3c1a2b9d4e5f60…0 0000:03:00.0 amd 16368 15856 unlisted\n",
		},
		"unified NVIDIA": {"list-none.txt", ParseNVIDIA(recorded(t, "smi-gb10.txt")), "CUDA0 GPU-2dee1e25-b3b5-007e-2b55-79f2d0f2ebe5…5 000f:01:00.0 nvidia 0 0 unified unlisted\n"},
	} {
		t.Run(name, func(t *testing.T) {
			listed, ok := ParseListed(recorded(t, c.list))
			if !ok {
				t.Fatal("no list found")
			}
			if diff := cmp.Diff(c.want, lines(Merge(listed, c.cards))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMergeKeepsToTheBound(t *testing.T) {
	var cards []Card
	for i := range 40 {
		cards = append(cards, Card{ID: "GPU-" + strconv.Itoa(i), Vendor: NVIDIA, Total: gib, Free: gib})
	}
	if got := len(Merge(nil, cards)); got != MaxDevices {
		t.Errorf("%d devices, want %d", got, MaxDevices)
	}
}

func TestRefresh(t *testing.T) {
	listed, _ := ParseListed(recorded(t, "list-two-cuda.txt"))
	devices := Merge(listed, ParseNVIDIA(recorded(t, "smi-two.txt")))
	now := ParseNVIDIA(strings.ReplaceAll(recorded(t, "smi-two.txt"), "24000", "100"))
	if got := Refresh(devices, now); got[1].Free != 100<<20 || devices[1].Free != 24000<<20 {
		t.Errorf("free %d, and %d in the list it was made from", got[1].Free, devices[1].Free)
	}
	lost := Refresh(devices, ParseNVIDIA(recorded(t, "smi-lost.txt")))
	if lost[0].Free != 0 || lost[1].Free != 24000<<20 {
		t.Errorf("a lost card has %d free, the other %d", lost[0].Free, lost[1].Free)
	}
	if failed := Refresh(devices, nil); failed[0].Free != devices[0].Free {
		t.Error("a tool that failed made a device disappear")
	}
}

func TestVisible(t *testing.T) {
	cards := ParseNVIDIA(recorded(t, "smi-two.txt"))
	for value, want := range map[string]string{
		"":        "",
		"1":       "2",
		"1,0":     "21",
		"0,9,1":   "1",
		"-1":      "",
		"GPU-1f0": "1", // the first that begins so
		"GPU-1f0a4f6e-6f6a-4f2f-9a3e-000000000002,0": "21",
	} {
		got := ""
		for _, c := range visible(cards, value, true) {
			got += c.ID[len(c.ID)-1:]
		}
		if got != want {
			t.Errorf("%q leaves %q, want %q", value, got, want)
		}
	}
	if got := visible(cards, "", false); len(got) != 2 {
		t.Errorf("without the variable %d are visible, want 2", len(got))
	}
}

func TestHoldings(t *testing.T) {
	want := []Holding{
		{41250, "GPU-1f0a4f6e-6f6a-4f2f-9a3e-000000000001", 990 << 20},
		{41250, "GPU-1f0a4f6e-6f6a-4f2f-9a3e-000000000002", 2404 << 20},
	}
	if diff := cmp.Diff(want, ParseHoldings(recorded(t, "smi-apps.txt"))); diff != "" {
		t.Error(diff)
	}
}

func TestAMD(t *testing.T) {
	want := []Card{
		{ID: "GPU-7f3c1a2b9d4e5f60", Bus: "0000:03:00.0", Vendor: AMD, Total: 17163091968, Free: 17163091968 - 536870912},
		{Bus: "0000:c5:00.0", Vendor: AMD, Unified: true, Total: 536870912 + 112742891520, Free: 536870912 - 368111616 + 112742891520 - 1073741824},
	}
	if diff := cmp.Diff(want, amdCards("testdata/amd")); diff != "" {
		t.Error(diff)
	}
	if got := amdCards("testdata/host-plain"); got != nil {
		t.Errorf("a machine without has %v", got)
	}
}

func TestMemoryWithinControlGroups(t *testing.T) {
	const total, available = 32768000 << 10, 20000000 << 10
	for name, want := range map[string]Memory{
		"host-plain": {total, available},
		"docker-v1":  {8 * gib, 6 * gib},  // 8 - (6 - 1 - 3 of files, used lately or not)
		"cgroup-v2":  {4 * gib, 3 * gib},  // 4 - (3 - 1.5 - 0.5 of files)
		"systemd-v2": {10 * gib, 6 * gib}, // the slice's memory.high, 10 - (5 - 1)
	} {
		t.Run(name, func(t *testing.T) {
			root := files(filepath.Join("testdata", name))
			if got := findCgroup(root).memoryLimits(Memory{total, available}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestSmallMachineInALargeGroup(t *testing.T) {
	m := Memory{Total: gib, Available: gib / 2}
	if got := findCgroup("testdata/cgroup-v2").memoryLimits(m); got != m {
		t.Errorf("a limit of 4 GiB makes %+v of %+v", got, m)
	}
}

// An outer group that is wider than ours, and nearly full of others.
func TestFullOuterGroup(t *testing.T) {
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS("testdata/systemd-v2")); err != nil {
		t.Fatal(err)
	}
	slice := filepath.Join(root, "sys/fs/cgroup/system.slice/models.slice")
	for name, text := range map[string]string{"assistant.service/memory.max": "4294967296", "memory.current": "10737000000"} {
		if err := os.WriteFile(filepath.Join(slice, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := Memory{4 * gib, 10*gib - (10737000000 - gib)}
	if got := findCgroup(files(root)).memoryLimits(Memory{30 * gib, 20 * gib}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// A device that nobody knows but llama-server, as large as the host, is the host's memory: Jetson, Intel's.
func TestUnknownDeviceAsLargeAsTheHost(t *testing.T) {
	devices := []Device{{Name: "CUDA0", Total: 60 * gib}, {Name: "CUDA1", Total: 24 * gib}, {Name: "CUDA2", Vendor: NVIDIA, Total: 61 * gib}}
	got := sharing(devices, 62*gib)
	if !got[0].Unified || got[1].Unified || got[2].Unified {
		t.Errorf("%+v", got)
	}
}

func TestPressureFiles(t *testing.T) {
	for name, want := range map[string][2]float64{
		"host-plain": {12.5, 3.25},
		"cgroup-v2":  {71, 6.5},
		"systemd-v2": {33, 0},
		"docker-v1":  {0, 0},
	} {
		g := findCgroup(files(filepath.Join("testdata", name)))
		if got := [2]float64{g.pressure("cpu", "some"), g.pressure("memory", "full")}; got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

func TestCPUQuota(t *testing.T) {
	for name, want := range map[string]float64{"host-plain": 0, "docker-v1": 1.5, "cgroup-v2": 0.5, "systemd-v2": 0} {
		if got, _ := findCgroup(files(filepath.Join("testdata", name))).cpuQuota(); got != want {
			t.Errorf("%s: got %v CPUs, want %v", name, got, want)
		}
	}
}

// A container that uses all of its half CPU is loaded, however idle the machine is.
func TestLoadWithinAQuota(t *testing.T) {
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS("testdata/cgroup-v2")); err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1000, 0)
	h := &hostSampler{root: files(root), now: func() time.Time { return now }}
	if got := h.quotaLoad(findCgroup(h.root)); got != 0 {
		t.Errorf("the first look says %v", got)
	}
	now = now.Add(2 * time.Second)
	if err := os.WriteFile(filepath.Join(root, "sys/fs/cgroup/cpu.stat"), []byte("usage_usec 2000000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := h.quotaLoad(findCgroup(h.root)); got != 1 {
		t.Errorf("1 s of CPU in 2 s with half a CPU is %v, want 1", got)
	}
}

func TestSampleOfARecordedMachine(t *testing.T) {
	h := &hostSampler{root: "testdata/cgroup-v2", now: time.Now}
	got, err := h.sample(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := Sample{
		Host: Memory{4 * gib, 3 * gib}, Load: 3 / float64(runtime.NumCPU()),
		CPUPressure: 71, MemoryPressure: 6.5,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSampleRoom(t *testing.T) {
	s := Sample{
		Host:    Memory{Total: 8 * gib, Available: 4 * gib},
		Devices: []Device{{Name: "CUDA0", Total: 3 * gib, Free: 2 * gib}, {Name: "CUDA1", Total: 9 * gib, Free: 9 * gib, Unified: true}},
	}
	var want Amount
	want.Host, want.Device[0] = 4*gib, 2*gib
	if got := s.Room(); got != want {
		t.Errorf("room %v, want %v", got, want)
	}
	want.Host, want.Device[0] = 8*gib, 3*gib
	if got := s.Capacity(); got != want {
		t.Errorf("capacity %v, want %v", got, want)
	}
}

func TestPressure(t *testing.T) {
	idle := Sample{Host: Memory{100, 50}}
	loaded := func(load float64) Sample { return Sample{Host: idle.Host, Load: load} }
	available := func(n int64) Sample { return Sample{Host: Memory{100, n}} }
	type step struct {
		after time.Duration
		s     Sample
		want  string
	}
	for name, c := range map[string]struct {
		maxLoad float64
		steps   []step
	}{
		"load":                              {0.8, []step{{0, loaded(0.9), "busy"}}},
		"no limit":                          {0, []step{{0, loaded(99), ""}}},
		"above one is a limit as any other": {2, []step{{0, loaded(1.9), ""}, {time.Minute, loaded(2.1), "busy"}}},
		"a spike passes unnoticed":          {0.8, []step{{0, loaded(0.2), ""}, {2 * time.Second, loaded(2), ""}, {2 * time.Second, loaded(0.2), ""}}},
		"what stays counts":                 {0.8, []step{{0, loaded(0.2), ""}, {20 * time.Second, loaded(1), "busy"}}},
		"it leaves below four fifths":       {1, []step{{0, loaded(2), "busy"}, {time.Hour, loaded(0.9), "busy"}, {time.Hour, loaded(0.7), ""}, {time.Hour, loaded(0.9), ""}}},
		"waiting for CPUs":                  {0.8, []step{{0, Sample{Host: idle.Host, CPUPressure: 70}, "busy"}, {time.Hour, Sample{Host: idle.Host, CPUPressure: 50}, "busy"}, {time.Hour, Sample{Host: idle.Host, CPUPressure: 40}, ""}}},
		"waiting that was allowed":          {4, []step{{0, Sample{Host: idle.Host, CPUPressure: 99}, ""}}},
		"memory":                            {0, []step{{0, available(4), "short"}, {time.Second, available(6), "short"}, {time.Second, available(8), ""}, {time.Second, available(6), ""}}},
		"memory is not averaged":            {0, []step{{0, available(50), ""}, {time.Millisecond, available(3), "short"}}},
		"waiting for memory":                {0, []step{{0, Sample{Host: idle.Host, MemoryPressure: 12}, "short"}, {time.Hour, Sample{Host: idle.Host, MemoryPressure: 6}, "short"}, {time.Hour, idle, ""}}},
		"nothing known":                     {0.8, []step{{0, Sample{}, ""}}},
		"both":                              {0.8, []step{{0, Sample{Host: Memory{100, 1}, Load: 3}, "busy short"}}},
	} {
		t.Run(name, func(t *testing.T) {
			var p Pressure
			now := time.Unix(0, 0)
			for i, s := range c.steps {
				now = now.Add(s.after)
				busy, short := p.Observe(s.s, c.maxLoad, now)
				got := strings.TrimSpace(map[bool]string{true: "busy"}[busy] + " " + map[bool]string{true: "short"}[short])
				if got != s.want {
					t.Errorf("step %d: %q, want %q", i, got, s.want)
				}
			}
		})
	}
}

// The clock may go back: the average then stands still.
func TestPressureClockGoesBack(t *testing.T) {
	var p Pressure
	p.Observe(Sample{Load: 1}, 1, time.Unix(100, 0))
	p.Observe(Sample{Load: 9}, 1, time.Unix(50, 0))
	if p.load != 1 || math.IsNaN(p.load) {
		t.Errorf("load %v, want 1", p.load)
	}
}

func TestUsage(t *testing.T) {
	root := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, "proc", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("1/smaps_rollup", "00400000-7fff [rollup]\nRss:  400 kB\nPss:  300 kB\nPss_Anon:  100 kB\nPss_File:  180 kB\nPss_Shmem:  20 kB\nAnonymous: 100 kB\n")
	put("2/smaps_rollup", "00400000-7fff [rollup]\nRss:  400 kB\nPss:  300 kB\nAnonymous: 100 kB\n")
	put("3/statm", "1000 50 20 10 0 30 0\n")
	page := int64(os.Getpagesize())
	for _, c := range []struct {
		pids       []int
		hard, soft int64
		ok         bool
	}{
		{[]int{1}, 120 << 10, 180 << 10, true},
		{[]int{2}, 100 << 10, 200 << 10, true},
		{[]int{3}, 30 * page, 20 * page, true},
		{[]int{1, 2, 99}, 220 << 10, 380 << 10, true},
		{[]int{99}, 0, 0, false},
		{nil, 0, 0, false},
	} {
		hard, soft, err := usage(files(root), c.pids)
		if hard != c.hard || soft != c.soft || (err == nil) != c.ok {
			t.Errorf("%v: %d and %d, %v, want %d and %d", c.pids, hard, soft, err, c.hard, c.soft)
		}
	}
}

// tool is a program that prints text and counts its runs.
func tool(t *testing.T, name, text string) (dir, runs string) {
	t.Helper()
	dir = t.TempDir()
	runs = filepath.Join(dir, "runs")
	script := "#!/bin/sh\necho >>" + runs + "\ncat <<'E'\n" + text + "\nE\n"
	if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir, runs
}

func TestDevicesFromTheTools(t *testing.T) {
	server, runs := tool(t, "llama-server", recorded(t, "list-two-cuda.txt"))
	smi, _ := tool(t, "nvidia-smi", recorded(t, "smi-two.txt"))
	t.Setenv("PATH", smi+string(os.PathListSeparator)+os.Getenv("PATH"))
	os.Unsetenv("CUDA_VISIBLE_DEVICES")
	d := newDeviceSampler(files(t.TempDir()), filepath.Join(server, "llama-server"))
	for range 3 {
		want := "CUDA0 GPU…1 0000:01:00.0 nvidia 12288 11900\nCUDA1 GPU…2 0000:05:00.0 nvidia 24467 24000\n"
		if diff := cmp.Diff(want, lines(d.sample(t.Context()))); diff != "" {
			t.Fatal(diff)
		}
	}
	if b, _ := os.ReadFile(runs); len(b) != 1 {
		t.Errorf("llama-server was asked %d times, want once", len(b))
	}
}

func TestToolThatHangsIsStopped(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "hang"), []byte("#!/bin/sh\nsleep 60\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := (tools{}).run(ctx, filepath.Join(dir, "hang")); err == nil {
		t.Error("no error")
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestToolThatIsNotThere(t *testing.T) {
	_, err := (tools{}).run(t.Context(), "no-such-tool-of-a-vendor")
	if err == nil || !strings.Contains(err.Error(), exec.ErrNotFound.Error()) {
		t.Errorf("got %v", err)
	}
}

func FuzzTools(f *testing.F) {
	for _, name := range []string{"list-two-cuda.txt", "list-cuda-vulkan.txt", "smi-two.txt", "smi-gb10.txt", "smi-apps.txt"} {
		b, err := os.ReadFile(filepath.Join("testdata", "tools", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, out string) {
		listed, _ := ParseListed(out)
		cards := ParseNVIDIA(out)
		for _, d := range Merge(listed, cards) {
			if d.Name == "" || d.Total < 0 || d.Free < 0 || d.Free > d.Total {
				t.Errorf("%+v", d)
			}
		}
		for _, h := range ParseHoldings(out) {
			if h.PID <= 0 || h.Bytes < 0 {
				t.Errorf("%+v", h)
			}
		}
		parsePressure(out, "some")
	})
}
