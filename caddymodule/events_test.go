package caddymodule

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"assistant/activator"
	"assistant/modeldir"
)

const eventsPath = "/assistant/events"

// follower reads a stream of events.
type follower struct {
	tb    testing.TB
	lines *bufio.Reader
}

// follow begins to read the site's events.
func (s *site) follow(header ...string) *follower {
	s.tb.Helper()
	req, err := http.NewRequestWithContext(s.tb.Context(), http.MethodGet, s.url+eventsPath, http.NoBody)
	if err != nil {
		s.tb.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	var res *http.Response
	for range 5 { // as persist does
		if res, err = newClient().Do(req); err == nil {
			break
		}
	}
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		s.tb.Fatalf("status %d, %v", res.StatusCode, res.Header)
	}
	return &follower{s.tb, bufio.NewReader(res.Body)}
}

// next is the next event; ok is false at the end of the stream.
func (f *follower) next() (e activator.Event, ok bool) {
	f.tb.Helper()
	for {
		line, err := f.lines.ReadString('\n')
		if err != nil {
			return e, false
		}
		line = strings.TrimSuffix(line, "\n")
		switch name, value, _ := strings.Cut(line, ": "); {
		case name == "event":
			e.Kind = activator.EventKind(value)
		case name == "data":
			kind := e.Kind
			if err := json.Unmarshal([]byte(value), &e); err != nil {
				f.tb.Fatalf("%v: %s", err, value)
			}
			e.Kind = kind
		case line == "" && e.Kind != "":
			return e, true
		}
	}
}

// until is the next event of a kind, and the kinds before it.
func (f *follower) until(kind activator.EventKind) (activator.Event, []activator.EventKind) {
	f.tb.Helper()
	var before []activator.EventKind
	for {
		e, ok := f.next()
		if !ok {
			f.tb.Fatalf("the stream ends before %q, after %q", kind, before)
		}
		if e.Kind == kind {
			return e, before
		}
		before = append(before, e.Kind)
	}
}

func TestEventsTellWhatHappens(t *testing.T) {
	s := newSite(t)
	s.model("m", "", "--tokens", "3")
	s.model("bad", "", "--exit-code", "1", "--stderr", "boom")
	s.start()
	f := s.follow()
	if e, ok := f.next(); !ok || e.Kind != activator.EventSnapshot || len(e.InUse) != 0 || e.Models != 2 {
		t.Errorf("first event %+v", e)
	}
	s.chat("m")
	if e, _ := f.until(activator.EventStarting); e.Model != "m" || e.Instance != "m#1" || e.Reason != activator.WhyRequest || time.Since(e.Time) > bound {
		t.Errorf("%+v", e)
	}
	if e, before := f.until(activator.EventReady); e.ReadyMS <= 0 || len(before) > 0 {
		t.Errorf("%+v after %q", e, before)
	}
	if e, _ := f.until(activator.EventWaiting); e.Model != "m" || e.Queued != 0 {
		t.Errorf("%+v, want that nobody waits", e)
	}
	s.ask(http.MethodPost, chatPath, question("bad"))
	if e, _ := f.until(activator.EventFailed); e.Model != "bad" || !strings.Contains(e.Error, "boom") {
		t.Errorf("%+v", e)
	}
	s.file("broken", "name =")
	if e, _ := f.until(activator.EventFault); e.Model != "broken" || e.File == "" || e.Error == "" {
		t.Errorf("%+v", e)
	}
	late, _ := s.follow().next()
	if len(late.InUse) != 2 || late.InUse[1].Model != "m" || late.InUse[1].State != "ready" || late.InUse[0].State != "failed" {
		t.Errorf("a late snapshot %+v", late)
	}
	if a := s.ask(http.MethodHead, eventsPath, ""); a.status != http.StatusOK || a.body != "" {
		t.Errorf("HEAD: %d %q", a.status, a.body)
	}
	if a := s.ask(http.MethodPost, eventsPath, ""); a.status != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", a.status)
	}
}

