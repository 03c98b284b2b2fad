package activator

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"assistant/lifecycle"
	"assistant/lifecycle/engine"
	"assistant/modeldir"
)

// state is everything decisions are made on. It is guarded by the activator's mutex.
// A model that nobody asked for has no entry in it beyond its catalog one.
type state struct {
	set     Settings
	catalog *modeldir.Catalog
	models  map[string]*modelState // by key: those in use, waited for, or resting after a failure
	live    []*lifecycle.Instance  // starting, ready and draining, oldest first
	hot     []*modelState          // those with waiters, in the order they got their first
	queued  int                    // waiters altogether
	seq     uint64                 // arrivals, ever
	gen     uint64                 // generations, ever
	closing bool
	kept    []string // keys of models with min_instances, sorted
	eff     []effect // reused between steps
}

// modelState is a model in use.
type modelState struct {
	spec      *modeldir.Model // nil once it left the catalog
	key       string
	instances []*lifecycle.Instance // live ones, oldest first
	queue     queue
	failures  int               // starts in a row that failed
	restUntil time.Time         // no starts before then; zero once a tick saw that it is over
	lastErr   error             // of the last start or crash that failed; nil once one served
	last      *lifecycle.Output // what the newest instance that is gone printed
	startTook time.Duration     // exponential moving average of past starts; 0 = none yet
	readyAt   time.Time         // when the newest instance got ready: waits for a slot count from here at the earliest
}

// event is something that happened. Which fields count depends on kind.
type event struct {
	kind  eventKind
	w     *waiter             // arrive, cancel
	key   string              // arrive, unload
	in    *lifecycle.Instance // ready, dying, exited, release, unreachable
	run   *lifecycle.Running  // ready
	err   error               // dying, exited
	cat   *modeldir.Catalog   // catalog
	set   *Settings           // settings
	force bool                // unload: also with leases
}

type eventKind uint8

const (
	evArrive      eventKind = iota // a request wants a lease
	evCancel                       // a waiting request's client left
	evRelease                      // a lease ended
	evReady                        // an instance can serve
	evDying                        // an instance has failed by itself; what is left of it is being cleared away
	evExited                       // nothing is left of an instance
	evUnreachable                  // an instance does not accept connections
	evUnload                       // somebody wants a model's instances gone
	evCatalog                      // the models changed
	evSettings                     // the limits changed
	evPressure                     // the machine is short of CPU or memory
	evTick                         // time passed
	evClosing                      // the server goes down: nobody is to wait any more
	evStopAll                      // the server is down: idle instances stop, others when their leases end
	evKillAll                      // the time for that is over
)

// effect is something to be done outside the lock's care: started, not waited for.
type effect struct {
	kind effectKind
	in   *lifecycle.Instance
	w    *waiter
}

type effectKind uint8

const (
	effSpawn   effectKind = iota // start in
	effStop                      // stop in, as in.Reason says
	effDeliver                   // tell w how it ended
)

// step changes the state by one event and says what is to be done about it. The returned
// slice is valid until the next step.
func (s *state) step(ev event, now time.Time) []effect {
	s.eff = s.eff[:0]
	switch ev.kind {
	case evArrive:
		s.arrive(ev.w, ev.key, now)
	case evCancel:
		s.cancel(ev.w, now)
	case evRelease:
		s.release(ev.in, now)
	case evReady:
		s.ready(ev, now)
	case evDying:
		s.dying(ev.in, ev.err, now)
	case evExited:
		s.exited(ev.in, ev.err, now)
	case evUnreachable:
		if ev.in.State == lifecycle.Ready {
			s.drain(ev.in, lifecycle.ReasonDead)
			s.schedule(now)
		}
	case evUnload:
		s.unload(ev.key, ev.force, now)
	case evCatalog:
		s.setCatalog(ev.cat, now)
	case evSettings:
		s.set = *ev.set
		s.tick(now)
	case evPressure:
		if in := lifecycle.PressureVictim(s.live, now, s.wanted); in != nil {
			s.drain(in, lifecycle.ReasonLoad)
		}
	case evTick:
		s.tick(now)
	case evClosing:
		s.closing = true
		s.refuseAll(&Error{Fault: FaultShutdown})
	case evStopAll:
		s.closing = true
		s.refuseAll(&Error{Fault: FaultShutdown})
		for _, in := range s.live {
			s.drain(in, lifecycle.ReasonShutdown)
		}
	case evKillAll:
		for _, in := range s.live {
			s.stop(in, lifecycle.ReasonShutdown)
		}
	}
	return s.eff
}

