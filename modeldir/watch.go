package modeldir

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// DefaultRescan is how often everything is looked at again, whatever the
	// events said: network file systems send none, and queues overflow.
	DefaultRescan = time.Minute

	// pollInterval takes the place of the above where nothing can be watched.
	pollInterval = 2 * time.Second

	// debounce is how long a directory must be quiet before it is read: long
	// enough for an editor's rename or a file written in a few pieces.
	debounce = 25 * time.Millisecond

	// maxDebounce bounds the wait for quiet.
	maxDebounce = 100 * time.Millisecond

	// absence is how long a file must be gone to be taken for removed.
	absence = 50 * time.Millisecond
)

// Options say what a [Watcher] watches.
type Options struct {
	Dir    string  // directory of model files; created if it does not exist; "" = none
	Config *Config // its [[llama_servers]] are models too, their config_path files are watched; nil = none

	// Changed is called with each new catalog, never twice at a time and never
	// for one that is equal to the last; the first scan always calls it. It
	// must not call Reload.
	Changed func(*Catalog)

	// Previous is the catalog of an earlier watcher that this one takes the place of: its models are
	// the last good versions of files that are broken by now. Nil = none.
	Previous *Catalog

	Log    *slog.Logger  // nil = slog.Default()
	Rescan time.Duration // 0 = DefaultRescan
}

// Watcher keeps a catalog current. Nothing is read or created before Reload or Run.
type Watcher struct {
	o       Options
	current atomic.Pointer[Catalog]

	mu      sync.Mutex // held during a scan and the call of Changed
	scanner *scanner
	scanned bool   // once at least
	dirErr  string // why the directory could not be read at the last scan
}

