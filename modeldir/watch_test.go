package modeldir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// watched is a running watcher under test.
type watched struct {
	*Watcher
	t       *testing.T
	changes chan *Catalog
	log     *logBuffer
}

// logBuffer is a log that may be read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// count is how often the log has a line with all the parts.
func (l *logBuffer) count(parts ...string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for line := range strings.Lines(l.b.String()) {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			n++
		}
	}
	return n
}

// newWatched makes a watcher that does not run yet.
func newWatched(t *testing.T, o Options) *watched {
	t.Helper()
	w := &watched{t: t, changes: make(chan *Catalog, 1000), log: &logBuffer{}}
	o.Log = slog.New(slog.NewTextHandler(w.log, nil))
	o.Changed = func(c *Catalog) { w.changes <- c }
	var err error
	if w.Watcher, err = NewWatcher(o); err != nil {
		t.Fatal(err)
	}
	return w
}

// run starts a watcher and waits for its first catalog.
func run(t *testing.T, o Options) *watched {
	t.Helper()
	w := newWatched(t, o)
	w.start()
	w.until("the first catalog", func(*Catalog) bool { return true })
	return w
}

// start runs the watcher until the test ends.
func (w *watched) start() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx)
	}()
	w.t.Cleanup(func() {
		cancel()
		<-done
	})
}

// until waits for a published catalog that is as wanted, and fails the test in the end.
func (w *watched) until(what string, ok func(*Catalog) bool) *Catalog {
	w.t.Helper()
	timeout := time.After(20 * time.Second) // for a machine that has much else to do
	for {
		select {
		case c := <-w.changes:
			if w.Current() == nil {
				w.t.Fatal("no current catalog")
			}
			if ok(c) {
				return c
			}
		case <-timeout:
			w.t.Fatalf("%s: not so after 20 s; models %v, faults %v", what, modelNames(w.Current()), w.Current().Faults())
		}
	}
}

// untilNames waits for a catalog of just those models.
func (w *watched) untilNames(what string, names ...string) *Catalog {
	w.t.Helper()
	return w.until(what, func(c *Catalog) bool { return slices.Equal(modelNames(c), names) })
}

func ctxSize(size int) func(*Catalog) bool {
	return func(c *Catalog) bool { return len(c.Models()) > 0 && c.Models()[0].CtxSize == size }
}

func TestWatch(t *testing.T) {
	dir := t.TempDir()
	a := write(t, dir, "a.toml", "model_path = 'a'")
	w := newWatched(t, Options{Dir: dir})
	if c := w.Current(); c == nil || len(c.Models()) > 0 {
		t.Errorf("before the first scan: %v, want an empty catalog", c)
	}
	w.start()
	if c := w.untilNames("at the start", "a"); w.Current() != c {
		t.Error("the current catalog is not the published one")
	}
	write(t, dir, "a.toml", "model_path = 'a'\nctx_size = 1")
	w.until("written in place", ctxSize(1))
	replace(t, dir, "a.toml", "model_path = 'a'\nctx_size = 2")
	w.until("replaced by renaming", ctxSize(2))

	rename(t, a, a+"~") // as vim does with backupcopy=no
	write(t, dir, "a.toml", "model_path = 'a'\nctx_size = 3")
	w.until("moved away and written anew", ctxSize(3))

	write(t, dir, "b.toml", "model_path = 'b'")
	w.untilNames("a new file", "a", "b")
	remove(t, filepath.Join(dir, "b.toml"))
	w.untilNames("a removed file", "a")

	// Written in place, a file may be seen empty for a moment: what was logged so far does not count.
	rejected := w.log.count("level=ERROR", "a.toml")
	good := w.log.count("level=INFO", "a.toml")
	replace(t, dir, "a.toml", "")
	c := w.until("an empty file", func(c *Catalog) bool { return len(c.Faults()) == 1 })
	if !ctxSize(3)(c) {
		t.Errorf("models %v, want the last good version", c.Models())
	}
	w.Reload()
	replace(t, dir, "a.toml", "model_path = 'a'\nctx_size = 4")
	c = w.until("put right", ctxSize(4))
	checkFault(t, c.Faults(), "")
	if n := w.log.count("level=ERROR", "a.toml", "earlier_version_in_force=true") - rejected; n != 1 {
		t.Errorf("%d error lines of a.toml, want 1:\n%s", n, w.log.b.String())
	}
	if n := w.log.count("level=INFO", "no longer at fault", "a.toml") - good; n != 1 {
		t.Errorf("%d lines that a.toml is good again, want 1:\n%s", n, w.log.b.String())
	}
}