// take is the warm path: a lease on an instance of the model that has a free slot, if
// nobody waits for it. It allocates nothing.
func (s *state) take(key string) *lifecycle.Instance {
	m := s.models[key]
	if m == nil || m.queue.n > 0 || s.closing {
		return nil
	}
	for _, in := range m.instances {
		if in.Free() {
			in.Leases++
			return in
		}
	}
	return nil
}

func (s *state) arrive(w *waiter, key string, now time.Time) {
	spec := s.catalog.Model(key)
	switch {
	case s.closing:
		s.refuse(w, &Error{Fault: FaultShutdown, Model: key})
		return
	case spec == nil:
		s.refuse(w, &Error{Fault: FaultUnknown, Model: key})
		return
	}
	m := s.model(spec)
	if m.missesSomething() {
		m.restUntil = time.Time{} // looking again is free, and somebody asks
	}
	if m.resting(now) && len(m.instances) == 0 {
		s.refuse(w, &Error{Fault: FaultStart, Model: spec.Name, Cause: m.lastErr, RetryAfter: m.restUntil.Sub(now)})
		return
	}
	if in := s.take(key); in != nil {
		s.grant(w, in)
		return
	}
	if m.queue.n >= s.set.Queue || s.queued >= s.set.QueueTotal {
		s.refuse(w, &Error{Fault: FaultFull, Model: spec.Name, RetryAfter: m.retryAfter()})
		return
	}
	s.seq++
	w.seq, w.model = s.seq, m
	s.enqueue(w)
	s.schedule(now)
}

// cancel ends a waiter whose client left. A start that nobody waits for any more
// goes on, and is warm for the next, unless somebody else needs its room.
func (s *state) cancel(w *waiter, now time.Time) {
	if w.ended != waiting {
		return // it was granted or refused first; a grant is given back by its owner
	}
	w.ended = cancelled
	s.dequeue(w)
	s.schedule(now)
}

// quiet reports whether giving back a lease on in concerns nobody else.
func (s *state) quiet(in *lifecycle.Instance) bool {
	return in.State == lifecycle.Ready && len(s.hot) == 0
}

// give takes a lease off in. It allocates nothing: it is the warm path's other half.
func (s *state) give(in *lifecycle.Instance, now time.Time) {
	in.Leases--
	in.Served++
	if in.Leases == 0 {
		in.IdleSince = now
	}
	if in.Served == 1 && in.State == lifecycle.Ready {
		s.models[in.Model.Key].recovered() // it is up to its work
	}
}

func (s *state) release(in *lifecycle.Instance, now time.Time) {
	s.give(in, now)
	switch {
	case in.State == lifecycle.Draining && in.Leases == 0 && !in.Dying:
		s.stop(in, in.Reason)
	case len(s.hot) > 0:
		s.schedule(now)
	}
}

func (s *state) ready(ev event, now time.Time) {
	in := ev.in
	if in.State != lifecycle.Starting {
		return // it was told to stop meanwhile
	}
	in.State, in.ReadyAt, in.IdleSince = lifecycle.Ready, now, now
	in.Running, in.Slots = ev.run, ev.run.Slots
	m := s.models[in.Model.Key]
	m.readyAt = now
	m.startTook = ewma(m.startTook, in.StartTook())
	s.schedule(now)
}

// dying sees to it that an instance that failed gets no more leases while what is left of it is cleared away, and that
// those who wait get the next generation.
func (s *state) dying(in *lifecycle.Instance, err error, now time.Time) {
	if !in.Live() || in.Dying || in.Stopping {
		return
	}
	was := in.State
	in.State, in.Dying, in.Reason = lifecycle.Draining, true, lifecycle.ReasonDead
	s.failed(s.models[in.Model.Key], in, was, err, now)
	s.schedule(now)
}

// exited takes an instance out. One that was not told to stop has failed.
func (s *state) exited(in *lifecycle.Instance, err error, now time.Time) {
	if !in.Live() {
		return
	}
	was := in.State
	s.live = without(s.live, in)
	m := s.models[in.Model.Key]
	m.instances = without(m.instances, in)
	m.last = in.Output()
	switch {
	case in.Dying: // counted when it began to
		in.State = lifecycle.Failed
	case in.Stopping:
		in.State = lifecycle.Stopped
	default:
		in.State = lifecycle.Failed
		s.failed(m, in, was, err, now)
	}
	s.schedule(now)
	s.forget(m)
}

