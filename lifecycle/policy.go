package lifecycle

import (
	"cmp"
	"math"
	"slices"
	"time"

	"assistant/lifecycle/machine"
	"assistant/lifecycle/memory"
	"assistant/modeldir"
)

// Policy says what is to be started and stopped. It is a pure function: it changes nothing and asks
// nobody, so it can be read, simulated and replaced. docs/scheduling.md tells what [Decide] promises.
type Policy func(*Snapshot) Plan

// Snapshot is all that a policy knows.
type Snapshot struct {
	Now          time.Time
	MaxInstances int
	MaxWait      time.Duration

	Room    machine.Amount   // memory that instances may have altogether
	Freeing machine.Amount   // memory of instances that are gone, which the devices do not show as free yet
	Devices []machine.Device // accelerators, in the order of Room.Device
	Busy    bool             // the machine is above max_load
	Short   bool             // memory is scarce at this moment

	Demands   []Demand
	Residents []Resident
}

// Demand is a model in use, or one that should be.
type Demand struct {
	Model     *modeldir.Model
	Need      memory.Need
	Wanted    memory.Wanted // AtLeast: what it gets on devices when all goes that may
	Startable bool          // nothing speaks against a start: no rest after a failure, a known need, a free address

	Waiting  int           // requests in its queue
	Arrived  uint64        // when the oldest of them came, in order over all models
	RoomWait time.Duration // how long it has waited for room with requests in its queue, since it last had an instance
	SlotWait time.Duration // how long the oldest has waited for a slot of an instance that is ready
	Coming   bool          // room is being made for it by an earlier plan

	Slots   int           // of one instance; 0 = unlimited
	Start   time.Duration // what a start takes, as far as is known
	Service time.Duration // what an answer takes; 0 = unknown

	Keep   int  // instances to keep, in room that is free
	Warm   bool // one is to be started ahead of any request, in room that is free: preload
	Likely bool // a request is expected soon: one may be started ahead while nobody wants the room
}

// Resident is a live instance.
type Resident struct {
	*Instance               // not to be changed
	Demand    int           // index of its model
	Value     float64       // what stopping it is expected to cost, in seconds
	Grace     time.Duration // it keeps its place for so long after it fell idle: a client's next turn is expected
	Gap       time.Duration // between the uses of its model, on average
}

// Plan is what a policy wants done. What is not in it stays as it is.
type Plan struct {
	Start  []Start
	Stop   []Stop
	Rescue []int         // residents that drain or save and are needed, or whose room nobody wants any more
	Coming []int         // demands without an instance for which room is being made
	Again  time.Duration // the policy is to be asked again after this even if nothing happens; 0 = no need
}

// Start is an instance to start.
type Start struct {
	Demand    int
	Placement memory.Placement
}

// Stop is an instance to let go: when its leases have ended, or at once if it has none.
type Stop struct {
	Resident int
	Reason   Reason
}

// minLoadGrace is the least time an instance stays idle before load or memory may retire it. It also stays
// for as long as its own start took: by the ski-rental argument, keeping for as long as it costs to bring back is at
// most twice as bad as knowing the future (Karlin et al., Algorithmica 3, 1988).
const minLoadGrace = 5 * time.Second

// Decide is the project's policy. Requests for models without an instance stand in line. Who is served next, and who
// goes, is told at line and at room.
func Decide(s *Snapshot) Plan {
	p := newPlanner(s)
	p.keepToLimits()
	line, rushed := p.line()
	blocked := false
	for _, d := range line {
		blocked = !p.serve(d, rushed[d]) || blocked
	}
	if !blocked { // else who has none would wait for those who want more
		p.replicas()
		p.ahead(len(line) == 0)
	}
	p.rescueUnclaimed()
	p.relieve()
	return p.plan
}

// planner is a plan in the making.
type planner struct {
	s    *Snapshot
	plan Plan

	places int            // instances that may be started now
	free   machine.Amount // memory that may be taken now
	coming ledger         // the same two, once what stops is gone, less what is spoken for

	gone    []bool // by resident: it stops, or is spoken for
	serving []int  // by demand: instances that stay
	ready   []int  // by demand: those of them that are ready
	loading [machine.MaxDevices]bool
}

// ledger is room: places and memory.
type ledger struct {
	places int
	memory machine.Amount
}

