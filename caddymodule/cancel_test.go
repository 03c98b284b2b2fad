package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"assistant/internal/enginetest"
)

// asLlamaServer makes the fake engine pose as llama-server, and writes files of models that it runs.
func (s *site) asLlamaServer(t *testing.T, flags string, models map[string]string) {
	t.Helper()
	t.Setenv("LLAMA_SERVER", s.engine)
	t.Setenv(enginetest.EnvArgs, flags+" --events "+s.events)
	gguf := filepath.Join(s.root, "model.gguf")
	if err := os.WriteFile(gguf, []byte("GGUF"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, more := range models {
		s.file(name, fmt.Sprintf("engine = \"llama-server\"\nmodel_path = %q\n%s\n", gguf, more))
	}
}

// llama-server does not notice that the client of a plain request left, so it is asked for a stream.
func TestLeavingAPlainRequestFreesTheEngine(t *testing.T) {
	for _, transport := range []string{transportLean, transportStd} {
		for name, c := range map[string]struct {
			more string
			free bool
		}{
			"by stream":     {"", true},
			"not by stream": {"cancel_by_stream = false", false}, // shows that the engine goes on by itself
		} {
			t.Run(transport+", "+name, func(t *testing.T) {
				s := newSite(t)
				s.handler["transport"] = transport
				s.asLlamaServer(t, "--no-cancel --tokens 100000 --token-delay 5ms", map[string]string{"m": c.more})
				s.start()
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				left := make(chan error)
				go func() {
					_, err := do(ctx, http.MethodPost, s.url+chatPath, `{"model":"m","messages":[]}`)
					left <- err
				}()
				s.eventually("the engine has the request", func() bool { return len(s.happened(enginetest.EventBegin)) == 1 })
				leave()
				<-left
				began := time.Now()
				free := within(time.Second, func() bool { return len(s.happened(enginetest.EventCancel)) == 1 })
				if free != c.free {
					t.Errorf("the engine gave up within a second: %v, want %v", free, c.free)
				}
				t.Logf("freed: %v after %v", free, time.Since(began).Round(time.Millisecond))
				s.eventually("the lease is given back", func() bool { return engineFree(t, "m") })
			})
		}
	}
}

func TestJoinedAnswerEqualsThePlainOne(t *testing.T) {
	overTransports(t, func(t *testing.T, s *site) {
		s.asLlamaServer(t, "--tokens 20", map[string]string{"joined": "", "plain": "cancel_by_stream = false"})
		s.start()
		for path, rest := range map[string]string{
			chatPath:          `"messages":[{"role":"user","content":"Hi"}]`,
			"/v1/completions": `"prompt":"Hi"`,
		} {
			for _, more := range []string{"", `,"max_tokens":5`, `,"stream":false`} {
				var got [2]map[string]any
				for i, model := range []string{"joined", "plain"} {
					a := s.ask(http.MethodPost, path, fmt.Sprintf(`{"model":%q,%s%s}`, model, rest, more))
					if a.status != http.StatusOK || a.pid() == 0 || a.header.Get("Content-Length") == "" {
						t.Fatalf("%s %s: status %d, header %v: %s", path, model, a.status, a.header, a.body)
					}
					if err := json.Unmarshal([]byte(a.body), &got[i]); err != nil {
						t.Fatalf("%v: %s", err, a.body)
					}
					dropVarying(got[i])
				}
				if diff := cmp.Diff(got[1], got[0]); diff != "" {
					t.Errorf("%s%s: the joined answer differs (- plain):\n%s", path, more, diff)
				}
			}
		}
		// A shape that cannot be joined passes as it is.
		a := s.ask(http.MethodPost, chatPath, `{"model":"joined","messages":[],"n":2,"max_tokens":1}`)
		if a.status != http.StatusOK {
			t.Errorf("n = 2: status %d: %s", a.status, a.body)
		}
	})
}

// dropVarying removes what differs between any two answers. The fake engine derives its prompt counts from the length
// of the body, which asking for a stream changes.
func dropVarying(answer map[string]any) {
	for _, key := range []string{"id", "created", "model"} {
		delete(answer, key)
	}
	for object, keys := range map[string][]string{
		"usage":   {"prompt_tokens", "total_tokens"},
		"timings": {"prompt_n", "prompt_ms"},
	} {
		if o, ok := answer[object].(map[string]any); ok {
			for _, key := range keys {
				delete(o, key)
			}
		}
	}
}

// What the engine refuses comes through a join as the engine said it.
func TestEngineErrorThroughAJoin(t *testing.T) {
	s := newSite(t)
	s.asLlamaServer(t, "", map[string]string{"m": ""})
	s.start()
	a := s.ask(http.MethodPost, chatPath, `{"model":"m","messages":[],"max_tokens":"many"}`)
	if a.status != http.StatusBadRequest || !strings.Contains(a.body, `"code":400`) {
		t.Errorf("status %d, want the engine's 400: %s", a.status, a.body)
	}
}
