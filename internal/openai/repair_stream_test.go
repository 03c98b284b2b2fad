package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// told is what a client makes of a stream.
type told struct {
	Text, Finish string
	Calls        string // raw
	Usage        string // raw; "" = none
	Chunks       int    // with text
}

// readTold reads a stream as strictly as any SDK, and checks what holds for every one.
func readTold(t testing.TB, stream []byte, kind Kind) told {
	t.Helper()
	var got told
	var id string
	events := strings.Split(strings.TrimSuffix(string(stream), "\n\n"), "\n\n")
	for i, event := range events {
		data, ok := strings.CutPrefix(event, "data: ")
		if !ok || strings.Contains(data, "\n") {
			t.Fatalf("event %q", event)
		}
		if last := i == len(events)-1; (data == "[DONE]") != last {
			t.Fatalf("[DONE] or not as event %d of %d:\n%s", i, len(events), stream)
		} else if last {
			break
		}
		var c struct {
			ID, Object, Model string
			Created           int64
			Fingerprint       *string `json:"system_fingerprint"`
			Usage             json.RawMessage
			Choices           []struct {
				Index int
				Text  *string
				Delta struct {
					Role    string
					Content *string
					Calls   json.RawMessage `json:"tool_calls"`
				}
				Finish *string `json:"finish_reason"`
			}
		}
		if err := json.Unmarshal([]byte(data), &c); err != nil {
			t.Fatalf("%v: %s", err, data)
		}
		wantObject, wantID := "chat.completion.chunk", "chatcmpl-"
		if kind == Completion {
			wantObject, wantID = "text_completion", "cmpl-"
		}
		if c.Object != wantObject || !strings.HasPrefix(c.ID, wantID) || id != "" && c.ID != id || c.Created == 0 || c.Fingerprint != nil || c.Model != "asked" {
			t.Fatalf("chunk %s after id %s", data, id)
		}
		id = c.ID
		if len(c.Choices) == 0 {
			got.Usage = string(c.Usage)
			continue
		}
		choice := c.Choices[0]
		if (choice.Delta.Role == "assistant") != (i == 0 && kind == Chat) {
			t.Fatalf("role in event %d: %s", i, data)
		}
		if got.Finish != "" {
			t.Fatalf("a choice after the finish_reason: %s", data)
		}
		if choice.Finish != nil {
			got.Finish = *choice.Finish
		}
		text := choice.Delta.Content
		if kind == Completion {
			text = choice.Text
		}
		if text != nil && *text != "" {
			got.Text += *text
			got.Chunks++
		}
		if choice.Delta.Calls != nil {
			got.Calls += string(choice.Delta.Calls)
		}
	}
	return got
}

