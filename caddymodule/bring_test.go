package caddymodule

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"assistant/internal/gguf/gguftest"
	"assistant/modeldir"
)

// publisher is where models are published: at /NAME.gguf, each as soon as it is let go.
type publisher struct {
	*httptest.Server
	mu    sync.Mutex
	files map[string][]byte
	gates map[string]chan struct{}
	asked map[string]int // whole bodies, or parts of them, by name
}

func newPublisher(tb testing.TB) *publisher {
	tb.Helper()
	p := &publisher{files: map[string][]byte{}, gates: map[string]chan struct{}{}, asked: map[string]int{}}
	p.Server = httptest.NewServer(http.HandlerFunc(p.serve))
	tb.Cleanup(p.Close)
	return p
}

// publish offers a small model, held back until release is called.
func (p *publisher) publish(name string) (src string, release func()) {
	head, _ := new(gguftest.File).Add("general.architecture", "llama").Add("llama.context_length", 2048).Add("general.name", name).Bytes()
	gate := make(chan struct{})
	p.mu.Lock()
	p.files[name], p.gates[name] = append(head, make([]byte, 1<<16)...), gate
	p.mu.Unlock()
	return p.URL + "/" + name + ".gguf", sync.OnceFunc(func() { close(gate) })
}

func (p *publisher) serve(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/"), ".gguf")
	p.mu.Lock()
	data, gate := p.files[name], p.gates[name]
	p.mu.Unlock()
	if data == nil {
		http.NotFound(w, r)
		return
	}
	if r.Method == http.MethodGet {
		select {
		case <-gate:
		case <-r.Context().Done():
			return
		}
		p.mu.Lock()
		p.asked[name]++
		p.mu.Unlock()
	}
	http.ServeContent(w, r, "", time.Unix(1, 0), strings.NewReader(string(data)))
}

func (p *publisher) served(name string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[name]
}

func sourced(src, more string) string { return fmt.Sprintf("model_source = %q\n%s", src, more) }

// A model that is only named is brought by its first request, which waits for it, once for all.
func TestFirstRequestBringsTheModel(t *testing.T) {
	p := newPublisher(t)
	src, release := p.publish("m")
	s := newSite(t)
	s.model("m", sourced(src, "env = { GIVEN = \"{{model_path}}\" }"))
	s.start()
	if status := s.status("m"); status != "unloaded" {
		t.Errorf("before: %s", status)
	}
	if d := examine(current(t).catalog.Load()); !d.healthy() || !strings.Contains(d.Models[0].Note, src) {
		t.Errorf("doctor says: %+v", d.Models)
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { s.chat("m") })
	}
	s.eventually("it is being brought", func() bool { return s.status("m") == "downloading" })
	release()
	wg.Wait()
	if text := s.metrics(); !strings.Contains(text, `assistant_downloads{state="completed"} 1`) {
		t.Error("it is not in the metrics")
	}
	m, _ := current(t).catalog.Load().Resolve("m", "chat")
	if got, err := os.ReadFile(m.ModelPath); err != nil || string(got) != string(p.files["m"]) {
		t.Errorf("%s: %d bytes, %v", m.ModelPath, len(got), err)
	}
	before := p.served("m")
	s.chat("m")
	if after := p.served("m"); after != before {
		t.Errorf("brought again: %d, then %d parts", before, after)
	}
	if a := s.ask(http.MethodPost, "/models/load", `{"model":"m"}`); a.status != http.StatusOK {
		t.Errorf("load: %d %s", a.status, a.body)
	}
}

// Where requests are not to wait they are told how far the download is, and when to come back; it goes on without them.
func TestDownloadTellsHowFarItIs(t *testing.T) {
	p := newPublisher(t)
	src, release := p.publish("m")
	s := newSite(t)
	s.handler["download_wait"] = 0
	s.model("m", sourced(src, ""))
	s.start()
	a := s.ask(http.MethodPost, chatPath, question("m"))
	after, err := strconv.Atoi(a.header.Get("Retry-After"))
	if a.status != http.StatusServiceUnavailable || text(a.apiError(t).Code) != "model_downloading" || err != nil || after < 1 {
		t.Fatalf("status %d, Retry-After %q: %s", a.status, a.header.Get("Retry-After"), a.body)
	}
	release()
	s.eventually("the model answers", func() bool { return s.ask(http.MethodPost, chatPath, question("m")).status == http.StatusOK })
}

