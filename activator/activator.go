package activator

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"assistant/lifecycle"
	"assistant/modeldir"
)

// Runner starts and stops instances. Neither method blocks or calls back before it
// returns; what comes of them is told to the [lifecycle.Reporter].
type Runner interface {
	// Start begins to start in, giving up after timeout. It ends in Ready or Exited.
	Start(in *lifecycle.Instance, timeout time.Duration, to lifecycle.Reporter)
	// Stop begins to stop in, at whatever point it is. It ends in Exited.
	Stop(in *lifecycle.Instance)
}

// Activator gives leases on instances and owns every decision about them. It is safe
// for concurrent use.
type Activator struct {
	log     *slog.Logger
	runner  Runner
	metrics *metricSet

	mu    sync.Mutex
	state state
	armed time.Time     // when timer fires; zero = it does not
	timer *time.Timer   // fires tick
	gone  chan struct{} // closed when the last instance is gone after StopAll; nil before
}

// New returns an activator that knows no models yet and has the default settings.
func New(runner Runner, log *slog.Logger) *Activator {
	a := &Activator{log: log, runner: runner}
	a.metrics = newMetricSet(a)
	a.state = state{set: DefaultSettings(), catalog: modeldir.NewCatalog(nil), models: map[string]*modelState{}}
	return a
}

// Acquire returns a lease on an instance of the model with the given key, starting one if
// need be. The error is an [*Error], or the context's cause if that ended first. The
// lease must be released.
func (a *Activator) Acquire(ctx context.Context, key string) (Lease, error) {
	a.mu.Lock()
	if in := a.state.take(key); in != nil {
		a.mu.Unlock()
		return Lease{a: a, in: in}, nil
	}
	now := time.Now()
	w := &waiter{arrived: now, done: make(chan struct{})}
	a.apply(event{kind: evArrive, w: w, key: key}, now)
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
		lease := Lease{a: a, in: w.in, Waited: time.Since(w.arrived)}
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
	lease, err := a.Acquire(ctx, key)
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

// Pressure says that the machine is, at this moment, short of CPU or memory: one idle
// instance may go. It is to be called again while that lasts.
func (a *Activator) Pressure() { a.step(event{kind: evPressure}) }

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
			a.metrics.stopping(e.in.Model.Name, e.in.Reason)
			a.runner.Stop(e.in)
		case effDeliver:
			if e.w.ended == granted {
				a.metrics.waited(e.w.in.Model.Name, now.Sub(e.w.arrived))
			}
			close(e.w.done)
		}
	}
	a.arm(now)
	if a.gone != nil && len(a.state.live) == 0 {
		select {
		case <-a.gone:
		default:
			close(a.gone)
		}
	}
}

func (a *Activator) startTimeout(m *modeldir.Model) time.Duration {
	if m.StartTimeout > 0 {
		return m.StartTimeout
	}
	return a.state.set.StartTimeout
}

// arm sets the timer to the next deadline. One that fires too early does no harm: tick looks
// again. So the warm path, which only ever moves deadlines away, need not touch it.
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