func recorded(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "dialect", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const usageAsked = `"stream":true,"stream_options":{"include_usage":true}`

// Each quirk of a stream, by its number, on what the engine sends.
func TestRepairedStream(t *testing.T) {
	for _, tt := range []struct {
		name, file, ask string
		want            told
	}{
		{"1 finish_reason", "chat_no_usage.sse", `"stream":true`, told{Text: "Hello world", Finish: "stop", Chunks: 2}},
		{"2 usage not asked for", "chat.sse", `"stream":true`, told{Text: "The capital is Paris.", Finish: "stop", Chunks: 5}},
		{"2 usage asked for", "chat.sse", usageAsked, told{
			Text: "The capital is Paris.", Finish: "stop", Chunks: 5,
			Usage: `{"prompt_tokens":24,"completion_tokens":5,"total_tokens":29}`,
		}},
		{"2 tool called", "tool.sse", `"stream":true,"tools":[{}]`, told{
			Finish: "tool_calls",
			Calls:  `[{"index":0,"id":"call_abc123","type":"function","function":{"name":"get_weather","arguments":"{\"city\":\"Paris\"}"}}]`,
		}},
		{"2 tool not called", "tool_text.sse", `"stream":true,"tools":[{}]`, told{Text: "I need no tool for that.", Finish: "stop", Chunks: 1}},
		{"4 max_tokens", "chat.sse", `"stream":true,"max_tokens":3`, told{Text: "The capital is", Finish: "length", Chunks: 3}},
		{"4 max_tokens with usage", "chat.sse", usageAsked + `,"max_tokens":4`, told{
			Text: "The capital is Paris", Finish: "length", Chunks: 4,
			Usage: `{"prompt_tokens":4,"completion_tokens":4,"total_tokens":8,"estimated":true}`,
		}},
		{"4 max_tokens at the engine's end", "chat.sse", usageAsked + `,"max_tokens":5`, told{
			Text: "The capital is Paris.", Finish: "length", Chunks: 5,
			Usage: `{"prompt_tokens":24,"completion_tokens":5,"total_tokens":29}`,
		}},
		{"4 max_tokens with tools", "tool_text.sse", usageAsked + `,"tools":[{}],"max_tokens":7`, told{
			Text: "I need no tool for that.", Finish: "length", Chunks: 1,
			Usage: `{"prompt_tokens":190,"completion_tokens":7,"total_tokens":197}`,
		}},
		{"5 stop", "chat.sse", `"stream":true,"stop":"Paris"`, told{Text: "The capital is ", Finish: "stop", Chunks: 4}},
		{"5 stop over chunks", "chat.sse", `"stream":true,"stop":["l is P","x"]`, told{Text: "The capita", Finish: "stop", Chunks: 2}},
		{"5 stop begun and not ended", "chat.sse", `"stream":true,"stop":"is Parma"`, told{Text: "The capital is Paris.", Finish: "stop", Chunks: 5}},
		{"5 stop in the answer of tools", "tool_text.sse", `"stream":true,"tools":[{}],"stop":"tool"`, told{Text: "I need no ", Finish: "stop", Chunks: 1}},
		{"12 context full", "context_full.sse", `"stream":true`, told{Text: "and on", Finish: "length", Chunks: 2}},
		{"17 characters in parts are tokens", "chat_emoji.sse", `"stream":true,"max_tokens":3`, told{Text: "A 😀", Finish: "length", Chunks: 2}},
		{"17 escapes", "chat_emoji.sse", `"stream":true`, told{Text: "A 😀 \"quoted\"\n", Finish: "stop", Chunks: 3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := mustPlan(t, `{"model":"asked",`+hello+`,`+tt.ask+`}`, Chat)
			var out bytes.Buffer
			if _, err := p.Stream(&out, bytes.NewReader(recorded(t, tt.file))); err != nil {
				t.Fatal(err)
			}
			got := readTold(t, out.Bytes(), Chat)
			if tt.want.Usage != "" && strings.Contains(tt.want.Usage, "estimated") {
				tt.want.Usage = strings.Replace(tt.want.Usage, `"prompt_tokens":4,`, fmt.Sprintf(`"prompt_tokens":%d,`, p.prompt), 1)
				tt.want.Usage = strings.Replace(tt.want.Usage, `"total_tokens":8,`, fmt.Sprintf(`"total_tokens":%d,`, p.prompt+4), 1)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(- want)\n%s\n%s", diff, out.Bytes())
			}
		})
	}
}

// The counts say that the context is full even where the engine does not.
func TestFullContextIsLength(t *testing.T) {
	p := mustPlan(t, `{"model":"asked",`+hello+`,"stream":true}`, Chat)
	p.context = 29
	var out bytes.Buffer
	if _, err := p.Stream(&out, bytes.NewReader(recorded(t, "chat.sse"))); err != nil {
		t.Fatal(err)
	}
	if got := readTold(t, out.Bytes(), Chat); got.Finish != "length" {
		t.Errorf("finish_reason %q of an answer that fills the context", got.Finish)
	}
}

// Plain answers are made of streams.
func TestRepairedWhole(t *testing.T) {
	for _, tt := range []struct{ name, file, ask, text, finish, calls string }{
		{"plain", "chat.sse", ``, "The capital is Paris.", "stop", ""},
		{"max_tokens", "chat.sse", `,"max_completion_tokens":2`, "The capital", "length", ""},
		{"stop", "chat.sse", `,"stop":" is"`, "The capital", "stop", ""},
		{"tools", "tool.sse", `,"tools":[{}]`, "", "tool_calls", "get_weather"},
		{"context full", "context_full.sse", ``, "and on", "length", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := mustPlan(t, `{"model":"asked",`+hello+tt.ask+`}`, Chat)
			said, _, err := p.Whole(bytes.NewReader(recorded(t, tt.file)))
			if err != nil {
				t.Fatal(err)
			}
			var got struct {
				ID, Object, Model string
				Choices           []struct {
					Message struct {
						Role, Content string
						Calls         []struct{ Function struct{ Name string } } `json:"tool_calls"`
					}
					Finish string `json:"finish_reason"`
				}
				Usage map[string]any
			}
			if err := json.Unmarshal(said, &got); err != nil {
				t.Fatal(err)
			}
			c := got.Choices[0]
			if c.Message.Role != "assistant" || c.Message.Content != tt.text || c.Finish != tt.finish || (len(c.Message.Calls) > 0) != (tt.calls != "") {
				t.Errorf("got %s", said)
			}
			if got.Model != "asked" || got.Object != "chat.completion" || !strings.HasPrefix(got.ID, "chatcmpl-") || got.Usage["total_tokens"] == nil {
				t.Errorf("got %s", said)
			}
		})
	}
}