func newPlanner(s *Snapshot) *planner {
	p := &planner{
		s: s, places: s.MaxInstances - len(s.Residents), free: s.Room.Minus(s.Freeing),
		gone: make([]bool, len(s.Residents)), serving: make([]int, len(s.Demands)), ready: make([]int, len(s.Demands)),
	}
	p.coming.places, p.coming.memory = p.places, s.Room
	for i, r := range s.Residents {
		p.free = p.free.Minus(r.Reserved)
		switch {
		case r.leaving():
			p.gone[i] = true
			p.coming.places++
			continue // its memory comes back
		case r.State == Starting:
			for d, used := range r.Reserved.Device {
				p.loading[d] = p.loading[d] || used > 0
			}
			p.serving[r.Demand]++
		case r.State == Ready:
			p.serving[r.Demand]++
			p.ready[r.Demand]++
		}
		p.coming.memory = p.coming.memory.Minus(r.Reserved)
	}
	return p
}

// leaving reports whether the instance's room will be free without more ado.
func (r *Resident) leaving() bool { return r.Stopping || r.Dying || r.Saving }

// line is who waits for a first instance, in the order to be served.
//
// For whom room is being made already comes first: else the next to ask would take it. While all is well the order is then by priority, then by how many requests a start would serve for its time, so that the
// room answers as many as it can (simulated in docs/scheduling.md). In a rush it is by age alone: then nobody starves.
// It is a rush when somebody would otherwise wait longer than max_wait: one who has waited that long already, or who has so
// many before him that their turns, shared by all places, would take until then. To anticipate is bounded
// to half of max_wait, so that a bound that cannot be kept does not end all batches.
func (p *planner) line() (line []int, rushed map[int]bool) {
	for i := range p.s.Demands {
		if d := &p.s.Demands[i]; d.Waiting > 0 && p.serving[i] == 0 && d.Startable {
			line = append(line, i)
		}
	}
	byAge := func(a, b int) int {
		x, y := &p.s.Demands[a], &p.s.Demands[b]
		return cmp.Or(cmp.Compare(y.RoomWait, x.RoomWait), cmp.Compare(x.Arrived, y.Arrived))
	}
	slices.SortFunc(line, byAge)
	rushed = p.rush(line)
	if len(rushed) == 0 {
		slices.SortStableFunc(line, func(a, b int) int {
			x, y := &p.s.Demands[a], &p.s.Demands[b]
			return cmp.Or(cmp.Compare(y.Model.Priority, x.Model.Priority), cmp.Compare(y.yield(), x.yield()))
		})
	}
	slices.SortStableFunc(line, func(a, b int) int { return first(p.s.Demands[a].Coming, p.s.Demands[b].Coming) })
	return line, rushed
}

// rush returns those for whom others have to give way: who would wait too long, and all before him in the line, which is given by age.
// It asks for another look when the next will.
func (p *planner) rush(line []int) map[int]bool {
	last := -1
	var before time.Duration
	for k, i := range line {
		d := &p.s.Demands[i]
		bound := max(p.s.MaxWait/2, p.s.MaxWait-before/time.Duration(p.s.MaxInstances))
		if left := bound - d.RoomWait; left > 0 {
			p.again(left)
		} else {
			last = k
		}
		before += d.Start + d.Service
	}
	rushed := make(map[int]bool, last+1)
	for _, i := range line[:last+1] {
		rushed[i] = true
	}
	return rushed
}

// first orders those for which something is so before the others.
func first(x, y bool) int {
	switch {
	case x == y:
		return 0
	case x:
		return -1
	default:
		return 1
	}
}

// yield is how many requests a start would serve for a second of its time.
func (d *Demand) yield() float64 { return float64(d.Waiting) / max(d.Start.Seconds(), 0.001) }

// again asks for another look after so long.
func (p *planner) again(after time.Duration) {
	if p.plan.Again == 0 || after < p.plan.Again {
		p.plan.Again = after
	}
}

// serve sees to it that a demand gets an instance: its own one back, a new one, or room on its way. It reports false if it
// has to wait for others.
func (p *planner) serve(d int, rush bool) bool {
	if p.rescueOwn(d) || p.start(d) {
		return true
	}
	if p.claim(d) || p.makeRoom(d, p.idle(0), 0) && p.claim(d) || p.makeRoom(d, append(p.idle(0), p.surplus(d)...), 1) && p.claim(d) ||
		rush && p.makeRoom(d, p.busy(d), 0) && p.claim(d) {
		p.plan.Coming = append(p.plan.Coming, d)
		return true
	}
	return rush && p.startWithLess(d)
}

