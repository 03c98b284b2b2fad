package enginetest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// PidHeader is a header of every answer: the pid of the engine.
const PidHeader = "X-Engine-Pid"

// Echo is the body of every answer to an API POST under --echo.
type Echo struct {
	Pid      int         `json:"pid"`
	Method   string      `json:"method"`
	Path     string      `json:"path"` // with the query
	Host     string      `json:"host"`
	Proto    string      `json:"proto"`
	Header   http.Header `json:"header"`
	Length   int64       `json:"length"`    // Content-Length; -1 = chunked
	BodySize int         `json:"body_size"` // bytes read
	Body     string      `json:"body"`      // the first KiB
}

// server answers HTTP as llama-server does.
type server struct {
	o        Options
	events   *eventLog
	mux      *http.ServeMux
	pid      string
	ready    chan struct{} // closed when the start delay is over
	slots    chan struct{} // nil = unlimited
	kv       *kv           // nil without --slot-save-path
	requests atomic.Int64
	busy     atomic.Int64
	waiting  atomic.Int64
	tokens   atomic.Int64
	bodies   sync.Pool
}

func newServer(o Options, events *eventLog) *server {
	s := &server{o: o, events: events, mux: http.NewServeMux(), pid: strconv.Itoa(os.Getpid()), ready: make(chan struct{})}
	s.bodies.New = func() any { return new(bytes.Buffer) }
	if o.Slots > 0 {
		s.slots = make(chan struct{}, o.Slots)
	}
	if o.SlotDir != "" {
		s.kv = newKV(o)
		s.mux.HandleFunc("POST /slots/{id}", s.kv.act)
	}
	s.mux.HandleFunc("POST /apply-template", applyTemplate)
	s.mux.HandleFunc("POST /tokenize", tokenize)
	for _, p := range []string{"/health", "/v1/health"} {
		s.mux.HandleFunc("GET "+p, s.health)
	}
	for _, p := range []string{"/models", "/v1/models"} {
		s.mux.HandleFunc("GET "+p, s.models)
	}
	s.mux.HandleFunc("GET /props", s.props)
	s.mux.HandleFunc("GET /slots", s.listSlots)
	s.mux.HandleFunc("GET /metrics", s.metrics)
	for _, p := range []string{"/chat/completions", "/completions", "/embeddings", "/audio/speech"} {
		s.mux.HandleFunc("POST /v1"+p, s.post)
		s.mux.HandleFunc("POST "+p, s.post)
	}
	if s.o.Echo {
		for _, p := range []string{
			"/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/generations", "/v1/moderations", "/v1/rerank", "/rerank", "/detokenize",
		} {
			s.mux.HandleFunc("POST "+p, s.post)
		}
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "not_found_error", "File Not Found")
	})
	return s
}

func (s *server) setReady() { close(s.ready) }

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", "llama.cpp")
	w.Header().Set(PidHeader, s.pid)
	select {
	case <-s.ready:
	default:
		if s.o.Ready == "503" {
			refuse(w, http.StatusServiceUnavailable, "unavailable_error", "Loading model")
			return
		}
		select {
		case <-s.ready:
		case <-r.Context().Done():
			return
		}
	}
	s.mux.ServeHTTP(w, r)
}

func (s *server) health(w http.ResponseWriter, _ *http.Request) {
	send(w, map[string]string{"status": "ok"})
}

func (s *server) models(w http.ResponseWriter, _ *http.Request) {
	send(w, map[string]any{"object": "list", "data": []any{map[string]any{
		"id": s.o.Alias, "object": "model", "created": time.Now().Unix(), "owned_by": "llamacpp",
		"meta": map[string]any{"n_ctx": s.o.Ctx, "n_ctx_train": s.o.Ctx, "n_embd": Dimensions},
	}}})
}

func (s *server) props(w http.ResponseWriter, _ *http.Request) {
	send(w, map[string]any{
		"default_generation_settings": map[string]any{"n_ctx": s.o.Ctx},
		"total_slots":                 max(1, s.o.Slots),
		"model_alias":                 s.o.Alias,
		"model_path":                  s.o.Model,
		"chat_template":               "",
		"build_info":                  "b11669-fake",
	})
}

func (s *server) listSlots(w http.ResponseWriter, r *http.Request) {
	busy, total := int(s.busy.Load()), max(1, s.o.Slots)
	if r.URL.Query().Has("fail_on_no_slot") && busy >= total {
		refuse(w, http.StatusServiceUnavailable, "unavailable_error", "no slot available")
		return
	}
	if s.kv != nil {
		send(w, s.kv.list(s.o.Ctx/total))
		return
	}
	list := make([]any, total)
	for i := range list {
		list[i] = map[string]any{"id": i, "n_ctx": s.o.Ctx / total, "is_processing": i < busy}
	}
	send(w, list)
}