// A download that cannot be had is told as such; a model with a fallback is answered by that.
func TestFailedDownloadIsToldAndFallsBack(t *testing.T) {
	p := newPublisher(t)
	s := newSite(t)
	s.model("lost", sourced(p.URL+"/nothing.gguf", ""))
	s.model("safe", sourced(p.URL+"/nothing.gguf", `fallbacks = ["there"]`))
	s.model("odd", sourced("ftp://nowhere/x.gguf", ""))
	s.model("there", "")
	s.start()
	a := s.ask(http.MethodPost, chatPath, question("lost"))
	if a.status != http.StatusBadGateway || text(a.apiError(t).Code) != "download_failed" || a.header.Get("Retry-After") == "" {
		t.Errorf("status %d, %v: %s", a.status, a.header, a.body)
	}
	if card, _ := s.card("lost"); !card.Status.Failed || card.Status.Error == "" {
		t.Errorf("in the list: %+v", card.Status)
	}
	b := s.ask(http.MethodPost, chatPath, question("safe"))
	if b.status != http.StatusOK || b.header.Get("X-Assistant-Model") != "there" || b.header.Get("X-Assistant-Fallback") != "download_failed" {
		t.Errorf("status %d, %v: %s", b.status, b.header, b.body)
	}
	s.eventually("a source that is none is told", func() bool { card, _ := s.card("odd"); return card.Status.Failed })
	if c := s.ask(http.MethodPost, chatPath, question("odd")); c.status != http.StatusBadGateway || !strings.Contains(c.body, "ftp") {
		t.Errorf("status %d: %s", c.status, c.body)
	}
}

// A model that is to run without being asked for is brought without being asked for.
func TestPreloadBringsTheModel(t *testing.T) {
	p := newPublisher(t)
	src, release := p.publish("m")
	release()
	s := newSite(t)
	s.model("m", sourced(src, "preload = true"))
	s.start()
	s.eventually("it is loaded", func() bool { return s.status("m") == "loaded" })
}

