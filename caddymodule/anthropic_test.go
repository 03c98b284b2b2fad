package caddymodule

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

const (
	messagesPath = "/v1/messages"
	message      = `{"model":"m","max_tokens":3,"messages":[{"role":"user","content":"Hi"}]}`
)

// events are the names of a stream's events, in order; repeated ones once.
func events(stream string) (names []string) {
	for line := range strings.Lines(stream) {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "event: ")
		if ok && (len(names) == 0 || names[len(names)-1] != name) {
			names = append(names, name)
		}
	}
	return names
}

func TestMessages(t *testing.T) {
	overTransports(t, func(t *testing.T, s *site) {
		s.model("m", "")
		s.start()
		a := s.ask(http.MethodPost, messagesPath, message, "x-api-key", "any")
		if a.status != http.StatusOK || !strings.Contains(a.body, `"text":" 1 2 3"`) || !strings.Contains(a.body, `"stop_reason":"max_tokens"`) {
			t.Errorf("status %d: %s", a.status, a.body)
		}
		if id := a.header.Get("Request-Id"); id == "" || id != a.header.Get("X-Request-Id") {
			t.Errorf("Request-Id %q, X-Request-Id %q", id, a.header.Get("X-Request-Id"))
		}
		a = s.ask(http.MethodPost, messagesPath, strings.Replace(message, "{", `{"stream":true,`, 1))
		want := "message_start ping content_block_start content_block_delta content_block_stop message_delta message_stop"
		if got := strings.Join(events(a.body), " "); got != want || a.header.Get("Content-Type") != "text/event-stream" {
			t.Errorf("events %s, want %s:\n%s", got, want, a.body)
		}
		a = s.ask(http.MethodPost, messagesPath+"/count_tokens", `{"model":"m","messages":[{"role":"user","content":"Hi"}]}`)
		var counted struct {
			Tokens int `json:"input_tokens"`
		}
		if err := json.Unmarshal([]byte(a.body), &counted); err != nil || counted.Tokens == 0 {
			t.Errorf("count_tokens: status %d, %v: %s", a.status, err, a.body)
		}
	})
}

func TestMessagesAreRefusedInTheirOwnForm(t *testing.T) {
	s := newSite(t)
	s.model("m", "")
	s.start()
	for body, want := range map[string]string{
		`{"model":"none","max_tokens":3,"messages":[{"role":"user","content":"Hi"}]}`: "404 not_found_error",
		`{"model":"m","messages":[{"role":"user","content":"Hi"}]}`:                   "400 invalid_request_error",
		`{`: "400 invalid_request_error",
	} {
		a := s.ask(http.MethodPost, messagesPath, body)
		var told struct {
			Type  string
			Error struct{ Type, Message string }
		}
		err := json.Unmarshal([]byte(a.body), &told)
		if got := strings.Join([]string{http.StatusText(a.status), told.Type}, " "); err != nil || told.Error.Message == "" ||
			!strings.HasSuffix(want, told.Error.Type) || told.Type != "error" {
			t.Errorf("%s: %s %v: %s, want %s", body, got, err, a.body, want)
		}
	}
	if a := s.get(messagesPath); a.status != http.StatusMethodNotAllowed || !strings.Contains(a.body, `"type":"error"`) {
		t.Errorf("GET: status %d: %s", a.status, a.body)
	}
}

func TestMessagesWaitWithPings(t *testing.T) {
	s := newSite(t)
	s.handler["keep_alive"] = "20ms"
	s.model("m", "", "--start-delay", "300ms")
	s.start()
	a := s.ask(http.MethodPost, messagesPath, strings.Replace(message, "{", `{"stream":true,`, 1))
	if got := events(a.body); len(got) < 3 || got[0] != "ping" || got[1] != "message_start" || got[len(got)-1] != "message_stop" {
		t.Errorf("events %v:\n%s", got, a.body)
	}
}

func TestMessagesTellOfAnEngineThatDies(t *testing.T) {
	overTransports(t, func(t *testing.T, s *site) {
		s.model("m", "cancel_by_stream = true", "--die-after-tokens", "2")
		s.start()
		a := s.ask(http.MethodPost, messagesPath, strings.Replace(message, "{", `{"stream":true,`, 1))
		if got := events(a.body); len(got) == 0 || got[len(got)-1] != "error" || !strings.Contains(a.body, "api_error") {
			t.Errorf("events %v:\n%s", got, a.body)
		}
		if a = s.ask(http.MethodPost, messagesPath, message); a.status < 500 || !strings.Contains(a.body, `"type":"error"`) {
			t.Errorf("status %d: %s", a.status, a.body)
		}
	})
}
