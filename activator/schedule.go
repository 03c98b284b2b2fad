package activator

import (
	"math"
	"slices"
	"time"

	"assistant/lifecycle"
	"assistant/lifecycle/machine"
	"assistant/lifecycle/memory"
)

// schedule gives free slots to those who wait, then does what the policy says about starts and stops.
func (s *state) schedule(now time.Time) {
	for i := 0; i < len(s.hot); {
		m := s.hot[i]
		s.grantQueued(m)
		if m.queue.n > 0 {
			i++
		} // otherwise it left s.hot, and i is the next one's
	}
	s.again = time.Time{}
	if s.closing {
		return
	}
	if s.carryOut(s.policy(s.look(now)), now) {
		s.carryOut(s.policy(s.look(now)), now) // who was answered by a rescue may be waiting for nothing else
	}
	for _, m := range s.hot {
		m.setClocks(now)
	}
}

// grantQueued gives free slots to a model's waiters, one by one, each client in turn.
func (s *state) grantQueued(m *modelState) {
	for m.queue.n > 0 {
		in := m.pick(m.queue.turn.head.Conversation)
		if in == nil {
			return
		}
		w := m.queue.pop()
		s.dequeued(m, w)
		s.lease(m, in)
		s.grant(w, in)
	}
}

// carryOut does what a plan says. It reports whether a rescue answered requests.
func (s *state) carryOut(plan lifecycle.Plan, now time.Time) (answered bool) {
	residents := s.snapshot.Residents
	for _, i := range plan.Rescue {
		in := residents[i].Instance
		s.rescue(in)
		before := s.queued
		s.grantQueued(s.models[in.Model.Key])
		answered = answered || s.queued < before
	}
	for _, stop := range plan.Stop {
		s.drain(residents[stop.Resident].Instance, stop.Reason, now)
	}
	for i, m := range s.planned {
		m.coming = m.queue.n > 0 && slices.Contains(plan.Coming, i)
	}
	for _, start := range plan.Start {
		s.spawn(s.planned[start.Demand], start, now)
	}
	s.again = time.Time{}
	if plan.Again > 0 {
		s.again = now.Add(plan.Again)
	}
	return answered
}

func (s *state) spawn(m *modelState, start lifecycle.Start, now time.Time) {
	s.gen++
	in := &lifecycle.Instance{
		Model: m.spec, Gen: s.gen, State: lifecycle.Starting, Created: now,
		Placement: start.Placement, Reserved: start.Placement.Amount,
	}
	if s.machine.Limited {
		in.Offload = start.Placement.Offload(m.spec, m.need, memory.Want(m.spec, s.machine.Capacity.Host), s.machine.Devices)
	}
	if s.oracle != nil && m.queue.n == 0 {
		s.oracle.tried(m.key, now)
	}
	m.warm = false
	m.instances = append(m.instances, in)
	s.live = append(s.live, in)
	s.eff = append(s.eff, effect{kind: effSpawn, in: in})
}

// look makes the snapshot that the policy decides on. Its memory is used again for the next.
func (s *state) look(now time.Time) *lifecycle.Snapshot {
	v := &s.snapshot
	*v = lifecycle.Snapshot{
		Now: now, MaxInstances: s.set.MaxInstances, MaxWait: s.set.MaxWait,
		Room: s.machine.Room, Freeing: s.stillFreeing(), Devices: s.machine.Devices, Busy: s.machine.Busy, Short: s.machine.Short,
		Demands: v.Demands[:0], Residents: v.Residents[:0],
	}
	if !s.machine.Limited {
		v.Room = unlimited
	}
	s.planned = s.planned[:0]
	s.looks++
	index := func(m *modelState) int {
		if m.looked != s.looks {
			m.looked, m.place = s.looks, len(s.planned)
			s.planned = append(s.planned, m)
			v.Demands = append(v.Demands, s.demand(m, now))
		}
		return m.place
	}
	for _, m := range s.hot {
		index(m)
	}
	for _, in := range s.live {
		m := s.models[in.Model.Key]
		r := lifecycle.Resident{Instance: in, Demand: index(m), Gap: m.useGap}
		if in.Served > 0 || in.Leases > 0 { // one that was started ahead and serves nobody gives way at once
			r.Grace, r.Value = m.grace(), m.chance(now)*m.start().Seconds()/float64(len(m.instances))
		}
		v.Residents = append(v.Residents, r)
	}
	for _, key := range s.kept {
		if m := s.models[key]; m != nil && m.spec != nil {
			index(m)
		}
	}
	for _, m := range s.likely(now) {
		v.Demands[index(m)].Likely = true
	}
	return v
}

func (s *state) demand(m *modelState, now time.Time) lifecycle.Demand {
	d := lifecycle.Demand{
		Model: m.spec, Need: m.need, Waiting: m.queue.n,
		Slots: m.slots, Start: m.start(), Service: m.service,
		Keep: m.kept(), Warm: m.warm, Coming: m.coming,
	}
	if m.spec != nil {
		d.Startable, d.Wanted = m.startable(now), s.wanted(m)
	} else {
		d.Model = m.lastSpec()
	}
	if d.Slots == 0 && m.spec != nil && len(m.instances) == 0 {
		d.Slots = m.spec.Concurrency
	}
	if w := m.queue.oldest; w != nil {
		d.Arrived, d.RoomWait, d.SlotWait = w.seq, m.roomWait(now), m.waits.slot.at(now)-w.began.slot
	}
	return d
}

// unlimited is the room where nothing is known of the machine's memory.
var unlimited = func() (a machine.Amount) {
	a.Host = math.MaxInt64 / 4
	for i := range a.Device {
		a.Device[i] = math.MaxInt64 / 4
	}
	return a
}()
