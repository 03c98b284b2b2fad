package caddymodule

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"

	"assistant/activator"
	"assistant/internal/hub"
	"assistant/internal/keys"
	"assistant/internal/openai"
	"assistant/internal/remote"
	"assistant/internal/responses"
	"assistant/internal/usage"
	"assistant/lifecycle"
	"assistant/lifecycle/contexts"
	"assistant/modeldir"
)

// runtimeKey is constant: there is one budget of memory and CPU in a process, whatever its configuration.
const runtimeKey = "assistant"

var runtimes = caddy.NewUsagePool()

// runtime is what outlives a reload: the engines, the queue, the catalog. Configurations borrow it.
type runtime struct {
	log     *slog.Logger
	act     *activator.Activator
	runner  *lateRunner
	survey  *lateSurveyor
	budget  *openai.Budget
	stats   *stats
	store   *responses.Store
	uses    *keys.Uses
	usage   *usage.Log
	hub     atomic.Pointer[hub.Manager]       // nil before the first configuration
	remotes atomic.Pointer[remote.Set]        // nil = there are none
	catalog atomic.Pointer[modeldir.Catalog]  // with the paths of what was brought here
	missing atomic.Pointer[map[string]error]  // by key: what the model's engine will not find; looked up beside the catalog
	known   atomic.Pointer[map[string]*facts] // by key
	listing atomic.Pointer[listing]           // nil before the first was asked for
	ready   chan struct{}                     // closed when the first configuration is in force
	done    chan struct{}                     // closed when the runtime ends

	editing sync.Mutex // held while a model's file is changed

	publishing sync.Mutex
	turn       uint64            // of the watcher whose catalogs count
	declared   *modeldir.Catalog // as files have it; nil before the first

	mu     sync.Mutex
	inUse  []*App // started configurations, oldest first; the first is in force
	source origin // what the catalog is read from
	watch  *modeldir.Watcher
	stop   context.CancelFunc
	eye    *overseer // nil before the first configuration
}

// origin is where models come from. Two configurations with the same source share one watcher.
type origin struct{ dir, config string }

// newRuntime makes a runtime that runs nothing: caddy validate makes one too.
func newRuntime() (caddy.Destructor, error) {
	log := slog.New(lateHandler{})
	rt := &runtime{
		log: log, runner: &lateRunner{}, survey: &lateSurveyor{}, budget: openai.NewBudget(openai.DefaultBudget),
		stats: newStats(), store: responses.NewStore(0), uses: keys.NewUses(), usage: usage.New(log), ready: make(chan struct{}), done: make(chan struct{}), stop: func() {},
	}
	rt.act = activator.New(rt.runner, rt.survey, log)
	rt.catalog.Store(modeldir.NewCatalog(nil))
	rt.missing.Store(&map[string]error{})
	rt.known.Store(&map[string]*facts{})
	return rt, nil
}

// use takes a configuration that was started. It is in force when there is no earlier one, and otherwise when that is
// dropped: Caddy stops the old configuration only when all of the new one was started, so what is in force by then
// stays, and a reload that fails on the way has touched nothing.
func (rt *runtime) use(a *App) error {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if err := os.MkdirAll(a.StateDir, 0o700); err != nil {
		return err
	}
	if rt.runner.set(a.StateDir, rt.log) {
		reaped, err := lifecycle.Reap(context.Background(), a.StateDir)
		for _, r := range reaped {
			rt.log.Warn("stopped what an earlier router left behind", "model", r.Model, "pid", r.PID, "processes", r.Processes)
		}
		if err != nil {
			rt.log.Warn("could not clean up after an earlier router", "error", err)
		}
		rt.usage.Keep(filepath.Join(a.StateDir, usageFile))
		rt.openHub(a)
		rt.eye = oversee(rt, a.StateDir)
		rt.survey.overseer = rt.eye
		rt.act.OnUrge(rt.eye.watch.Urge)
	}
	if len(rt.inUse) == 0 {
		if err := rt.obey(a); err != nil {
			return err
		}
	}
	rt.inUse = append(rt.inUse, a)
	select {
	case <-rt.ready:
	default:
		close(rt.ready)
	}
	return nil
}

// drop withdraws a configuration. If it was the one in force, the next is from now on. It is idempotent.
func (rt *runtime) drop(a *App) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	i := slices.Index(rt.inUse, a)
	if i < 0 {
		return
	}
	rt.inUse = slices.Delete(rt.inUse, i, i+1)
	if i == 0 && len(rt.inUse) > 0 {
		if err := rt.obey(rt.inUse[0]); err != nil {
			rt.log.Error("put the new configuration in force", "error", err)
		}
	}
}