// TestWatchKubernetes swaps a volume as the kubelet does: all files are links
// through ..data, which is replaced in one step.
func TestWatchKubernetes(t *testing.T) {
	dir := t.TempDir()
	link := func(to, name string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, mkdir(t, filepath.Join(dir, "..1")), "a.toml", "model_path = 'a'\nctx_size = 1")
	link("..1", "..data")
	link("..data/a.toml", "a.toml")
	w := run(t, Options{Dir: dir})
	if !ctxSize(1)(w.Current()) {
		t.Fatalf("models %v", w.Current().Models())
	}
	for i := 2; i < 5; i++ {
		version := fmt.Sprintf("..%d", i)
		write(t, mkdir(t, filepath.Join(dir, version)), "a.toml", fmt.Sprintf("model_path = 'a'\nctx_size = %d", i))
		link(version, "..data_tmp")
		rename(t, filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))
		remove(t, filepath.Join(dir, fmt.Sprintf("..%d", i-1)))
		w.until(version, ctxSize(i))
	}
	// The new version has no such file any more; the kubelet removes the link last.
	version := mkdir(t, filepath.Join(dir, "..9"))
	write(t, version, "b.toml", "model_path = 'b'")
	link("..data/b.toml", "b.toml")
	link("..9", "..data_tmp")
	rename(t, filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))
	c := w.untilNames("a link to nothing", "a", "b")
	for len(c.Faults()) == 0 {
		c = w.until("a link to nothing is a fault", func(*Catalog) bool { return true })
	}
	remove(t, filepath.Join(dir, "a.toml"))
	w.untilNames("the link removed", "b")
}

func TestWatchDirectoryThatComesAndGoes(t *testing.T) {
	base := t.TempDir()
	blocker := write(t, base, "x", "in the way")
	dir := filepath.Join(base, "x", "models")
	w := run(t, Options{Dir: dir})
	if n := w.log.count("level=WARN", "cannot create"); n != 1 {
		t.Errorf("%d warnings, want 1:\n%s", n, w.log.b.String())
	}
	remove(t, blocker)
	mkdir(t, dir)
	write(t, dir, "a.toml", "model_path = 'a'")
	w.untilNames("the directory comes", "a")
	for i := range 3 {
		remove(t, dir)
		w.untilNames("the directory is removed")
		mkdir(t, dir)
		name := fmt.Sprintf("b%d", i)
		write(t, dir, name+".toml", "model_path = 'b'")
		w.untilNames("the directory is made again", name)
	}
	other := mkdir(t, filepath.Join(base, "other"))
	write(t, other, "c.toml", "model_path = 'c'")
	rename(t, dir, dir+".old")
	rename(t, other, dir)
	w.untilNames("another directory takes its place", "c")
	write(t, dir, "d.toml", "model_path = 'd'")
	w.untilNames("and is watched", "c", "d")
}

func TestWatchCreatesDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "x", "models")
	w := newWatched(t, Options{Dir: dir})
	w.Reload()
	if _, err := os.Stat(dir); err == nil {
		t.Error("the directory was made before Run: validating a configuration must change nothing")
	}
	w.start()
	for { // Run publishes nothing new, so there is nothing to wait for
		if _, err := os.Stat(dir); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	write(t, dir, "a.toml", "model_path = 'a'")
	w.untilNames("a file in it", "a")
}

func TestWatchDirectoryThatIsALink(t *testing.T) {
	base := t.TempDir()
	for _, name := range []string{"one", "two"} {
		write(t, mkdir(t, filepath.Join(base, name)), name+".toml", "model_path = 'm'")
	}
	link := filepath.Join(base, "models")
	if err := os.Symlink("one", link); err != nil {
		t.Fatal(err)
	}
	w := run(t, Options{Dir: link})
	if err := os.Symlink("two", link+".new"); err != nil {
		t.Fatal(err)
	}
	rename(t, link+".new", link)
	w.untilNames("the link leads elsewhere", "two")
	write(t, link, "three.toml", "model_path = 'm'")
	w.untilNames("where it is watched", "three", "two")
}

