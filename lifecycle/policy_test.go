package lifecycle

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"assistant/lifecycle/machine"
	"assistant/lifecycle/memory"
	"assistant/modeldir"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

const gib = 1 << 30

// scene is a snapshot being put together.
type scene struct {
	Snapshot
	names []string
	gen   uint64
}

// newScene is a machine with so many places, no bound of memory, and a max_wait of a minute.
func newScene(places int) *scene {
	s := &scene{}
	s.Now, s.MaxInstances, s.MaxWait = noon, places, time.Minute
	s.Room.Host = 1 << 50
	return s
}

// model adds a model with so many requests waiting, and returns it for more to be said.
func (s *scene) model(name string, waiting int) *Demand {
	s.names = append(s.names, name)
	s.Demands = append(s.Demands, Demand{
		Model: &modeldir.Model{Key: name, Name: name}, Startable: true, Waiting: waiting, Arrived: uint64(len(s.names)), Start: 10 * time.Second,
	})
	return &s.Demands[len(s.Demands)-1]
}

// instance adds one of the model in that state, idle for a minute, and returns it for more to be said.
func (s *scene) instance(name string, state State) *Resident {
	s.gen++
	i := slices.Index(s.names, name)
	in := &Instance{
		Model: s.Demands[i].Model, Gen: s.gen, State: state, Served: 1, Created: noon.Add(-time.Hour),
		ReadyAt: noon.Add(-time.Hour + 10*time.Second), IdleSince: noon.Add(-time.Minute),
	}
	s.Residents = append(s.Residents, Resident{Instance: in, Demand: i})
	return &s.Residents[len(s.Residents)-1]
}

// plan is Decide's, in words: "+a" is a start, "-a#1 room" a stop, "^a#1" a rescue, "a…" room on its way.
func (s *scene) plan() string {
	p := Decide(&s.Snapshot)
	var words []string
	for _, stop := range p.Stop {
		words = append(words, fmt.Sprintf("-%s %s", s.Residents[stop.Resident].ID(), stop.Reason))
	}
	for _, i := range p.Rescue {
		words = append(words, "^"+s.Residents[i].ID())
	}
	for _, i := range p.Coming {
		words = append(words, s.names[i]+"…")
	}
	for _, start := range p.Start {
		words = append(words, "+"+s.names[start.Demand])
	}
	if p.Again > 0 {
		words = append(words, p.Again.String())
	}
	return strings.Join(words, ", ")
}