// obey does as a configuration says. The lock is held.
func (rt *runtime) obey(a *App) error {
	rt.act.Configure(a.settings())
	rt.eye.setMaxLoad(*a.MaxLoad)
	rt.runner.keepContexts(*a.ContextDisk)
	if err := rt.useRemotes(a.remoteServers()); err != nil {
		return err
	}
	from := origin{dir: a.ConfigDir, config: a.Config}
	if from == rt.source && from.config == "" { // what a config.toml says may have changed
		return nil
	}
	ctx, stop := context.WithCancel(context.Background())
	turn := rt.nextTurn()
	w, err := modeldir.NewWatcher(modeldir.Options{
		Dir: a.ConfigDir, Config: a.user, Log: rt.log, Previous: rt.catalog.Load(),
		Changed: func(c *modeldir.Catalog) { rt.publish(turn, c) },
	})
	if err != nil {
		stop()
		return err
	}
	rt.stop()
	rt.source, rt.stop, rt.watch = from, stop, w
	w.Reload() // the models are known when the first request comes
	go w.Run(ctx)
	return nil
}

// nextTurn begins the time of a new watcher: what earlier ones find from now on is of no more interest.
func (rt *runtime) nextTurn() uint64 {
	rt.publishing.Lock()
	defer rt.publishing.Unlock()
	rt.turn++
	return rt.turn
}

// publish puts a catalog in force, unless its watcher's turn is over: a scan may end after its watcher was stopped.
func (rt *runtime) publish(turn uint64, c *modeldir.Catalog) {
	rt.publishing.Lock()
	defer rt.publishing.Unlock()
	if turn != rt.turn {
		return
	}
	rt.declared = c
	rt.enforce(c)
	rt.bringEarly(c)
}

// enforce puts a catalog in force as files have it. The lock of publishing is held.
func (rt *runtime) enforce(declared *modeldir.Catalog) {
	c := rt.located(declared)
	rt.catalog.Store(c)
	rt.act.SetCatalog(c)
	go rt.lookForMissing(c)
}

// reread reads all model files anew, for who can't wait until their change is noticed.
func (rt *runtime) reread() {
	rt.mu.Lock()
	w := rt.watch
	rt.mu.Unlock()
	if w != nil {
		w.Reload()
	}
}

// inForce returns the configuration in force, nil if none is.
func (rt *runtime) inForce() *App {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if len(rt.inUse) == 0 {
		return nil
	}
	return rt.inUse[0]
}

const (
	// exitTimeout is how long a process that exits waits for leases: the HTTP server has waited already.
	exitTimeout = 5 * time.Second

	// drainTimeout is how long leases may go on after a reload that removed the app.
	drainTimeout = 10 * time.Minute
)

// Destruct stops everything. When the process exits it takes the time that needs; after a reload that removed the app it
// lets streams end in the background, so that the reload is not held up.
func (rt *runtime) Destruct() error {
	close(rt.done)
	rt.stop()
	rt.act.RefuseWaiting()
	if m := rt.hub.Load(); m != nil {
		m.Close()
	}
	if set := rt.remotes.Load(); set != nil {
		set.Close()
	}
	if caddy.Exiting() {
		rt.end(exitTimeout)
		rt.usage.Close()
		return nil
	}
	rt.usage.Close() // now: a later runtime may keep the same file before the last stream has ended
	go rt.end(drainTimeout)
	return nil
}

func (rt *runtime) end(limit time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	rt.act.Close(ctx)
	if rt.eye != nil {
		rt.eye.close()
	}
	rt.runner.close()
}

// lateRunner is the runner of a runtime, which is made before anybody says where its state lies.
type lateRunner struct {
	runner atomic.Pointer[lifecycle.Runner]
	dir    string
}

// set gives the state directory. It reports whether this was the first time; a later, different one takes effect at the next
// start of the process, as what runs is noted in the first.
func (l *lateRunner) set(dir string, log *slog.Logger) bool {
	if l.runner.Load() != nil {
		if dir != l.dir {
			log.Warn("a changed state_dir takes effect when the process is started anew", "in_force", l.dir)
		}
		return false
	}
	l.runner.Store(lifecycle.NewRunner(dir, log))
	l.dir = dir
	return true
}

// Start implements activator.Runner. Nothing is started before a configuration, and with it a catalog, is in force.
func (l *lateRunner) Start(in *lifecycle.Instance, timeout time.Duration, to lifecycle.Reporter) {
	l.runner.Load().Start(in, timeout, to)
}

// Save implements activator.Runner.
func (l *lateRunner) Save(in *lifecycle.Instance, attempt int, by time.Time, to lifecycle.Reporter) {
	l.runner.Load().Save(in, attempt, by, to)
}

func (l *lateRunner) keepContexts(bytes int64) { l.runner.Load().KeepContexts(bytes) }

func (l *lateRunner) contexts() (contexts.Stats, bool) {
	runner := l.runner.Load()
	if runner == nil { // metrics are asked for before the first configuration
		return contexts.Stats{}, false
	}
	return runner.Contexts()
}

// Stop implements activator.Runner.
func (l *lateRunner) Stop(in *lifecycle.Instance) { l.runner.Load().Stop(in) }

func (l *lateRunner) close() {
	if runner := l.runner.Load(); runner != nil {
		runner.Close()
	}
}