// failed rests the model after a start that failed, and after the second crash in a row
// in which nobody was served to the end; a first crash costs nobody a wait. Resting
// refuses those who wait: they would wait longer than they meant to.
func (s *state) failed(m *modelState, in *lifecycle.Instance, was lifecycle.State, err error, now time.Time) {
	if was == lifecycle.Draining {
		return // it was on its way out: its end is nobody's loss, and no word on the next
	}
	m.failures++
	m.lastErr = err
	if was == lifecycle.Ready && m.failures < 2 {
		return
	}
	fault := &Error{Fault: FaultStart, Model: in.Model.Name, Cause: err}
	m.restUntil = now.Add(backoff(m.failures))
	if !m.missesSomething() {
		fault.RetryAfter = backoff(m.failures)
	}
	if m.served() {
		return
	}
	for m.queue.head != nil {
		s.refuseQueued(m.queue.head, fault)
	}
}

func (s *state) unload(key string, force bool, now time.Time) {
	m := s.models[key]
	if m == nil {
		return
	}
	m.recovered()
	for _, in := range slices.Clone(m.instances) {
		if force {
			s.stop(in, lifecycle.ReasonUnload)
		} else {
			s.drain(in, lifecycle.ReasonUnload)
		}
	}
	s.schedule(now)
	s.forget(m)
}

// setCatalog puts a new set of models in force and touches only what changed.
func (s *state) setCatalog(catalog *modeldir.Catalog, now time.Time) {
	s.catalog = catalog
	s.kept = s.kept[:0]
	for _, spec := range catalog.Models() { // sorted by key
		if spec.MinInstances > 0 {
			s.kept = append(s.kept, spec.Key)
		}
	}
	for _, m := range s.inUse() {
		spec := catalog.Model(m.key)
		if spec == nil {
			s.removed(m)
			continue
		}
		if m.spec == nil || !m.spec.SameLaunch(spec) {
			m.recovered() // a new spec deserves a new try
		}
		m.spec = spec
		for _, in := range slices.Clone(m.instances) {
			if in.Model.SameLaunch(spec) {
				in.Model = spec
			} else {
				s.drain(in, lifecycle.ReasonChanged)
			}
		}
	}
	s.tick(now)
}

func (s *state) removed(m *modelState) {
	m.spec = nil
	for m.queue.head != nil {
		s.refuseQueued(m.queue.head, &Error{Fault: FaultUnknown, Model: m.key})
	}
	for _, in := range slices.Clone(m.instances) {
		s.drain(in, lifecycle.ReasonRemoved)
	}
	s.forget(m)
}

// tick does what is due: retires the idle, ends waits that took too long.
func (s *state) tick(now time.Time) {
	for _, in := range s.live {
		if due(in.RetireAt(s.set.IdleTimeout), now) && !s.wanted(in) {
			s.drain(in, lifecycle.ReasonIdle)
		}
	}
	for _, m := range s.models {
		if !m.resting(now) {
			m.restUntil = time.Time{}
		}
	}
	for _, m := range slices.Clone(s.hot) {
		for m.queue.head != nil && due(m.waitEnds(s.set.MaxWait), now) {
			s.refuseQueued(m.queue.head, &Error{Fault: FaultWait, Model: m.spec.Name, RetryAfter: m.retryAfter()})
		}
	}
	s.schedule(now)
}

// next is when tick has something to do; the zero time means never.
func (s *state) next() time.Time {
	var next time.Time
	for _, in := range s.live {
		if !s.wanted(in) {
			next = earlier(next, in.RetireAt(s.set.IdleTimeout))
		}
	}
	for _, m := range s.hot {
		next = earlier(next, m.waitEnds(s.set.MaxWait))
		next = earlier(next, m.restUntil)
	}
	for _, key := range s.kept {
		if m := s.models[key]; m != nil {
			next = earlier(next, m.restUntil)
		}
	}
	return next
}

