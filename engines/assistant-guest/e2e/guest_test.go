// Package e2e tests our guest in the real WasmEdge, with our plug-in and real models, by its frames: what a client of the router's
// cannot see or do. What one can is tested in caddymodule/assistant.
package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	assistantguest "assistant/engines/assistant-guest"
	"assistant/internal/guest"
	"assistant/internal/realtest"
)

const (
	chatPath = "/v1/chat/completions"
	chatml   = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}{{ '<|im_start|>assistant\\n' }}"
	patience = 2 * time.Minute
)

// running is a guest in WasmEdge.
type running struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	last uint32
}

// begin starts a guest with a model as its graph "default", and configures it.
func begin(t *testing.T, model, configuration string) *running {
	t.Helper()
	wasm := filepath.Join(t.TempDir(), "guest.wasm")
	if err := os.WriteFile(wasm, assistantguest.Wasm, 0o600); err != nil {
		t.Fatal(err)
	}
	g := &running{t: t}
	g.cmd = exec.CommandContext(t.Context(), realtest.Need(t, "ASSISTANT_TEST_WASMEDGE"),
		"--nn-preload", "default:GGML:AUTO:"+filepath.Join(realtest.Need(t, "ASSISTANT_TEST_MODELS"), model), wasm)
	g.cmd.Env = append(os.Environ(), "WASMEDGE_PLUGIN_PATH="+filepath.Dir(realtest.Need(t, "ASSISTANT_TEST_WASI_NN")))
	var err error
	if g.in, err = g.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := g.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	g.out = bufio.NewReader(out)
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(patience, func() { _ = g.cmd.Process.Kill() }) // a read then fails
	t.Cleanup(func() {
		watchdog.Stop()
		_ = g.cmd.Process.Kill()
		_ = g.cmd.Wait()
	})
	g.send(guest.Configure, 0, configuration)
	return g
}

// chatty is a configuration for chats with so many slots.
func chatty(context, slots int) string {
	template, _ := json.Marshal(chatml)
	return fmt.Sprintf(`{"chat":{"graph":"default","context":%d,"parallel":%d,"template":%s},"threads":1}`, context, slots, template)
}

func (g *running) send(kind byte, stream uint32, payload string) {
	g.t.Helper()
	if err := guest.Write(g.in, guest.Frame{Kind: kind, Stream: stream, Payload: []byte(payload)}); err != nil {
		g.t.Fatal(err)
	}
}

func (g *running) next() guest.Frame {
	g.t.Helper()
	f, err := guest.Read(g.out, func(string) {})
	if err != nil {
		g.t.Fatal(err)
	}
	return f
}

func (g *running) isReady() (info guest.Info) {
	g.t.Helper()
	f := g.next()
	if f.Kind != guest.Ready {
		g.t.Fatalf("%c %s", f.Kind, f.Payload)
	}
	if err := json.Unmarshal(f.Payload, &info); err != nil {
		g.t.Fatal(err)
	}
	return info
}

// ask begins a request and returns the number of its stream.
func (g *running) ask(path, body string) uint32 {
	g.t.Helper()
	g.last++
	g.send(guest.Request, g.last, path+"\n"+body)
	return g.last
}

// answer reads a stream to its end; nothing else is under way.
func (g *running) answer(stream uint32) (head, body string) {
	g.t.Helper()
	for {
		f := g.next()
		if f.Stream != stream {
			g.t.Fatalf("a frame of stream %d, not %d", f.Stream, stream)
		}
		switch f.Kind {
		case guest.Head:
			head = string(f.Payload)
		case guest.Data:
			body += string(f.Payload)
		case guest.End:
			return head, body
		}
	}
}

func story(about string, more string) string {
	return fmt.Sprintf(`{"model":"m","stream":true,"temperature":0,"messages":[{"role":"user","content":%q}]%s}`, about, more)
}

func TestReadyAndItsEnd(t *testing.T) {
	g := begin(t, "tiny.gguf", chatty(512, 3))
	if info := g.isReady(); info.Slots != 3 || info.Context != 512 || info.Plugin != "assistant" {
		t.Errorf("%+v", info)
	}
	head, body := g.answer(g.ask(chatPath, story("Count.", `,"max_tokens":3`)))
	if head != "200 text/event-stream" || strings.Count(body, "data: ") != 6 || !strings.HasSuffix(body, "data: [DONE]\n\n") {
		t.Errorf("%s: %s", head, body)
	}
	g.in.Close()
	if err := g.cmd.Wait(); err != nil {
		t.Errorf("at the end of stdin: %v", err)
	}
}

