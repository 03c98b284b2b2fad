package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/google/go-cmp/cmp"

	"assistant/internal/enginetest"
)

// overTransports runs a test with each way of moving bytes.
func overTransports(t *testing.T, test func(t *testing.T, s *site)) {
	t.Helper()
	for _, transport := range []string{transportLean, transportStd} {
		t.Run(transport, func(t *testing.T) {
			s := newSite(t)
			s.handler["transport"] = transport
			test(t, s)
		})
	}
}

func TestFirstRequestStartsTheEngine(t *testing.T) {
	overTransports(t, func(t *testing.T, s *site) {
		s.model("m", "", "--start-delay", "100ms")
		s.start()
		if n := len(s.started()); n != 0 {
			t.Fatalf("%d engines before the first request", n)
		}
		cold := s.ask(http.MethodPost, chatPath, question("m"))
		if cold.status != http.StatusOK || !strings.Contains(cold.body, `"content":" 1 2 3"`) {
			t.Fatalf("status %d: %s", cold.status, cold.body)
		}
		if timing := cold.header.Get("Server-Timing"); !strings.Contains(timing, "ready;dur=") {
			t.Errorf("Server-Timing of a cold start is %q", timing)
		}
		warm := s.ask(http.MethodPost, chatPath, question("m"))
		if warm.status != http.StatusOK || warm.pid() != cold.pid() {
			t.Errorf("second request: status %d, pid %d, want 200 of %d", warm.status, warm.pid(), cold.pid())
		}
		if timing := warm.header.Get("Server-Timing"); timing != "" {
			t.Errorf("Server-Timing of a warm request is %q, want none", timing)
		}
		s.stream("m").completes()
		completion := s.ask(http.MethodPost, "/v1/completions", `{"model":"m","prompt":"Hi","max_tokens":2}`)
		if completion.status != http.StatusOK || !strings.Contains(completion.body, "text_completion") {
			t.Errorf("completion: status %d: %s", completion.status, completion.body)
		}
		if n := len(s.started()); n != 1 {
			t.Errorf("%d engines were started, want 1", n)
		}
	})
}

func Test200FirstRequestsStartOneEngine(t *testing.T) {
	overTransports(t, func(t *testing.T, s *site) {
		s.model("m", "", "--start-delay", "300ms")
		s.start()
		var ok sync.Map
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() {
				a, err := do(t.Context(), http.MethodPost, s.url+chatPath, question("m"))
				if err != nil || a.status != http.StatusOK || a.err != nil {
					t.Errorf("request %d: %v, status %d: %s", i, err, a.status, a.body)
				}
				ok.Store(a.pid(), true)
			})
		}
		all.Wait()
		if n := len(s.started()); n != 1 {
			t.Errorf("%d engines were started, want 1", n)
		}
		if n := len(s.happened(enginetest.EventEnd)); n != 200 {
			t.Errorf("the engine answered %d requests, want 200", n)
		}
	})
}

func TestEmbeddings(t *testing.T) {
	overTransports(t, func(t *testing.T, s *site) {
		s.model("e", `kind = "embedding"`, "--embeddings")
		s.start()
		a := s.ask(http.MethodPost, "/v1/embeddings", `{"model":"e","input":["one","two"]}`)
		var list struct {
			Data []struct {
				Embedding []float32 `json:"embedding"`
			} `json:"data"`
		}
		if err := json.Unmarshal([]byte(a.body), &list); err != nil || a.status != http.StatusOK {
			t.Fatalf("status %d, %v: %.200s", a.status, err, a.body)
		}
		if len(list.Data) != 2 || len(list.Data[0].Embedding) != enginetest.Dimensions {
			t.Errorf("%d embeddings, want 2 of %d dimensions", len(list.Data), enginetest.Dimensions)
		}
	})
}

