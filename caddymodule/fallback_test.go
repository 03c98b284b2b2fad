package caddymodule

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"assistant/internal/enginetest"
)

// dying are flags of an engine whose start fails.
var dying = []string{"--hang", "--exit-code", "3", "--stderr", "boom: no memory"}

// Whichever fallback answers has the request as the client sent it, and none of what the files of those before make of it.
func TestFallbacksGetTheClientsRequest(t *testing.T) {
	overTransports(t, func(t *testing.T, s *site) {
		s.model("dies", `
			fallbacks = ["nobody", "vectors", "dies too", "refuses", "echo", "plain"]
			system_prompt = "First."
			forced = { seed = 1 }`, dying...)
		s.model("dies too", "system_prompt = \"Second.\"\nforced = { top_p = 1 }", dying...)
		s.file("vectors", "kind = \"embedding\"\nengine = \"llama-server\"\nmodel_path = \"/m.gguf\"\n") // which has no chats
		s.edgeModel("refuses", "")                                                                       // n
		s.model("echo", "system_prompt = \"Third.\"\nfallbacks = [\"dies\"]\ndefaults = { top_k = 3 }", "--echo")
		s.model("plain", "")
		s.start()
		a := s.ask(http.MethodPost, chatPath, `{"model":"dies","n":2,"messages":[{"role":"user","content":"Hi"}]}`)
		want := `{"top_k":3,"model":"dies","n":2,"messages":[{"role":"system","content":"Third."},{"role":"user","content":"Hi"}]}`
		if got := a.echo(t).Body; got != want {
			t.Errorf("the engine got %s, want %s", got, want)
		}
		if a.header.Get(modelHeader) != "echo" || a.header.Get(fallbackHeader) != "engine_failed" {
			t.Errorf("answered by %q, because of %q", a.header.Get(modelHeader), a.header.Get(fallbackHeader))
		}
		if a := s.ask(http.MethodPost, chatPath, question("plain")); a.header.Get(modelHeader) != "plain" || len(a.header.Values(fallbackHeader)) != 0 {
			t.Errorf("an answer of the model itself: %v", a.header)
		}
		if n := codesOf(t, "echo", 200); n != 1 {
			t.Errorf("%d requests counted for the fallback, want 1", n)
		}
	})
}

// codesOf is how many requests of a model ended with a status.
func codesOf(t *testing.T, model string, status int) (n int) {
	t.Helper()
	var out strings.Builder
	current(t).writeMetrics(&out)
	_, rest, _ := strings.Cut(out.String(), fmt.Sprintf("assistant_requests_total{model=%q,code=\"%d\"} ", model, status))
	_, _ = fmt.Sscan(rest, &n)
	return n
}

// Who asked a model is told of that one, whatever its fallbacks died of.
func TestNoFallbackCanBeHad(t *testing.T) {
	s := newSite(t)
	s.model("first", `fallbacks = ["second"]`, "--hang", "--exit-code", "3", "--stderr", "boom one")
	s.model("second", "", "--hang", "--exit-code", "3", "--stderr", "boom two")
	s.start()
	a := s.ask(http.MethodPost, chatPath, question("first"))
	if e := a.apiError(t); a.status != http.StatusBadGateway || !strings.Contains(e.Message, `"first"`) || !strings.Contains(e.Message, "boom one") {
		t.Errorf("status %d: %s", a.status, a.body)
	}
	if len(a.header.Values(modelHeader))+len(a.header.Values(fallbackHeader)) != 0 {
		t.Errorf("nobody answered: %v", a.header)
	}
	if n := codesOf(t, "first", 502); n != 1 {
		t.Errorf("%d requests counted for the model, want 1", n)
	}
}

func TestFallbackOfAFullModel(t *testing.T) {
	s := newSite(t)
	s.app["max_wait"] = "50ms"
	s.model("busy", "concurrency = 1\nfallbacks = [\"other\"]", "--tokens", "100000", "--token-delay", "10ms")
	s.model("other", "", "--tokens", "3")
	s.start()
	s.stream("busy")
	a := s.ask(http.MethodPost, chatPath, question("busy"))
	if a.status != http.StatusOK || a.header.Get(modelHeader) != "other" || a.header.Get(fallbackHeader) != "model_loading" {
		t.Errorf("status %d, %v: %s", a.status, a.header, a.body)
	}
}

// A client that is told that it waits gets its stream of whoever answers.
func TestFallbackAfterKeepAlive(t *testing.T) {
	s := newSite(t)
	s.handler["keep_alive"] = "10ms"
	s.model("dies", `fallbacks = ["other"]`, "--hang", "--exit-code", "3", "--exit-after", "200ms")
	s.model("other", "", "--tokens", "3")
	s.start()
	a := s.ask(http.MethodPost, chatPath, `{"model":"dies","stream":true,"messages":[{"role":"user","content":"Hi"}]}`)
	if a.status != http.StatusOK || !strings.HasPrefix(a.body, ": waiting") || !strings.HasSuffix(a.body, "data: [DONE]\n\n") {
		t.Errorf("status %d: %s", a.status, a.body)
	}
}

// A response in the background keeps the request for the fallback: the one that began it ends before.
func TestFallbackInTheBackground(t *testing.T) {
	s := newSite(t)
	s.model("dies", "fallbacks = [\"other\"]\ndefaults = { seed = 1 }", "--hang", "--exit-code", "3", "--exit-after", "300ms")
	s.model("other", "", "--tokens", "3")
	s.start()
	a := s.ask(http.MethodPost, responsesPath, `{"model":"dies","input":"Hi","background":true}`)
	if a.status != http.StatusOK {
		t.Fatalf("status %d: %s", a.status, a.body)
	}
	for i := range 50 { // whose bodies would take the memory that was given back too soon
		_, _ = do(context.WithoutCancel(t.Context()), http.MethodPost, s.url+chatPath, fmt.Sprintf(`{"model":"nobody%d","x":%q}`, i, strings.Repeat("y", 200)))
	}
	s.eventually("the response is there", func() bool { return len(s.happened(enginetest.EventEnd)) == 1 })
}