// NewWatcher makes a watcher. A relative directory is relative to the working directory.
func NewWatcher(o Options) (*Watcher, error) {
	if o.Dir != "" {
		dir, err := filepath.Abs(o.Dir)
		if err != nil {
			return nil, err
		}
		o.Dir = dir
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Rescan <= 0 {
		o.Rescan = DefaultRescan
	}
	w := &Watcher{o: o, scanner: newScanner(o.Dir, o.Config, o.Previous)}
	if o.Previous == nil {
		o.Previous = NewCatalog(nil)
	}
	w.current.Store(o.Previous)
	w.o.Previous = nil // the scanner lets go of it after the first scan, so must we
	return w, nil
}

// Current returns the catalog in force: before the first scan the previous one, or
// an empty one. It is never nil.
func (w *Watcher) Current() *Catalog { return w.current.Load() }

// Reload reads all files anew. Changed has been called when it returns.
func (w *Watcher) Reload() { w.scan(context.Background(), scanOptions{all: true}) }

// Run watches until ctx ends. A directory that does not exist is created, or else looked
// for as it goes. What cannot be watched is polled. Call it once.
func (w *Watcher) Run(ctx context.Context) {
	w.createDir()
	l := w.newLoop()
	defer l.close()
	l.scan(ctx, scanOptions{patient: true})
	for l.next(ctx) {
	}
}

func (w *Watcher) createDir() {
	if w.o.Dir == "" {
		return
	}
	if err := os.MkdirAll(w.o.Dir, 0o755); err != nil {
		w.o.Log.Warn("cannot create the directory of model files; create it", "dir", w.o.Dir, "error", err)
	}
}

// scan reads what o says and publishes the outcome if it is another. It reports
// whether a file is gone that another scan has to look for. Once ctx has
// ended, nothing is published.
func (w *Watcher) scan(ctx context.Context, o scanOptions) (doubtful bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.scanner.scan(o)
	if ctx.Err() != nil {
		return false
	}
	w.noteDirectory(err)
	old, now := w.Current(), w.scanner.catalog()
	if !w.scanned || !old.same(now) {
		w.scanned = true
		w.logFaults(old, now)
		w.current.Store(now)
		if w.o.Changed != nil {
			w.o.Changed(now)
		}
	}
	return w.scanner.doubtful()
}

// noteDirectory logs that the directory cannot be read, or can be again.
func (w *Watcher) noteDirectory(err error) {
	is := ""
	if err != nil {
		is = err.Error()
	}
	switch {
	case is == w.dirErr:
	case is == "":
		w.o.Log.Info("the directory of model files is there again", "dir", w.o.Dir)
	case errors.Is(err, fs.ErrNotExist):
		w.o.Log.Warn("the directory of model files does not exist; it is looked for again", "dir", w.o.Dir)
	default:
		w.o.Log.Error("cannot read the directory of model files; its models stay as they were", "dir", w.o.Dir, "error", err)
	}
	w.dirErr = is
}

// logFaults logs the faults that are new, and those that are gone.
func (w *Watcher) logFaults(old, now *Catalog) {
	had := make(map[string]bool)
	for _, f := range old.Faults() {
		had[f.id()] = true
	}
	for _, f := range now.Faults() {
		if !had[f.id()] {
			w.o.Log.Error("model file rejected", "model", f.Name, "file", f.File, "error", f.Err, "earlier_version_in_force", now.Has(f.Name))
		}
		delete(had, f.id())
	}
	for _, f := range old.Faults() {
		if had[f.id()] {
			w.o.Log.Info("model file is no longer at fault", "model", f.Name, "file", f.File)
		}
	}
}

func (f Fault) id() string { return f.File + "\x00" + f.Name + "\x00" + f.Err.Error() }

// same reports whether two catalogs hold the very same models, and equal faults.
func (c *Catalog) same(o *Catalog) bool {
	return slices.Equal(c.models, o.models) &&
		slices.EqualFunc(c.faults, o.faults, func(a, b Fault) bool { return a.id() == b.id() })
}

// loop is the state of a running watcher.
type loop struct {
	*Watcher
	watches *watches // nil if nothing can be watched

	rescan  *time.Ticker
	due     *time.Timer     // when to scan because of events
	limit   time.Time       // when to scan at the latest; zero if there was no event
	touched map[string]bool // what the events were about
}

func (w *Watcher) newLoop() *loop {
	l := &loop{Watcher: w, due: time.NewTimer(0), touched: make(map[string]bool)}
	l.due.Stop()
	watches, err := newWatches(w.targets())
	every := w.o.Rescan
	if err != nil {
		w.o.Log.Warn("cannot watch for changes of model files; looking again and again instead", "every", pollInterval, "error", err)
		every = min(every, pollInterval)
	} else {
		l.watches = watches
	}
	l.rescan = time.NewTicker(every)
	return l
}

func (l *loop) close() {
	l.rescan.Stop()
	l.due.Stop()
	if l.watches != nil {
		l.watches.close()
	}
}

// targets are the directories to watch.
func (w *Watcher) targets() []string {
	dirs := make(map[string]bool)
	if w.o.Dir != "" {
		dirs[w.o.Dir] = true
	}
	for path := range w.scanner.named {
		dirs[filepath.Dir(path)] = true
	}
	return slices.Sorted(maps.Keys(dirs))
}

// next waits for one thing to happen and deals with it; false ends the loop.
func (l *loop) next(ctx context.Context) bool {
	var events chan fsnotify.Event
	var errs chan error
	if l.watches != nil {
		events, errs = l.watches.fs.Events, l.watches.fs.Errors
	}
	select {
	case <-ctx.Done():
		return false
	case e := <-events:
		if l.concerns(e) {
			l.touched[e.Name] = true
			l.postpone()
		}
	case err := <-errs:
		l.o.Log.Warn("events of the model files may have been lost; reading them all", "error", err)
		l.scan(ctx, scanOptions{all: true, patient: true})
	case <-l.rescan.C:
		l.scan(ctx, scanOptions{unsettled: true, patient: true})
	case <-l.due.C:
		l.scan(ctx, scanOptions{touched: l.touched, patient: true})
	}
	return true
}

// postpone has a scan wait until events cease, but not for ever.
func (l *loop) postpone() {
	now := time.Now()
	if l.limit.IsZero() {
		l.limit = now.Add(maxDebounce)
	}
	l.due.Reset(min(debounce, l.limit.Sub(now)))
}

// scan follows the directories, so that nothing that comes after is missed, and scans.
func (l *loop) scan(ctx context.Context, o scanOptions) {
	if l.watches != nil {
		if err := l.watches.follow(); err != nil {
			l.o.Log.Warn("cannot watch a directory of model files; looking again and again instead", "every", pollInterval, "error", err)
			l.rescan.Reset(min(l.o.Rescan, pollInterval))
		}
	}
	l.due.Stop()
	l.limit = time.Time{}
	if l.Watcher.scan(ctx, o) {
		l.due.Reset(absence)
	}
	clear(l.touched)
}

// concerns reports whether an event may have changed a file of ours.
func (l *loop) concerns(e fsnotify.Event) bool {
	if e.Op == fsnotify.Chmod { // indexers and backups do this all the time
		return false
	}
	base := filepath.Base(e.Name)
	// Kubernetes changes a volume's files by renaming the link ..data, through which they all lead.
	return isModelFile(base) || strings.HasPrefix(base, "..") || l.scanner.named[e.Name] || l.watches.leadsTo(e.Name)
}
