package activator

import (
	"time"

	"assistant/lifecycle"
	"assistant/modeldir"
)

// EventKind is what an [Event] tells.
type EventKind string

// The kinds of events. Of an instance: EventStarting, EventReady, EventDraining and EventReady again if it is kept after all, EventStopping
// if it is told to stop or EventFailed if it ended by itself, and EventStopped, always the last.
const (
	EventSnapshot EventKind = "snapshot" // how all models in use stand: the first of a subscription
	EventStarting EventKind = "starting" // an instance is being started
	EventReady    EventKind = "ready"    // an instance can serve
	EventDraining EventKind = "draining" // an instance gets no new requests, and stops when it has none, or its contexts are saved
	EventStopping EventKind = "stopping" // an instance is told to stop
	EventFailed   EventKind = "failed"   // an instance could not be started, or ended by itself
	EventStopped  EventKind = "stopped"  // nothing is left of an instance
	EventWaiting  EventKind = "waiting"  // how many requests wait for a model has changed
	EventCatalog  EventKind = "catalog"  // the models have changed
	EventFault    EventKind = "fault"    // the file of a model is no good; what was good before goes on
	EventLost     EventKind = "lost"     // events were left out because they were not taken in time; a snapshot follows
)

// Event is something that happened. Which fields are set depends on its kind.
type Event struct {
	Kind EventKind `json:"-"`
	Time time.Time `json:"time"`

	Model      string  `json:"model,omitempty"`    // its name; of instances, queues and faults
	Key        string  `json:"key,omitempty"`      // the model's; of instances and queues
	Instance   string  `json:"instance,omitempty"` // "key#generation"
	Generation uint64  `json:"generation,omitempty"`
	Reason     string  `json:"reason,omitempty"`   // why it starts (one of the Why constants), drains or stops ([lifecycle.Reason])
	Error      string  `json:"error,omitempty"`    // of failed ones and faults
	SpawnMS    float64 `json:"spawn_ms,omitempty"` // of ready ones, as in [Phases]
	ReadyMS    float64 `json:"ready_ms,omitempty"`

	Queued int        `json:"queued,omitempty"` // requests that wait for the model; 0 = nobody does any more
	Models int        `json:"models,omitempty"` // in the catalog
	File   string     `json:"file,omitempty"`   // at fault
	Lost   int        `json:"lost,omitempty"`   // events
	InUse  []Standing `json:"in_use,omitzero"`  // of a snapshot: what is not in it is cold
}

// Why an instance is started.
const (
	WhyRequest  = "request"  // somebody waits for it
	WhyKept     = "kept"     // min_instances or preload
	WhyExpected = "expected" // a request is likely
)

// Standing is how a model in use stands.
type Standing struct {
	Model     string             `json:"model"`
	Key       string             `json:"key"`
	State     string             `json:"state"` // cold, starting, ready, draining or failed
	Queued    int                `json:"queued"`
	Error     string             `json:"error,omitempty"` // of its last start, if that failed
	Instances []InstanceStanding `json:"instances"`
}

// InstanceStanding is how an instance stands: by the kind of event that told it last.
type InstanceStanding struct {
	Instance   string    `json:"instance"`
	Generation uint64    `json:"generation"`
	State      EventKind `json:"state"`
	Reason     string    `json:"reason,omitempty"`
	Started    time.Time `json:"started"`
}

// maxEvents is how many events wait for a subscriber. More than a busy second has (a hundred starts and as many requests); a
// subscriber that is further behind does better with how things stand now.
const maxEvents = 512

// Subscription gets what happens. It never holds up the activator: who takes too slowly loses events, is told how many, and gets
// a snapshot in their place. It must be closed.
type Subscription struct {
	a    *Activator
	news chan struct{}

	events []Event // guarded by the activator's lock, as is lost
	lost   int
}

// Subscribe begins a subscription. Its first event is a snapshot.
func (a *Activator) Subscribe() *Subscription {
	s := &Subscription{a: a, news: make(chan struct{}, 1)}
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.journal.readers) == 0 {
		a.journal.begin(&a.state)
	}
	a.journal.readers = append(a.journal.readers, s)
	s.push(a.state.snapshotEvent(now))
	return s
}

// News has something to be received when there are events to be taken.
func (s *Subscription) News() <-chan struct{} { return s.news }

// Take returns what has happened since the last call, oldest first.
func (s *Subscription) Take() []Event {
	now := time.Now()
	s.a.mu.Lock()
	defer s.a.mu.Unlock()
	events := s.events
	s.events = nil
	if s.lost > 0 {
		events = []Event{{Kind: EventLost, Time: now, Lost: s.lost}, s.a.state.snapshotEvent(now)}
		s.lost = 0
	}
	return events
}

// Close ends the subscription. It is idempotent.
func (s *Subscription) Close() {
	s.a.mu.Lock()
	defer s.a.mu.Unlock()
	s.a.journal.readers = without(s.a.journal.readers, s)
}

// push adds an event. The lock is held.
func (s *Subscription) push(e Event) {
	switch {
	case s.lost > 0:
		s.lost++
	case len(s.events) == maxEvents:
		s.lost = len(s.events) + 1
		s.events = nil
	default:
		s.events = append(s.events, e)
	}
	select {
	case s.news <- struct{}{}:
	default: // it knows already
	}
}

// journal tells subscribers what happens. It is derived: after each step it compares how things stand with what it has told last. Without
// subscribers it costs nothing. It is guarded by the activator's lock.
type journal struct {
	readers []*Subscription
	told    []toldInstance // of live instances, oldest first
	hot     []*modelState  // those of whose waiters was told last
	catalog *modeldir.Catalog
}