// Models that a key may not use do not exist for it.
func TestEventsOfAKey(t *testing.T) {
	s, alice, bob, _ := keyed(t, "")
	if a := s.get(eventsPath); a.status != http.StatusUnauthorized {
		t.Errorf("without a key: %d", a.status)
	}
	all, hers := s.follow(bearer(bob)...), s.follow(bearer(alice)...)
	for _, model := range []string{"other", "mine"} { // she may use m*
		s.ask(http.MethodPost, chatPath, question(model), bearer(bob)...)
	}
	if e, _ := all.until(activator.EventStarting); e.Model != "other" {
		t.Errorf("bob sees %+v", e)
	}
	if e, before := hers.until(activator.EventReady); e.Model != "mine" ||
		!cmp.Equal(before, []activator.EventKind{activator.EventSnapshot, activator.EventWaiting, activator.EventStarting}) {
		t.Errorf("alice sees %+v after %q", e, before)
	}
	if e, _ := s.follow(bearer(alice)...).next(); len(e.InUse) != 1 || e.InUse[0].Model != "mine" {
		t.Errorf("alice's snapshot: %+v", e.InUse)
	}
}

// Streams that have no end of their own are not waited for.
func TestEventsDoNotHoldUpAReload(t *testing.T) {
	s := newSite(t)
	s.model("m", "", "--tokens", "3")
	s.start()
	f := s.follow()
	f.until(activator.EventSnapshot)
	began := time.Now()
	s.app["max_instances"] = 3
	s.load()
	if _, ok := f.next(); ok {
		t.Error("the stream goes on")
	}
	if took := time.Since(began); took > 10*time.Second { // the grace period is 20 s
		t.Errorf("the reload took %v", took)
	}
	s.follow().until(activator.EventSnapshot)
}

// pipeWriter is a client that shows what it was sent, or takes nothing.
type pipeWriter struct {
	mu     sync.Mutex
	header http.Header
	body   strings.Builder
	stuck  chan struct{} // closed by a deadline; nil = it reads
}

func (w *pipeWriter) Header() http.Header { return w.header }
func (w *pipeWriter) WriteHeader(int)     {}
func (w *pipeWriter) FlushError() error   { return nil }
func (w *pipeWriter) SetWriteDeadline(time.Time) error {
	if w.stuck != nil {
		close(w.stuck)
	}
	return nil
}

func (w *pipeWriter) Write(p []byte) (int, error) {
	if w.stuck != nil {
		<-w.stuck
		return 0, os.ErrDeadlineExceeded
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.body.Write(p)
}

func (w *pipeWriter) sent() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.body.String()
}

// followed runs f beside a stream of events to w, on a fake clock; then the configuration ends, and with it the stream must.
func followed(t *testing.T, w *pipeWriter, f func(rt *runtime)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		made, err := newRuntime()
		if err != nil {
			t.Fatal(err)
		}
		rt := made.(*runtime)
		app := &App{rt: rt}
		app.serving, app.ending = context.WithCancel(t.Context())
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, eventsPath, http.NoBody)
		if w.stuck != nil {
			w.stuck = make(chan struct{})
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			(&Handler{rt: rt, app: app}).serveEvents(w, r, nil)
		}()
		f(rt)
		app.ending()
		<-ended
	})
}

func TestEventsKeepTheirConnectionAlive(t *testing.T) {
	w := &pipeWriter{header: http.Header{}}
	followed(t, w, func(rt *runtime) {
		time.Sleep(eventsKeepAlive)
		synctest.Wait()
		rt.act.SetCatalog(modeldir.NewCatalog(nil))
		time.Sleep(eventsKeepAlive)
		synctest.Wait()
		var got []string
		for line := range strings.Lines(w.sent()) {
			if !strings.HasPrefix(line, "data") && line != "\n" {
				got = append(got, line)
			}
		}
		if diff := cmp.Diff([]string{"event: snapshot\n", ": \n", "event: catalog\n", ": \n"}, got); diff != "" {
			t.Errorf("sent (- wanted):\n%s", diff)
		}
	})
}

// A client that does not read is left when the configuration ends.
func TestEventsOfAStuckClientEnd(t *testing.T) {
	followed(t, &pipeWriter{header: http.Header{}, stuck: make(chan struct{})}, func(*runtime) { synctest.Wait() })
}
