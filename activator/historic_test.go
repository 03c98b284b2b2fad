package activator

import (
	"fmt"
	"regexp"
	"slices"
	"testing"
	"time"

	"assistant/lifecycle"
	"assistant/lifecycle/machine"
)

// historic is a fault that somebody's router had, put into ours.
type historic struct {
	what   string // how it shows here
	source string // whose it was
	rig    rig
	policy lifecycle.Policy
	caught string // what the check says that finds it
}

// changed is our policy on a snapshot with something changed.
func changed(change func(*lifecycle.Snapshot)) lifecycle.Policy {
	return func(s *lifecycle.Snapshot) lifecycle.Plan {
		c := *s
		c.Demands, c.Residents = slices.Clone(s.Demands), slices.Clone(s.Residents)
		change(&c)
		return lifecycle.Decide(&c)
	}
}

// more is our policy's plan with something added.
func more(change func(*lifecycle.Snapshot, *lifecycle.Plan)) lifecycle.Policy {
	return func(s *lifecycle.Snapshot) lifecycle.Plan {
		p := lifecycle.Decide(s)
		change(s, &p)
		return p
	}
}

// stopped tells an instance to stop as no door of ours would: leases or not.
func stopped(w *world, effects []effect, why lifecycle.Reason, which func(*lifecycle.Instance) bool) []effect {
	for _, in := range w.st.live {
		if in.State == lifecycle.Ready && !in.Stopping && which(in) {
			in.State, in.Stopping, in.Reason = lifecycle.Draining, true, why
			return append(slices.Clone(effects), effect{kind: effStop, in: in, why: why})
		}
	}
	return effects
}

func busyOne(in *lifecycle.Instance) bool { return in.Leases > 0 }

// on is a fault that strikes after events of one kind.
func on(kind eventKind, do func(w *world, ev event, effects []effect) []effect) rig {
	return rig{after: func(w *world, ev event, effects []effect) []effect {
		if ev.kind != kind {
			return effects
		}
		return do(w, ev, effects)
	}}
}

// waitingFor returns the models with requests and without an instance.
func waitingFor(s *lifecycle.Snapshot) (out []int) {
	for i, d := range s.Demands {
		if d.Waiting > 0 && !slices.ContainsFunc(s.Residents, func(r lifecycle.Resident) bool { return r.Demand == i }) {
			out = append(out, i)
		}
	}
	return out
}

