package activator

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"time"

	"assistant/lifecycle"
	"assistant/lifecycle/contexts"
	"assistant/lifecycle/machine"
	"assistant/modeldir"
)

// Runner starts and stops instances. No method blocks or calls back before it
// returns; what comes of them is told to the [lifecycle.Reporter].
type Runner interface {
	// Start begins to start in, giving up after timeout. It ends in Ready or Exited.
	Start(in *lifecycle.Instance, timeout time.Duration, to lifecycle.Reporter)
	// Save begins to save the contexts of a ready instance that has no leases, giving up at that time. It ends in Saved with the
	// same attempt, unless the instance ends before. Leases may be taken meanwhile: what is then in use is not saved.
	Save(in *lifecycle.Instance, attempt int, by time.Time, to lifecycle.Reporter)
	// Stop begins to stop in, at whatever point it is. It ends in Exited.
	Stop(in *lifecycle.Instance)
}

// Surveyor finds out what a model needs before its first start. It may take its time: it is asked in a goroutine of its own.
type Surveyor interface {
	Survey(m *modeldir.Model) Facts
}

// Activator gives leases on instances and owns every decision about them. It is safe
// for concurrent use.
type Activator struct {
	log      *slog.Logger
	runner   Runner
	surveyor Surveyor
	urge     func() // look at the machine often for a while; nil = nobody looks
	metrics  *metricSet

	mu      sync.Mutex
	state   state
	journal journal
	armed   time.Time     // when timer fires; zero = it does not
	timer   *time.Timer   // fires tick
	gone    chan struct{} // closed when the last instance is gone after StopAll; nil before
}

// New returns an activator that knows no models yet and has the default settings. Without a surveyor memory is not counted.
func New(runner Runner, surveyor Surveyor, log *slog.Logger) *Activator {
	a := &Activator{log: log, runner: runner, surveyor: surveyor}
	a.metrics = newMetricSet(a)
	a.state = newState(surveyor != nil)
	return a
}

// OnUrge says what to call when the machine should be looked at often for a while, because device memory is being
// freed. It is called under the activator's lock and must not block. To be called before the first request.
func (a *Activator) OnUrge(urge func()) { a.urge = urge }

// Acquire returns a lease on an instance of the model with the given key, starting one if
// need be. The error is an [*Error], or the context's cause if that ended first. The
// lease must be released.
func (a *Activator) Acquire(ctx context.Context, r Request) (Lease, error) {
	now := time.Now()
	a.mu.Lock()
	if m, in := a.state.take(&r, now); in != nil {
		if a.state.oracle != nil && a.state.oracle.news {
			a.apply(event{kind: evTick}, now) // what it expects may be started
		}
		a.mu.Unlock()
		return Lease{a: a, in: in, model: m, held: held{client: r.Client, began: now}}, nil
	}
	w := &waiter{Request: r, arrived: now, done: make(chan struct{})}
	a.apply(event{kind: evArrive, w: w}, now)
	a.mu.Unlock()

	select {
	case <-w.done:
	case <-ctx.Done():
		a.step(event{kind: evCancel, w: w})
	}
	return a.settle(ctx, w)
}

// settle turns how a waiter ended into what Acquire returns. It is called when that is decided.
func (a *Activator) settle(ctx context.Context, w *waiter) (Lease, error) {
	switch w.ended {
	case granted:
		now := time.Now()
		lease := Lease{a: a, in: w.in, model: w.model, Waited: now.Sub(w.arrived), held: held{client: w.Client, began: now}}
		lease.Cold = w.in.Created.Compare(w.arrived) >= 0 || w.in.ReadyAt.After(w.arrived)
		return lease, nil
	case refused:
		return Lease{}, w.err
	default:
		return Lease{}, context.Cause(ctx)
	}
}

// Load starts an instance of the model unless one is up, and returns when it is ready.
func (a *Activator) Load(ctx context.Context, key string) error {
	lease, err := a.Acquire(ctx, Request{Key: key})
	if err == nil {
		lease.Release()
	}
	return err
}

// Unload lets the model's instances go: idle ones at once, busy ones when their last lease
// ends, or at once too with force. Requests that wait get the next generation. It does not wait.
func (a *Activator) Unload(key string, force bool) {
	a.step(event{kind: evUnload, key: key, force: force})
}

// SetCatalog puts a new set of models in force. Instances of unchanged models go on
// untouched; of changed and removed ones they drain.
func (a *Activator) SetCatalog(c *modeldir.Catalog) {
	a.step(event{kind: evCatalog, cat: c})
}

// Configure puts new limits in force.
func (a *Activator) Configure(set Settings) { a.step(event{kind: evSettings, set: &set}) }

// SetMachine tells how the machine stands. It is to be called every few seconds.
func (a *Activator) SetMachine(m Machine) { a.step(event{kind: evMachine, now: &m}) }

// Measured tells what an instance, named as in [InstanceStatus], uses of the machine.
func (a *Activator) Measured(key string, generation uint64, used machine.Amount) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m := a.state.models[key]; m != nil {
		for _, in := range m.instances {
			if in.Gen == generation {
				a.apply(event{kind: evMeasured, in: in, used: used}, time.Now())
				return
			}
		}
	}
}