// 16: text completions are streams where asked for, and cut where they should have ended.
func TestRepairedCompletion(t *testing.T) {
	for _, tt := range []struct{ name, ask, text, finish string }{
		{"plain", ``, "Paris is the capital of France", "stop"},
		{"stop", `,"stop":[" of","France"]`, "Paris is the capital", "stop"},
		{"max_tokens", `,"max_tokens":3`, "Paris is the ca", "length"}, // half of the tokens is half of the text
		{"max_tokens not reached", `,"max_tokens":100`, "Paris is the capital of France", "stop"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := mustPlan(t, `{"model":"asked","prompt":"Hi","stream":true`+tt.ask+`}`, Completion)
			out, _, err := p.Answer(recorded(t, "completion.json"))
			if err != nil {
				t.Fatal(err)
			}
			if got := readTold(t, out, Completion); got.Text != tt.text || got.Finish != tt.finish || got.Usage != "" {
				t.Errorf("streamed: %+v\n%s", got, out)
			}
			p = mustPlan(t, `{"model":"asked","prompt":"Hi"`+tt.ask+`}`, Completion)
			out, _, err = p.Answer(recorded(t, "completion.json"))
			if err != nil {
				t.Fatal(err)
			}
			var got struct {
				ID, Model string
				Choices   []struct {
					Text   string
					Finish string `json:"finish_reason"`
				}
				Usage struct {
					Prompt int `json:"prompt_tokens"`
				}
			}
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatal(err)
			}
			if c := got.Choices[0]; c.Text != tt.text || c.Finish != tt.finish || got.Model != "asked" || !strings.HasPrefix(got.ID, "cmpl-") || got.Usage.Prompt != 5 {
				t.Errorf("plain: %s", out)
			}
		})
	}
	p := mustPlan(t, `{"prompt":"Hi"}`, Completion)
	for _, said := range []string{``, `oops`, `{}`, `{"choices":[]}`, `{"error":{"message":"x"}}`} {
		if out, _, err := p.Answer([]byte(said)); err == nil {
			t.Errorf("%q passes as %s", said, out)
		}
	}
}

