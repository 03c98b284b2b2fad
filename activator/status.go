package activator

import (
	"slices"
	"time"

	"assistant/lifecycle"
	"assistant/lifecycle/machine"
	"assistant/modeldir"
)

// InstanceStatus is how an instance stands, for people and programs to see.
type InstanceStatus struct {
	Model      string    `json:"model"`
	Key        string    `json:"key"`
	Generation uint64    `json:"generation"`
	State      string    `json:"state"`
	Reason     string    `json:"reason,omitempty"` // why it drains
	Engine     string    `json:"engine"`
	PID        int       `json:"pid,omitempty"`
	Address    string    `json:"address,omitempty"`
	Slots      int       `json:"slots"` // 0 = unlimited
	Leases     int       `json:"leases"`
	Served     int       `json:"served"`
	Started    time.Time `json:"started"`
	IdleMS     float64   `json:"idle_ms"`
	Phases     Phases    `json:"phases"`

	Memory  int64            `json:"memory,omitempty"`  // bytes of the host reserved
	Devices map[string]int64 `json:"devices,omitempty"` // bytes reserved on devices, by name
	Layers  int              `json:"layers,omitempty"`  // on devices
}

// Phases are how long the parts of a cold start took, in milliseconds; 0 = not yet.
type Phases struct {
	Spawn      float64 `json:"spawn_ms"`       // decision → process
	Ready      float64 `json:"ready_ms"`       // process → ready
	FirstToken float64 `json:"first_token_ms"` // ready → first byte of the first answer
}

// ModelStatus is how a model stands.
type ModelStatus struct {
	State     string // cold, starting, ready, draining or failed
	Instances int
	Queued    int
	Err       error // why its last start failed, if it did and none has succeeded since
}

// Instances returns how every live instance stands, oldest first.
func (a *Activator) Instances() []InstanceStatus {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]InstanceStatus, 0, len(a.state.live))
	for _, in := range a.state.live {
		out = append(out, instanceStatus(in, a.state.machine.Devices, now))
	}
	return out
}

func instanceStatus(in *lifecycle.Instance, devices []machine.Device, now time.Time) InstanceStatus {
	s := InstanceStatus{
		Model: in.Model.Name, Key: in.Model.Key, Generation: in.Gen,
		State: in.State.String(), Reason: string(in.Reason), Engine: in.Model.Engine,
		Slots: in.Slots, Leases: in.Leases, Served: in.Served, Started: in.Created,
	}
	s.Memory, s.Layers = in.Reserved.Host, in.Placement.Layers
	for i, d := range devices {
		if i < machine.MaxDevices && in.Reserved.Device[i] > 0 {
			if s.Devices == nil {
				s.Devices = map[string]int64{}
			}
			s.Devices[d.Name] = in.Reserved.Device[i]
		}
	}
	if in.Idle() {
		s.IdleMS = ms(now.Sub(in.IdleSince))
	}
	if run := in.Running; run != nil {
		s.Engine, s.PID = run.Kind.Name, run.PID
		s.Address = run.Network + "/" + run.Address
		s.Phases = Phases{Spawn: ms(run.Spawned), Ready: ms(run.Loaded), FirstToken: ms(run.FirstByte())}
	}
	return s
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

// Statuses returns how each model in use stands, by key. A model that is not in it is cold.
func (a *Activator) Statuses() map[string]ModelStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[string]ModelStatus, len(a.state.models))
	for key, m := range a.state.models {
		out[key] = m.status()
	}
	return out
}

func (m *modelState) status() ModelStatus {
	s := ModelStatus{State: "cold", Instances: len(m.instances), Queued: m.queue.n}
	for _, in := range m.instances { // the best of them: ready before starting before draining
		switch {
		case in.State == lifecycle.Ready:
			s.State = in.State.String()
		case in.State == lifecycle.Starting && s.State != lifecycle.Ready.String():
			s.State = in.State.String()
		case s.State == "cold":
			s.State = in.State.String()
		}
	}
	if len(m.instances) == 0 && m.lastErr != nil {
		s.State, s.Err = lifecycle.Failed.String(), m.lastErr
	}
	return s
}

// Metered returns the live instances, for their memory to be measured.
func (a *Activator) Metered() []lifecycle.Metered {
	a.mu.Lock()
	defer a.mu.Unlock()
	devices := a.state.machine.Devices
	out := make([]lifecycle.Metered, 0, len(a.state.live))
	for _, in := range a.state.live {
		out = append(out, lifecycle.Metered{
			Key: in.Model.Key, Generation: in.Gen, Model: in.Model, Processes: in.Processes,
			Loading: in.Running == nil, Layers: in.Placement.Layers, Reserved: in.Reserved,
			Shared: slices.ContainsFunc(in.Placement.Devices, func(i int) bool { return i < len(devices) && devices[i].Unified }),
		})
	}
	return out
}

// Learnt is what a model's use has taught: how long its starts and its answers take. 0 = nothing yet.
type Learnt struct {
	Model          *modeldir.Model
	Start, Service time.Duration
}

// Learnt returns what was learnt of the models in use.
func (a *Activator) Learnt() []Learnt {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []Learnt
	for _, m := range a.state.inUse() {
		if m.spec != nil && (m.startTook > 0 || m.service > 0) {
			out = append(out, Learnt{m.spec, m.startTook, m.service})
		}
	}
	return out
}

// StartTakes returns how long starts of a model take, as far as past ones tell; 0 if there was none.
func (a *Activator) StartTakes(key string) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m := a.state.models[key]; m != nil {
		return m.startTook
	}
	return 0
}

// Printed is what an instance prints.
type Printed struct {
	Instance string // its id
	Output   *lifecycle.Output
}

// Outputs returns what the model's live instances print, oldest first, and of none the output of the last one that failed.
func (a *Activator) Outputs(key string) []Printed {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.state.models[key]
	if m == nil {
		return nil
	}
	var out []Printed
	for _, in := range m.instances {
		if o := in.Output(); o != nil {
			out = append(out, Printed{in.ID(), o})
		}
	}
	if len(out) == 0 && m.last.Output != nil {
		out = append(out, m.last)
	}
	return out
}
