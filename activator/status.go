package activator

import (
	"time"

	"assistant/lifecycle"
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
}

// Phases are how long the parts of a cold start took, in milliseconds; 0 = not yet.
type Phases struct {
	Spawn      float64 `json:"spawn_ms"`       // decision → process
	Ready      float64 `json:"ready_ms"`       // process → ready
	FirstToken float64 `json:"first_token_ms"` // ready → first byte of the first answer
}

// ModelStatus is how a model stands.
type ModelStatus struct {
	State  string // cold, starting, ready, draining or failed
	Queued int
	Err    error // why its last start failed, if it did and none has succeeded since
}

// Instances returns how every live instance stands, oldest first.
func (a *Activator) Instances() []InstanceStatus {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]InstanceStatus, 0, len(a.state.live))
	for _, in := range a.state.live {
		out = append(out, instanceStatus(in, now))
	}
	return out
}

func instanceStatus(in *lifecycle.Instance, now time.Time) InstanceStatus {
	s := InstanceStatus{
		Model: in.Model.Name, Key: in.Model.Key, Generation: in.Gen,
		State: in.State.String(), Reason: string(in.Reason), Engine: in.Model.Engine,
		Slots: in.Slots, Leases: in.Leases, Served: in.Served, Started: in.Created,
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
	s := ModelStatus{State: "cold", Queued: m.queue.n}
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

// Outputs returns what the model's live instances printed last, oldest first, and of none the output of
// the last one that failed.
func (a *Activator) Outputs(key string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.state.models[key]
	if m == nil {
		return nil
	}
	var out []string
	for _, in := range m.instances {
		if o := in.Output(); o != nil {
			out = append(out, o.String())
		}
	}
	if len(out) == 0 && m.last != nil {
		out = append(out, m.last.String())
	}
	return out
}