// schedule gives free slots to those who wait, then starts what is missing, oldest wait
// first, and makes room where none is.
func (s *state) schedule(now time.Time) {
	for i := 0; i < len(s.hot); {
		m := s.hot[i]
		s.grantQueued(m)
		if m.queue.n > 0 {
			i++
		} // otherwise it left s.hot, and i is the next one's
	}
	if s.closing {
		return
	}
	s.startWanted(now)
	s.startKept(now)
	s.evictOverLimit()
}

func (s *state) grantQueued(m *modelState) {
	for _, in := range m.instances {
		for in.Free() && m.queue.n > 0 {
			in.Leases++
			w := m.queue.head
			s.dequeue(w)
			s.grant(w, in)
		}
	}
}

// startWanted starts an instance of every model that is waited for and has none coming.
// Room on its way (instances that are stopping) is counted, so that one wait never
// costs two evictions.
func (s *state) startWanted(now time.Time) {
	var wanting []*modelState
	for _, m := range s.hot {
		if m.startable(now) {
			wanting = append(wanting, m)
		}
	}
	slices.SortFunc(wanting, func(a, b *modelState) int { return cmp.Compare(a.queue.head.seq, b.queue.head.seq) })
	coming := s.stopping()
	for _, m := range wanting {
		switch {
		case len(s.live) < s.set.MaxInstances:
			s.spawn(m, now)
		case coming > 0:
			coming--
		default:
			if in := s.makeRoom(); in == nil {
				return
			}
		}
	}
}

// makeRoom stops an instance that nobody needs: an idle one, else one whose start nobody
// waits for any more.
func (s *state) makeRoom() *lifecycle.Instance {
	if in := lifecycle.Victim(s.live, s.wanted); in != nil {
		s.drain(in, lifecycle.ReasonRoom)
		return in
	}
	for _, in := range s.live {
		if in.State == lifecycle.Starting && !s.wanted(in) && in.Model.MinInstances == 0 {
			s.stop(in, lifecycle.ReasonUnwanted)
			return in
		}
	}
	return nil
}

// startKept starts what min_instances asks for, in free room only.
func (s *state) startKept(now time.Time) {
	for _, key := range s.kept {
		if m := s.model(s.catalog.Model(key)); m.startable(now) && len(s.live) < s.set.MaxInstances {
			s.spawn(m, now)
		}
	}
}

// evictOverLimit stops idle instances while there are more than a lowered max_instances.
func (s *state) evictOverLimit() {
	for over := len(s.live) - s.stopping() - s.set.MaxInstances; over > 0; over-- {
		in := lifecycle.Victim(s.live, s.wanted)
		if in == nil {
			return
		}
		s.drain(in, lifecycle.ReasonRoom)
	}
}

func (s *state) spawn(m *modelState, now time.Time) {
	s.gen++
	in := &lifecycle.Instance{Model: m.spec, Gen: s.gen, State: lifecycle.Starting, Created: now}
	m.instances = append(m.instances, in)
	s.live = append(s.live, in)
	s.eff = append(s.eff, effect{kind: effSpawn, in: in})
}

// drain lets no new lease be taken, and stops the instance once the last one ended. A
// starting one has none and stops at once.
func (s *state) drain(in *lifecycle.Instance, why lifecycle.Reason) {
	if in.State == lifecycle.Draining || !in.Live() {
		return
	}
	if in.Leases == 0 {
		s.stop(in, why)
		return
	}
	in.State, in.Reason = lifecycle.Draining, why
}

// stop stops the instance now, leases or not.
func (s *state) stop(in *lifecycle.Instance, why lifecycle.Reason) {
	if in.Stopping || !in.Live() {
		return
	}
	in.State, in.Reason, in.Stopping = lifecycle.Draining, why, true
	s.eff = append(s.eff, effect{kind: effStop, in: in})
}

func (s *state) grant(w *waiter, in *lifecycle.Instance) {
	w.ended, w.in = granted, in
	s.eff = append(s.eff, effect{kind: effDeliver, w: w})
}

func (s *state) refuse(w *waiter, err error) {
	w.ended, w.err = refused, err
	s.eff = append(s.eff, effect{kind: effDeliver, w: w})
}

func (s *state) refuseQueued(w *waiter, err error) {
	s.dequeue(w)
	s.refuse(w, err)
}

func (s *state) refuseAll(err error) {
	for len(s.hot) > 0 {
		s.refuseQueued(s.hot[0].queue.head, err)
	}
}