func TestWatchConfigPath(t *testing.T) {
	base := t.TempDir()
	cfg, _, err := ParseConfig(filepath.Join(base, "config.toml"), []byte(
		"[[llama_servers]]\nname = 'a'\nchat_model_path = 'c'\nconfig_path = 'later/sub/a.conf'"))
	if err != nil {
		t.Fatal(err)
	}
	dir := mkdir(t, filepath.Join(base, "models"))
	write(t, dir, "b.toml", "model_path = 'b'")
	w := run(t, Options{Dir: dir, Config: cfg})
	if d := modelNames(w.Current()); !slices.Equal(d, []string{"a", "b"}) {
		t.Errorf("models %v", d)
	}
	checkFault(t, w.Current().Faults(), "a.conf")

	sub := mkdir(t, filepath.Join(base, "later", "sub"))
	write(t, sub, "a.conf", "ctx_size = 1")
	checkFault(t, w.until("config_path comes", ctxSize(1)).Faults(), "")
	replace(t, sub, "a.conf", "ctx_size = 2")
	w.until("config_path changes", ctxSize(2))
	remove(t, filepath.Join(sub, "a.conf"))
	c := w.until("config_path goes", func(c *Catalog) bool { return len(c.Faults()) == 1 })
	if !ctxSize(2)(c) {
		t.Errorf("models %v, want the last good version", c.Models())
	}
}

// TestWatchRescan changes a file of which no event tells, as on a network file system.
func TestWatchRescan(t *testing.T) {
	dir, far := t.TempDir(), t.TempDir()
	write(t, far, "a", "model_path = 'a'")
	if err := os.Symlink(filepath.Join(far, "a"), filepath.Join(dir, "a.toml")); err != nil {
		t.Fatal(err)
	}
	w := run(t, Options{Dir: dir, Rescan: 10 * time.Millisecond})
	write(t, far, "a", "model_path = 'a'\nctx_size = 1")
	w.until("found by looking again", ctxSize(1))
}

func TestReload(t *testing.T) {
	dir := t.TempDir()
	w := newWatched(t, Options{Dir: dir})
	var calls, inside atomic.Int32
	w.o.Changed = func(*Catalog) {
		if inside.Add(1) > 1 {
			t.Error("called twice at a time")
		}
		calls.Add(1)
		inside.Add(-1)
	}
	w.Reload()
	if n := calls.Load(); n != 1 {
		t.Errorf("%d calls after the first scan, of nothing; want 1", n)
	}
	path := write(t, dir, "a.toml", "model_path = 'a'")
	write(t, dir, "b.toml", "broken")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(w.Reload)
	}
	wg.Wait()
	if n := calls.Load(); n != 2 {
		t.Errorf("%d calls, want 2: all but one scan found nothing new", n)
	}
	if n := w.log.count("level=ERROR"); n != 1 {
		t.Errorf("%d errors logged, want 1:\n%s", n, w.log.b.String())
	}
	write(t, dir, "b.toml", "still broken, but elsewhere")
	w.Reload()
	if n := w.log.count("level=ERROR"); n != 2 {
		t.Errorf("%d errors logged, want 2:\n%s", n, w.log.b.String())
	}
	remove(t, path)
	w.Reload()
	if models := modelNames(w.Current()); len(models) != 0 {
		t.Errorf("models %v, want the removal in force at once", models)
	}
}

// TestUnreadableDirectoryKeepsModels: what cannot be seen is not removed.
func TestUnreadableDirectoryKeepsModels(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "models")
	write(t, mkdir(t, dir), "a.toml", "model_path = 'a'")
	w := newWatched(t, Options{Dir: dir})
	w.Reload()
	remove(t, dir)
	write(t, filepath.Dir(dir), "models", "a file now")
	w.Reload()
	w.Reload()
	if models := modelNames(w.Current()); len(models) != 1 {
		t.Errorf("models %v, want them as they were", models)
	}
	if n := w.log.count("level=ERROR", "cannot read the directory"); n != 1 {
		t.Errorf("%d errors logged, want 1:\n%s", n, w.log.b.String())
	}
}

// TestPrevious lets one watcher take another's place while a file is broken.
func TestPrevious(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.toml", "model_path = 'a'")
	first := newWatched(t, Options{Dir: dir})
	first.Reload()
	write(t, dir, "a.toml", "broken")
	second := newWatched(t, Options{Dir: dir, Previous: first.Current()})
	if second.Current() != first.Current() {
		t.Error("the previous catalog is not in force until the first scan")
	}
	second.Reload()
	if got, want := second.Current().Models(), first.Current().Models(); !slices.Equal(got, want) {
		t.Errorf("models %v, want %v", got, want)
	}
	checkFault(t, second.Current().Faults(), "a.toml")
}