var historicBugs = []historic{
	{what: "an idle timer that looks without the lock stops what was leased meanwhile", caught: `is stopped with`, source: "mostlygeek/llama-swap#946, #277, #119", rig: on(evTick, func(w *world, _ event, e []effect) []effect {
		return stopped(w, e, lifecycle.ReasonIdle, busyOne)
	})},
	{what: "the idle clock runs from the last request's start, so long streams are idle", caught: `is stopped with`, source: "llamactl idle check; sablierapp/sablier#576", rig: on(evTick, func(w *world, _ event, e []effect) []effect {
		return stopped(w, e, lifecycle.ReasonIdle, func(in *lifecycle.Instance) bool {
			return in.Leases > 0 && w.now.Sub(in.IdleSince) > time.Minute
		})
	})},
	{what: "an active generation is evicted for another model", caught: `is stopped with`, source: "ggml-org/llama.cpp#21678, #22447", rig: on(evArrive, func(w *world, ev event, e []effect) []effect {
		if ev.w.ended != waiting {
			return e
		}
		return stopped(w, e, lifecycle.ReasonRoom, func(in *lifecycle.Instance) bool { return in.Leases > 0 && in.Model.Key != ev.w.Key })
	})},
	{what: "the least recently used one is one that still loads, with requests waiting for it", caught: `whose start`, source: "ggml-org/llama.cpp#25528", policy: more(func(s *lifecycle.Snapshot, p *lifecycle.Plan) {
		for i, r := range s.Residents {
			if d := s.Demands[r.Demand]; r.State == lifecycle.Starting && d.Waiting > 0 && d.Keep == 0 && len(waitingFor(s)) > 0 {
				p.Stop = append(p.Stop, lifecycle.Stop{Resident: i, Reason: lifecycle.ReasonRoom})
			}
		}
	})},
	{what: "the model just loaded is evicted before its request is passed on", caught: `a lease on`, source: "ggml-org/llama.cpp#28698, #28774", rig: on(evReady, func(w *world, ev event, e []effect) []effect {
		return stopped(w, e, lifecycle.ReasonRoom, func(in *lifecycle.Instance) bool { return in == ev.in && in.Leases > 0 })
	})},
	{what: "loading and answering are two critical sections: between them nobody counts the request", caught: `counts 0 leases, 1 are out`, source: "lemonade-sdk/lemonade#1836", rig: on(evReady, func(w *world, ev event, e []effect) []effect {
		if ev.in.Leases > 0 {
			ev.in.Leases--
		}
		return e
	})},
	{what: "one load blocks all other loads", caught: `there is room and nothing starts`, source: "ollama/ollama PR#15126, #14578", policy: func(s *lifecycle.Snapshot) lifecycle.Plan {
		p := lifecycle.Decide(s)
		if slices.ContainsFunc(s.Residents, func(r lifecycle.Resident) bool { return r.State == lifecycle.Starting }) {
			p.Start = nil
		}
		return p
	}},
	{what: "the eviction target is revived while who wanted its room goes on waiting for it", caught: `waits for room`, source: "ollama/ollama#17408", rig: rig{after: func(w *world, _ event, e []effect) []effect {
		for _, m := range w.st.hot {
			m.coming = m.coming || len(m.instances) == 0
			m.waits.making, m.waits.room = clock{}, clock{} // it waits for an event, not for a time
			m.queue.oldest.began = waited{}
		}
		return e
	}}, policy: func(s *lifecycle.Snapshot) lifecycle.Plan {
		for i := range s.Demands {
			s.Demands[i].Waiting = 0
		}
		return lifecycle.Decide(s)
	}},
	{what: "the first requester's leaving aborts the load for those after it", caught: `whose start`, source: "ollama server/sched.go", rig: on(evCancel, func(w *world, ev event, e []effect) []effect {
		for _, in := range w.st.live {
			if in.State == lifecycle.Starting && ev.w.model != nil && in.Model.Key == ev.w.model.key && ev.w.model.queue.n > 0 {
				in.State, in.Stopping = lifecycle.Draining, true
				return append(slices.Clone(e), effect{kind: effStop, in: in, why: lifecycle.ReasonUnwanted})
			}
		}
		return e
	})},
	{what: "a load nobody waits for is carried through while others wait for its room", caught: `nobody waits for it`, source: "mostlygeek/llama-swap#727, #1068", policy: func(s *lifecycle.Snapshot) lifecycle.Plan {
		p := lifecycle.Decide(s)
		p.Stop = slices.DeleteFunc(p.Stop, func(stop lifecycle.Stop) bool { return s.Residents[stop.Resident].State == lifecycle.Starting })
		return p
	}},
	{what: "the limit is checked, then started, in two steps: parallel first requests all pass", caught: `4 instances alive, limit 3`, source: "llamactl handlers; peers.md (7 and 10 alive of 2)", policy: changed(func(s *lifecycle.Snapshot) { s.MaxInstances++ })},
	{what: "after 30 s of trying the load goes on over the budget", caught: `4 instances alive, limit 3`, source: "mudler/LocalAI pkg/model EnforceLRULimit", policy: changed(func(s *lifecycle.Snapshot) {
		if slices.ContainsFunc(s.Demands, func(d lifecycle.Demand) bool { return d.RoomWait > 5*time.Second }) {
			s.MaxInstances++
		}
	})},
	{what: "an instance counts as running when it was forked", caught: `free slot|a lease on`, source: "llamactl status; peers.md (563 of 600 × 502)", rig: rig{after: func(w *world, _ event, e []effect) []effect {
		for _, f := range e {
			if f.kind == effSpawn {
				f.in.State = lifecycle.Ready
			}
		}
		return e
	}}},
	{what: "a reload stops everything, requests in flight included", caught: `is stopped with`, source: "llama-swap reload()", rig: on(evCatalog, func(w *world, _ event, e []effect) []effect {
		return stopped(w, e, lifecycle.ReasonChanged, busyOne)
	})},
	{what: "quick edits leave several copies of one model running", caught: `its model does not know`, source: "mostlygeek/llama-swap#281", rig: on(evCatalog, func(w *world, _ event, e []effect) []effect {
		for _, m := range w.st.models {
			m.instances = slices.DeleteFunc(m.instances, func(in *lifecycle.Instance) bool { return in.State == lifecycle.Starting })
		}
		return e
	})},
	{what: "the new process gets the port that the old one still holds", caught: `on one port`, source: "llama-swap reload, static ports; mostlygeek/llama-swap#281", policy: changed(func(s *lifecycle.Snapshot) {
		for i := range s.Demands {
			s.Demands[i].Startable = s.Demands[i].Startable || s.Demands[i].Model.Port > 0
		}
	})},
	{what: "a failed load is tried again at once, with each request", caught: `after a start that failed`, source: "llama-swap (no back-off)", rig: on(evExited, func(w *world, ev event, e []effect) []effect {
		if m := w.st.models[ev.in.Model.Key]; m != nil {
			m.restUntil = time.Time{}
		}
		return e
	})},
	{what: "requests beyond the slots are passed on, not held", caught: `leases on`, source: "intentee/paddler PR#61, #17, #44", rig: on(evReady, func(w *world, ev event, e []effect) []effect {
		ev.in.Slots = 0
		return e
	})},
	{what: "waiters wake in no order", caught: `out of order`, source: "paddler buffered requests; kubeai herd", rig: rig{before: func(w *world, ev *event) bool {
		for _, m := range w.st.hot {
			for _, l := range m.queue.lines {
				if l.n == 2 { // the younger of two goes first
					a, b := l.head, l.tail
					l.head, l.tail, b.next, a.next, b.prev, a.prev = b, a, a, nil, nil, b
				}
			}
		}
		return true
	}}},
	{what: "requests are refused although there is room to hold them", caught: `one too many`, source: "mostlygeek/llama-swap#588; nirecom/cc-local-llm#80 (10 a model)", rig: rig{before: func(w *world, _ *event) bool {
		w.st.set.Queue = 2
		return true
	}}},
	{what: "a client that left goes on waiting", caught: `counted`, source: "sablier-caddy-plugin (context.TODO)", rig: rig{before: func(w *world, ev *event) bool { return ev.kind != evCancel }}},
	{what: "a grant reaches a client that left", caught: `told twice`, source: "llama-swap grants before Respond was unbuffered (design.md)", rig: on(evCancel, func(w *world, ev event, e []effect) []effect {
		ev.w.ended = granted
		for _, in := range w.st.live {
			if in.State == lifecycle.Ready {
				ev.w.in = in
				return append(slices.Clone(e), effect{kind: effDeliver, w: ev.w})
			}
		}
		return e
	})},
	{what: "a late word of an old generation brings it back", caught: `not among the living`, source: "routers.md f2; llama-swap port reuse", rig: on(evExited, func(w *world, ev event, e []effect) []effect {
		if m := w.st.models[ev.in.Model.Key]; m != nil {
			ev.in.State = lifecycle.Ready
			m.instances = append(m.instances, ev.in)
		}
		return e
	})},
	{what: "the next load starts before the driver has given the memory back", caught: `reserved`, source: "mostlygeek/llama-swap#97", rig: rig{before: func(w *world, _ *event) bool {
		w.st.freeing = nil
		return true
	}}, policy: changed(func(s *lifecycle.Snapshot) { s.Freeing = machine.Amount{} })},
	{what: "memory is counted when it is used, not before the start", caught: `reserved`, source: "LocalAI watchdog (reactive threshold); ollama refresh", policy: func(s *lifecycle.Snapshot) lifecycle.Plan {
		p := lifecycle.Decide(s)
		for i := range p.Start {
			p.Start[i].Placement.Amount = machine.Amount{}
		}
		return p
	}},
	{what: "the estimate is half of what is needed", caught: `reserved`, source: "mudler/LocalAI KV formula (Llama-3-8B @8k: 0.5 GiB of 1.0)", policy: changed(func(s *lifecycle.Snapshot) {
		for i := range s.Demands {
			s.Demands[i].Need.Process /= 2
		}
	})},
	{what: "two loads at once on one device", caught: `loads at once`, source: "ggml-org/llama.cpp#28774 (three models start together); Ollama loads one by one for it", policy: changed(func(s *lifecycle.Snapshot) {
		for i := range s.Residents {
			if in := *s.Residents[i].Instance; in.State == lifecycle.Starting && s.Demands[s.Residents[i].Demand].Waiting > 0 {
				pinned := *in.Model // it is not to be taken for one that may go
				pinned.Pinned = true
				in.State, in.Model, in.Leases = lifecycle.Ready, &pinned, 1
				s.Residents[i].Instance = &in
			}
		}
	})},
	{what: "any failed load evicts everything", caught: `is stopped with`, source: "lemonade \"nuclear\" retry", rig: on(evExited, func(w *world, ev event, e []effect) []effect {
		if ev.err == nil {
			return e
		}
		return stopped(w, e, lifecycle.ReasonRoom, busyOne)
	})},
	{what: "a pinned model is freed like any other", caught: `is pinned`, source: "mudler/LocalAI#11101; ollama/ollama#9206", policy: more(func(s *lifecycle.Snapshot, p *lifecycle.Plan) {
		for i, r := range s.Residents {
			if r.Model.Pinned && r.Idle() && len(waitingFor(s)) > 0 {
				p.Stop = append(p.Stop, lifecycle.Stop{Resident: i, Reason: lifecycle.ReasonRoom})
			}
		}
	})},
	{what: "instances that are to be kept are evicted", caught: `to keep`, source: "kubeai-project/kubeai#383 the other way; llama-swap persistent groups", policy: changed(func(s *lifecycle.Snapshot) {
		for i := range s.Demands {
			s.Demands[i].Keep = 0
		}
	})},
	{what: "instances on their way do not count as capacity: one is started a request", caught: `instances alive, limit`, source: "knative/serving#13284", policy: more(func(s *lifecycle.Snapshot, p *lifecycle.Plan) {
		for _, start := range slices.Clone(p.Start) {
			for range s.Demands[start.Demand].Waiting {
				p.Start = append(p.Start, start)
			}
		}
	})},
	{what: "what was told to stop is given out again", caught: `a lease on`, source: "llama-swap OnUnload/TTL window (502 into a dying engine)", rig: on(evArrive, func(w *world, ev event, e []effect) []effect {
		for _, in := range w.st.live {
			if in.Stopping && !in.Dying && ev.w.ended == waiting && in.Model.Key == ev.w.Key {
				w.st.dequeue(ev.w)
				in.Leases++
				ev.w.ended, ev.w.in = granted, in
				return append(slices.Clone(e), effect{kind: effDeliver, w: ev.w})
			}
		}
		return e
	})},
	{what: "scaling down cuts streams", caught: `is stopped with`, source: "gpustack/gpustack#6059; volcano-sh/kthena#1589", rig: on(evMachine, func(w *world, ev event, e []effect) []effect {
		if !ev.now.Busy {
			return e
		}
		return stopped(w, e, lifecycle.ReasonLoad, busyOne)
	})},
	{what: "a busy machine delays a model's first instance", caught: `there is room and nothing starts`, source: "routers.md f7", policy: func(s *lifecycle.Snapshot) lifecycle.Plan {
		p := lifecycle.Decide(s)
		if s.Busy {
			p.Start = nil
		}
		return p
	}},
	{what: "a resident model that is always asked for is never made to give way", caught: `never asked to give`, source: "llama-swap fast path, mostlygeek/llama-swap#612", policy: func(s *lifecycle.Snapshot) lifecycle.Plan {
		rushed := *s
		rushed.MaxWait = 100 * time.Hour
		return lifecycle.Decide(&rushed)
	}},
	{what: "requests wait without a bound", caught: `waits for room`, source: "llama-swap holds for ever; vLLM production-stack#855", rig: rig{before: func(w *world, _ *event) bool {
		w.st.set.MaxWait = 100 * time.Hour
		return true
	}}},
	{what: "requests at zero are never dispatched", caught: `there is room and nothing starts`, source: "gateway-api-inference-extension#2117; ggml-org/llama.cpp#28443", policy: func(s *lifecycle.Snapshot) lifecycle.Plan {
		p := lifecycle.Decide(s)
		if len(s.Residents) == 0 {
			p.Start = nil
		}
		return p
	}},
	{what: "how a request ended is told twice", caught: `told twice`, source: "caddy-supervisor (two Waits); ollama double expiry", rig: rig{after: func(_ *world, _ event, e []effect) []effect {
		for _, f := range e {
			if f.kind == effDeliver {
				return append(slices.Clone(e), f)
			}
		}
		return e
	}}},
	{what: "the end of a request gets lost, and its slot with it", caught: `are out`, source: "mostlygeek/llama-swap#38 family; large-model-proxy hanging requests", rig: rig{before: func(w *world, ev *event) bool {
		return ev.kind != evRelease || w.rng.IntN(20) > 0
	}}},
}

