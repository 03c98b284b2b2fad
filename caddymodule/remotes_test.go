package caddymodule

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"assistant/internal/keys"
)

// elsewhere is another server with some models.
type elsewhere struct {
	*httptest.Server
	models []string
	mu     sync.Mutex
	answer http.HandlerFunc // nil = a whole answer that names the server
	asked  atomic.Int32
	seen   []http.Header
	bodies []string
}

func newElsewhere(tb testing.TB, models ...string) *elsewhere {
	tb.Helper()
	e := &elsewhere{models: models}
	e.Server = httptest.NewServer(http.HandlerFunc(e.serve))
	tb.Cleanup(e.Close)
	return e
}

func (e *elsewhere) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v1/models" {
		var list []string
		for _, m := range e.models {
			list = append(list, fmt.Sprintf(`{"id":%q}`, m))
		}
		fmt.Fprintf(w, `{"object":"list","data":[%s]}`, strings.Join(list, ","))
		return
	}
	body, _ := io.ReadAll(r.Body)
	e.mu.Lock()
	e.seen, e.bodies = append(e.seen, r.Header.Clone()), append(e.bodies, string(body))
	answer := e.answer
	e.mu.Unlock()
	e.asked.Add(1)
	if answer != nil {
		answer(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"object":"chat.completion","from":%q,"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}`, e.URL)
}

func (e *elsewhere) answers(f http.HandlerFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answer = f
}

func (s *site) remotes(list ...map[string]any) *site {
	s.app["remote_servers"] = list
	return s
}

// A model that only others have is listed, and answered by one of them, with its key and not the client's.
func TestRemoteModelAnswers(t *testing.T) {
	other := newElsewhere(t, "far", "near")
	s := newSite(t).remotes(map[string]any{"url": other.URL + "/v1", "api_key": "sk-other", "name": "other"})
	s.model("near", "")
	s.start()
	s.eventually("its models are listed", func() bool { _, ok := s.card("far"); return ok })
	if _, ok := s.card("other/near"); !ok {
		t.Errorf("a name that is taken is not listed with its server's: %+v", s.list())
	}
	a := s.ask(http.MethodPost, chatPath, question("far"), "Authorization", "Bearer sk-client")
	if a.status != http.StatusOK || !strings.Contains(a.body, other.URL) || a.header.Get(remoteHeader) != "other" {
		t.Fatalf("status %d, %v: %s", a.status, a.header, a.body)
	}
	if h := other.seen[0]; h.Get("Authorization") != "Bearer sk-other" || h.Get("X-Assistant-Hops") == "" {
		t.Errorf("it was sent %v", h)
	}
	if b := s.ask(http.MethodPost, chatPath, question("other/near")); b.status != http.StatusOK || !strings.Contains(other.bodies[1], `"model":"near"`) {
		t.Errorf("by the server's name: %d %s; it was sent %q", b.status, b.body, other.bodies)
	}
	if s.chat("near") == 0 || other.asked.Load() != 2 {
		t.Error("a model that is here was answered elsewhere")
	}
	if c := s.ask(http.MethodPost, chatPath, question("nowhere")); c.status != http.StatusNotFound {
		t.Errorf("status %d: %s", c.status, c.body)
	}
	if !strings.Contains(s.metrics(), `assistant_remote_requests_total{remote="other",outcome="answered"} 2`) {
		t.Error("it is not counted")
	}
}

// What comes from another Assistant is not sent on, nor told of what is elsewhere: so there are no loops.
func TestRequestsOfOthersStayHere(t *testing.T) {
	other := newElsewhere(t, "far")
	s := newSite(t).remotes(map[string]any{"url": other.URL})
	s.start()
	s.eventually("its models are listed", func() bool { _, ok := s.card("far"); return ok })
	if a := s.ask(http.MethodPost, chatPath, question("far"), "X-Assistant-Hops", "1"); a.status != http.StatusNotFound {
		t.Errorf("status %d: %s", a.status, a.body)
	}
	if a := s.ask(http.MethodGet, "/v1/models", "", "X-Assistant-Hops", "1"); strings.Contains(a.body, "far") {
		t.Errorf("the list: %s", a.body)
	}
	if other.asked.Load() != 0 {
		t.Error("it was sent on")
	}
}

// One that can't is passed over for one that can, as long as the client was told nothing; an error that all give reaches the client as it is.
func TestRemoteFallsOver(t *testing.T) {
	bad, good := newElsewhere(t, "m"), newElsewhere(t, "m")
	s := newSite(t).remotes(map[string]any{"url": bad.URL, "name": "bad"}, map[string]any{"url": good.URL, "name": "good", "weight": 1})
	s.start()
	s.eventually("both are known", func() bool { set := current(t).remotes.Load(); return set != nil && set.Known() })
	for name, fault := range map[string]http.HandlerFunc{
		"503":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"429":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) },
		"lost": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		bad.answers(fault)
		for range 4 {
			if a := s.ask(http.MethodPost, chatPath, question("m")); a.status != http.StatusOK || a.header.Get(remoteHeader) != "good" {
				t.Errorf("%s: status %d by %q: %s", name, a.status, a.header.Get(remoteHeader), a.body)
			}
		}
	}
	refuse := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error":{"message":"no such thing","type":"invalid_request_error","param":"x","code":"odd"}}`)
	}
	bad.answers(refuse)
	good.answers(refuse)
	if a := s.ask(http.MethodPost, chatPath, question("m")); a.status != http.StatusBadRequest || text(a.apiError(t).Code) != "odd" {
		t.Errorf("status %d: %s", a.status, a.body)
	}
	bad.Close()
	good.Close()
	if a := s.ask(http.MethodPost, chatPath, question("m")); a.status != http.StatusBadGateway || text(a.apiError(t).Code) != "engine_failed" {
		t.Errorf("status %d: %s", a.status, a.body)
	}
}