// A stream that lacks its [DONE] is never given a clean end (rule 4 of the streams that SDKs survive).
func TestCutStreamIsNoEnd(t *testing.T) {
	p := mustPlan(t, `{"model":"asked",`+hello+`,"stream":true}`, Chat)
	whole := recorded(t, "chat.sse")
	for n := range len(whole) - len("[DONE]\n") {
		var out bytes.Buffer
		if _, err := p.Stream(&out, bytes.NewReader(whole[:n])); !errors.Is(err, ErrStreamCut) {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if s := out.String(); strings.Contains(s, "[DONE]") || strings.Contains(s, `"finish_reason":"`) {
			t.Fatalf("%d bytes end as if whole:\n%s", n, s)
		}
	}
	broken := errors.New("reset")
	if _, err := p.Stream(io.Discard, io.MultiReader(bytes.NewReader(whole[:500]), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("got %v, want the connection's own error", err)
	}
}

func TestErrorInAStream(t *testing.T) {
	p := mustPlan(t, `{"model":"asked",`+hello+`,"stream":true}`, Chat)
	for _, said := range []string{`{"error":{"message":"boom"}}`, `boom`, `{"choices":`} {
		var e *Error
		var out bytes.Buffer
		_, err := p.Stream(&out, io.MultiReader(bytes.NewReader(recorded(t, "cut.sse")), strings.NewReader("data: "+said+"\n\ndata: [DONE]\n\n")))
		if !errors.As(err, &e) || e.Code != CodeEngineFailed || strings.Contains(out.String(), "[DONE]") {
			t.Errorf("%s: %v\n%s", said, err, out.Bytes())
		}
	}
}

// ends is an engine that notes how much of its stream was read.
type ends struct {
	r    io.Reader
	most int // bytes of one Read
	read int
}

func (e *ends) Read(p []byte) (int, error) {
	n, err := e.r.Read(p[:min(len(p), e.most)])
	e.read += n
	return n, err
}

// When there is enough, Stream returns without reading the engine to its end, so that it is stopped.
func TestEnoughStopsTheEngine(t *testing.T) {
	long := bytes.Repeat(recorded(t, "cut.sse"), 1000)
	for _, ask := range []string{`,"max_tokens":3`, `,"stop":"cap"`} {
		p := mustPlan(t, `{"model":"asked",`+hello+`,`+usageAsked+ask+`}`, Chat)
		from := &ends{r: bytes.NewReader(long), most: 64}
		if _, err := p.Stream(io.Discard, from); err != nil {
			t.Fatal(err)
		}
		if from.read > 8<<10 {
			t.Errorf("%s: %d bytes were read of an answer of three tokens", ask, from.read)
		}
	}
}

// A plain answer is bounded, however long the engine goes on.
func TestWholeIsBounded(t *testing.T) {
	p := mustPlan(t, `{"model":"asked",`+hello+`}`, Chat)
	chunk := `data: {"choices":[{"index":0,"delta":{"content":"` + strings.Repeat("a", 8<<20) + `"}}]}` + "\n\n"
	from := &ends{r: strings.NewReader(strings.Repeat(chunk, 12)), most: 1 << 20}
	if _, _, err := p.Whole(from); err == nil || errors.Is(err, ErrStreamCut) {
		t.Errorf("an answer of %d bytes: %v", from.read, err)
	}
}

// Held-back text is bounded: no more than a stop sequence is ever held.
func TestHeldText(t *testing.T) {
	p := mustPlan(t, `{"model":"asked",`+hello+`,"stream":true,"stop":"aaaaaaab"}`, Chat)
	s := newStreamRepair(p, io.Discard)
	for range 1000 {
		if err := s.event([]byte(`{"choices":[{"index":0,"delta":{"content":"aaa"}}]}`)); err != nil {
			t.Fatal(err)
		}
		if len(s.held) > 7 || cap(s.held) > 64 {
			t.Fatalf("%d bytes held in %d", len(s.held), cap(s.held))
		}
	}
}

func BenchmarkRepairEvent(b *testing.B) {
	event := recorded(b, "chat.sse")
	event = event[len("data: "):bytes.Index(event, []byte("\n"))]
	for name, ask := range map[string]string{"bare": "", "stop": `,"stop":["</s>","\nUser:"]`} {
		b.Run(name, func(b *testing.B) {
			p := mustPlan(b, `{"model":"asked",`+hello+`,"stream":true`+ask+`}`, Chat)
			s := newStreamRepair(p, io.Discard)
			b.SetBytes(int64(len(event)))
			b.ReportAllocs()
			for b.Loop() {
				if err := s.event(event); err != nil {
					b.Fatal(err)
				}
				if err := s.flush(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestRepairEventDoesNotAllocate(t *testing.T) {
	p := mustPlan(t, `{"model":"asked",`+hello+`,"stream":true,"stop":["</s>","\nUser:"]}`, Chat)
	s := newStreamRepair(p, io.Discard)
	event := []byte(`{"id":"x","choices":[{"index":0,"delta":{"content":"a \"b\" \u00e9","role":"assistant"},"logprobs":null,"finish_reason":null}],"created":1}`)
	if n := testing.AllocsPerRun(100, func() {
		if s.event(event) != nil || s.flush() != nil {
			t.Fatal("it fails")
		}
	}); n > 0 {
		t.Errorf("%v allocations an event", n)
	}
}