// TestEndedWatcherPublishesNothing: another may be in its place by now.
func TestEndedWatcherPublishesNothing(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.toml", "model_path = 'a'")
	w := newWatched(t, Options{Dir: dir})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	w.Run(ctx)
	if len(w.changes) != 0 || len(w.Current().Models()) != 0 {
		t.Error("a catalog was published after the end")
	}
}

// TestLostEvents: after an overflow everything is read, stamps regardless.
func TestLostEvents(t *testing.T) {
	dir := t.TempDir()
	path := write(t, dir, "a.toml", "model_path = 'a'")
	info := must(os.Stat(path))
	w := newWatched(t, Options{Dir: dir})
	l := w.newLoop()
	defer l.close()
	l.scan(t.Context(), scanOptions{})
	write(t, dir, "a.toml", "model_path = 'b'")
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	l.watches.fs.Events = nil // its own events are to have no part in this
	l.watches.fs.Errors = make(chan error, 1)
	l.watches.fs.Errors <- fsnotify.ErrEventOverflow
	if !l.next(t.Context()) {
		t.Fatal("the loop ended")
	}
	if got := filepath.Base(w.Current().Models()[0].ModelPath); got != "b" {
		t.Errorf("model_path is %s, want b", got)
	}
}

// TestWatchThatEnded: a new directory may have the inode of the one whose watch has ended.
func TestWatchThatEnded(t *testing.T) {
	dir := t.TempDir()
	w, err := newWatches([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	for range 2 {
		if err := w.follow(); err != nil {
			t.Fatal(err)
		}
		if list := w.fs.WatchList(); !slices.Equal(list, []string{dir}) {
			t.Fatalf("watched: %v, want %s", list, dir)
		}
		if err := w.fs.Remove(dir); err != nil {
			t.Fatal(err)
		}
	}
}

func TestConcerns(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "x", "models")
	w := newWatched(t, Options{Dir: target})
	l := w.newLoop()
	defer l.close()
	in := func(name string) string { return filepath.Join(target, name) }
	for _, tt := range []struct {
		name string
		op   fsnotify.Op
		want bool
	}{
		{in("a.toml"), fsnotify.Write, true},
		{in("a.toml"), fsnotify.Remove, true},
		{in("a.toml"), fsnotify.Chmod, false},
		{in("a.toml"), fsnotify.Chmod | fsnotify.Write, true},
		{in("..data"), fsnotify.Create, true},
		{in("a.toml~"), fsnotify.Write, false},
		{in(".#a.toml"), fsnotify.Create, false},
		{target, fsnotify.Remove, true},
		{filepath.Join(dir, "x"), fsnotify.Create, true},
		{filepath.Join(dir, "xy"), fsnotify.Create, false},
	} {
		if got := l.concerns(fsnotify.Event{Name: tt.name, Op: tt.op}); got != tt.want {
			t.Errorf("%s %s: got %v, want %v", tt.op, tt.name, got, tt.want)
		}
	}
}

// TestChangeIsInForceSoon takes the quickest of a few changes: others may keep this machine busy.
func TestChangeIsInForceSoon(t *testing.T) {
	const bound = 250 * time.Millisecond
	dir := t.TempDir()
	write(t, dir, "a.toml", "model_path = 'a'")
	w := run(t, Options{Dir: dir})
	quickest := time.Hour
	for i := 1; i <= 10 && quickest > bound; i++ {
		start := time.Now()
		replace(t, dir, "a.toml", fmt.Sprintf("model_path = 'a'\nctx_size = %d", i))
		w.until("a change", ctxSize(i))
		quickest = min(quickest, time.Since(start))
	}
	if quickest > bound {
		t.Errorf("in force after %v at the earliest, want %v", quickest, bound)
	}
	start := time.Now()
	remove(t, filepath.Join(dir, "a.toml"))
	w.untilNames("a removal")
	t.Logf("a change took %v, a removal %v", quickest, time.Since(start))
}

func TestWatcherWithoutDirectory(t *testing.T) {
	w := run(t, Options{})
	if len(w.Current().Models()) != 0 {
		t.Error("models out of nothing")
	}
}

func TestRunEndsWithContext(t *testing.T) {
	w := newWatched(t, Options{Dir: t.TempDir()})
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	cancel(errors.New("end"))
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("still running")
	}
}