type toldInstance struct {
	in   *lifecycle.Instance
	kind EventKind
}

// begin takes how things stand as told.
func (j *journal) begin(s *state) {
	j.told, j.catalog = j.told[:0], s.catalog
	for _, in := range s.live {
		j.told = append(j.told, toldInstance{in, standing(in)})
	}
	for _, m := range s.models {
		m.told = m.queue.n
	}
	j.hot = append(j.hot[:0], s.hot...)
}

// standing is what was or would be told of an instance last.
func standing(in *lifecycle.Instance) EventKind {
	switch {
	case !in.Live():
		return EventStopped
	case in.Dying:
		return EventFailed
	case in.Stopping:
		return EventStopping
	case in.State == lifecycle.Starting:
		return EventStarting
	case in.State == lifecycle.Ready:
		return EventReady
	}
	return EventDraining
}

// look tells what a step has changed.
func (j *journal) look(s *state, ev *event, now time.Time) {
	if len(j.readers) == 0 {
		return
	}
	tell := func(e Event) {
		e.Time = now
		for _, r := range j.readers {
			r.push(e)
		}
	}
	j.lookAtCatalog(s.catalog, tell)
	j.lookAtInstances(s, ev, tell)
	j.lookAtQueues(s, tell)
}

func (j *journal) lookAtCatalog(c *modeldir.Catalog, tell func(Event)) {
	if c == j.catalog {
		return
	}
	text := func(f modeldir.Fault) string { return f.File + "\x00" + f.Name + "\x00" + f.Err.Error() }
	old := map[string]bool{}
	for _, f := range j.catalog.Faults() {
		old[text(f)] = true
	}
	j.catalog = c
	tell(Event{Kind: EventCatalog, Models: len(c.Models())})
	for _, f := range c.Faults() {
		if !old[text(f)] {
			tell(Event{Kind: EventFault, Model: f.Name, File: f.File, Error: f.Err.Error()})
		}
	}
}

func (j *journal) lookAtInstances(s *state, ev *event, tell func(Event)) {
	kept := j.told[:0]
	for _, told := range j.told {
		in, kind := told.in, standing(told.in)
		if kind == told.kind {
			kept = append(kept, told)
			continue
		}
		if kind == EventStopped && in.State == lifecycle.Failed && told.kind != EventFailed {
			tell(instanceEvent(EventFailed, in, ev))
		}
		tell(instanceEvent(kind, in, ev))
		if kind != EventStopped {
			kept = append(kept, toldInstance{in, kind})
		}
	}
	for _, in := range s.live[len(kept):] { // both are in order of age
		e := instanceEvent(standing(in), in, ev)
		if e.Kind == EventStarting {
			e.Reason = s.why(in)
		}
		tell(e)
		kept = append(kept, toldInstance{in, e.Kind})
	}
	j.told = kept
}

func instanceEvent(kind EventKind, in *lifecycle.Instance, ev *event) Event {
	e := Event{Kind: kind, Model: in.Model.Name, Key: in.Model.Key, Instance: in.ID(), Generation: in.Gen}
	switch kind {
	case EventDraining, EventStopping:
		e.Reason = string(in.Reason)
	case EventStopped:
		if in.State != lifecycle.Failed {
			e.Reason = string(in.Reason)
		}
	case EventReady:
		e.SpawnMS, e.ReadyMS = ms(in.Running.Spawned), ms(in.Running.Loaded)
	case EventFailed:
		if ev.in == in && ev.err != nil {
			e.Error = ev.err.Error()
		}
	default:
	}
	return e
}

// why is what an instance was started for, as far as the state shows it right after.
func (s *state) why(in *lifecycle.Instance) string {
	m := s.models[in.Model.Key]
	switch {
	case m.queue.n > 0:
		return WhyRequest
	case m.kept() > 0 || in.Model.Preload:
		return WhyKept
	}
	return WhyExpected
}

func (j *journal) lookAtQueues(s *state, tell func(Event)) {
	look := func(m *modelState) {
		if m.queue.n != m.told {
			m.told = m.queue.n
			tell(Event{Kind: EventWaiting, Model: m.name(), Key: m.key, Queued: m.told})
		}
	}
	for _, m := range j.hot {
		look(m)
	}
	for _, m := range s.hot {
		look(m)
	}
	j.hot = append(j.hot[:0], s.hot...)
}

// name is the model's, or its key if it left the catalog.
func (m *modelState) name() string {
	if m.spec == nil {
		return m.key
	}
	return m.spec.Name
}

func (s *state) snapshotEvent(now time.Time) Event {
	e := Event{Kind: EventSnapshot, Time: now, Models: len(s.catalog.Models()), InUse: []Standing{}}
	for _, m := range s.inUse() {
		e.InUse = append(e.InUse, m.standing())
	}
	return e
}

func (m *modelState) standing() Standing {
	s := Standing{
		Model: m.name(), Key: m.key, State: m.status().State, Queued: m.queue.n, Instances: make([]InstanceStanding, 0, len(m.instances)),
	}
	if m.lastErr != nil {
		s.Error = m.lastErr.Error()
	}
	for _, in := range m.instances {
		s.Instances = append(s.Instances, InstanceStanding{
			Instance: in.ID(), Generation: in.Gen, State: standing(in), Reason: string(in.Reason), Started: in.Created,
		})
	}
	return s
}