func TestRequestsThatCannotBeServed(t *testing.T) {
	s := newSite(t)
	s.app["max_body"] = 1000
	s.model("m", "")
	s.start()
	long := `{"model":"m","messages":[{"content":"` + strings.Repeat("x", 2000) + `"}]}`
	for name, c := range map[string]struct {
		method, path, body, contentType string
		status                          int
		code, param                     string
	}{
		"unknown model":   {"POST", chatPath, question("nobody"), "", 404, "model_not_found", "model"},
		"no model":        {"POST", chatPath, `{"messages":[]}`, "", 400, "", "model"},
		"two models":      {"POST", chatPath, `{"model":"m","model":"n"}`, "", 400, "", "model"},
		"two, escaped":    {"POST", chatPath, `{"model":"m","mo\u0064el":"n"}`, "", 400, "", "model"},
		"number as model": {"POST", chatPath, `{"model":1}`, "", 400, "", "model"},
		"bad JSON":        {"POST", chatPath, `{"model":`, "", 400, "", ""},
		"no object":       {"POST", chatPath, `[]`, "", 400, "", ""},
		"empty body":      {"POST", chatPath, "", "application/json", 400, "", ""},
		"multipart":       {"POST", chatPath, "--x--", "multipart/form-data; boundary=x", 415, "unsupported_media_type", ""},
		"too long":        {"POST", chatPath, long, "", 413, "request_too_large", ""},
		"GET":             {"GET", chatPath, "", "", 405, "method_not_allowed", ""},
		"DELETE models":   {"DELETE", "/v1/models", "", "", 405, "method_not_allowed", ""},
		"unknown card":    {"GET", "/v1/models/nobody", "", "", 404, "model_not_found", "model"},
	} {
		t.Run(name, func(t *testing.T) {
			var header []string
			if c.contentType != "" {
				header = []string{"Content-Type", c.contentType}
			}
			a := s.ask(c.method, c.path, c.body, header...)
			e := a.apiError(t)
			if a.status != c.status || text(e.Code) != c.code || text(e.Param) != c.param {
				t.Errorf("status %d, code %q, param %q; want %d, %q, %q: %s", a.status, text(e.Code), text(e.Param), c.status, c.code, c.param, e.Message)
			}
			if e.Message == "" || e.Type == "" || !strings.HasPrefix(a.header.Get("Content-Type"), "application/json") {
				t.Errorf("message %q, type %q, Content-Type %q", e.Message, e.Type, a.header.Get("Content-Type"))
			}
			if c.status == http.StatusMethodNotAllowed && a.header.Get("Allow") == "" {
				t.Error("405 without Allow")
			}
		})
	}
	t.Run("too long, in chunks", func(t *testing.T) {
		a := s.dispatch(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n",
			chatPath, len(long), long))
		if a.status != http.StatusRequestEntityTooLarge {
			t.Errorf("status %d, want 413: %s", a.status, a.body)
		}
	})
	if n := len(s.started()); n != 0 {
		t.Errorf("%d engines were started for nothing", n)
	}
}

// Java's HttpClient offers h2c with every request; curl sends a form's content type with -d.
func TestOddClientsAreServed(t *testing.T) {
	overTransports(t, func(t *testing.T, s *site) {
		s.model("m", "")
		s.start()
		body := question("m")
		a := s.dispatch("POST " + chatPath + " HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n" +
			"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n" +
			fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
		if a.status != http.StatusOK || a.err != nil {
			t.Errorf("h2c offered: status %d, %v: %s", a.status, a.err, a.body)
		}
		a = s.dispatch("POST " + chatPath + " HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" +
			fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body))
		if a.status != http.StatusOK || a.err != nil {
			t.Errorf("chunked, no content type: status %d, %v: %s", a.status, a.err, a.body)
		}
		a = s.ask(http.MethodPost, chatPath, body, "Content-Type", "application/x-www-form-urlencoded")
		if a.status != http.StatusOK {
			t.Errorf("as a form: status %d: %s", a.status, a.body)
		}
	})
}

// What the engine gets is the client's body, less what was meant for us.
func TestEngineSeesTheRequest(t *testing.T) {
	overTransports(t, func(t *testing.T, s *site) {
		s.model("m", "", "--echo")
		s.start()
		a := s.ask(http.MethodPost, chatPath+"?x=1", question("m"), "Authorization", "Bearer secret", "X-Mine", "yes")
		var got enginetest.Echo
		if err := json.Unmarshal([]byte(a.body), &got); err != nil {
			t.Fatalf("%v: %s", err, a.body)
		}
		if got.Body != question("m") || got.Path != chatPath+"?x=1" || got.Header.Get("X-Mine") != "yes" {
			t.Errorf("the engine got %+v", got)
		}
		if key := got.Header.Get("Authorization"); key != "" {
			t.Errorf("the engine got the client's key: %q", key)
		}
	})
}

