package activator

import (
	"slices"
	"time"

	"assistant/lifecycle"
	"assistant/lifecycle/machine"
	"assistant/lifecycle/memory"
	"assistant/modeldir"
)

// state is everything decisions are made on. It is guarded by the activator's mutex.
// A model that nobody asked for has no entry in it beyond its catalog one.
type state struct {
	set     Settings
	policy  lifecycle.Policy
	catalog *modeldir.Catalog
	models  map[string]*modelState // by key: those in use, waited for, or resting after a failure
	live    []*lifecycle.Instance  // starting, ready and draining, oldest first
	hot     []*modelState          // those with waiters, in the order they got their first
	queued  int                    // waiters altogether
	bytes   int64                  // of all waiters
	seq     uint64                 // arrivals, ever
	gen     uint64                 // generations, ever
	closing bool
	now     time.Time // of the step under way
	kept    []string  // keys of models to start unasked, sorted
	eff     []effect  // reused between steps

	surveys  bool      // what models need is found out before their first start; else it counts as nothing
	machine  Machine   // as last seen
	freeing  []freeing // device memory of instances that are gone, until it is seen to be free
	again    time.Time // when the policy wants to be asked again; zero = when something happens
	oracle   *oracle   // tells what is likely to be asked for; nil = nobody wants to know
	oracleAt time.Time // when it may have something new to tell
	snapshot lifecycle.Snapshot
	planned  []*modelState // the snapshot's demands
	looks    uint64        // snapshots, ever
}

func newState(surveys bool) state {
	return state{
		set: DefaultSettings(), policy: lifecycle.Decide, catalog: modeldir.NewCatalog(nil),
		models: map[string]*modelState{}, surveys: surveys,
	}
}

// event is something that happened. Which fields count depends on kind.
type event struct {
	kind  eventKind
	w     *waiter             // arrive, cancel
	key   string              // unload, needed
	in    *lifecycle.Instance // ready, dying, exited, release, unreachable, saved, measured
	run   *lifecycle.Running  // ready
	err   error               // dying, exited
	cat   *modeldir.Catalog   // catalog
	set   *Settings           // settings
	force bool                // unload: also with leases
	held  held                // release
	need  *Facts              // needed
	now   *Machine            // machine
	used  machine.Amount      // measured

	attempt int // saved: which one
}

// held is what a lease says of itself when it ends.
type held struct {
	client uint64
	began  time.Time
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
	evSaved                        // an instance's contexts are saved, as far as they will be
	evNeeded                       // what a model needs is known
	evMeasured                     // what an instance uses was measured
	evMachine                      // the machine was looked at
	evUnload                       // somebody wants a model's instances gone
	evCatalog                      // the models changed
	evSettings                     // the limits changed
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
	spec *modeldir.Model
	why  lifecycle.Reason
	took time.Duration
}

type effectKind uint8

const (
	effSpawn   effectKind = iota // start in
	effStop                      // stop in, as in.Reason says
	effSave                      // save the contexts of in, by in.SaveBy
	effDeliver                   // tell w how it ended
	effNeed                      // find out what spec needs
	effUrge                      // look at the machine often: device memory is being freed
	effFreed                     // device memory was seen to be free, or given up, after took
)

