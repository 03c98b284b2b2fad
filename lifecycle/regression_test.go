package lifecycle

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"assistant/lifecycle/machine"
	"assistant/modeldir"
)

// What a device lacks is not got by stopping who has nothing on it.
func TestOverOnADeviceStopsWhoIsOnIt(t *testing.T) {
	s := newScene(10)
	s.Devices = []machine.Device{{Name: "CUDA0", ID: "GPU-1", Total: 8 * gib, Listed: true}}
	s.Room.Device[0] = 4 * gib // somebody else took some of it
	s.model("gpu", 0)
	s.model("embed", 0)
	s.model("whisper", 0)
	g := s.instance("gpu", Ready)
	g.Leases = 1
	g.Reserved.Device[0] = 5 * gib
	s.instance("embed", Ready).Reserved.Host = gib
	s.instance("whisper", Ready).Reserved.Host = gib
	if got := s.plan(); got != "" {
		t.Errorf("got %q, want nothing: embed and whisper have nothing on the device", got)
	}
}

// A plan that makes room is not taken back by the next look: nothing has changed but that room is being made.
func TestRushLastsUntilItsRoomIsThere(t *testing.T) {
	build := func() *scene {
		s := newScene(2)
		s.Room.Host = 16 * gib
		for _, m := range []struct {
			name string
			need int64
			cost time.Duration
			wait time.Duration
		}{{"A", 10, 30 * time.Second, 32 * time.Second}, {"B", 10, 30 * time.Second, 31 * time.Second}, {"X", 6, 2 * time.Second, 30 * time.Second}} {
			d := s.model(m.name, 1)
			d.Need.Process, d.Start, d.RoomWait = m.need*gib, m.cost, m.wait
		}
		s.model("pinned", 0).Model.Pinned = true
		s.model("busy", 0)
		p := s.instance("pinned", Ready)
		p.Reserved.Host = 10 * gib
		b := s.instance("busy", Ready)
		b.Leases = 1
		b.Reserved.Host = 6 * gib
		return s
	}
	s := build()
	t.Logf("first: %s", s.plan())
	s = build()
	s.Demands[2].Coming = true
	s.Residents[1].State, s.Residents[1].Reason = Draining, ReasonRoom
	t.Logf("then: %s", s.plan())
	p := Decide(&s.Snapshot)
	if len(p.Rescue) > 0 {
		t.Error("the drain is taken back at the next event, and begins again at the one after")
	}
}

// Devices are asked every 5 s, holdings at each look: what was loaded in between is counted twice.
func TestRoomIsNoMoreThanTheDevice(t *testing.T) {
	m := NewMeter()
	m.holdings = func(context.Context) []machine.Holding {
		return []machine.Holding{{PID: os.Getpid(), Device: "GPU-1", Bytes: 5 * gib}}
	}
	before := []machine.Device{{Name: "CUDA0", ID: "GPU-1", Vendor: machine.NVIDIA, Total: 8 * gib, Free: 8 * gib}} // asked 4 s ago, before the load
	room := Room(machine.Sample{Host: machine.Memory{Total: 64 * gib, Available: 60 * gib}, Devices: before}, m.Look(t.Context(), []Metered{self(true)}, machine.Sample{Devices: before}))
	if room.Device[0] > 8*gib {
		t.Errorf("room for %d GiB on a device of 8", room.Device[0]>>30)
	}
}

// In a container nvidia-smi shows no processes.
func TestRoomWhereNobodyTellsWhoHasWhat(t *testing.T) {
	m := NewMeter()
	m.holdings = func(context.Context) []machine.Holding { return machine.ParseHoldings("") }
	dev := []machine.Device{{Name: "CUDA0", ID: "GPU-1", Vendor: machine.NVIDIA, Total: 8 * gib, Free: 3 * gib}}
	in := self(false)
	in.Reserved.Device[0] = 5 * gib
	room := Room(machine.Sample{Host: machine.Memory{Total: 64 * gib, Available: 60 * gib}, Devices: dev}, m.Look(t.Context(), []Metered{in}, machine.Sample{Devices: dev}))
	t.Logf("room.Device %d GiB", room.Device[0]>>30)
	if room.Device[0] < 5*gib {
		t.Errorf("room %d GiB for what has 5 reserved", room.Device[0]>>30)
	}
}

// docker run: the client is our child, the engine is not.
func TestRoomCountsAContainerThatIsNotOurChild(t *testing.T) {
	in := self(false) // stands for the docker client: some MB
	in.Reserved.Host, in.Model = 10*gib, &modeldir.Model{Identity: modeldir.IdentityNone}
	m := NewMeter().Look(t.Context(), []Metered{in}, machine.Sample{})
	room := Room(machine.Sample{Host: machine.Memory{Total: 16 * gib, Available: 5 * gib}}, m)
	if room.Host < 10*gib {
		t.Errorf("room %.1f GiB, and 10 are reserved for what runs: it goes as soon as it is idle", float64(room.Host)/gib)
	}
}

// A container of 16 GiB in which nothing runs: the page cache holds 11 GiB of models that were mapped twice, on the kernel's active list.
func TestPageCacheOfStoppedModelsIsFree(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"proc/meminfo":                 "MemTotal: 67108864 kB\nMemFree: 20000000 kB\nMemAvailable: 60000000 kB\n",
		"proc/self/cgroup":             "0::/\n",
		"proc/loadavg":                 "0.0 0.0 0.0 1/1 1\n",
		"sys/fs/cgroup/memory.max":     fmt.Sprint(16 * gib),
		"sys/fs/cgroup/memory.current": fmt.Sprint(int64(15) * gib),
		"sys/fs/cgroup/memory.stat":    fmt.Sprintf("anon %d\nactive_file %d\ninactive_file %d\n", gib/2, int64(14)*gib, gib/2),
	} {
		p := filepath.Join(root, name)
		_ = os.MkdirAll(filepath.Dir(p), 0o755)
		_ = os.WriteFile(p, []byte(text), 0o644)
	}
	s, err := machine.Look(t.Context(), machine.Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	var press machine.Pressure
	_, short := press.Observe(s, 0, noon)
	room := Room(s, nil)
	t.Logf("total %.1f available %.1f room %.1f GiB short %v", float64(s.Host.Total)/gib, float64(s.Host.Available)/gib, float64(room.Host)/gib, short)
	if room.Host < 14*gib {
		t.Errorf("room %.1f GiB of 16 in which nothing runs", float64(room.Host)/gib)
	}
}

// 60 GiB of a model on a unified device are the driver's: they are in no process's PSS.
func TestRoomCountsWhatADriverTakesOfTheHost(t *testing.T) {
	dev := []machine.Device{{Name: "CUDA0", ID: "GPU-1", Vendor: machine.NVIDIA, Total: 120 * gib, Unified: true, Listed: true}}
	in := self(false)
	in.Reserved.Host, in.Layers = 61*gib, 40
	m := NewMeter()
	in.Shared = true
	sample := machine.Sample{Host: machine.Memory{Total: 120 * gib, Available: 55 * gib}, Devices: dev}
	room := Room(sample, m.Look(t.Context(), []Metered{in}, sample))
	s := newScene(4)
	s.Devices, s.Room = dev, room
	s.model("big", 0)
	s.instance("big", Ready).Reserved.Host = 61 * gib
	t.Logf("room %d GiB", room.Host>>30)
	if got := s.plan(); got != "" {
		t.Errorf("got %q, want the only model to stay", got)
	}
}