func TestAliasesAndDefault(t *testing.T) {
	s := newSite(t)
	s.model("m", `aliases = ["default", "gpt-4o"]`)
	s.start()
	pid := s.chat("m")
	if got := s.chat("gpt-4o"); got != pid {
		t.Errorf("alias answered by %d, want %d", got, pid)
	}
	a := s.ask(http.MethodPost, chatPath, `{"messages":[],"max_tokens":1}`)
	if a.status != http.StatusOK || a.pid() != pid {
		t.Errorf("no model named: status %d of %d, want 200 of %d: %s", a.status, a.pid(), pid, a.body)
	}
	if got := len(s.list()); got != 1 {
		t.Errorf("%d cards, want 1: aliases are no models of their own", got)
	}
}

func TestRequestID(t *testing.T) {
	s := newSite(t)
	s.model("m", "")
	s.start()
	for name, c := range map[string]struct {
		given string
		kept  bool
	}{
		"the client's own": {"abc-123", true},
		"none":             {"", false},
		"too long":         {strings.Repeat("x", 129), false},
		"spaces":           {"a b", false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{"/v1/models", chatPath} { // an answer and an error
				a := s.ask(http.MethodGet, path, "", "X-Request-Id", c.given)
				got := a.header.Get("X-Request-Id")
				if kept := got == c.given; got == "" || kept != c.kept {
					t.Errorf("GET %s: id %q was answered by %q", path, c.given, got)
				}
			}
		})
	}
	a := s.ask(http.MethodPost, chatPath, question("m"), "X-Request-Id", "mine")
	if got := a.header.Values("X-Request-Id"); !cmp.Equal(got, []string{"mine"}) {
		t.Errorf("ids of an engine's answer: %q", got)
	}
}

