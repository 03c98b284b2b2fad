package activator

import (
	"errors"
	"math"
	"slices"
	"time"

	"assistant/lifecycle"
	"assistant/lifecycle/engine"
	"assistant/lifecycle/memory"
	"assistant/modeldir"
)

// modelState is a model in use.
type modelState struct {
	spec      *modeldir.Model // nil once it left the catalog
	key       string
	instances []*lifecycle.Instance // live ones, oldest first
	queue     queue
	leases    int // on all instances

	failures  int       // starts in a row that failed
	restUntil time.Time // no starts before then; zero once a tick saw that it is over
	lastErr   error     // of the last start or crash that failed; nil once one served
	last      Printed   // what the newest instance that is gone printed

	need  memory.Need
	needs needState
	want  want // what its spec says about devices
	best  best // what it gets on devices when all goes that may

	looked uint64 // number of the last snapshot that it is in, and its place there
	place  int
	told   int   // how many wait, as the journal has told
	waits  waits // how long its queue has waited, for what
	coming bool  // room is being made for it
	warm   bool  // it is yet to be started ahead of any request

	startTook time.Duration // moving average of past starts; 0 = none yet
	service   time.Duration // moving average of how long leases are held; 0 = none yet
	useGap    time.Duration // moving average of the time from one lease's end to the next's; 0 = none yet
	lastUse   time.Time     // when a lease ended last
	lastUser  uint64        // whose it was
	turns     turns
	slots     int       // of its last instance; 0 = unlimited or not known
	lullSince time.Time // since when its replicas have had one more than the load needs; zero = they have not
}

// needState is how far the question for a model's memory has come.
type needState uint8

const (
	needUnknown needState = iota
	needAsked
	needKnown
)

// guessedStart is what a start is taken to last before one was seen: a small model's, from the page cache.
const guessedStart = time.Second

func (m *modelState) start() time.Duration {
	if m.startTook == 0 {
		return guessedStart
	}
	return m.startTook
}

// soon is the time within which a model that is likely to be wanted counts as worth keeping.
const soon = time.Minute

// chance is how likely the model is to be asked for soon. Requests are taken to come at random at the mean pace seen, or,
// if none has come for longer than that, at the pace that the silence suggests.
func (m *modelState) chance(now time.Time) float64 {
	if m.lastUse.IsZero() {
		return 0
	}
	gap := max(m.useGap, now.Sub(m.lastUse), time.Millisecond)
	return 1 - math.Exp(-soon.Seconds()/gap.Seconds())
}

// used notes the end of a lease that began then.
func (m *modelState) used(client uint64, began, now time.Time) {
	m.service = ewma(m.service, max(now.Sub(began), 1))
	if !m.lastUse.IsZero() {
		m.useGap = ewma(m.useGap, max(now.Sub(m.lastUse), 1))
	}
	m.lastUse, m.lastUser = now, client
}

// asked notes a request by a client. The first after the model fell idle tells whether to wait for the last client's next turn
// would have paid.
func (m *modelState) asked(client uint64, now time.Time) {
	if m.leases > 0 || m.lastUse.IsZero() || m.lastUse.Equal(m.turns.after) {
		return
	}
	m.turns.after = m.lastUse
	m.turns.add(now.Sub(m.lastUse), client != 0 && client == m.lastUser, m.start()/4)
}

// turns is what is known of a client's turns: how often the next one comes within a quarter of a start, and the time from answer to
// question when it does: mean and mean deviation, with the weights of TCP's round trips (RFC 6298 2.3).
type turns struct {
	after     time.Time // the idle time that was judged last began then
	seen      int
	share     float64 // of idle times ended by the same client in time
	mean, dev time.Duration
}

func (t *turns) add(gap time.Duration, same bool, limit time.Duration) {
	t.seen++
	if !same || gap > limit {
		t.share -= t.share / 4
		return
	}
	if t.share == 0 {
		t.mean, t.dev = gap, gap/2
	}
	t.share += (1 - t.share) / 4
	t.dev += ((t.mean - gap).Abs() - t.dev) / 4
	t.mean += (gap - t.mean) / 8
}

// grace is how long an idle instance of the model keeps its place for its last client's next turn: if at least half of its idle times were
// ended so, as long as nearly all turns take (RFC 6298's mean and four deviations), a quarter of a start at most. A longer
// one costs more answers than it saves (simulated: DESIGN §5.6, docs/scheduling.md).
func (m *modelState) grace() time.Duration {
	if m.turns.share < 0.5 {
		return 0
	}
	return min(m.turns.mean+4*m.turns.dev, m.start()/4)
}

// served reports whether an instance of the model serves or will.
func (m *modelState) served() bool {
	return m.count(lifecycle.Starting) > 0 || m.count(lifecycle.Ready) > 0
}

// count is how many instances of the model are in that state.
func (m *modelState) count(state lifecycle.State) int {
	n := 0
	for _, in := range m.instances {
		if in.State == state {
			n++
		}
	}
	return n
}

// missesSomething reports whether the last failure was a file or program that was not there.
func (m *modelState) missesSomething() bool {
	var missing *engine.MissingError
	return errors.As(m.lastErr, &missing)
}