func TestDecide(t *testing.T) {
	for name, c := range map[string]struct {
		make func() *scene
		want string
	}{
		"room for all": {func() *scene {
			s := newScene(3)
			s.model("a", 1)
			s.model("b", 5)
			return s
		}, "+b, +a, 56.666666667s"}, // b has more waiting; a would be in a rush in a minute less b's turn
		"the most waiting first": {func() *scene {
			s := newScene(1)
			s.model("a", 1)
			s.model("b", 5)
			return s
		}, "+b, 50s"},
		"priority before numbers": {func() *scene {
			s := newScene(1)
			s.model("a", 1).Model.Priority = 1
			s.model("b", 5)
			return s
		}, "+a, 50s"},
		"cheap starts before dear ones": {func() *scene {
			s := newScene(1)
			s.model("a", 2).Start = time.Second
			s.model("b", 5)
			return s
		}, "+a, 59s"},
		"age in a rush": {func() *scene {
			s := newScene(1)
			s.model("a", 1).RoomWait = time.Minute
			s.model("b", 5).Model.Priority = 9
			return s
		}, "+a, 50s"},
		"the idle yields at once": {func() *scene {
			s := newScene(1)
			s.model("a", 0)
			s.model("b", 1)
			s.instance("a", Ready).IdleSince = noon
			return s
		}, "-a#1 room, b…, 1m0s"},
		"but for its grace": {func() *scene {
			s := newScene(1)
			s.model("a", 0)
			s.model("b", 1)
			r := s.instance("a", Ready)
			r.IdleSince, r.Grace = noon.Add(-time.Second), 3*time.Second
			return s
		}, "2s"},
		"which does not count in a rush": {func() *scene {
			s := newScene(1)
			s.model("a", 0)
			s.model("b", 1).RoomWait = time.Minute
			r := s.instance("a", Ready)
			r.IdleSince, r.Grace = noon.Add(-time.Second), 3*time.Second
			return s
		}, "-a#1 room, b…, 2s"},
		"who works stays": {func() *scene {
			s := newScene(1)
			s.model("a", 0)
			s.model("b", 1)
			s.instance("a", Ready).Leases = 1
			return s
		}, "1m0s"},
		"until a rush": {func() *scene {
			s := newScene(1)
			s.model("a", 3)
			s.model("b", 1).RoomWait = time.Minute
			s.instance("a", Ready).Leases = 1
			return s
		}, "-a#1 room, b…"},
		"a long line is a rush early": {func() *scene {
			s := newScene(1)
			s.model("a", 9)
			for _, name := range []string{"b", "c", "d"} { // d is third, and would wait for two turns more
				s.model(name, 1).RoomWait = 40 * time.Second
			}
			s.instance("a", Ready).Leases = 1
			return s
		}, "-a#1 room, b…, 10s"},
		"the lowest priority leaves first": {func() *scene {
			s := newScene(2)
			s.model("a", 0).Model.Priority = 1
			s.model("b", 0)
			s.model("c", 1).RoomWait = time.Minute
			s.instance("a", Ready).Leases = 1
			r := s.instance("b", Ready)
			r.Leases, r.Value = 1, 99
			return s
		}, "-b#2 room, c…"},
		"what starts for others stays in a rush": {func() *scene {
			s := newScene(1)
			s.model("a", 1)
			s.model("b", 1).RoomWait = time.Minute
			s.instance("a", Starting)
			return s
		}, ""},
		"a start nobody waits for goes": {func() *scene {
			s := newScene(1)
			s.model("a", 0)
			s.model("b", 1)
			s.instance("a", Starting)
			return s
		}, "-a#1 unwanted, b…, 1m0s"},
		"pinned stays": {func() *scene {
			s := newScene(1)
			s.model("a", 0).Model.Pinned = true
			s.model("b", 1).RoomWait = 2 * time.Minute
			s.instance("a", Ready)
			return s
		}, ""},
		"of those to keep only the surplus goes": {func() *scene {
			s := newScene(2)
			s.model("a", 0).Keep = 1
			s.model("b", 1)
			s.model("c", 1)
			s.instance("a", Ready).Value = 1
			s.instance("a", Ready)
			return s
		}, "-a#2 room, b…, 55s"},
		"the least valuable goes": {func() *scene {
			s := newScene(2)
			s.model("a", 0)
			s.model("b", 0)
			s.model("c", 1)
			s.instance("a", Ready).Value = 2
			s.instance("b", Ready).Value = 1
			return s
		}, "-b#2 room, c…, 1m0s"},
		"a stop on its way is room enough": {func() *scene {
			s := newScene(2)
			s.model("a", 0)
			s.model("b", 0)
			s.model("c", 1)
			r := s.instance("a", Draining)
			r.Stopping = true
			s.instance("b", Ready)
			return s
		}, "c…, 1m0s"},
		"but only for one": {func() *scene {
			s := newScene(2)
			s.model("a", 0)
			s.model("b", 0)
			s.model("c", 2).Coming = true
			s.model("d", 9)
			r := s.instance("a", Draining)
			r.Stopping = true
			s.instance("b", Ready)
			return s
		}, "-b#2 room, c…, d…, 55s"},
		"who drains for nobody goes on": {func() *scene {
			s := newScene(1)
			s.model("a", 0)
			r := s.instance("a", Draining)
			r.Reason, r.Leases = ReasonRoom, 1
			return s
		}, "^a#1"},
		"unless another has taken its part": {func() *scene {
			s := newScene(2)
			s.model("a", 0)
			r := s.instance("a", Draining)
			r.Reason, r.Leases = ReasonRoom, 1
			s.instance("a", Starting)
			return s
		}, ""},
		"who drains for another does not": {func() *scene {
			s := newScene(1)
			s.model("a", 3)
			s.model("b", 1).RoomWait = time.Minute
			r := s.instance("a", Draining)
			r.Reason, r.Leases = ReasonRoom, 1
			return s
		}, "b…, 50s"},
		"who drains for an edit is not rescued": {func() *scene {
			s := newScene(2)
			s.model("a", 1)
			r := s.instance("a", Draining)
			r.Reason, r.Leases = ReasonChanged, 1
			return s
		}, "+a, 1m0s"},
		"who saves is taken back": {func() *scene {
			s := newScene(1)
			s.model("a", 1)
			r := s.instance("a", Draining)
			r.Reason, r.Saving = ReasonIdle, true
			return s
		}, "^a#1, 1m0s"},
		"unless its room was promised": {func() *scene {
			s := newScene(1)
			s.model("a", 1)
			s.model("b", 1).Coming = true
			r := s.instance("a", Draining)
			r.Reason, r.Saving = ReasonRoom, true
			return s
		}, "b…, 50s"},
		"a replica when the queue is longer than a start": {func() *scene {
			s := newScene(3)
			d := s.model("a", 5)
			d.Slots, d.Service, d.Model.MaxInstances = 2, 4*time.Second, 3
			s.instance("a", Ready).Leases = 2
			return s
		}, "+a, 10.000000001s"},
		"not when it is shorter": {func() *scene {
			s := newScene(3)
			d := s.model("a", 4)
			d.Slots, d.Service, d.Model.MaxInstances = 2, 4*time.Second, 3
			s.instance("a", Ready).Leases = 2
			return s
		}, "10.000000001s"},
		"what starts counts": {func() *scene {
			s := newScene(3)
			d := s.model("a", 5)
			d.Slots, d.Service, d.Model.MaxInstances = 2, 4*time.Second, 3
			s.instance("a", Ready).Leases = 2
			s.instance("a", Starting)
			return s
		}, "10.000000001s"},
		"no replica under load": {func() *scene {
			s := newScene(3)
			d := s.model("a", 50)
			d.Slots, d.Service, d.Model.MaxInstances = 2, 4*time.Second, 3
			s.Busy = true
			s.instance("a", Ready).Leases = 2
			return s
		}, ""},
		"a first instance under load": {func() *scene {
			s := newScene(3)
			s.model("a", 1)
			s.Busy = true
			return s
		}, "+a, 1m0s"},
		"a replica does not take the place of what was just used": {func() *scene {
			s := newScene(2)
			d := s.model("a", 50)
			d.Slots, d.Service, d.Model.MaxInstances = 2, 4*time.Second, 3
			s.model("b", 0)
			s.instance("a", Ready).Leases = 2
			s.instance("b", Ready).IdleSince = noon.Add(-4 * time.Second)
			return s
		}, "6s"},
		"idle replicas retire under load": {func() *scene {
			s := newScene(9)
			s.Busy = true
			s.model("a", 0)
			s.model("b", 0)
			s.instance("a", Ready)
			s.instance("a", Ready)
			s.instance("b", Ready)
			return s
		}, "-a#1 load"},
		"one idle instance when memory is scarce": {func() *scene {
			s := newScene(9)
			s.Short = true
			s.model("a", 0)
			s.model("b", 0)
			s.instance("a", Ready).Value = 1
			s.instance("b", Ready)
			return s
		}, "-b#2 load"},
		"kept and preloaded in free room": {func() *scene {
			s := newScene(3)
			s.model("a", 0).Keep = 2
			s.Demands[0].Model.MaxInstances = 2
			s.model("b", 0).Warm = true
			s.model("c", 0).Warm = true
			return s
		}, "+a, +a, +b"},
		"likely only while nobody waits": {func() *scene {
			s := newScene(3)
			s.model("a", 1)
			s.model("b", 0).Likely = true
			return s
		}, "+a, 1m0s"},
		"likely": {func() *scene {
			s := newScene(3)
			s.model("b", 0).Likely = true
			return s
		}, "+b"},
		"a lowered limit": {func() *scene {
			s := newScene(1)
			s.model("a", 0)
			s.model("b", 0)
			s.instance("a", Ready).Value = 1
			s.instance("b", Ready)
			return s
		}, "-b#2 room"},
		"memory: the set that frees enough": {func() *scene {
			s := newScene(9)
			s.Room.Host = 10 * gib
			for i, size := range []int64{1, 6, 3} {
				name := string(rune('a' + i))
				s.model(name, 0)
				r := s.instance(name, Ready)
				r.Reserved.Host, r.Value = size*gib, float64(size)
			}
			s.model("new", 1).Need = memory.Need{Process: 6 * gib}
			return s // a and c, of the least value, are not enough; with b they are not needed
		}, "-b#2 room, new…, 1m0s"},
		"memory: nobody else takes what one waits for": {func() *scene {
			s := newScene(9)
			s.Room.Host = 10 * gib
			s.model("a", 0)
			r := s.instance("a", Draining)
			r.Stopping, r.Reserved.Host = true, 8*gib
			large := s.model("large", 1)
			large.Need, large.Coming = memory.Need{Process: 10 * gib}, true
			s.model("small", 9).Need = memory.Need{Process: gib}
			return s
		}, "large…, 58.888888889s"},
		"memory: more is reserved than there is": {func() *scene {
			s := newScene(9)
			s.Room.Host = 10 * gib
			s.model("a", 0)
			s.model("b", 0)
			s.instance("a", Ready).Reserved.Host = 6 * gib
			s.instance("b", Ready).Reserved.Host = 6 * gib
			return s
		}, "-a#1 room"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.make().plan(); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestDecideOnDevices: a load on a device is waited for, freed memory too, and fewer layers are taken only in a rush.
func TestDecideOnDevices(t *testing.T) {
	need := memory.Need{Source: memory.Header, Process: gib / 4, DeviceCompute: gib / 4, Output: memory.Block{Weights: gib / 2}, Anonymous: true}
	for range 9 {
		need.Blocks = append(need.Blocks, memory.Block{Weights: gib / 2})
	}
	base := func(waited time.Duration) *scene {
		s := newScene(9)
		s.Devices = []machine.Device{{Name: "CUDA0", Total: 8 * gib, Free: 8 * gib, Listed: true}}
		s.Room.Device[0] = 8 * gib
		d := s.model("a", 1)
		d.Need, d.RoomWait, d.Wanted = need, waited, memory.Want(d.Model, 0)
		d.Wanted.AtLeast = 10
		return s
	}
	t.Run("free", func(t *testing.T) {
		s := base(0)
		p := Decide(&s.Snapshot)
		if len(p.Start) != 1 || p.Start[0].Placement.Layers != 10 || p.Start[0].Placement.Amount.Device[0] < 5*gib {
			t.Errorf("%+v", p)
		}
	})
	t.Run("another loads", func(t *testing.T) {
		s := base(0)
		s.model("b", 1)
		r := s.instance("b", Starting)
		r.Reserved.Device[0] = gib
		if got := s.plan(); got != "a…, 1m0s" {
			t.Errorf("got %s, want it to wait for the load's end", got)
		}
	})
	t.Run("memory is being freed", func(t *testing.T) {
		s := base(0)
		s.Freeing.Device[0] = 5 * gib
		if got := s.plan(); got != "a…, 1m0s" {
			t.Errorf("got %s, want it to wait for the driver", got)
		}
	})
	t.Run("a neighbour is busy", func(t *testing.T) {
		s := base(0)
		s.model("b", 0).Model.Pinned = true
		r := s.instance("b", Ready)
		r.Reserved.Device[0], r.Leases = 5*gib, 1
		if got := s.plan(); got != "1m0s" {
			t.Errorf("got %s, want it to wait rather than run half on the host", got)
		}
	})
	t.Run("for too long", func(t *testing.T) {
		s := base(time.Minute)
		s.model("b", 0).Model.Pinned = true
		r := s.instance("b", Ready)
		r.Reserved.Device[0], r.Leases = 5*gib, 1
		p := Decide(&s.Snapshot)
		if len(p.Start) != 1 || p.Start[0].Placement.Layers == 0 || p.Start[0].Placement.Layers >= 10 {
			t.Errorf("%+v, want what fits on the device", p)
		}
	})
}

// TestDecideIsPure: it leaves the snapshot as it was and gives the same plan twice, whatever it is shown.
func TestDecideIsPure(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		s := newScene(1 + rng.IntN(4))
		s.Busy, s.Short = rng.IntN(4) == 0, rng.IntN(8) == 0
		s.Room.Host = int64(rng.IntN(20)) * gib
		for i := range 1 + rng.IntN(5) {
			d := s.model(fmt.Sprint("m", i), rng.IntN(4))
			d.RoomWait, d.SlotWait = time.Duration(rng.IntN(90))*time.Second, time.Duration(rng.IntN(20))*time.Second
			d.Need, d.Startable, d.Coming = memory.Need{Process: int64(rng.IntN(8)) * gib}, rng.IntN(5) > 0, rng.IntN(4) == 0
			d.Slots, d.Service, d.Keep, d.Model.MaxInstances = rng.IntN(3), time.Duration(rng.IntN(9))*time.Second, rng.IntN(2), rng.IntN(3)
			for range rng.IntN(3) {
				r := s.instance(fmt.Sprint("m", i), State(rng.IntN(3)))
				r.Leases, r.Value, r.Reserved.Host = rng.IntN(2), rng.Float64(), int64(rng.IntN(6))*gib
				if r.State == Draining {
					r.Stopping, r.Reason = rng.IntN(2) == 0, ReasonRoom
				}
			}
		}
		opts := cmp.Options{cmpopts.IgnoreUnexported(Instance{})}
		before := clone(s.Snapshot)
		first := Decide(&s.Snapshot)
		if diff := cmp.Diff(before, s.Snapshot, opts); diff != "" {
			t.Fatalf("the snapshot was changed:\n%s", diff)
		}
		if diff := cmp.Diff(first, Decide(&s.Snapshot)); diff != "" {
			t.Fatalf("two plans for one snapshot:\n%s", diff)
		}
		checkPlan(t, s, first)
	}
}

func clone(s Snapshot) Snapshot {
	s.Demands, s.Residents = slices.Clone(s.Demands), slices.Clone(s.Residents)
	for i := range s.Residents {
		in := *s.Residents[i].Instance
		s.Residents[i].Instance = &in
	}
	return s
}

// checkPlan wants what no plan may do: stop somebody twice, or who works without need, or start beyond the places and the memory there are.
func checkPlan(t *testing.T, s *scene, p Plan) {
	t.Helper()
	gone := map[int]bool{}
	for _, stop := range p.Stop {
		r := s.Residents[stop.Resident]
		if gone[stop.Resident] || r.Stopping || r.State == Draining || r.Model.Pinned {
			t.Fatalf("stops %s: %s", r.ID(), s.plan())
		}
		gone[stop.Resident] = true
	}
	if len(p.Start) > max(0, s.MaxInstances-len(s.Residents)) {
		t.Fatalf("%d starts beside %d of %d", len(p.Start), len(s.Residents), s.MaxInstances)
	}
	free := s.Room
	for _, r := range s.Residents {
		free = free.Minus(r.Reserved)
	}
	for _, start := range p.Start {
		free = free.Minus(start.Placement.Amount)
		if start.Placement.Amount.Host > 0 && free.Host < 0 {
			t.Fatalf("%d bytes too many: %s", -free.Host, s.plan())
		}
	}
}