// startWithLess starts an instance with fewer of its layers on devices than there might be: it is slower for as long as it lives, but
// it answers.
func (p *planner) startWithLess(d int) bool {
	wanted := p.s.Demands[d].Wanted
	defer func() { p.s.Demands[d].Wanted = wanted }()
	if wanted.AtLeast == 0 {
		return false
	}
	p.s.Demands[d].Wanted.AtLeast = 0
	return p.start(d)
}

// start starts an instance if there is room for it now.
func (p *planner) start(d int) bool {
	if p.places < 1 || p.coming.places < 1 {
		return false
	}
	where, ok := p.place(d, p.free, p.loading)
	if !ok {
		return false
	}
	p.plan.Start = append(p.plan.Start, Start{Demand: d, Placement: where})
	p.places--
	p.free = p.free.Minus(where.Amount)
	p.spend(where.Amount)
	p.serving[d]++
	for i, used := range where.Amount.Device {
		p.loading[i] = p.loading[i] || used > 0 // loads on one device are serial
	}
	return true
}

// claim speaks for room that is on its way, so that nobody later in line takes it, and one wait never costs two
// evictions.
func (p *planner) claim(d int) bool {
	if p.coming.places < 1 {
		return false
	}
	where, ok := p.place(d, p.coming.memory, [machine.MaxDevices]bool{})
	if !ok {
		return false
	}
	p.spend(where.Amount)
	p.places = min(p.places, p.coming.places)
	p.free = least(p.free, p.coming.memory)
	return true
}

func (p *planner) spend(a machine.Amount) {
	p.coming.places--
	p.coming.memory = p.coming.memory.Minus(a)
}

func least(a, b machine.Amount) machine.Amount {
	a.Host = min(a.Host, b.Host)
	for i := range a.Device {
		a.Device[i] = min(a.Device[i], b.Device[i])
	}
	return a
}

func (p *planner) place(d int, room machine.Amount, loading [machine.MaxDevices]bool) (memory.Placement, bool) {
	return memory.Place(p.s.Demands[d].Need, p.s.Demands[d].Wanted, room, p.s.Devices, loading)
}

// idle lists whom nobody needs, the least valuable first: those that are ready, without a lease and past the grace of
// a client's next turn, for at least so long, or, if that is negative, for their own start
// and twice as long as their model is usually left alone; and those whose start nobody waits for any more.
func (p *planner) idle(least time.Duration) []int {
	var out []int
	for i, r := range p.s.Residents {
		if p.gone[i] || p.s.Demands[r.Demand].Waiting > 0 || r.Model.Pinned {
			continue
		}
		switch {
		case r.State == Starting:
		case !r.Idle():
			continue
		default:
			grace := max(r.Grace, least)
			if least < 0 {
				grace = max(r.Grace, r.StartTook(), 2*r.Gap)
			}
			if left := grace - p.s.Now.Sub(r.IdleSince); left > 0 {
				p.again(left)
				continue
			}
		}
		out = append(out, i)
	}
	p.byValue(out)
	return out
}

// busy lists whom a demand that has waited too long may drain: what drains already for one like it, then the idle whatever
// their grace, then those at work, the lowest priority first and then who has had his place longest.
func (p *planner) busy(d int) []int {
	var out []int
	for i, r := range p.s.Residents {
		switch {
		case p.gone[i], r.Model.Pinned, r.Demand == d:
		case r.State == Ready, r.drainsForRoom():
			out = append(out, i)
		case r.State == Starting && p.s.Demands[r.Demand].Waiting == 0:
			out = append(out, i)
		}
	}
	class := func(i int) int {
		r := &p.s.Residents[i]
		switch {
		case r.State == Draining:
			return 0
		case r.Leases == 0:
			return 1
		default:
			return 2
		}
	}
	p.byValue(out)
	slices.SortStableFunc(out, func(a, b int) int {
		x, y := &p.s.Residents[a], &p.s.Residents[b]
		if c := cmp.Or(cmp.Compare(class(a), class(b)), cmp.Compare(x.Model.Priority, y.Model.Priority)); c != 0 || class(a) < 2 {
			return c // and then by value
		}
		return x.ReadyAt.Compare(y.ReadyAt)
	})
	return out
}