// A stream passes as it comes; one that breaks off ends with an error, not with a proper end.
func TestRemoteStreams(t *testing.T) {
	other := newElsewhere(t, "m")
	next := make(chan struct{})
	other.answers(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: {\"choices\":[]}\n\n")
		_ = http.NewResponseController(w).Flush()
		<-next
		if r.Header.Get("X-Break") != "" {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "data: [DONE]\n\n")
	})
	s := newSite(t).remotes(map[string]any{"url": other.URL})
	s.start()
	s.eventually("it is known", func() bool { _, ok := s.card("m"); return ok })
	st := s.stream("m")
	close(next)
	st.completes()
	a := s.ask(http.MethodPost, chatPath, `{"model":"m","stream":true,"messages":[]}`, "X-Break", "1")
	if !strings.Contains(a.body, `"error"`) || strings.Contains(a.body, "[DONE]") {
		t.Errorf("%d %v: %s", a.status, a.err, a.body)
	}
}

// Where all slots here are taken, another server answers at once; where there is none, the request waits here.
func TestFullModelIsAnsweredElsewhere(t *testing.T) {
	other := newElsewhere(t, "m")
	s := newSite(t).remotes(map[string]any{"url": other.URL, "name": "other"})
	s.model("m", "concurrency = 1", "--token-delay", "20ms", "--tokens", "100000")
	s.start()
	s.eventually("it is known", func() bool { _, ok := s.card("other/m"); return ok })
	st := s.stream("m")
	if st.pid == 0 {
		t.Fatal("the first was not answered here")
	}
	began := time.Now()
	if a := s.ask(http.MethodPost, chatPath, question("m")); a.status != http.StatusOK || a.header.Get(remoteHeader) != "other" {
		t.Errorf("after %v: status %d, %v: %s", time.Since(began), a.status, a.header, a.body)
	}
	st.res.Body.Close()
}

// A key sees and uses of others' models what it may.
func TestKeysHoldForRemoteModels(t *testing.T) {
	other := newElsewhere(t, "far-a", "far-b")
	s := newSite(t).remotes(map[string]any{"url": other.URL})
	key, err := keys.Create(filepath.Join(s.root, "keys.toml"), keys.Entry{Name: "some", Models: []string{"far-a"}})
	if err != nil {
		t.Fatal(err)
	}
	s.app["keys"] = filepath.Join(s.root, "keys.toml")
	s.start()
	s.eventually("it is known", func() bool { return current(t).remotes.Load().Known() })
	if a := s.ask(http.MethodGet, "/v1/models", "", "Authorization", "Bearer "+key); !strings.Contains(a.body, "far-a") || strings.Contains(a.body, "far-b") {
		t.Errorf("the list: %s", a.body)
	}
	for model, want := range map[string]int{"far-a": http.StatusOK, "far-b": http.StatusNotFound} {
		if a := s.ask(http.MethodPost, chatPath, question(model), "Authorization", "Bearer "+key); a.status != want {
			t.Errorf("%s: status %d: %s", model, a.status, a.body)
		}
	}
}
