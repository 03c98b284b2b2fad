package hub

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"assistant/internal/gguf/gguftest"
	"assistant/internal/hub/source"
	"assistant/internal/hub/transfer"
)

// bound is how long anything here may take on a busy machine before it counts as hung.
const bound = 30 * time.Second

// published is a server with one file, which gives no more than its first half before it is let go.
type published struct {
	*httptest.Server
	data []byte
	open chan struct{} // closed = all is given
	sent atomic.Int64  // bytes of bodies
}

// publish offers a model of so many bytes of weights.
func publish(tb testing.TB, size int) *published {
	tb.Helper()
	head, _ := new(gguftest.File).Add("general.architecture", "llama").Bytes()
	body := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	p := &published{data: append(head, body...), open: make(chan struct{})}
	p.Server = httptest.NewServer(http.HandlerFunc(p.serve))
	tb.Cleanup(p.Close)
	return p
}

func (p *published) serve(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/gone") {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", `"v1"`)
	http.ServeContent(&counting{w, r, p}, r, "", time.Time{}, bytes.NewReader(p.data))
}

// counting counts what is sent, and holds back the second half of the file.
type counting struct {
	http.ResponseWriter
	r *http.Request
	p *published
}

func (c *counting) Write(b []byte) (int, error) {
	if c.p.sent.Load() > int64(len(c.p.data)/2) {
		select {
		case <-c.p.open:
		case <-c.r.Context().Done():
			return 0, io.ErrClosedPipe
		}
	}
	n, err := c.ResponseWriter.Write(b)
	c.p.sent.Add(int64(n))
	if f := http.NewResponseController(c.ResponseWriter); err == nil {
		_ = f.Flush()
	}
	return n, err
}

func (p *published) source(name string) string { return p.URL + "/" + name + ".gguf" }

// hashed is a source that says what its content is.
func (p *published) hashed(name string) string {
	sum := sha256.Sum256(p.data)
	return p.source(name) + "#sha256=" + hex.EncodeToString(sum[:])
}

func open(tb testing.TB, dir string, change ...func(*Settings)) *Manager {
	tb.Helper()
	s := Settings{Dir: dir, Resolver: func() *source.Resolver { return &source.Resolver{} }, Log: slog.New(slog.DiscardHandler)}
	for _, c := range change {
		c(&s)
	}
	m := Open(s)
	tb.Cleanup(m.Close)
	return m
}

func start(tb testing.TB, m *Manager, src string) Status {
	tb.Helper()
	s, err := m.Start(src, StartOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func wait(tb testing.TB, m *Manager, id string, want State) Status {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), bound)
	defer cancel()
	s, err := m.Wait(ctx, id)
	if err != nil || s.State != want {
		tb.Fatalf("%+v, %v; want %s", s, err, want)
	}
	return s
}

// until waits for a state that goes by.
func until(tb testing.TB, m *Manager, id string, what string, ok func(Status) bool) Status {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), bound)
	defer cancel()
	for s := range m.Watch(ctx, id) {
		if ok(s) {
			return s
		}
	}
	tb.Fatalf("never: %s", what)
	return Status{}
}

func TestWhoeverAsksJoinsOneDownload(t *testing.T) {
	p := publish(t, 1<<20)
	m := open(t, t.TempDir())
	a := start(t, m, p.source("m"))
	b := start(t, m, p.source("m"))
	if a.ID != b.ID || len(m.List()) != 1 {
		t.Fatalf("two downloads: %s, %s", a.ID, b.ID)
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			last := int64(0)
			for s := range m.Watch(t.Context(), a.ID) {
				if s.Done < last {
					t.Errorf("progress goes back from %d to %d", last, s.Done)
				}
				last = s.Done
			}
		})
	}
	close(p.open)
	done := wait(t, m, a.ID, Completed)
	wg.Wait()
	if done.Done != int64(len(p.data)) || done.Total != done.Done {
		t.Errorf("%+v", done)
	}
	model, ok := m.Installed(p.source("m"))
	got, err := os.ReadFile(model.Path())
	if !ok || err != nil || !bytes.Equal(got, p.data) {
		t.Errorf("installed %v: %+v, %v", ok, model, err)
	}
	if sent := p.sent.Load(); sent > int64(len(p.data))*105/100 {
		t.Errorf("%d bytes were sent of %d", sent, len(p.data))
	}
}

// What one model has is not brought again for another.
func TestContentIsShared(t *testing.T) {
	p := publish(t, 1<<20)
	close(p.open)
	m := open(t, t.TempDir())
	wait(t, m, start(t, m, p.hashed("a")).ID, Completed)
	sent := p.sent.Load()
	wait(t, m, start(t, m, p.hashed("b")).ID, Completed)
	if again := p.sent.Load() - sent; again > 1<<10 { // its beginning is looked at
		t.Errorf("%d bytes were brought again", again)
	}
	a, _ := m.Installed(p.hashed("a"))
	b, _ := m.Installed(p.hashed("b"))
	one, err1 := os.Stat(a.Path())
	two, err2 := os.Stat(b.Path())
	if err := errors.Join(err1, err2); err != nil || !os.SameFile(one, two) {
		t.Errorf("%s and %s are not the same: %v", a.Path(), b.Path(), err)
	}
	if filepath.Base(a.Path()) != "a.gguf" {
		t.Errorf("its name is lost: %s", a.Path())
	}
}