// step changes the state by one event and says what is to be done about it. The returned
// slice is valid until the next step.
func (s *state) step(ev event, now time.Time) []effect {
	s.eff, s.now = s.eff[:0], now
	switch ev.kind {
	case evArrive:
		s.arrive(ev.w, now)
	case evCancel:
		s.cancel(ev.w, now)
	case evRelease:
		s.release(ev.in, ev.held, now)
	case evReady:
		s.ready(ev, now)
	case evDying:
		s.dying(ev.in, ev.err, now)
	case evExited:
		s.exited(ev.in, ev.err, now)
	case evUnreachable:
		if ev.in.State == lifecycle.Ready {
			s.drain(ev.in, lifecycle.ReasonDead, now)
			s.schedule(now)
		}
	case evSaved:
		s.saved(ev.in, ev.attempt, now)
	case evNeeded:
		s.needed(ev.key, ev.need, now)
	case evMeasured:
		s.measured(ev.in, ev.used, now)
	case evMachine:
		s.setMachine(ev.now, now)
	case evUnload:
		s.unload(ev.key, ev.force, now)
	case evCatalog:
		s.setCatalog(ev.cat, now)
	case evSettings:
		s.set = *ev.set
		s.oracle = s.set.oracle(s.oracle)
		s.tick(now)
	case evTick:
		s.tick(now)
	case evClosing:
		s.closing = true
		s.refuseAll(&Error{Fault: FaultShutdown})
	case evStopAll:
		s.closing = true
		s.refuseAll(&Error{Fault: FaultShutdown})
		for _, in := range slices.Clone(s.live) {
			s.drain(in, lifecycle.ReasonShutdown, now)
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
func (s *state) take(r *Request, now time.Time) (*modelState, *lifecycle.Instance) {
	m := s.models[r.Key]
	if m == nil || m.queue.n > 0 || s.closing {
		return nil, nil
	}
	in := m.pick(r.Conversation)
	if in == nil {
		return nil, nil
	}
	m.asked(r.Client, now)
	if s.oracle != nil {
		s.oracle.asked(r.Key, now)
	}
	s.lease(m, in)
	return m, in
}

func (s *state) lease(m *modelState, in *lifecycle.Instance) {
	in.Leases++
	m.leases++
	m.lull(time.Time{})
}

func (s *state) arrive(w *waiter, now time.Time) {
	spec := s.catalog.Model(w.Key)
	switch {
	case s.closing:
		s.refuse(w, &Error{Fault: FaultShutdown, Model: w.Key})
		return
	case spec == nil:
		s.refuse(w, &Error{Fault: FaultUnknown, Model: w.Key})
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
	if _, in := s.take(&w.Request, now); in != nil {
		w.model = m
		s.grant(w, in)
		return
	}
	if err := s.neverFits(m); err != nil {
		s.refuse(w, &Error{Fault: FaultTooLarge, Model: spec.Name, Cause: err})
		return
	}
	if s.full(m, w) {
		s.refuse(w, &Error{Fault: FaultFull, Model: spec.Name, RetryAfter: m.retryAfter()})
		return
	}
	if m.queue.n == 0 {
		m.asked(w.Client, now)
	}
	if s.oracle != nil {
		s.oracle.asked(w.Key, now)
	}
	s.seq++
	w.seq, w.model = s.seq, m
	s.ask(m)
	s.enqueue(w, now)
	s.schedule(now)
}

// full reports whether one more waiter would be more than the queues hold: of its client, of its model, or altogether.
func (s *state) full(m *modelState, w *waiter) bool {
	n, bytes := m.queue.of(w.Client)
	over := func(have, more, limit int64) bool { return limit > 0 && have+more > limit }
	return over(int64(m.queue.n), 1, int64(s.set.Queue)) || over(int64(s.queued), 1, int64(s.set.QueueTotal)) ||
		over(int64(n), 1, int64(s.set.QueueClient)) || over(m.queue.bytes, w.Bytes, s.set.QueueBytes) ||
		over(s.bytes, w.Bytes, s.set.QueueBytesTotal) || over(bytes, w.Bytes, s.set.QueueBytesClient)
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
func (s *state) give(m *modelState, in *lifecycle.Instance, h held, now time.Time) {
	in.Leases--
	in.Served++
	m.leases--
	m.lull(now)
	m.used(h.client, h.began, now)
	if in.Leases == 0 {
		in.IdleSince = now
	}
	if in.Served == 1 && in.State == lifecycle.Ready {
		m.recovered() // it is up to its work
	}
}

func (s *state) release(in *lifecycle.Instance, h held, now time.Time) {
	m := s.models[in.Model.Key]
	s.give(m, in, h, now)
	switch {
	case in.State == lifecycle.Draining && in.Leases == 0 && !in.Dying && !in.Stopping:
		s.end(in, in.Reason, now)
		s.schedule(now)
	case len(s.hot) > 0:
		s.schedule(now)
	}
	s.forget(m)
}

func (s *state) ready(ev event, now time.Time) {
	in := ev.in
	if in.State != lifecycle.Starting {
		return // it was told to stop meanwhile
	}
	in.State, in.ReadyAt, in.IdleSince = lifecycle.Ready, now, now
	in.Running, in.Slots = ev.run, ev.run.Slots
	m := s.models[in.Model.Key]
	m.startTook = ewma(m.startTook, in.StartTook())
	m.slots = in.Slots
	m.lull(now)
	s.schedule(now)
}

// dying sees to it that an instance that failed gets no more leases while what is left of it is cleared away, and that
// those who wait get the next generation.
func (s *state) dying(in *lifecycle.Instance, err error, now time.Time) {
	if !in.Live() || in.Dying || in.Stopping {
		return
	}
	was := in.State
	in.State, in.Dying, in.Saving, in.Reason = lifecycle.Draining, true, false, lifecycle.ReasonDead
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
	m.last = Printed{in.ID(), in.Output()}
	switch {
	case in.Dying: // counted when it began to
		in.State = lifecycle.Failed
	case in.Stopping:
		in.State = lifecycle.Stopped
	default:
		in.State = lifecycle.Failed
		s.failed(m, in, was, err, now)
	}
	s.awaitFreed(in, now)
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
	for m.queue.n > 0 {
		s.refuseQueued(m.queue.oldest, fault)
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
			s.drain(in, lifecycle.ReasonUnload, now)
		}
	}
	s.schedule(now)
	s.forget(m)
}

// setCatalog puts a new set of models in force and touches only what changed.
func (s *state) setCatalog(catalog *modeldir.Catalog, now time.Time) {
	before := s.catalog
	s.catalog = catalog
	for _, m := range s.inUse() {
		spec := catalog.Model(m.key)
		if spec == nil {
			s.removed(m, now)
			continue
		}
		s.changed(m, spec, now)
	}
	s.kept = s.kept[:0]
	for _, spec := range catalog.Models() { // sorted by key
		preloads := spec.Preload && (before.Model(spec.Key) == nil || !before.Model(spec.Key).Preload)
		if spec.MinInstances == 0 && !preloads {
			continue
		}
		s.kept = append(s.kept, spec.Key)
		m := s.model(spec)
		m.warm = m.warm || preloads
		s.ask(m)
	}
	s.tick(now)
}

// changed puts a model's new spec in force. Instances that it does not fit drain; those it fits, drained or not, go on.
func (s *state) changed(m *modelState, spec *modeldir.Model, now time.Time) {
	old := m.spec
	m.spec = spec
	if old == nil || !old.SameLaunch(spec) {
		m.recovered() // a new spec deserves a new try
	}
	if old == nil || !old.SameLaunch(spec) || old.Memory != spec.Memory {
		m.needs = needUnknown
		if m.queue.n > 0 {
			s.ask(m)
		}
	}
	for _, in := range slices.Clone(m.instances) {
		switch {
		case !in.Model.SameLaunch(spec):
			s.drain(in, lifecycle.ReasonChanged, now)
		case in.State == lifecycle.Draining && in.Leases > 0 && !in.Stopping && !in.Dying &&
			(in.Reason == lifecycle.ReasonChanged || in.Reason == lifecycle.ReasonRemoved):
			in.Model = spec
			s.rescue(in) // it was changed back
		default:
			in.Model = spec
		}
	}
}

func (s *state) removed(m *modelState, now time.Time) {
	m.spec, m.warm = nil, false
	for m.queue.n > 0 {
		s.refuseQueued(m.queue.oldest, &Error{Fault: FaultUnknown, Model: m.key})
	}
	for _, in := range slices.Clone(m.instances) {
		s.drain(in, lifecycle.ReasonRemoved, now)
	}
	s.forget(m)
}

// ask has it found out what a model needs, if that is not known and not asked yet.
func (s *state) ask(m *modelState) {
	switch {
	case m.needs != needUnknown:
	case !s.surveys:
		m.needs = needKnown
	default:
		m.needs = needAsked
		s.eff = append(s.eff, effect{kind: effNeed, spec: m.spec})
	}
}

// needed takes what a model needs, and what was learnt of it in earlier lives of the router.
func (s *state) needed(key string, f *Facts, now time.Time) {
	m := s.models[key]
	if m == nil || m.spec == nil {
		return
	}
	if !m.spec.SameLaunch(f.Spec) || m.spec.Memory != f.Spec.Memory { // it changed while that was looked up
		m.needs = needUnknown
		s.ask(m)
		return
	}
	m.need, m.needs, m.best = f.Need, needKnown, best{}
	if m.startTook == 0 {
		m.startTook = f.Start
	}
	if m.service == 0 {
		m.service = f.Service
	}
	if err := s.neverFits(m); err != nil {
		for m.queue.n > 0 {
			s.refuseQueued(m.queue.oldest, &Error{Fault: FaultTooLarge, Model: m.spec.Name, Cause: err})
		}
	}
	s.schedule(now)
}

// neverFits tells, with the numbers, that a model cannot run on this machine whatever else is stopped.
func (s *state) neverFits(m *modelState) error {
	if m.needs != needKnown || !s.machine.Limited || len(m.instances) > 0 {
		return nil
	}
	return memory.NeverFits(m.need, memory.Want(m.spec, s.machine.Capacity.Host), s.machine.Capacity, s.machine.Devices)
}

// tick does what is due: retires the idle, ends waits that took too long.
func (s *state) tick(now time.Time) {
	if s.oracle != nil {
		s.oracleAt = s.oracle.next(now)
	}
	for _, in := range slices.Clone(s.live) {
		switch {
		case in.Saving && due(in.SaveBy, now):
			s.stop(in, in.Reason)
		case due(s.retireAt(in), now):
			s.drain(in, lifecycle.ReasonIdle, now)
		}
	}
	for _, m := range s.models {
		if !m.resting(now) {
			m.restUntil = time.Time{}
		}
	}
	s.freeing = slices.DeleteFunc(s.freeing, func(f freeing) bool { return due(f.until, now) }) // a look is late
	s.schedule(now)
	for s.refuseLate(now) {
		s.schedule(now) // what was done for them is not needed any more
	}
}

// refuseLate ends the waits that took too long, and reports whether there were any.
func (s *state) refuseLate(now time.Time) bool {
	refused := false
	for _, m := range slices.Clone(s.hot) {
		for due(m.waitEnds(s.set.MaxWait), now) {
			m.waits.owed = true
			s.refuseQueued(m.queue.oldest, &Error{Fault: FaultWait, Model: m.spec.Name, RetryAfter: m.retryAfter()})
			refused = true
		}
	}
	return refused
}

// retireAt is when an idle instance retires; the zero time means not by itself.
func (s *state) retireAt(in *lifecycle.Instance) time.Time {
	if !in.Idle() {
		return time.Time{}
	}
	return s.retires(s.models[in.Model.Key], in)
}

// retires is retireAt of an idle instance of m.
func (s *state) retires(m *modelState, in *lifecycle.Instance) time.Time {
	ready := m.count(lifecycle.Ready)
	if m.queue.n > 0 || ready <= m.kept() {
		return time.Time{}
	}
	if s.set.KeepLast && s.lastUsed() == in {
		return time.Time{}
	}
	at := in.RetireAt(s.set.IdleTimeout)
	if ready > 1 && !m.lullSince.IsZero() && in == m.youngestIdle() {
		at = earlier(at, m.lullSince.Add(max(shortestLull, lullStarts*m.start())))
	}
	return at
}

// lastUsed is the instance that was in use last of all, if it is idle now.
func (s *state) lastUsed() *lifecycle.Instance {
	var last *lifecycle.Instance
	for _, in := range s.live {
		if in.State != lifecycle.Ready {
			continue
		}
		if in.Leases > 0 {
			return nil
		}
		if last == nil || in.IdleSince.After(last.IdleSince) {
			last = in
		}
	}
	return last
}

// next is when tick has something to do; the zero time means never.
func (s *state) next() time.Time {
	next := s.again
	for _, in := range s.live {
		next = earlier(next, s.retireAt(in))
		if in.Saving {
			next = earlier(next, in.SaveBy)
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
	for _, f := range s.freeing {
		next = earlier(next, f.until)
	}
	if s.oracle != nil && !s.closing {
		next = earlier(next, s.oracleAt)
	}
	return next
}

// drain lets no new lease be taken, and stops the instance once the last one ended. A
// starting one has none and stops at once.
func (s *state) drain(in *lifecycle.Instance, why lifecycle.Reason, now time.Time) {
	switch {
	case !in.Live() || in.Stopping || in.Dying:
	case in.State == lifecycle.Draining: // it can only get worse: what could be rescued may have to go now
		if in.Reason.Rescuable() && !why.Rescuable() {
			in.Reason = why
		}
	case in.Leases == 0:
		s.end(in, why, now)
	default:
		in.State, in.Reason = lifecycle.Draining, why
	}
}

// Saving contexts is bounded: by little where others wait for the room, and by more where nobody does. Measured,
// 6,000 tokens of a small model take 84 ms, and a write to a slow disk of 100 MB/s two seconds for as much.
const (
	saveUrgent = 500 * time.Millisecond
	saveCalm   = 10 * time.Second
	saveAtExit = 2 * time.Second
)

// end stops an instance without leases, after its contexts were saved, if it has some that were not.
func (s *state) end(in *lifecycle.Instance, why lifecycle.Reason, now time.Time) {
	within := saveCalm
	switch why {
	case lifecycle.ReasonRoom, lifecycle.ReasonLoad:
		within = saveUrgent
	case lifecycle.ReasonShutdown:
		within = saveAtExit
	default:
	}
	if in.State == lifecycle.Starting || in.Running == nil || !in.Running.KeepsContexts || in.Saved == in.Served || !why.Saves() {
		s.stop(in, why)
		return
	}
	in.State, in.Reason, in.Saving, in.SaveBy = lifecycle.Draining, why, true, now.Add(within)
	in.Attempt++
	s.eff = append(s.eff, effect{kind: effSave, in: in})
}

// saved goes on with the end of an instance whose contexts are saved. One that was rescued meanwhile goes on serving.
func (s *state) saved(in *lifecycle.Instance, attempt int, now time.Time) {
	if in.Saving && in.Attempt == attempt {
		in.Saved = in.Served
		s.stop(in, in.Reason)
		s.schedule(now)
	}
}

// stop stops the instance now, leases or not.
func (s *state) stop(in *lifecycle.Instance, why lifecycle.Reason) {
	if in.Stopping || !in.Live() {
		return
	}
	in.State, in.Reason, in.Stopping, in.Saving = lifecycle.Draining, why, true, false
	s.eff = append(s.eff, effect{kind: effStop, in: in, why: why})
}

// rescue lets an instance go on that was on its way out but not told to stop yet.
func (s *state) rescue(in *lifecycle.Instance) {
	s.eff = slices.DeleteFunc(s.eff, func(e effect) bool { return e.kind == effSave && e.in == in })
	in.State, in.Reason, in.Saving = lifecycle.Ready, "", false
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
		s.refuseQueued(s.hot[0].queue.oldest, err)
	}
}

func (s *state) enqueue(w *waiter, now time.Time) {
	m := w.model
	if m.queue.n == 0 {
		s.hot = append(s.hot, m)
	}
	m.setClocks(now)
	if m.queue.n == 0 && !m.waits.owed {
		m.waits.turn = m.waits.without(now)
	}
	w.began = m.waits.at(now)
	m.queue.push(w)
	s.queued++
	s.bytes += w.Bytes
}

func (s *state) dequeue(w *waiter) {
	m := w.model
	m.queue.remove(w)
	s.dequeued(m, w)
}

func (s *state) dequeued(m *modelState, w *waiter) {
	s.queued--
	s.bytes -= w.Bytes
	if m.queue.n == 0 {
		s.hot = without(s.hot, m)
		m.coming = false
		m.waits.stop(s.now) // nobody waits
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
	if m.spec == nil && len(m.instances) == 0 && m.queue.n == 0 && m.leases == 0 && s.models[m.key] == m {
		delete(s.models, m.key)
	}
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
