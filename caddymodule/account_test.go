package caddymodule

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"assistant/internal/keys"
)

// withAccessLog has the server write an access log, to the file of the others.
func (s *site) withAccessLog() {
	s.server = map[string]any{"logs": map[string]any{}}
}

// accessLine waits for the line of the access log with a request's id.
func (s *site) accessLine(id string) (line map[string]any) {
	s.tb.Helper()
	s.eventually("the access log has "+id, func() bool {
		f, err := os.Open(s.log())
		if err != nil {
			s.tb.Fatal(err)
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var l map[string]any
			if json.Unmarshal(lines.Bytes(), &l) == nil && l["logger"] == "http.log.access" && l["request_id"] == id {
				line = l
				return true
			}
		}
		return false
	})
	return line
}

// ours are the fields of a line that we set, those that are times told by "some".
func ours(line map[string]any) map[string]any {
	got := map[string]any{}
	for _, name := range []string{"model", "instance", "cold_start", "key", "prompt_tokens", "completion_tokens", "error"} {
		if v, ok := line[name]; ok {
			got[name] = v
		}
	}
	for _, name := range []string{"queue_ms", "ttft_ms"} {
		if v, ok := line[name].(float64); ok && v >= 0 {
			got[name] = "some"
		}
	}
	return got
}

func TestAccessLogTellsOfEveryWayOfAnAnswer(t *testing.T) {
	s := newSite(t)
	s.withAccessLog()
	s.handler["keep_alive"] = "20ms"
	s.model("m", "", "--tokens", "3")
	s.model("joined", "cancel_by_stream = true", "--tokens", "3")
	s.edgeModel("repaired", "", "--tokens", "3")
	s.model("slow", "", "--tokens", "3", "--start-delay", "200ms")
	s.model("dies", "", "--die-after-tokens", "3")
	s.model("broken", "", "--exit-code", "1")
	s.start()
	const usage = `"stream":true,"stream_options":{"include_usage":true},`
	asked := func(model, more string) string {
		return fmt.Sprintf(`{"model":%q,%s"messages":[{"role":"user","content":"Hi"}]}`, model, more)
	}
	answered := func(model string, cold bool) map[string]any {
		return map[string]any{
			"model": model, "instance": "any", "cold_start": cold, "queue_ms": "some", "ttft_ms": "some",
			"prompt_tokens": "any", "completion_tokens": "any",
		}
	}
	for _, c := range []struct {
		name, path, body string
		want             map[string]any
	}{
		{"a cold start", chatPath, asked("m", ""), answered("m", true)},
		{"direct", chatPath, asked("m", ""), answered("m", false)},
		{"a stream", chatPath, asked("m", usage), answered("m", false)},
		{"put together", chatPath, asked("joined", ""), answered("joined", true)},
		{"repaired", chatPath, asked("repaired", ""), answered("repaired", true)},
		{"repaired, a stream", chatPath, asked("repaired", usage), answered("repaired", false)},
		{"after a sign of life", chatPath, asked("slow", usage), answered("slow", true)},
		{"another API", messagesPath, message, answered("m", false)},
		{"another API, a stream", messagesPath, strings.Replace(message, "{", `{"stream":true,`, 1), answered("m", false)},
		{"no such model", chatPath, asked("none", ""), map[string]any{"model": "none", "error": "model_not_found"}},
		{"no JSON", chatPath, "{", map[string]any{"error": "invalid_request_error"}},
		{"no start", chatPath, asked("broken", ""), map[string]any{"model": "broken", "error": "engine_failed"}},
		{
			"it dies", chatPath, asked("dies", usage),
			map[string]any{"model": "dies", "instance": "any", "cold_start": true, "queue_ms": "some", "ttft_ms": "some", "error": "engine_crashed"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := strings.ReplaceAll(c.name, " ", "-")
			a := s.ask(http.MethodPost, c.path, c.body, clientIDHeader, id)
			got := ours(s.accessLine(id))
			for name, v := range c.want {
				if v == "any" && got[name] != nil {
					got[name] = v
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("fields (- wanted):\n%s\nthe answer: %d %s", diff, a.status, a.body)
			}
		})
	}
}

// The time to the first token is the client's: with a queue and a prompt, without the rest of the answer.
func TestAccessLogTimes(t *testing.T) {
	s := newSite(t)
	s.withAccessLog()
	s.model("m", "", "--tokens", "20", "--answer-delay", "100ms", "--token-delay", "20ms")
	s.start()
	s.ask(http.MethodPost, chatPath, `{"model":"m","stream":true,"messages":[]}`, requestIDHeader, "timed")
	line := s.accessLine("timed")
	ttft, _ := line["ttft_ms"].(float64)
	took, _ := line["duration"].(float64)
	if ttft < 100 || took*1000-ttft < 15*20 {
		t.Errorf("ttft_ms %v of %v ms; want the engine's 100 ms in it, and not the 19 tokens after the first of 20 ms", ttft, took*1000)
	}
}

func TestAccessLogTellsWhoLeftAndWhoMayNot(t *testing.T) {
	s := newSite(t)
	s.withAccessLog()
	for _, name := range []string{"model", "completion_tokens", "error", "request_id", "cold_start"} {
		s.before = append(s.before, map[string]any{
			"handler": "log_append", "key": "seen_" + name, "value": "{http.assistant." + name + "}",
		})
	}
	s.model("m", "", "--token-delay", "5ms", "--tokens", "100000")
	s.model("quick", "", "--tokens", "3")
	alice, sum := keys.New()
	file := s.root + "/keys.toml"
	if err := os.WriteFile(file, fmt.Appendf(nil, "[[keys]]\nname = \"alice\"\nsha256 = %q\n", sum), 0o600); err != nil {
		t.Fatal(err)
	}
	s.app["keys"] = file
	s.start()

	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, _ = do(ctx, http.MethodPost, s.url+chatPath, `{"model":"m","messages":[]}`, append(bearer(alice), requestIDHeader, "left")...)
	if got := ours(s.accessLine("left")); got["error"] != codeClientGone || got["key"] != "alice" {
		t.Errorf("of a client that left: %v", got)
	}
	s.ask(http.MethodPost, chatPath, question("m"), requestIDHeader, "stranger")
	if got := ours(s.accessLine("stranger")); !cmp.Equal(got, map[string]any{"error": "invalid_api_key"}) {
		t.Errorf("of a stranger: %v", got)
	}
	s.ask(http.MethodPost, chatPath, question("quick"), append(bearer(alice), requestIDHeader, "placed")...)
	line := s.accessLine("placed")
	for name, want := range map[string]any{"model": "quick", "completion_tokens": 3.0, "request_id": "placed", "cold_start": true, "error": nil} {
		if got := line["seen_"+name]; got != want {
			t.Errorf("the placeholder %s is %v, want %v", name, got, want)
		}
	}
}
