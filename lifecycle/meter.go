package lifecycle

import (
	"context"
	"time"

	"assistant/lifecycle/machine"
	"assistant/lifecycle/memory"
	"assistant/modeldir"
)

// measureEvery is how often an instance's memory is measured: for a process of many gigabytes the kernel walks its page tables, which
// takes tens of milliseconds.
const measureEvery = 10 * time.Second

// keepFree is the share of the host's memory, in percent, that instances are not given: below it memory is scarce, and instances
// retire (see [machine.Pressure]).
const keepFree = 5

// Metered is an instance that is measured.
type Metered struct {
	Key        string // the model's
	Generation uint64
	Model      *modeldir.Model
	Processes  func() []int
	Loading    bool           // it starts: what it uses grows
	Shared     bool           // it uses a device whose memory is the host's: drivers take that in nobody's name
	Layers     int            // on devices
	Reserved   machine.Amount // what it is thought to use where it cannot be measured
}

// Measure is what an instance uses.
type Measure struct {
	Metered
	Used machine.Amount // host: hard memory only, as pages of files are given back when they are needed
	Peak memory.Peak
	New  bool // it was measured in this look; else it is what it was
}

// Meter measures instances. It is used by one goroutine.
type Meter struct {
	holdings func(context.Context) []machine.Holding
	held     []machine.Holding  // as of heldAt
	heldAt   time.Time          // when the devices were asked that they go with
	known    map[uint64]reading // by generation
}

// reading is a measure that was taken.
type reading struct {
	at time.Time
	Measure
}

// NewMeter returns a meter that has measured nothing yet.
func NewMeter() *Meter {
	return &Meter{holdings: machine.Holdings, known: map[uint64]reading{}}
}

// Look measures the instances whose last measure is old, and returns what all of them use.
func (m *Meter) Look(ctx context.Context, list []Metered, s machine.Sample) []Measure {
	now := time.Now()
	devices := s.Devices
	if len(list) > 0 && len(devices) > 0 && (m.heldAt.IsZero() || !m.heldAt.Equal(s.DevicesAt)) {
		m.held, m.heldAt = m.holdings(ctx), s.DevicesAt // what is free and who has the rest are told as of one time
	}
	fresh := make(map[uint64]reading, len(list))
	out := make([]Measure, 0, len(list))
	for _, in := range list {
		r, known := m.known[in.Generation]
		if r.New = !known || in.Loading || r.Loading || now.Sub(r.at) >= measureEvery; r.New {
			r = reading{at: now, Measure: measure(in, m.held, devices)}
		}
		fresh[in.Generation] = r
		out = append(out, r.Measure)
	}
	m.known = fresh // what is gone is forgotten
	return out
}

func measure(in Metered, held []machine.Holding, devices []machine.Device) Measure {
	pids := in.Processes()
	out := Measure{Metered: in, New: true}
	hard, soft, err := machine.Usage(pids)
	if err != nil && !in.Loading {
		hard, soft = in.Reserved.Host, 0 // it is not ours to see: a container
	}
	out.Used.Host = hard
	if !in.Loading && (in.Shared || in.Model.Identity == modeldir.IdentityNone) {
		out.Used.Host = max(hard, in.Reserved.Host) // there is more of it than we see
	}
	out.Peak = memory.Peak{HostHard: hard, HostSoft: soft, Layers: in.Layers, Devices: map[string]int64{}}
	for i, d := range devices {
		if i >= machine.MaxDevices || d.Unified {
			continue
		}
		used, told := heldBy(pids, held, d)
		if !told {
			out.Used.Device[i] = in.Reserved.Device[i]
			continue
		}
		out.Used.Device[i] = used
		if used > 0 {
			out.Peak.Devices[memory.DeviceKey(d)] = used
		}
	}
	return out
}

// heldBy is what the processes hold on a device; told is false if the device's tool does not say.
func heldBy(pids []int, held []machine.Holding, d machine.Device) (used int64, told bool) {
	if d.Vendor != machine.NVIDIA || held == nil {
		return 0, false
	}
	for _, h := range held {
		for _, pid := range pids {
			if h.PID == pid && h.Device == d.ID {
				used += h.Bytes
			}
		}
	}
	return used, true
}

// Room is the memory that instances may have altogether: what is free now, and what they have, less what the host is to keep. No
// device has more than it is large: one that was asked before an instance took its memory shows that as free.
func Room(s machine.Sample, measures []Measure) machine.Amount {
	room := s.Room()
	for _, m := range measures {
		room = room.Plus(m.Used)
	}
	for i, d := range s.Devices {
		if i < machine.MaxDevices {
			room.Device[i] = min(room.Device[i], d.Total) // where nobody tells who has what, more may be taken for ours
		}
	}
	room.Host -= s.Host.Total / 100 * keepFree
	return room
}

// Capacity is all the memory that instances could ever have.
func Capacity(s machine.Sample) machine.Amount {
	all := s.Capacity()
	all.Host -= s.Host.Total / 100 * keepFree
	return all
}