func TestCannotServe(t *testing.T) {
	for name, c := range map[string]struct{ configuration, want string }{
		"no such graph": {`{"chat":{"graph":"nobody","context":512}}`, "nobody"},
		"no model":      {`{"threads":1}`, "names no model"},
		"no JSON":       {`{`, "configuration"},
		"a template":    {`{"chat":{"graph":"default","context":512,"template":"{% if %}"}}`, "template"},
	} {
		g := begin(t, "tiny.gguf", c.configuration)
		if f := g.next(); f.Kind != guest.Failed || !strings.Contains(string(f.Payload), c.want) {
			t.Errorf("%s: %c %s", name, f.Kind, f.Payload)
		}
		var exit *exec.ExitError
		if err := g.cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Errorf("%s: %v, want status 1", name, err)
		}
	}
}

// TestCancel: an answer that nobody wants ends between two tokens, and a prompt between two parts; the slot is free at once.
func TestCancel(t *testing.T) {
	g := begin(t, "smollm2-135m-instruct.gguf", chatty(8000, 1))
	g.isReady()
	for name, prompt := range map[string]string{
		"answer": "Tell me a long story about a lighthouse.",
		"prompt": strings.Repeat("The keeper of the lighthouse counts the ships that pass. ", 500), // 6,000 tokens
	} {
		gone := g.ask(chatPath, story(prompt, ""))
		if name == "answer" {
			for range 5 {
				g.next()
			}
		}
		began := time.Now()
		g.send(guest.Cancel, gone, "")
		next := g.ask(chatPath, story("Hi", `,"max_tokens":2`))
		late := 0
		for f := g.next(); f.Stream == gone; f = g.next() {
			if late++; f.Kind == guest.End {
				break
			}
		}
		head, _ := g.answer(next)
		if head != "200 text/event-stream" || late > 50 { // what it was ahead of us; the context would hold thousands
			t.Errorf("%s: %d frames after the cancel, then %s", name, late, head)
		}
		t.Logf("%s: the next had its answer %v after the cancel", name, time.Since(began).Round(time.Millisecond))
	}
}

// TestALongPromptHoldsUpNobody: another slot's tokens come while it is computed.
func TestALongPromptHoldsUpNobody(t *testing.T) {
	g := begin(t, "smollm2-135m-instruct.gguf", chatty(8000, 2))
	g.isReady()
	first := g.ask(chatPath, story("Tell me a long story about a lighthouse.", `,"max_tokens":60`))
	g.next() // its head: it has begun
	second := g.ask(chatPath, story(strings.Repeat("The keeper of the lighthouse counts the ships that pass. ", 150), `,"max_tokens":2`))
	between, begun, ended := 0, false, 0
	for ended < 2 {
		switch f := g.next(); {
		case f.Kind == guest.End:
			ended++
		case f.Stream == second:
			begun = true
		case f.Stream == first && !begun && f.Kind == guest.Data:
			between++
		}
	}
	if between < 5 {
		t.Errorf("%d tokens of the one came before the other's first", between)
	}
}

// TestNonsense: whatever is asked is answered, and the next one as well.
func TestNonsense(t *testing.T) {
	g := begin(t, "tiny.gguf", chatty(256, 2))
	g.isReady()
	bodies := []string{
		"", "{", "[]", "null", `{"messages":null}`, `{"messages":[[]]}`, `{"messages":[{"role":"user","content":{"a":1}}]}`, "\xff\xfe{}", strings.Repeat("[", 100_000),
		`{"messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema","json_schema":{"schema":{"$ref":"#"}}}}`,
		`{"messages":[{"role":"user","content":"x"}],"max_tokens":1e300}`, `{"messages":[{"role":"user","content":"x"}],"stop":[null]}`,
		`{"messages":[{"role":"user","content":"\ud800"}],"max_tokens":2}`, `{"messages":[{"role":"user","content":""}],"max_tokens":1}`,
		`{"messages":[{"role":"tool","content":"x","tool_call_id":7}],"tools":"x"}`, `{"prompt":""}`, `{"input":[""]}`,
	}
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a seed of a test's
	good := story("Count.", `,"max_tokens":2`)
	for range 60 {
		at := random.IntN(len(good))
		bodies = append(bodies, good[:at], good[:at]+string(rune(random.IntN(0x250)))+good[at+1:])
	}
	for i, body := range bodies {
		for _, path := range []string{chatPath, "/v1/completions", "/v1/embeddings", "/nowhere", ""} {
			head, answer := g.answer(g.ask(path, body))
			status, _, _ := strings.Cut(head, " ")
			if status != "200" && (!strings.HasPrefix(answer, `{"error":{"message":`) || status[0] != '4') {
				t.Fatalf("%d: %.200q: %s %.300s", i, body, head, answer)
			}
		}
	}
	if head, _ := g.answer(g.ask(chatPath, good)); head != "200 text/event-stream" {
		t.Errorf("after all that: %s", head)
	}
}