// What an engine is, who may read our answers and how a request is called is not for it to say, whichever way its answer takes: as it is,
// put together, repaired, or after a first sign of life.
func TestHeadersAnEngineMustNotSet(t *testing.T) {
	overTransports(t, func(t *testing.T, s *site) {
		s.oddModel("plain", "headers", "")
		s.oddModel("joined", "headers", "cancel_by_stream = true")
		s.oddModel("repaired", "headers", `dialect = "llama-api-server"`)
		s.oddModel("early", "headers", "")
		s.handler["keep_alive"] = "1ms" // no process starts as fast
		s.start()
		for _, model := range []string{"plain", "joined", "repaired", "early"} {
			for _, stream := range []string{"false", "true"} {
				if model == "early" && stream == "false" {
					continue
				}
				body := fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"Hi"}],"stream":%s}`, model, stream)
				a := s.ask(http.MethodPost, chatPath, body, requestIDHeader, "mine", "Origin", "http://localhost:3000")
				if a.status != http.StatusOK || !strings.Contains(a.body, `"content":"a"`) {
					t.Errorf("%s, stream %s: %d %s", model, stream, a.status, a.body)
				}
				if model == "early" && !strings.HasPrefix(a.body, ": waiting") {
					t.Errorf("it was not early: %s", a.body)
				}
				for name, value := range engineHeaders {
					if got := a.header.Values(name); slices.Contains(got, value) || len(got) > 1 {
						t.Errorf("%s, stream %s: %s %q", model, stream, name, got)
					}
				}
				for name, want := range map[string]string{requestIDHeader: "mine", "Access-Control-Allow-Origin": "http://localhost:3000", "Server": "Caddy"} {
					if got := a.header.Get(name); got != want {
						t.Errorf("%s, stream %s: %s %q, want %q", model, stream, name, got, want)
					}
				}
				if vary := strings.Join(a.header.Values("Vary"), ","); !strings.Contains(vary, "Origin") {
					t.Errorf("%s, stream %s: Vary %q", model, stream, vary)
				}
			}
		}
	})
}

func TestOtherPaths(t *testing.T) {
	s := newSite(t)
	s.handler["metrics"] = "/numbers"
	s.model("m", "")
	s.start()
	for path, want := range map[string]struct {
		status int
		body   string
	}{
		"/":                     {299, "the next handler"},
		"/v1":                   {299, "the next handler"},
		"/v1/chat/completions/": {299, "the next handler"},
		"/v1/modelsx":           {299, "the next handler"},
		"/metrics":              {299, "the next handler"},
		"/health":               {200, `{"status":"ok"}`},
		"/readyz":               {200, `{"status":"ready"}`},
		"/numbers":              {200, "assistant_instances"},
		"/models":               {200, `"id":"m"`},
	} {
		if a := s.get(path); a.status != want.status || !strings.Contains(a.body, want.body) {
			t.Errorf("GET %s: status %d, want %d with %q: %s", path, a.status, want.status, want.body, a.body)
		}
	}
	for _, path := range []string{"/v1/models", "/health", "/readyz", "/v1/models/m"} {
		if a := s.ask(http.MethodHead, path, ""); a.status != http.StatusOK || a.body != "" {
			t.Errorf("HEAD %s: status %d, body %q", path, a.status, a.body)
		}
	}
	if n := len(s.started()); n != 0 {
		t.Errorf("%d engines were started by looking", n)
	}
}

// Caddy says 200, with nothing, to what no handler answers.
func TestPathsThatNobodyServes(t *testing.T) {
	for name, c := range map[string]struct {
		path string
		next caddyhttp.HandlerFunc
		want int
		body string
	}{
		"nobody":    {"/v1/fim/completions", func(http.ResponseWriter, *http.Request) error { return nil }, 404, `"code":"unknown_url"`},
		"somebody":  {"/v1/fim/completions", func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(http.StatusNoContent); return nil }, 204, ""},
		"its error": {"/x", func(http.ResponseWriter, *http.Request) error { return caddyhttp.Error(418, nil) }, 418, ""},
		"the root":  {"/", func(http.ResponseWriter, *http.Request) error { return nil }, 200, ""},
	} {
		w := httptest.NewRecorder()
		err := new(Handler).ServeHTTP(w, httptest.NewRequest(http.MethodPost, c.path, http.NoBody), c.next)
		var failed caddyhttp.HandlerError
		if errors.As(err, &failed) {
			w.Code = failed.StatusCode
		}
		if w.Code != c.want || !strings.Contains(w.Body.String(), c.body) {
			t.Errorf("%s: status %d, want %d with %q: %s", name, w.Code, c.want, c.body, w.Body)
		}
	}
}

func TestModelCards(t *testing.T) {
	s := newSite(t)
	s.model("a", "name = \"org/model:q4 k\"\naliases = [\"alias/x\"]")
	s.model("b", `kind = "embedding"`)
	s.file("broken", `name = `)
	s.start()
	for _, path := range []string{"org/model:q4%20k", "org%2Fmodel%3Aq4%20k", "alias/x", "alias%2fx"} {
		a := s.get("/v1/models/" + path)
		var card modelCard
		if err := json.Unmarshal([]byte(a.body), &card); err != nil || card.ID != "org/model:q4 k" || card.Object != "model" {
			t.Errorf("GET /v1/models/%s: status %d, %v: %s", path, a.status, err, a.body)
		}
	}
	var ids []string
	for _, c := range s.list() {
		ids = append(ids, c.ID+" "+c.Status.Value)
	}
	if want := []string{"b unloaded", "org/model:q4 k unloaded", "broken failed"}; !cmp.Equal(ids, want) {
		t.Errorf("cards %q, want %q", ids, want)
	}
	if c, _ := s.card("broken"); !strings.Contains(c.Status.Error, "broken.toml:1:") {
		t.Errorf("a broken file's card says %q, not where", c.Status.Error)
	}
	s.chat("org/model:q4 k")
	if c, _ := s.card("org/model:q4 k"); c.Status.Value != "loaded" {
		t.Errorf("status %q of a model that runs, want loaded", c.Status.Value)
	}
}

func TestQueueFull(t *testing.T) {
	s := newSite(t)
	s.app["queue"] = 1
	s.model("m", "concurrency = 1", "--tokens", "100000", "--token-delay", "10ms")
	s.start()
	s.stream("m") // holds the only slot until the test ends
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := do(ctx, http.MethodPost, s.url+chatPath, question("m"))
		left <- err
	}()
	s.eventually("one request waits", func() bool { return current(t).act.Statuses()["m"].Queued == 1 })
	a := s.ask(http.MethodPost, chatPath, question("m"))
	if e := a.apiError(t); a.status != http.StatusTooManyRequests || text(e.Code) != "rate_limit_exceeded" || a.header.Get("Retry-After") == "" {
		t.Errorf("status %d, Retry-After %q, code %q; want 429", a.status, a.header.Get("Retry-After"), text(e.Code))
	}
	leave()
	if err := <-left; err == nil {
		t.Error("a request that was left was answered")
	}
	s.eventually("nobody waits", func() bool { return current(t).act.Statuses()["m"].Queued == 0 })
}

func TestMaxWait(t *testing.T) {
	s := newSite(t)
	s.app["max_wait"] = "50ms"
	s.model("m", "concurrency = 1", "--tokens", "100000", "--token-delay", "10ms")
	s.start()
	s.stream("m")
	a := s.ask(http.MethodPost, chatPath, question("m"))
	if e := a.apiError(t); a.status != http.StatusServiceUnavailable || text(e.Code) != "model_loading" || a.header.Get("Retry-After") == "" {
		t.Errorf("status %d, Retry-After %q, code %q; want 503", a.status, a.header.Get("Retry-After"), text(e.Code))
	}
}

func TestKeepAliveWhileWaiting(t *testing.T) {
	const comment = ": waiting for the model\n"
	overTransports(t, func(t *testing.T, s *site) {
		s.handler["keep_alive"] = "20ms"
		s.model("slow", "", "--start-delay", "300ms", "--tokens", "3")
		s.model("dies", "", "--hang", "--exit-code", "3", "--exit-after", "300ms", "--stderr", "boom: no memory")
		s.start()
		streamed := func(model string) answered {
			return s.ask(http.MethodPost, chatPath, fmt.Sprintf(`{"model":%q,"stream":true,"messages":[]}`, model))
		}
		body := streamed("slow").body
		events := strings.TrimLeft(body, ": waitngforhemdl\n") // less the comments
		if n := strings.Count(body, comment); n < 2 || !strings.HasPrefix(body, strings.Repeat(comment, n)+"data: {") {
			t.Errorf("the stream begins with %.120q; want comments of one newline each, then data", body)
		}
		if !strings.HasSuffix(events, "data: [DONE]\n\n") {
			t.Errorf("the stream ends with %q", events[max(0, len(events)-60):])
		}
		if body := streamed("slow").body; !strings.HasPrefix(body, "data: ") {
			t.Errorf("a warm stream begins with %.60q", body)
		}
		a := streamed("dies")
		_, event, _ := strings.Cut(a.body, "data: ")
		e := answered{body: event}.apiError(t)
		if a.status != http.StatusOK || text(e.Code) != "engine_failed" || !strings.Contains(e.Message, "boom: no memory") {
			t.Errorf("a failed start: status %d, code %q: %s", a.status, text(e.Code), e.Message)
		}
		if strings.Contains(a.body, "[DONE]") {
			t.Error("a failed start ends with [DONE]")
		}
		plain := s.ask(http.MethodPost, chatPath, question("slow"))
		if !strings.HasPrefix(plain.body, "{") {
			t.Errorf("a plain answer begins with %.60q", plain.body)
		}
	})
}

func TestRequestsBeforeTheConfigurationIsInForceWait(t *testing.T) {
	rt, err := newRuntime()
	if err != nil {
		t.Fatal(err)
	}
	h := &Handler{rt: rt.(*runtime)}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	r := &http.Request{URL: &url.URL{}, Body: io.NopCloser(strings.NewReader(""))}
	if err := h.waitReady(r.WithContext(ctx)); err == nil {
		t.Error("a request was let through before any configuration was in force")
	}
	close(h.rt.ready)
	if err := h.waitReady(r); err != nil {
		t.Errorf("after that: %v", err)
	}
}