// surplus lists those of the busy that are not their model's only instance: a first instance goes before a second.
func (p *planner) surplus(d int) []int {
	return slices.DeleteFunc(p.busy(d), func(i int) bool {
		r := &p.s.Residents[i]
		return r.State != Draining && p.serving[r.Demand] <= max(1, p.s.Demands[r.Demand].Keep)
	})
}

// drainsForRoom reports whether the instance drains only because somebody wanted its room: it can be rescued.
func (r *Resident) drainsForRoom() bool {
	return r.State == Draining && !r.leaving() && r.Reason == ReasonRoom
}

func (p *planner) byValue(list []int) {
	slices.SortFunc(list, func(a, b int) int {
		x, y := &p.s.Residents[a], &p.s.Residents[b]
		return cmp.Or(cmp.Compare(x.Value, y.Value), x.IdleSince.Compare(y.IdleSince), cmp.Compare(x.Gen, y.Gen))
	})
}

// makeRoom stops a set of the candidates that frees enough for the demand, or none if all together do not. Of those at work so many
// instances a model stay, and of all as many as are to be kept. Candidates are
// taken in order until it is enough, then those that turn out not to be needed are let off, the most valuable
// first: greedy with reverse deletion, at most twice the cheapest set for one kind of room (Csirik et al., "Heuristics for the
// 0-1 min-knapsack problem", Acta Cybernetica 10, 1991).
func (p *planner) makeRoom(d int, candidates []int, stay int) bool {
	room := p.coming
	leaving := make(map[int]int) // by demand
	var set []int
	enough := func(l ledger) bool {
		if l.places < 1 {
			return false
		}
		_, ok := p.place(d, l.memory, [machine.MaxDevices]bool{})
		return ok
	}
	for _, i := range candidates {
		if enough(room) {
			break
		}
		r := &p.s.Residents[i]
		keep := p.s.Demands[r.Demand].Keep
		if r.Leases > 0 {
			keep = max(keep, stay)
		}
		if slices.Contains(set, i) || r.State != Draining && p.serving[r.Demand]-leaving[r.Demand] <= keep {
			continue
		}
		if r.State != Draining {
			leaving[r.Demand]++
		}
		room.places++
		room.memory = room.memory.Plus(r.Reserved)
		set = append(set, i)
	}
	if !enough(room) {
		return false
	}
	var needed []int
	for _, i := range slices.Backward(set) {
		without := ledger{room.places - 1, room.memory.Minus(p.s.Residents[i].Reserved)}
		if enough(without) {
			room = without
		} else {
			needed = append(needed, i)
		}
	}
	for _, i := range slices.Backward(needed) {
		p.stop(i, ReasonRoom)
	}
	return true
}

// stop lets a resident go. One that drains already is only spoken for.
func (p *planner) stop(i int, why Reason) {
	r := &p.s.Residents[i]
	p.gone[i] = true
	p.coming.places++
	p.coming.memory = p.coming.memory.Plus(r.Reserved)
	if r.State == Draining {
		return
	}
	if r.State == Starting {
		why = ReasonUnwanted
	}
	p.serving[r.Demand]--
	p.plan.Stop = append(p.plan.Stop, Stop{i, why})
}

// rescueOwn takes back an instance of the demand's own that is on its way out, if that is not too late and nobody who
// came first has spoken for its room.
func (p *planner) rescueOwn(d int) bool {
	for i, r := range p.s.Residents {
		switch {
		case r.Demand != d || r.Stopping || r.Dying:
		case r.Saving && r.Reason.Rescuable() && p.coming.places > 0 && r.Reserved.FitsIn(p.coming.memory):
			p.spend(r.Reserved)
			p.places, p.free = min(p.places, p.coming.places), least(p.free, p.coming.memory)
			p.rescue(i)
			return true
		case !p.gone[i] && r.drainsForRoom():
			p.rescue(i)
			return true
		}
	}
	return false
}

func (p *planner) rescue(i int) {
	p.gone[i] = true // spoken for
	p.serving[p.s.Residents[i].Demand]++
	p.plan.Rescue = append(p.plan.Rescue, i)
}

// Rescuable reports whether an instance that leaves for this reason may stay after all.
func (r Reason) Rescuable() bool { return r == ReasonIdle || r == ReasonRoom || r == ReasonLoad }

// rescueUnclaimed lets those go on that drain for somebody who does not want their room any more, unless another has taken their part.
func (p *planner) rescueUnclaimed() {
	for i, r := range p.s.Residents {
		if !p.gone[i] && r.drainsForRoom() && p.serving[r.Demand] < p.s.Demands[r.Demand].Most() {
			p.rescue(i)
		}
	}
}