func (s *state) enqueue(w *waiter) {
	if w.model.queue.n == 0 {
		s.hot = append(s.hot, w.model)
	}
	w.model.queue.push(w)
	s.queued++
}

func (s *state) dequeue(w *waiter) {
	w.model.queue.remove(w)
	s.queued--
	if w.model.queue.n == 0 {
		s.hot = without(s.hot, w.model)
	}
}

// model returns the state of a model, made when first asked for.
func (s *state) model(spec *modeldir.Model) *modelState {
	m := s.models[spec.Key]
	if m == nil {
		m = &modelState{spec: spec, key: spec.Key}
		s.models[spec.Key] = m
	}
	return m
}

// forget drops the state of a model that is out of use, so that what is kept does not
// grow with the number of models ever removed.
func (s *state) forget(m *modelState) {
	if m.spec == nil && len(m.instances) == 0 && m.queue.n == 0 && s.models[m.key] == m {
		delete(s.models, m.key)
	}
}

// wanted reports whether requests wait for the instance's model.
func (s *state) wanted(in *lifecycle.Instance) bool {
	m := s.models[in.Model.Key]
	return m != nil && m.queue.n > 0
}

// stopping counts the instances whose room will be free without more ado.
func (s *state) stopping() int {
	n := 0
	for _, in := range s.live {
		if in.Stopping || in.Dying {
			n++
		}
	}
	return n
}

// inUse returns the models in use in an order that does not depend on the map's.
func (s *state) inUse() []*modelState {
	ms := make([]*modelState, 0, len(s.models))
	for _, m := range s.models {
		ms = append(ms, m)
	}
	slices.SortFunc(ms, func(a, b *modelState) int {
		if a.key < b.key {
			return -1
		}
		return 1
	})
	return ms
}

// served reports whether an instance of the model serves or will.
func (m *modelState) served() bool {
	return slices.ContainsFunc(m.instances, func(in *lifecycle.Instance) bool {
		return in.State == lifecycle.Starting || in.State == lifecycle.Ready
	})
}

// starting reports whether the model is on its way up: then nobody's wait runs out, the
// start has its own bound.
func (m *modelState) starting() bool {
	return slices.ContainsFunc(m.instances, func(in *lifecycle.Instance) bool { return in.State == lifecycle.Starting })
}

// missesSomething reports whether the last failure was a file or program that was not there.
func (m *modelState) missesSomething() bool {
	var missing *engine.MissingError
	return errors.As(m.lastErr, &missing)
}

// recovered forgets failures.
func (m *modelState) recovered() { m.failures, m.restUntil, m.lastErr = 0, time.Time{}, nil }

func (m *modelState) resting(now time.Time) bool { return now.Before(m.restUntil) }

// startable reports whether a new instance may be started: none is there or coming, and
// none of an older generation still holds the address, where that is fixed.
func (m *modelState) startable(now time.Time) bool {
	fixed := m.spec.Port > 0 || m.spec.Upstream != ""
	return !m.resting(now) && !m.served() && (!fixed || len(m.instances) == 0)
}

// waitEnds is when the first in the queue has waited too long; the zero time means that
// this is not yet to be said: during a start, which has a bound of its own.
func (m *modelState) waitEnds(maxWait time.Duration) time.Time {
	if m.starting() || maxWait <= 0 {
		return time.Time{}
	}
	since := m.queue.head.arrived
	if m.readyAt.After(since) {
		since = m.readyAt
	}
	return since.Add(maxWait)
}

// retryAfter is what past starts say about how long to wait, at least 1 s.
func (m *modelState) retryAfter() time.Duration { return max(time.Second, m.startTook) }

// ewma weighs a new sample by a quarter, as TCP weighs round trips by an eighth (RFC 6298):
// starts are fewer, and page caches change them at once.
func ewma(old, sample time.Duration) time.Duration {
	if old == 0 {
		return sample
	}
	return old + (sample-old)/4
}

// due reports whether a deadline has come; the zero time never does.
func due(at, now time.Time) bool { return !at.IsZero() && !at.After(now) }

// earlier returns the earlier of two deadlines, of which the zero time is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// without returns list less x, in order. The list is changed in place.
func without[T comparable](list []T, x T) []T {
	if i := slices.Index(list, x); i >= 0 {
		return slices.Delete(list, i, i+1)
	}
	return list
}
