package lifecycle

import (
	"context"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"assistant/lifecycle/machine"
	"assistant/modeldir"
)

// self is this process, as an instance.
func self(loading bool) Metered {
	return Metered{Generation: 1, Model: &modeldir.Model{}, Processes: func() []int { return []int{os.Getpid()} }, Loading: loading}
}

func TestMeterMeasuresAtIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMeter()
		asked := 0
		m.holdings = func(context.Context) []machine.Holding {
			asked++
			return []machine.Holding{{PID: os.Getpid(), Device: "GPU-1", Bytes: gib}, {PID: 1, Device: "GPU-1", Bytes: gib}}
		}
		sample := machine.Sample{DevicesAt: time.Now()}
		sample.Devices = []machine.Device{{Name: "CUDA0", ID: "GPU-1", Vendor: machine.NVIDIA}, {Name: "ROCm0", Vendor: machine.AMD}}
		look := func(in Metered) Measure {
			in.Reserved.Device[1] = 3 * gib
			return m.Look(t.Context(), []Metered{in}, sample)[0]
		}
		first := look(self(false))
		if !first.New || first.Used.Host <= 0 || first.Used.Device[0] != gib || first.Used.Device[1] != 3*gib {
			t.Errorf("%+v, want this process's memory, what nvidia-smi tells of it, and what is reserved where nobody tells", first)
		}
		if first.Peak.Devices["GPU-1"] != gib || len(first.Peak.Devices) != 1 || first.Peak.HostHard != first.Used.Host {
			t.Errorf("peak %+v, want what was measured only", first.Peak)
		}
		time.Sleep(2 * time.Second)
		if again := look(self(false)); again.New || again.Used != first.Used || asked != 1 {
			t.Errorf("measured again after 2 s (%d times asked)", asked)
		}
		time.Sleep(measureEvery)
		sample.DevicesAt = time.Now()
		if later := look(self(false)); !later.New || asked != 2 {
			t.Errorf("not measured again after %v, %d times asked", measureEvery, asked)
		}
		if loading := look(self(true)); !loading.New {
			t.Error("one that loads is to be measured at each look")
		}
		if list := m.Look(t.Context(), nil, sample); len(list) != 0 || len(m.known) != 0 {
			t.Errorf("%d measures of nobody, %d remembered", len(list), len(m.known))
		}
	})
}

func TestRoomIsWhatIsFreeAndWhatInstancesHave(t *testing.T) {
	s := machine.Sample{
		Host:    machine.Memory{Total: 100 * gib, Available: 50 * gib},
		Devices: []machine.Device{{Name: "CUDA0", Total: 8 * gib, Free: 2 * gib}, {Name: "Unified", Total: 100 * gib, Free: 50 * gib, Unified: true}},
	}
	var used machine.Amount
	used.Host, used.Device[0] = 20*gib, 5*gib
	room := Room(s, []Measure{{Used: used}})
	if room.Host != 65*gib || room.Device[0] != 7*gib || room.Device[1] != 0 {
		t.Errorf("room %v, want 50 + 20 - 5 %% of 100, 2 + 5, and nothing of its own for the unified device", room)
	}
	s.Devices[0].Free = 8 * gib // it was asked before the instance took its part
	if room := Room(s, []Measure{{Used: used}}); room.Device[0] != 8*gib {
		t.Errorf("%d of a device of 8 GiB", room.Device[0])
	}
}