// TestHistoricBugsAreCaught puts faults that other routers had into the policy, or between the state and its world, and wants the checks
// of the simulation to find each.
func TestHistoricBugsAreCaught(t *testing.T) {
	if len(historicBugs) < 30 {
		t.Fatalf("%d faults", len(historicBugs))
	}
	for _, bug := range historicBugs {
		t.Run(bug.what, func(t *testing.T) {
			t.Parallel()
			err := hunt(bug)
			if err == nil || !regexp.MustCompile(bug.caught).MatchString(err.Error()) {
				t.Fatalf("%s: got %v, want a check to say %q", bug.source, err, bug.caught)
			}
			t.Logf("%s: %v", bug.source, err)
		})
	}
}

// hunt lets the world run with a fault until a check finds it, for so many seeds at most.
func hunt(bug historic) error {
	for seed := range uint64(huntSeeds) {
		if err := bug.run(seed); err != nil {
			return fmt.Errorf("seed %d, %w", seed, err)
		}
	}
	return nil
}

const huntSeeds = 24

func (bug historic) run(seed uint64) error {
	r := bug.rig
	r.policy = bug.policy
	return newRiggedWorld(seed, &r).run(20_000)
}

// TestARigWithoutAFaultChangesNothing: the faults are caught for what they are, not for how they are put in.
func TestARigWithoutAFaultChangesNothing(t *testing.T) {
	harmless := historic{rig: rig{
		before: func(*world, *event) bool { return true },
		after:  func(_ *world, _ event, e []effect) []effect { return slices.Clone(e) },
	}, policy: changed(func(*lifecycle.Snapshot) {})}
	for seed := range uint64(huntSeeds) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			if err := harmless.run(seed); err != nil {
				t.Error(err)
			}
		})
	}
}
