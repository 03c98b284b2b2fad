package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// conversation is one with a model, turn by turn.
type conversation struct {
	s        *server
	model    string
	messages []message
}

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// turn is what an answer says of itself.
type turn struct {
	Cached   int // tokens of the prompt that the engine had
	Computed int // and had not
	Total    int // tokens of the conversation now
}

// say asks the next question, which must be answered. It may be called by any goroutine.
func (c *conversation) say(question string, maxTokens int) (turn, error) {
	c.messages = append(c.messages, message{"user", question})
	body, err := json.Marshal(map[string]any{
		"model": c.model, "messages": c.messages, "max_tokens": maxTokens, "temperature": 0, "ignore_eos": true,
	})
	if err != nil {
		return turn{}, err
	}
	res, err := c.s.client.Post(c.s.https+"/v1/chat/completions", "application/json", strings.NewReader(string(body)))
	if err != nil {
		return turn{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return turn{}, fmt.Errorf("status %d, %w: %s", res.StatusCode, err, text)
	}
	var answer struct {
		Choices []struct{ Message message }
		Usage   struct {
			Total int `json:"total_tokens"`
		}
		Timings struct {
			Cached   int `json:"cache_n"`
			Computed int `json:"prompt_n"`
		}
	}
	if err := json.Unmarshal(text, &answer); err != nil || len(answer.Choices) == 0 {
		return turn{}, fmt.Errorf("%w: %s", err, text)
	}
	c.messages = append(c.messages, answer.Choices[0].Message)
	return turn{answer.Timings.Cached, answer.Timings.Computed, answer.Usage.Total}, nil
}

// mustSay is say for the test's own goroutine.
func (c *conversation) mustSay(question string, maxTokens int) turn {
	c.s.t.Helper()
	got, err := c.say(question, maxTokens)
	if err != nil {
		c.s.t.Fatal(err)
	}
	return got
}

// story is a text of some 11 tokens a line.
func story(lines int) string {
	var text strings.Builder
	for i := range lines {
		fmt.Fprintf(&text, "On day %d the old boat came back to the harbour.\n", i)
	}
	return text.String()
}

// TestConversationOutlivesItsEngine: what the engine has computed is there again after it was stopped for being idle, by its own word. A
// damaged file is not used, and costs no more than computing it.
func TestConversationOutlivesItsEngine(t *testing.T) {
	s := startServer(t, map[string]string{"smollm2.toml": smollm2(t, "keep_context = true\nidle_timeout = \"500ms\"\nconcurrency = 1")})
	c := &conversation{s: s, model: "smollm2"}
	first := c.mustSay(story(45)+"What came back?", 8)
	if first.Total < 500 || first.Cached > first.Total/10 {
		t.Fatalf("%+v: want some 600 tokens, computed", first)
	}
	retired := func() {
		t.Helper()
		waitFor(t, "the idle engine to end", func() bool { return len(s.instances()) == 0 })
	}
	retired()
	second := c.mustSay("And when?", 8)
	t.Logf("first turn %+v, after the engine was stopped %+v", first, second)
	if second.Cached < first.Total*9/10 {
		t.Errorf("%d of %d tokens were not computed anew, want nine tenths", second.Cached, first.Total)
	}
	if log := s.log(); !strings.Contains(log, "context restored") || strings.Count(log, "engine started") != 2 {
		t.Errorf("the log tells of %d starts, and of a restored context: %v", strings.Count(log, "engine started"), strings.Contains(log, "context restored"))
	}
	s.tells(`assistant_contexts_restored_total{use="hit"} 1`)

	retired()
	kept := filepath.Join(s.dir, "state", "contexts", "kept")
	waitFor(t, "the context to be kept", func() bool { // the engine is gone before its files are checked
		files, _ := filepath.Glob(filepath.Join(s.dir, "state", "contexts", "incoming", "*"))
		return len(files) == 0
	})
	if n := damage(t, kept, ".kv"); n == 0 {
		t.Fatal("no context is kept")
	}
	third := c.mustSay("Thank you.", 8)
	t.Logf("after its file was damaged %+v", third)
	if third.Cached > first.Total/10 {
		t.Errorf("%d tokens were taken from a damaged file", third.Cached)
	}
	s.tells(`assistant_contexts_dropped_total{reason="damaged"} 1`)
}

// tells waits for a line of the metrics: what an answer taught is counted after its last byte.
func (s *server) tells(line string) {
	s.t.Helper()
	waitFor(s.t, line, func() bool { return strings.Contains(s.metrics(), line+"\n") })
}

// damage changes a byte in the middle of each file with that ending, and returns how many there are.
func damage(t *testing.T, dir, ending string) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"+ending))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return len(files)
}

// TestReplicasOfARealModel: a second instance is started when more ask than one answers, and further turns of a conversation come to the
// instance that has computed the turns before.
func TestReplicasOfARealModel(t *testing.T) {
	s := startServer(t, map[string]string{
		"smollm2.toml": smollm2(t, "concurrency = 1\nmax_instances = 2"),
	})
	ask := func(n, maxTokens int) {
		t.Helper()
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				c := &conversation{s: s, model: "smollm2"}
				if _, err := c.say(fmt.Sprintf("Tell me story number %d.", i), maxTokens); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	both := func() bool {
		ready := 0
		for _, in := range s.instances() {
			if in.PID != 0 && in.Served > 0 {
				ready++
			}
		}
		return ready == 2
	}
	for deadline := time.Now().Add(bound); !both() && !t.Failed(); {
		if ask(4, 40); time.Now().After(deadline) {
			t.Fatalf("only one is used: %+v", s.instances())
		}
	}
	waitFor(t, "all to be answered", func() bool { return s.leases() == 0 })
	used := map[int]int{} // conversations by pid
	const turns = 3
	for i := range 6 {
		c := &conversation{s: s, model: "smollm2"}
		var home int
		for n := range turns {
			before := s.instances()
			got := c.mustSay(fmt.Sprintf("My name is number %d. %s", i, story(3)), 4)
			pid := s.servedSince(before)
			switch {
			case n == 0:
				home = pid
				used[pid]++
			case pid != home:
				t.Errorf("turn %d of conversation %d came to %d, the ones before to %d", n, i, pid, home)
			case got.Cached <= got.Computed:
				t.Errorf("turn %d of conversation %d found %d tokens computed, and not %d", n, i, got.Cached, got.Computed)
			}
		}
	}
	t.Logf("conversations by instance: %v", used)
	if len(used) != 2 {
		t.Errorf("conversations by instance: %v, want both to have some", used)
	}
}

func (s *server) leases() (n int) {
	s.t.Helper()
	for _, in := range s.instances() {
		n += in.Leases
	}
	return n
}

// servedSince waits for the only request there is to be over, and returns the pid of who served it.
func (s *server) servedSince(before []instance) (pid int) {
	s.t.Helper()
	waitFor(s.t, "the answer's end", func() bool {
		for _, now := range s.instances() {
			for _, was := range before {
				if now.PID == was.PID && now.Served == was.Served+1 {
					pid = now.PID
				}
			}
		}
		return pid != 0
	})
	return pid
}
