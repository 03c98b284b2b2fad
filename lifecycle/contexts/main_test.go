package contexts

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"assistant/internal/enginetest"
	"assistant/internal/openai"
)

func TestMain(m *testing.M) {
	enginetest.MaybeRun()
	goleak.VerifyTestMain(m)
}

// identity is one that no test asks an engine for.
var identity = Identity{Model: "model", Args: "args", Build: "build"}

func open(t testing.TB, dir string, budget int64) *Store {
	t.Helper()
	s, err := Open(dir, budget, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// place makes an instance's directory.
func place(t testing.TB, s *Store) string {
	t.Helper()
	dir, err := s.Place()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// fake starts a fake engine of the store's.
func fake(t *testing.T, s *Store, flags ...string) Endpoint {
	t.Helper()
	dir := place(t, s)
	e := enginetest.Start(t, append([]string{"--slot-save-path", dir, "-np", "2", "--tokens", "5"}, flags...)...)
	return Endpoint{"tcp", strings.TrimPrefix(e.URL, "http://"), dir}
}

// message is one of a chat.
type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// chat is a conversation of about so many tokens, which no other of another name begins with.
func chat(name string, tokens int) []message {
	return []message{
		{"system", "Of " + name + ". " + strings.TrimSpace(strings.Repeat("stone river light ", tokens/3))},
		{"user", "Tell me about " + name + "."},
	}
}

// next is the turn after an answer.
func next(turn []message, answer string) []message {
	return slices.Concat(turn, []message{{"assistant", answer}, {"user", "Go on, please."}})
}

func bodyOf(t testing.TB, turn []message, tokens int) []byte {
	t.Helper()
	b, err := json.Marshal(map[string]any{"model": "m", "messages": turn, "max_tokens": tokens, "temperature": 0})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const chatPath = "/v1/chat/completions"

func waiting(t testing.TB, turns ...[]message) (out []Request) {
	t.Helper()
	for _, turn := range turns {
		out = append(out, Request{chatPath, bodyOf(t, turn, 8)})
	}
	return out
}

// answer is an engine's.
type answer struct {
	text  string
	reuse openai.Reuse
}

// ask sends a turn as the router does and reads the answer as it does.
func ask(t testing.TB, at Endpoint, turn []message) answer {
	t.Helper()
	var reply json.RawMessage
	if err := newClient(at).ask(t.Context(), chatPath, bodyOf(t, turn, 8), &reply); err != nil {
		t.Fatal(err)
	}
	var tap openai.UsageTap
	tap.Write(reply)
	var a answer
	var ok bool
	if a.reuse, ok = tap.Reuse(); !ok {
		t.Fatalf("no timings: %s", reply)
	}
	var shape struct{ Choices []struct{ Message message } }
	if err := json.Unmarshal(reply, &shape); err != nil || len(shape.Choices) != 1 {
		t.Fatalf("%s: %v", reply, err)
	}
	a.text = shape.Choices[0].Message.Content
	return a
}

// save saves and waits until all is kept.
func save(t testing.TB, s *Store, at Endpoint, id Identity, served *Served) Saved {
	t.Helper()
	done, err := s.Save(t.Context(), at, id, served)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	return done
}

func restore(t testing.TB, s *Store, at Endpoint, id Identity, turns ...[]message) []Restored {
	t.Helper()
	done, err := s.Restore(t.Context(), at, id, waiting(t, turns...))
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// keep has an engine hold a conversation and saves it, in a store of its own budget.
func keep(t *testing.T, s *Store, turn []message, served *Served) (follow []message) {
	t.Helper()
	at := fake(t, s)
	follow = next(turn, ask(t, at, turn).text)
	save(t, s, at, identity, served)
	return follow
}

// kept returns the files of the store, sidecars not among them.
func kept(t testing.TB, s *Store) []string {
	t.Helper()
	files, err := filepath.Glob(s.path(keptDir, "*"+stateExt))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// alive fails the test if the engine does not answer.
func alive(t testing.TB, at Endpoint) {
	t.Helper()
	var reply map[string]string
	if err := newClient(at).ask(t.Context(), "/health", nil, &reply); err != nil {
		t.Errorf("the engine does not answer any more: %v", err)
	}
}

// handler is an engine made of a handler, for what no fake engine does.
func handler(t *testing.T, h http.HandlerFunc) (network, address string) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return "tcp", srv.Listener.Addr().String()
}

// soon is a context that ends soon, and so stands for an urgent eviction.
func soon(t *testing.T) (context.Context, time.Duration) {
	t.Helper()
	const bound = 100 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	t.Cleanup(cancel)
	return ctx, bound
}