// A client that streams and asked for it is told of the download.
func TestProgressTellsOfTheDownload(t *testing.T) {
	p := newPublisher(t)
	src, release := p.publish("m")
	s := newSite(t)
	s.model("m", sourced(src, ""))
	s.start()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+chatPath, strings.NewReader(`{"model":"m","stream":true,"messages":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(progressHeader, "comments")
	res, err := visitor.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	buf := bufio.NewReader(res.Body)
	line, err := buf.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, ": m is being downloaded") {
		t.Errorf("%q, %v", line, err)
	}
	release()
	(&stream{tb: t, res: res, buf: buf}).completes()
}

// A source may be written in more than one way.
func TestSourcesAreComparedInFull(t *testing.T) {
	m := &modeldir.Model{ModelSource: "a/b:Q4_K_M"}
	if !publishedAt(m, "x", "hf:a/b:Q4_K_M") || publishedAt(m, "hf:a/b:Q8_0") || publishedAt(&modeldir.Model{}, "") {
		t.Errorf("%q", sourceOf(m))
	}
	if odd := sourceOf(&modeldir.Model{ModelSource: "ftp://x"}); odd != "ftp://x" {
		t.Errorf("%q", odd)
	}
}

// Clients of llama.cpp's router bring models, follow that, use them and remove them.
func TestLlamaCppDownload(t *testing.T) {
	p := newPublisher(t)
	src, release := p.publish("tiny")
	s := newSite(t)
	s.start()
	f := s.followLlama()
	if a := s.ask(http.MethodPost, "/models", fmt.Sprintf(`{"model":%q}`, src)); a.status != http.StatusOK || !strings.Contains(a.body, `"success":true`) {
		t.Fatalf("status %d: %s", a.status, a.body)
	}
	f.expect("it comes", `"event":"download_progress"`)
	release()
	f.expect("it is here", `"event":"download_finished"`, fmt.Sprintf("%q", src))
	file := filepath.Join(s.models, strings.NewReplacer("/", "-", ":", "-").Replace(src)+".toml")
	if b, err := os.ReadFile(file); err != nil || !strings.Contains(string(b), "model_source") {
		t.Fatalf("%v: %s", err, b)
	}
	if _, ok := s.card(src); !ok {
		t.Fatalf("not in the list: %+v", s.list())
	}
	m, _ := current(t).catalog.Load().Resolve(src, "chat")
	if a := s.ask(http.MethodDelete, "/models?model="+src, ""); a.status != http.StatusOK {
		t.Errorf("delete: %d %s", a.status, a.body)
	}
	if _, ok := s.card(src); ok || exists(file) || exists(m.ModelPath) {
		t.Error("it is still there")
	}
	s.model("mine", "")
	s.eventually("it is known", func() bool { return resolves(t, "mine") })
	if a := s.ask(http.MethodDelete, "/models?model=mine", ""); a.status != http.StatusBadRequest || !strings.Contains(a.body, "mine.toml") {
		t.Errorf("delete what was not brought: %d %s", a.status, a.body)
	}
}

// followLlama reads the events of llama.cpp's router.
func (s *site) followLlama() *llamaFollower {
	s.tb.Helper()
	req, err := http.NewRequestWithContext(s.tb.Context(), http.MethodGet, s.url+"/models/sse", http.NoBody)
	if err != nil {
		s.tb.Fatal(err)
	}
	res, err := visitor.Do(req)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(func() { res.Body.Close() })
	return &llamaFollower{s.tb, &stream{tb: s.tb, res: res, buf: bufio.NewReader(res.Body)}}
}

type llamaFollower struct {
	tb testing.TB
	st *stream
}

// expect reads events until one has all of these in it.
func (f *llamaFollower) expect(what string, want ...string) {
	f.tb.Helper()
	for {
		data, ok := f.st.next()
		if !ok {
			f.tb.Fatalf("the stream ended before: %s", what)
		}
		all := true
		for _, w := range want {
			all = all && strings.Contains(data, w)
		}
		if all {
			return
		}
	}
}

// Ollama's clients bring models and are told of it line by line; the model answers under the name they know.
func TestOllamaPull(t *testing.T) {
	p := newPublisher(t)
	src, release := p.publish("tiny")
	release()
	s := newSite(t)
	s.start()
	a := s.ask(http.MethodPost, "/api/pull", fmt.Sprintf(`{"model":%q}`, src))
	var last struct{ Status, Digest string }
	var files int
	for line := range strings.Lines(a.body) {
		if err := json.Unmarshal([]byte(line), &last); err != nil {
			t.Fatalf("%v: %s", err, a.body)
		}
		if strings.HasPrefix(last.Status, "pulling ") && last.Digest != "" {
			files++
		}
	}
	if a.status != http.StatusOK || last.Status != "success" || files == 0 {
		t.Fatalf("status %d: %s", a.status, a.body)
	}
	if a := s.ask(http.MethodPost, "/api/show", fmt.Sprintf(`{"model":%q}`, src)); a.status != http.StatusOK {
		t.Errorf("show: %d %s", a.status, a.body)
	}
	if a := s.ask(http.MethodPost, "/api/pull", fmt.Sprintf(`{"model":%q,"stream":false}`, p.URL+"/nothing.gguf")); a.status != http.StatusBadGateway {
		t.Errorf("nothing: %d %s", a.status, a.body)
	}
	if a := s.ask(http.MethodDelete, "/api/delete", fmt.Sprintf(`{"model":%q}`, src)); a.status != http.StatusOK {
		t.Errorf("delete: %d %s", a.status, a.body)
	}
	if _, ok := s.card(src); ok {
		t.Error("it is still there")
	}
}