// recovered forgets failures.
func (m *modelState) recovered() { m.failures, m.restUntil, m.lastErr = 0, time.Time{}, nil }

func (m *modelState) resting(now time.Time) bool { return now.Before(m.restUntil) }

// startable reports whether an instance may be started: its memory is known, it does not rest, and none of an older generation still
// holds the address, where that is fixed.
func (m *modelState) startable(now time.Time) bool {
	fixed := m.spec.Port > 0 || m.spec.Upstream != ""
	return m.needs == needKnown && !m.resting(now) && (!fixed || len(m.instances) == 0)
}

// waits are a model's clocks. At each moment at most one of them runs; none does during a start, which has a bound of its
// own.
type waits struct {
	room   clock // nothing is on its way up
	making clock // room is being made: others' answers are waited for
	slot   clock // an instance is ready, and full

	turn time.Duration // what room and making showed when the model last had an instance, or nobody waiting
	owed bool          // some have given up since then: who comes after them does not begin anew
}

// waited is what the clocks show.
type waited struct{ room, making, slot time.Duration }

func (c *waits) at(now time.Time) waited {
	return waited{c.room.at(now), c.making.at(now), c.slot.at(now)}
}

// without is how long the model has been without an instance, and none was starting, while requests waited.
func (c *waits) without(now time.Time) time.Duration { return c.room.at(now) + c.making.at(now) }

func (c *waits) stop(now time.Time) {
	for _, clock := range []*clock{&c.room, &c.making, &c.slot} {
		clock.run(false, now)
	}
}

// setClocks sees to it that waits are counted for what they are.
func (m *modelState) setClocks(now time.Time) {
	ready, starting := m.count(lifecycle.Ready) > 0, m.count(lifecycle.Starting) > 0
	m.waits.slot.run(ready, now)
	m.waits.making.run(!ready && !starting && m.coming, now)
	m.waits.room.run(!ready && !starting && !m.coming, now)
	if ready || starting {
		m.waits.turn, m.waits.owed = m.waits.without(now), false
	}
}

// roomWait is how long the model has waited for its turn. It is not how long a request has: those left over from its last turn are not to
// end the others' turns, and those who come after some that gave up are not to go to the end of the line.
func (m *modelState) roomWait(now time.Time) time.Duration {
	return m.waits.without(now) - m.waits.turn
}

// waitEnds is when the oldest in the queue will have waited too long, if nothing changes; the zero time if it does not wait for
// anything that has no bound of its own.
func (m *modelState) waitEnds(maxWait time.Duration) time.Time {
	w, c := m.queue.oldest, &m.waits
	if w == nil || maxWait <= 0 {
		return time.Time{}
	}
	end := earlier(c.room.reaches(w.began.room+maxWait), c.making.reaches(w.began.making+maxWait))
	return earlier(end, c.slot.reaches(w.began.slot+maxWait))
}

// retryAfter is when a new request would probably be answered, by what was learnt of starts and answers: the queue's turn, and a
// start if there is none to serve it. At least 1 s.
func (m *modelState) retryAfter() time.Duration {
	wait := time.Duration(0)
	ready := m.count(lifecycle.Ready)
	if ready == 0 {
		wait = m.start()
	}
	if m.slots > 0 {
		wait += m.service * time.Duration(m.queue.n) / time.Duration(m.slots*max(ready, 1))
	}
	return max(time.Second, wait)
}

// kept is how many instances configuration wants to stay.
func (m *modelState) kept() int {
	if m.spec == nil {
		return 0
	}
	return m.spec.MinInstances
}

// ewma weighs a new sample by a quarter, as TCP weighs round trips by an eighth (RFC 6298): starts and answers are
// fewer, and page caches change them at once.
func ewma(old, sample time.Duration) time.Duration {
	if old == 0 {
		return sample
	}
	return old + (sample-old)/4
}

// Replicas retire when one fewer would do: for at least shortestLull, and for lullStarts times what starting one again would
// take. From one to none is the idle timeout's affair, which is longer (ray-project/ray#52867 has the two apart too).
const (
	shortestLull = 30 * time.Second
	lullStarts   = 4
)

// lull notes, at the end of a lease, whether the model's replicas have one more than the load needs, half full; a
// lease that is taken, told by the zero time, can only end that.
func (m *modelState) lull(now time.Time) {
	if len(m.instances) < 2 {
		m.lullSince = time.Time{}
		return
	}
	switch surplus := (m.count(lifecycle.Ready)-1)*m.slots >= max(1, 2*m.leases); {
	case !surplus:
		m.lullSince = time.Time{}
	case m.lullSince.IsZero():
		m.lullSince = now
	}
}

// youngestIdle is the newest of the model's idle instances, nil if there is none.
func (m *modelState) youngestIdle() *lifecycle.Instance {
	for _, in := range slices.Backward(m.instances) {
		if in.Idle() {
			return in
		}
	}
	return nil
}

// lastSpec is the spec of a model that left the catalog, as its newest instance has it.
func (m *modelState) lastSpec() *modeldir.Model { return m.instances[len(m.instances)-1].Model }
