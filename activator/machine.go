package activator

import (
	"time"

	"assistant/lifecycle"
	"assistant/lifecycle/machine"
	"assistant/lifecycle/memory"
	"assistant/modeldir"
)

// Machine is how the machine stands.
type Machine struct {
	Limited  bool             // the rest is known; else memory is not counted
	Capacity machine.Amount   // all there is
	Room     machine.Amount   // what instances may have altogether: what is free, and what they have
	Devices  []machine.Device // in the order of Room.Device
	Busy     bool             // above max_load: no replicas, and idle ones retire
	Short    bool             // memory is scarce at this moment: one idle instance retires
	Looked   time.Time        // when it was seen what instances have: who ended since is in Room as if it lived; zero = now
}

// Facts is what is known of a model before it starts.
type Facts struct {
	Spec    *modeldir.Model // the version of the model that was looked at
	Need    memory.Need
	Start   time.Duration // what starts took in earlier lives of the router; 0 = unknown
	Service time.Duration // what answers took; 0 = unknown
}

// freeing is device memory of an instance that is gone, until the device shows it as free.
type freeing struct {
	amount machine.Amount // of devices only
	since  time.Time
	until  time.Time // when waiting for it ends
}

const (
	// longestFreeing bounds the wait for a driver to give memory back. Ollama waits as long, and notes that it takes 0.5 to 1.5 s
	// (server/sched.go).
	longestFreeing = 5 * time.Second

	// freedShare of the memory is enough to call it free: what a process took and what its end gives back differ a
	// little. Ollama's share too.
	freedShare = 0.75
)

// awaitFreed holds the device memory of an instance that is gone until it is seen to be free: drivers take their time.
func (s *state) awaitFreed(in *lifecycle.Instance, now time.Time) {
	amount := in.Reserved
	amount.Host = 0
	if !s.machine.Limited || amount == (machine.Amount{}) {
		return
	}
	s.freeing = append(s.freeing, freeing{amount: amount, since: now, until: now.Add(longestFreeing)})
	s.eff = append(s.eff, effect{kind: effUrge})
}

func (s *state) stillFreeing() (a machine.Amount) {
	for _, f := range s.freeing {
		a = a.Plus(f.amount)
	}
	return a
}

// setMachine takes a new look at the machine. On a device where memory is still expected to come free the room stays what it
// was until most of it has: until then what the device shows says nothing of what there is to share out.
func (s *state) setMachine(m *Machine, now time.Time) {
	old := s.machine.Room
	s.machine = *m
	kept := s.freeing[:0]
	for _, f := range s.freeing {
		seen := m.Looked.IsZero() || f.since.Before(m.Looked)
		if seen && s.freed(f, old, m.Room) || due(f.until, now) {
			s.eff = append(s.eff, effect{kind: effFreed, took: now.Sub(f.since)})
			continue
		}
		kept = append(kept, f)
		for i, amount := range f.amount.Device {
			if amount > 0 {
				s.machine.Room.Device[i] = old.Device[i]
			}
		}
	}
	s.freeing = kept
	s.schedule(now)
	s.machine.Short = false // that was for this look
}

// freed reports whether every device that the memory was on shows most of it as free.
func (s *state) freed(f freeing, before, now machine.Amount) bool {
	for i, amount := range f.amount.Device {
		if amount > 0 && now.Device[i] < before.Device[i]-int64((1-freedShare)*float64(amount)) {
			return false
		}
	}
	return true
}

// want is what a spec says about devices.
type want struct {
	memory.Wanted
	of *modeldir.Model
}

// best is what a model gets on devices in so much room: looked up again only when that changes, as it costs tens of microseconds.
type best struct {
	room   machine.Amount
	layers int
}

// wanted is where a model may go, with as many layers on devices as it gets when all goes that may: what is pinned or kept stays.
func (s *state) wanted(m *modelState) memory.Wanted {
	if m.want.of != m.spec || m.want.Host != s.machine.Capacity.Host {
		m.want = want{memory.Want(m.spec, s.machine.Capacity.Host), m.spec}
	}
	w := m.want.Wanted
	if len(s.machine.Devices) == 0 || m.need.Layers() == 0 {
		return w
	}
	room := s.machine.Room
	for _, in := range s.live {
		if owner := s.models[in.Model.Key]; owner != m && (in.Model.Pinned || owner.kept() > 0) {
			room = room.Minus(in.Reserved)
		}
	}
	if m.best.room != room {
		m.best = best{room: room}
		if found, ok := memory.Best(m.need, w, room, s.machine.Devices); ok {
			m.best.layers = found.Layers
		}
	}
	w.AtLeast = m.best.layers
	return w
}

// measured takes what an instance really uses. More than was reserved is reserved from now on; less is not given away, as
// caches and contexts fill with time.
func (s *state) measured(in *lifecycle.Instance, used machine.Amount, now time.Time) {
	if !in.Live() {
		return
	}
	before := in.Reserved
	in.Used = used
	in.Reserved.Host = max(before.Host, used.Host)
	for i := range used.Device {
		in.Reserved.Device[i] = max(before.Device[i], used.Device[i])
	}
	if in.Reserved == before {
		return
	}
	if m := s.models[in.Model.Key]; s.surveys && m.spec != nil {
		s.eff = append(s.eff, effect{kind: effNeed, spec: m.spec}) // its next start is to know
	}
	if len(s.hot) > 0 {
		s.schedule(now)
	}
}