// Waiting implements [lifecycle.Reporter]. Bodies are copied: their owners may leave, and use the memory for others. Long ones have
// images in them, of which no context is kept.
func (a *Activator) Waiting(in *lifecycle.Instance, most int) []lifecycle.Waiting {
	const longest = 1 << 20
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.state.models[in.Model.Key]
	if m == nil {
		return nil
	}
	var out []lifecycle.Waiting
	for w := range m.queue.turns() {
		if len(out) == most {
			break
		}
		if len(w.Body) > 0 && len(w.Body) <= longest {
			out = append(out, lifecycle.Waiting{
				Request: contexts.Request{Path: w.Path, Body: bytes.Clone(w.Body)}, Conversation: w.Conversation,
			})
		}
	}
	return out
}

// RefuseWaiting ends every wait, and every later one, because the server goes down. Leases go on.
func (a *Activator) RefuseWaiting() { a.step(event{kind: evClosing}) }

// Close stops every instance: idle ones at once, busy ones when their leases end, and what is left
// when ctx ends. It returns when the last is gone.
func (a *Activator) Close(ctx context.Context) {
	a.mu.Lock()
	a.gone = make(chan struct{})
	a.apply(event{kind: evStopAll}, time.Now())
	gone := a.gone
	a.mu.Unlock()
	select {
	case <-gone:
		return
	case <-ctx.Done():
	}
	a.step(event{kind: evKillAll})
	<-gone
}

// Ready implements [lifecycle.Reporter].
func (a *Activator) Ready(in *lifecycle.Instance, run *lifecycle.Running) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.apply(event{kind: evReady, in: in, run: run}, time.Now())
	a.metrics.started(in.Model.Name, run)
	a.log.Info("instance ready", "model", in.Model.Name, "instance", in.ID(), "pid", run.PID,
		"spawn", run.Spawned, "ready", run.Loaded)
}

// Saved implements [lifecycle.Reporter].
func (a *Activator) Saved(in *lifecycle.Instance, attempt int) {
	a.step(event{kind: evSaved, in: in, attempt: attempt})
}

// Dying implements [lifecycle.Reporter].
func (a *Activator) Dying(in *lifecycle.Instance, err error) {
	a.step(event{kind: evDying, in: in, err: err})
}

// Exited implements [lifecycle.Reporter].
func (a *Activator) Exited(in *lifecycle.Instance, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.apply(event{kind: evExited, in: in, err: err}, time.Now())
	if in.State == lifecycle.Failed {
		a.metrics.failed(in.Model.Name, in.Running != nil)
		a.log.Error("instance failed", "model", in.Model.Name, "instance", in.ID(), "error", err)
		return
	}
	a.log.Info("instance stopped", "model", in.Model.Name, "instance", in.ID(), "reason", in.Reason)
}

func (a *Activator) tick() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.armed = time.Time{} // it has fired: whoever sees a deadline from now on has to arm it
	a.apply(event{kind: evTick}, time.Now())
}

func (a *Activator) step(ev event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.apply(ev, time.Now())
}

// apply steps and begins what follows from it. The lock is held; nothing here blocks.
func (a *Activator) apply(ev event, now time.Time) {
	for _, e := range a.state.step(ev, now) {
		switch e.kind {
		case effSpawn:
			a.runner.Start(e.in, a.startTimeout(e.in.Model), a)
		case effStop:
			a.metrics.stopping(e.in.Model.Name, e.why)
			a.runner.Stop(e.in)
		case effSave:
			a.runner.Save(e.in, e.in.Attempt, e.in.SaveBy, a)
		case effNeed:
			go a.survey(e.spec)
		case effUrge:
			if a.urge != nil {
				a.urge()
			}
		case effFreed:
			a.metrics.freed(e.took)
		case effDeliver:
			if e.w.ended == granted {
				a.metrics.waited(e.w.in.Model.Name, now.Sub(e.w.arrived))
			}
			close(e.w.done)
		}
	}
	a.arm(now)
	a.journal.look(&a.state, &ev, now)
	if a.gone != nil && len(a.state.live) == 0 {
		select {
		case <-a.gone:
		default:
			close(a.gone)
		}
	}
}

// survey finds out what a model needs.
func (a *Activator) survey(m *modeldir.Model) {
	facts := a.surveyor.Survey(m)
	facts.Spec = m
	a.step(event{kind: evNeeded, key: m.Key, need: &facts})
}

func (a *Activator) startTimeout(m *modeldir.Model) time.Duration {
	if m.StartTimeout > 0 {
		return m.StartTimeout
	}
	return a.state.set.StartTimeout
}

// arm sets the timer to the next deadline. One that fires too early does no harm: tick looks
// again. So taking a lease, which only ever moves deadlines away, need not touch it.
func (a *Activator) arm(now time.Time) {
	next := a.state.next()
	if next.IsZero() || !a.armed.IsZero() && !next.Before(a.armed) && a.armed.After(now) {
		return
	}
	a.armed = next
	if a.timer == nil {
		a.timer = time.AfterFunc(next.Sub(now), a.tick)
		return
	}
	a.timer.Reset(next.Sub(now))
}
