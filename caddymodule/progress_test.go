package caddymodule

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// Clients that ask are told what they wait for.
func TestProgressIsTold(t *testing.T) {
	s := newSite(t)
	s.model("m", "", "--start-delay", "1500ms")
	s.start()
	ask := func(path, body, how string) answered {
		t.Helper()
		a := s.ask(http.MethodPost, path, body, "X-Assistant-Progress", how)
		s.ask(http.MethodPost, "/models/unload", `{"model":"m"}`)
		s.eventually("it is unloaded", func() bool { return s.status("m") == "unloaded" })
		return a
	}
	chat := strings.Replace(question("m"), "{", `{"stream":true,`, 1)
	if a := ask(chatPath, chat, "comments"); !regexp.MustCompile(`^: m is loading: \ds\n`).MatchString(a.body) || !strings.HasSuffix(a.body, "data: [DONE]\n\n") {
		t.Errorf("comments:\n%s", a.body)
	}
	a := ask(chatPath, chat, "reasoning")
	first, _, _ := strings.Cut(a.body, "\n\n")
	if !regexp.MustCompile(`"reasoning_content":"m is loading: \ds of about \ds\\n"`).MatchString(first) || strings.Count(a.body, "[DONE]") != 1 {
		t.Errorf("reasoning:\n%s", a.body)
	}
	if a := ask(messagesPath, strings.Replace(message, "{", `{"stream":true,`, 1), "reasoning"); !strings.Contains(a.body, `"thinking":"m is loading`) {
		t.Errorf("thinking:\n%s", a.body)
	}
	if a := ask("/v1/completions", `{"model":"m","prompt":"Hi","max_tokens":2,"stream":true}`, "reasoning"); !strings.HasPrefix(a.body, ": m is loading") {
		t.Errorf("a text completion:\n%s", a.body)
	}
	if a := ask(chatPath, question("m"), "reasoning"); a.header.Get("Content-Type") == "text/event-stream" {
		t.Errorf("a plain answer:\n%s", a.body)
	}
}

// A key's holder is told without asking.
func TestProgressOfAKey(t *testing.T) {
	s, alice, _, _ := keyed(t, `progress = "comments"`)
	s.model("m-slow", "", "--start-delay", "1500ms")
	s.get("/models?reload=1")
	s.eventually("the model is there", func() bool { return resolves(t, "m-slow") })
	chat := strings.Replace(question("m-slow"), "{", `{"stream":true,`, 1)
	if a := s.ask(http.MethodPost, chatPath, chat, "Authorization", "Bearer "+alice); !strings.HasPrefix(a.body, ": m-slow is loading") {
		t.Errorf("status %d: %s", a.status, a.body)
	}
}

// A client that does not want a model to be loaded is told when it is not.
func TestAutoloadIsOff(t *testing.T) {
	s := newSite(t)
	s.model("m", "")
	s.start()
	a := s.ask(http.MethodPost, chatPath+"?autoload=false", question("m"))
	if e := a.apiError(t); a.status != http.StatusBadRequest || text(e.Code) != "model_not_loaded" || len(s.started()) > 0 {
		t.Errorf("cold: status %d: %s", a.status, a.body)
	}
	s.chat("m")
	if a := s.ask(http.MethodPost, chatPath+"?autoload=false", question("m")); a.status != http.StatusOK {
		t.Errorf("warm: status %d: %s", a.status, a.body)
	}
}