// everywhere is something of every kind of memory.
var everywhere = func() (a machine.Amount) {
	a.Host = 1
	for i := range a.Device {
		a.Device[i] = 1
	}
	return a
}()

// keepToLimits stops who is idle while there are more instances than places, or less memory than they have, as after
// a change of the limits.
func (p *planner) keepToLimits() {
	helps := func(reserved machine.Amount) bool {
		lack := least(p.coming.memory, machine.Amount{})
		frees := lack.Host < 0 && reserved.Host > 0
		for i := range lack.Device {
			frees = frees || lack.Device[i] < 0 && reserved.Device[i] > 0
		}
		return frees || p.coming.places < 0
	}
	if !helps(everywhere) {
		return
	}
	for _, i := range p.idle(0) {
		if r := &p.s.Residents[i]; helps(r.Reserved) && p.serving[r.Demand] > p.s.Demands[r.Demand].Keep {
			p.stop(i, ReasonRoom)
		}
	}
}

// replicas starts further instances of models whose queue would wait longer than a start takes. They take
// room that is free, or that of who was idle for as long as bringing it back takes.
func (p *planner) replicas() {
	if p.s.Busy {
		return
	}
	order := make([]int, len(p.s.Demands))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(p.s.Demands[b].Model.Priority, p.s.Demands[a].Model.Priority) })
	for _, i := range order {
		for p.wantsReplica(i) && p.replica(i) {
			continue // until there are enough, or there is no room
		}
	}
}

func (p *planner) wantsReplica(i int) bool {
	d := &p.s.Demands[i]
	if !d.Startable || d.Waiting == 0 || d.Slots == 0 || p.serving[i] == 0 || p.serving[i] >= d.Most() {
		return false
	}
	if d.wait(p.serving[i]) > d.Start {
		return true
	}
	if p.ready[i] > 0 { // else the clock stands
		p.again(d.Start - d.SlotWait + 1)
	}
	return false
}

func (p *planner) replica(i int) bool {
	if p.rescueOwn(i) || p.start(i) {
		return true
	}
	if p.claim(i) || p.makeRoom(i, p.idle(-1), 0) && p.claim(i) {
		p.serving[i]++ // it is started when the room is there
		return true
	}
	return false
}

// Most is how many instances the model may have.
func (d *Demand) Most() int {
	if d.Model.Port > 0 || d.Model.Upstream != "" {
		return 1 // one address
	}
	return max(d.Model.MaxInstances, 1)
}

// wait is how long the last in the queue would wait for so many instances to answer all before it, or the
// first has waited already. Instances that start count: they are capacity on its way (knative/serving#13284).
func (d *Demand) wait(serving int) time.Duration {
	if d.Slots == 0 || d.Waiting == 0 {
		return 0
	}
	rounds := float64(d.Waiting) / float64(serving*d.Slots)
	return max(d.SlotWait, time.Duration(math.Ceil(rounds)*float64(d.Service)))
}

// ahead starts what is wanted before anybody asks, in room that is free: what is to be kept and what is to be there from the
// start, and, while nobody stands in line, what is likely to be asked for soon. The load of the machine holds back all but
// a model's first instance that is asked for by its file.
func (p *planner) ahead(nobodyWaits bool) {
	for i := range p.s.Demands {
		d := &p.s.Demands[i]
		if !d.Startable {
			continue
		}
		keep := min(d.Keep, d.Most())
		if d.Warm || d.Likely && nobodyWaits && !p.s.Busy {
			keep = max(keep, 1)
		}
		if p.s.Busy {
			keep = min(keep, 1)
		}
		for p.serving[i] < keep && p.start(i) {
			continue
		}
	}
}

// relieve retires the idle while the machine is short: replicas under load, anything when memory is scarce, one
// at a time.
func (p *planner) relieve() {
	if !p.s.Busy && !p.s.Short {
		return
	}
	for _, i := range p.idle(minLoadGrace) {
		r := &p.s.Residents[i]
		replica := p.serving[r.Demand] > max(1, p.s.Demands[r.Demand].Keep)
		if r.State != Ready || p.s.Now.Sub(r.IdleSince) < r.StartTook() || p.serving[r.Demand] <= p.s.Demands[r.Demand].Keep {
			continue
		}
		if replica || p.s.Short {
			p.stop(i, ReasonLoad)
		}
		if p.s.Short {
			return
		}
	}
}