func (s *server) metrics(w http.ResponseWriter, _ *http.Request) {
	if !s.o.Metrics {
		refuse(w, http.StatusNotImplemented, "not_supported_error", "This server does not support metrics endpoint. Start it with `--metrics`")
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	fmt.Fprintf(w, "# TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing %d\n"+
		"# TYPE llamacpp:requests_deferred gauge\nllamacpp:requests_deferred %d\n"+
		"# TYPE llamacpp:tokens_predicted_total counter\nllamacpp:tokens_predicted_total %d\n",
		s.busy.Load(), s.waiting.Load(), s.tokens.Load())
}

// post serves the endpoints that take a slot.
func (s *server) post(w http.ResponseWriter, r *http.Request) {
	id := s.requests.Add(1)
	arrived := time.Now().UnixNano()
	body, _ := s.bodies.Get().(*bytes.Buffer) // nothing else is in the pool
	defer s.bodies.Put(body)
	body.Reset()
	_, err := body.ReadFrom(r.Body)
	req, bad := readRequest(body.Bytes())
	s.events.add(Event{Name: EventBegin, Time: arrived, Request: id, Path: r.URL.Path, Model: req.Model})
	if s.o.DieOnRequest {
		die()
	}
	done := Event{Name: EventEnd, Request: id, Path: r.URL.Path, Model: req.Model}
	switch {
	case err != nil:
		done.Name = EventCancel
	case s.o.Echo:
		s.echo(w, r, body.Bytes())
	case bad != nil:
		refuse(w, http.StatusBadRequest, "invalid_request_error", bad.Error())
	default:
		ctx := r.Context()
		if s.o.NoCancel && !req.Stream {
			ctx = context.WithoutCancel(ctx)
		}
		delay := tailed(s.o.AnswerDelay, s.o.AnswerTail, body.Bytes())
		if done.Tokens, err = s.answer(ctx, w, r.URL.Path, req, id, body.Bytes(), delay); err != nil {
			done.Name = EventCancel
		}
	}
	s.events.add(done)
}

// answer takes a slot and, after a delay, generates. It returns the tokens generated, and an
// error if the client left before the end.
func (s *server) answer(ctx context.Context, w http.ResponseWriter, path string, req request, id int64, body []byte, delay time.Duration) (tokens int, err error) {
	if err := s.take(ctx); err != nil {
		return 0, err
	}
	defer s.give()
	if err := pause(ctx, delay); err != nil {
		return 0, err
	}
	model := req.Model
	if model == "" {
		model = s.o.Alias
	}
	if path == "/v1/embeddings" || path == "/embeddings" {
		s.embed(w, req, model)
		return 0, nil
	}
	a := newAnswer(path == "/v1/chat/completions" || path == "/chat/completions", req, model, id, len(body), s.o.Tokens)
	if s.kv != nil {
		slot := s.kv.begin(promptOf(path, body), &a)
		defer func() { s.kv.end(slot, tokens) }()
		if err := pause(ctx, time.Duration(a.prompt-a.cached)*s.o.PromptDelay); err != nil {
			return 0, err
		}
	}
	if req.Stream {
		return s.stream(ctx, w, &a, req.StreamOptions.IncludeUsage)
	}
	for ; tokens < a.tokens; tokens++ {
		if err := pause(ctx, s.o.TokenDelay); err != nil {
			return tokens, err
		}
		s.tokens.Add(1)
	}
	write(w, http.StatusOK, a.plain())
	return tokens, nil
}

// stream sends each token in a write of its own.
func (s *server) stream(ctx context.Context, w http.ResponseWriter, a *answer, usage bool) (tokens int, err error) {
	w.Header().Set("Content-Type", "text/event-stream")
	rc := http.NewResponseController(w)
	buf := make([]byte, 0, 512)
	send := func(b []byte) error {
		if _, err := w.Write(b); err != nil {
			return err
		}
		return rc.Flush()
	}
	if a.chat {
		if err := send(a.role(buf)); err != nil {
			return 0, err
		}
	}
	for tokens < a.tokens {
		if err := pause(ctx, s.o.TokenDelay); err != nil {
			return tokens, err
		}
		if err := send(a.token(buf, tokens+1)); err != nil {
			return tokens, err
		}
		tokens++
		s.tokens.Add(1)
		if tokens == s.o.DieAfterTokens {
			die()
		}
	}
	return tokens, send(a.last(buf, usage))
}

func (s *server) embed(w http.ResponseWriter, req request, model string) {
	if !s.o.Embeddings {
		refuse(w, http.StatusNotImplemented, "not_supported_error", "This server does not support embeddings. Start it with `--embeddings`")
		return
	}
	list, err := embeddings(req, model)
	if err != nil {
		refuse(w, http.StatusBadRequest, "invalid_request_error", err.Error())
		return
	}
	send(w, list)
}

func (s *server) echo(w http.ResponseWriter, r *http.Request, body []byte) {
	send(w, Echo{
		Pid: os.Getpid(), Method: r.Method, Path: r.URL.RequestURI(), Host: r.Host, Proto: r.Proto, Header: r.Header,
		Length: r.ContentLength, BodySize: len(body), Body: string(body[:min(len(body), 1<<10)]),
	})
}

// take waits for a slot.
func (s *server) take(ctx context.Context) error {
	if s.slots != nil {
		s.waiting.Add(1)
		defer s.waiting.Add(-1)
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.busy.Add(1)
	return nil
}

func (s *server) give() {
	s.busy.Add(-1)
	if s.slots != nil {
		<-s.slots
	}
}

// pause waits for d and fails at once if the client has left.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func send(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "server_error", err.Error())
		return
	}
	write(w, http.StatusOK, b)
}

// refuse answers with llama-server's error object.
func refuse(w http.ResponseWriter, status int, kind, message string) {
	write(w, status, fmt.Appendf(nil, `{"error":{"message":%s,"type":"%s","code":%d}}`, quote(message), kind, status))
}

func write(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that left is noticed by its context
}