// A paused download keeps what it has, also over the end of the process, and needs only the rest when it goes on.
func TestPausedDownloadGoesOn(t *testing.T) {
	p := publish(t, 64<<20)
	dir := t.TempDir()
	first := open(t, dir)
	id := start(t, first, p.source("m")).ID
	until(t, first, id, "a half", func(s Status) bool { return s.Done > int64(len(p.data))/4 })
	s, err := first.Pause(id)
	if err != nil || s.State != Paused {
		t.Fatalf("%+v, %v", s, err)
	}
	if again, err := first.Ensure(p.source("m")); err != nil || again.State != Paused {
		t.Errorf("somebody who needs it made it go on: %+v, %v", again, err)
	}
	first.Close()
	close(p.open)
	second := open(t, dir)
	if s, ok := second.Get(id); !ok || s.State != Paused {
		t.Fatalf("after a restart: %+v, %v", s, ok)
	}
	sent := p.sent.Load()
	if _, err := second.Resume(id); err != nil {
		t.Fatal(err)
	}
	wait(t, second, id, Completed)
	if rest := p.sent.Load() - sent; rest > int64(len(p.data))*9/10 {
		t.Errorf("%d bytes of %d were sent after it was resumed", rest, len(p.data))
	}
}

// A download that went on when the process ended goes on with the next one, under the names it was asked for.
func TestDownloadOutlivesTheProcess(t *testing.T) {
	p := publish(t, 1<<20)
	dir := t.TempDir()
	first := open(t, dir)
	s, err := first.Start(p.source("m"), StartOptions{As: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	until(t, first, s.ID, "it comes", func(s Status) bool { return s.State == Downloading })
	first.Close()
	if _, err := first.Start(p.source("m"), StartOptions{}); !errors.Is(err, ErrClosed) {
		t.Errorf("a start after the end: %v", err)
	}
	close(p.open)
	var as []string
	second := open(t, dir, func(s *Settings) { s.OnInstalled = func(_ Model, names []string) error { as = names; return nil } })
	wait(t, second, s.ID, Completed)
	if len(as) != 1 || as[0] != "mine" {
		t.Errorf("installed as %q", as)
	}
	second.Close()
	if third := open(t, dir); len(third.List()) != 0 {
		t.Errorf("done, and still noted: %+v", third.List())
	}
}

func TestCancelRemovesWhatCame(t *testing.T) {
	p := publish(t, 4<<20)
	dir := t.TempDir()
	m := open(t, dir)
	id := start(t, m, p.source("m")).ID
	until(t, m, id, "it comes", func(s Status) bool { return s.Done > 0 })
	if s, err := m.Cancel(id); err != nil || s.State != Cancelled {
		t.Fatalf("%+v, %v", s, err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, partsDir, "*"))
	if len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
	if _, err := m.Pause(id); !errors.Is(err, ErrEnded) {
		t.Errorf("pause what has ended: %v", err)
	}
	if _, err := m.Cancel("0123456789abcdef"); !errors.Is(err, ErrNotFound) {
		t.Errorf("cancel what never was: %v", err)
	}
	close(p.open)
	start(t, m, p.source("m"))
	wait(t, m, id, Completed)
}

// A download that failed is not tried again by each request, but by whoever says so.
func TestFailedDownloadPauses(t *testing.T) {
	p := publish(t, 1<<10)
	m := open(t, t.TempDir())
	src := p.source("gone")
	id := start(t, m, src).ID
	failed := wait(t, m, id, Failed)
	if failed.Error == "" || m.RetryAfter(id) <= 0 || m.RetryAfter(id) > firstPause {
		t.Errorf("%+v, again in %v", failed, m.RetryAfter(id))
	}
	if s, err := m.Ensure(src); err != nil || s.State != Failed {
		t.Errorf("tried again at once: %+v, %v", s, err)
	}
	start(t, m, src)
	wait(t, m, id, Failed)
	if m.RetryAfter(id) <= firstPause {
		t.Errorf("the second pause is no longer: %v", m.RetryAfter(id))
	}
	if _, err := m.Start("gopher://x", StartOptions{}); err == nil {
		t.Error("a source that is none was taken")
	}
}

// An error of who installs the model is one of the download, which has nothing to bring when it is tried again.
func TestInstallingMayFail(t *testing.T) {
	p := publish(t, 1<<20)
	close(p.open)
	fault := errors.New("the name is taken")
	m := open(t, t.TempDir(), func(s *Settings) { s.OnInstalled = func(Model, []string) error { return fault } })
	id := start(t, m, p.hashed("m")).ID
	if s := wait(t, m, id, Failed); !strings.Contains(s.Error, "taken") {
		t.Errorf("%+v", s)
	}
	sent := p.sent.Load()
	m.OnInstalled = func(Model, []string) error { return nil }
	start(t, m, p.hashed("m"))
	wait(t, m, id, Completed)
	if p.sent.Load()-sent > 1<<10 { // its beginning is looked at
		t.Error("it was brought again")
	}
}

func TestCollectRemovesOnlyWhatNobodyUses(t *testing.T) {
	p, q := publish(t, 1<<20), publish(t, 1<<21)
	close(p.open)
	close(q.open)
	dir := t.TempDir()
	gone := 0
	m := open(t, dir, func(s *Settings) { s.OnRemoved = func() { gone++ } })
	wait(t, m, start(t, m, p.hashed("used")).ID, Completed)
	wait(t, m, start(t, m, p.hashed("same")).ID, Completed)
	wait(t, m, start(t, m, q.hashed("unused")).ID, Completed)
	later := time.Now().Add(collectGrace + time.Second)
	collect := func(used Used, now time.Time) Collected {
		t.Helper()
		got, err := m.Collect(used, now)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := collect(Used{}, time.Now()); len(got.Models) != 0 || got.Bytes != 0 {
		t.Errorf("what has just come was removed: %+v", got)
	}
	byPath, _ := m.Installed(q.hashed("unused"))
	if got := collect(Used{Sources: []string{p.hashed("used"), p.hashed("same")}, Paths: []string{byPath.Path()}}, later); len(got.Models) != 0 {
		t.Errorf("what a model names by its path was removed: %+v", got)
	}
	if got := collect(Used{Sources: []string{p.hashed("used")}, Dropped: []string{p.hashed("same")}}, time.Now()); len(got.Models) != 1 || got.Bytes != 0 {
		t.Errorf("shared content was removed, or its model not: %+v", got)
	}
	if got := collect(Used{Sources: []string{p.hashed("used")}}, later); len(got.Models) != 1 || got.Bytes != int64(len(q.data)) {
		t.Errorf("%+v, want %d bytes", got, len(q.data))
	}
	used, ok := m.Installed(p.hashed("used"))
	if !ok || gone != 2 {
		t.Errorf("used: %v, told %d times", ok, gone)
	}
	if got, err := os.ReadFile(used.Path()); err != nil || !bytes.Equal(got, p.data) {
		t.Errorf("what is used is damaged: %v", err)
	}
}

// What came for a download that is to go on is not removed meanwhile.
func TestCollectKeepsWhatPausedDownloadsHave(t *testing.T) {
	m := open(t, t.TempDir())
	blob := m.store.blobPath("abc")
	if err := errors.Join(os.MkdirAll(filepath.Dir(blob), 0o700), os.WriteFile(blob, []byte("part one"), 0o600)); err != nil {
		t.Fatal(err)
	}
	d := m.add("hf:a/b")
	d.change(func(s *Status) { s.State, s.Files = Paused, []FileStatus{{Name: "1", Path: blob}} })
	if got, err := m.Collect(Used{}, time.Now()); err != nil || got.Bytes != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	d.change(func(s *Status) { s.State = Cancelled })
	if got, err := m.Collect(Used{}, time.Now()); err != nil || got.Bytes != int64(len("part one")) {
		t.Errorf("%+v, %v", got, err)
	}
}

// What has no room at all is not begun.
func TestNoRoomIsToldBefore(t *testing.T) {
	m := open(t, t.TempDir())
	d := newDownload(m, "hf:a/b")
	const half = 1 << 61
	err := d.room(&source.Plan{Files: []source.File{{File: transfer.File{Size: half}, Name: "1"}, {File: transfer.File{Size: half}, Name: "2"}, {File: transfer.File{Size: -1}, Name: "3"}}})
	if !errors.Is(err, transfer.ErrNoSpace) || !strings.Contains(err.Error(), m.Dir) {
		t.Errorf("%v", err)
	}
}

// A damaged note costs the model it is about, not the server.
func TestDamagedNotesArePassedOver(t *testing.T) {
	p := publish(t, 1<<10)
	close(p.open)
	dir := t.TempDir()
	m := open(t, dir)
	src := p.source("m")
	wait(t, m, start(t, m, src).ID, Completed)
	m.Close()
	for _, sub := range []string{modelsDir, jobsDir} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, sub, "x.json"), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	again := open(t, dir)
	model, ok := again.Installed(src)
	if !ok || len(again.List()) != 0 {
		t.Errorf("%+v, %v, %+v", model, ok, again.List())
	}
	if err := os.Remove(model.Path()); err != nil {
		t.Fatal(err)
	}
	if _, ok := again.Installed(src); ok {
		t.Error("a model without its file is still there")
	}
	start(t, again, src)
	wait(t, again, id(src), Completed)
	if _, ok := again.Installed(src); !ok {
		t.Error("it did not come again")
	}
}
