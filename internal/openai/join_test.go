package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// recording is what a real llama-server (b11669) answered to one request in both ways: see testdata/record.py.
type recording struct {
	kind    Kind
	request []byte
	stream  []byte
	plain   []byte
}

func recordings(t testing.TB) map[string]recording {
	t.Helper()
	names, err := filepath.Glob("testdata/join/*.request.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	all := make(map[string]recording)
	for _, name := range names {
		stem := strings.TrimSuffix(name, ".request.json")
		var asked struct {
			Path string
			Body json.RawMessage
		}
		if err := json.Unmarshal(read(t, name), &asked); err != nil {
			t.Fatal(err)
		}
		r := recording{request: asked.Body, stream: read(t, stem+".sse"), plain: read(t, stem+".plain.json")}
		if asked.Path == "/v1/completions" {
			r.kind = Completion
		}
		all[filepath.Base(stem)] = r
	}
	return all
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// comparableForm decodes an answer and levels what differs between any two answers: ids, the clock, and durations.
func comparableForm(t testing.TB, answer []byte) any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(answer, &v); err != nil {
		t.Fatalf("%v in %s", err, answer)
	}
	level(t, v, "id", "created")
	timings, ok := v["timings"].(map[string]any)
	if !ok {
		t.Fatalf("no timings in %s", answer)
	}
	level(t, timings, "prompt_ms", "prompt_per_token_ms", "prompt_per_second",
		"predicted_ms", "predicted_per_token_ms", "predicted_per_second")
	for _, choice := range v["choices"].([]any) {
		message, _ := choice.(map[string]any)["message"].(map[string]any)
		calls, _ := message["tool_calls"].([]any)
		for _, call := range calls {
			level(t, call.(map[string]any), "id")
		}
	}
	return v
}

// level keeps the types of values only. A value that isn't there is a failure.
func level(t testing.TB, object map[string]any, names ...string) {
	t.Helper()
	for _, name := range names {
		if object[name] == nil {
			t.Errorf("no %q in %v", name, object)
		}
		object[name] = fmt.Sprintf("%T", object[name])
	}
}

func TestJoinEqualsPlainAnswer(t *testing.T) {
	// In these the plain answer holds what the stream does not: see Join and Request.Joinable.
	differ := map[string]string{
		"chat_reasoning_cut":    "<think>\n",
		"chat_tool_cut_at_once": "\n<tool_",
	}
	for name, r := range recordings(t) {
		t.Run(name, func(t *testing.T) {
			req, err := Scan(r.request)
			if err != nil {
				t.Fatal(err)
			}
			if name == "chat_prefill" {
				if req.Joinable() {
					t.Error("joinable, though the plain answer repeats the assistant's message")
				}
				return
			}
			if !req.Joinable() {
				t.Error("not joinable")
			}
			got, err := Join(iotest.OneByteReader(bytes.NewReader(r.stream)), r.kind)
			if err != nil {
				t.Fatal(err)
			}
			plain := r.plain
			if raw, ok := differ[name]; ok {
				quoted := Marshal(raw)
				plain = bytes.Replace(plain, append([]byte(`"content":`), quoted...), []byte(`"content":""`), 1)
				if bytes.Equal(plain, r.plain) {
					t.Fatalf("the plain answer lacks the content %q", raw)
				}
			}
			if diff := cmp.Diff(comparableForm(t, plain), comparableForm(t, got)); diff != "" {
				t.Errorf("joined answer differs (-plain +joined):\n%s", diff)
			}
		})
	}
}

// Whatever byte a stream is cut at, no answer comes of it.
func TestJoinCutStream(t *testing.T) {
	for _, name := range []string{"chat_length", "chat_tool", "completion_length"} {
		r := recordings(t)[name]
		whole := bytes.TrimRight(r.stream, "\n")
		for cut := range whole {
			if got, err := Join(bytes.NewReader(whole[:cut]), r.kind); !errors.Is(err, ErrStreamCut) {
				t.Fatalf("%s cut after %d of %d bytes: got %s, %v", name, cut, len(whole), got, err)
			}
		}
		if _, err := Join(bytes.NewReader(r.stream), r.kind); err != nil {
			t.Errorf("%s whole: %v", name, err)
		}
	}
}

func TestJoinFaults(t *testing.T) {
	broken := errors.New("connection reset")
	finish := `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	for _, tt := range []struct {
		name   string
		stream string
		want   string // part of the error
	}{
		{"no chunk", "data: [DONE]\n\n", ErrStreamCut.Error()},
		{"no finish_reason", `data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}` + "\n\ndata: [DONE]\n\n", ErrStreamCut.Error()},
		{"empty finish_reason", `data: {"choices":[{"index":0,"delta":{},"finish_reason":""}]}` + "\n\ndata: [DONE]\n\n", ErrStreamCut.Error()},
		{"no [DONE]", finish, ErrStreamCut.Error()},
		{"not JSON", "data: {\"choices\"\n\n" + finish, "colon"},
		{"not an object", "data: 7\n\n", "object"},
		{"second choice", `data: {"choices":[{"index":1,"delta":{"content":"a"}}]}` + "\n\n", "choice 1"},
		{"call out of order", `data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":3}]}}]}` + "\n\n", "tool call 3"},
		{"negative call", `data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":-1}]}}]}` + "\n\n", "negative"},
		{"text is a number", `data: {"choices":[{"index":0,"text":4}]}` + "\n\n", "not a string"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Join(strings.NewReader(tt.stream), Chat)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %s, %v, want an error with %q", got, err, tt.want)
			}
			if api := (*Error)(nil); errors.As(err, &api) {
				t.Errorf("blames the client: %v", api)
			}
		})
	}
	_, err := Join(io.MultiReader(strings.NewReader(finish), iotest.ErrReader(broken)), Chat)
	if !errors.Is(err, broken) {
		t.Errorf("broken connection: got %v", err)
	}
}

func TestJoinEngineError(t *testing.T) {
	for _, tt := range []struct {
		object string
		want   int
	}{
		{`{"code":400,"message":"too long","type":"exceed_context_size_error"}`, 400},
		{`{"code":500,"message":"boom","type":"server_error"}`, 500},
		{`{"code":"engine_crashed","message":"boom"}`, 500},
		{`{"code":200}`, 500},
		{`"boom"`, 500},
	} {
		stream := `data: {"choices":[{"index":0,"delta":{"content":"a"}}]}` + "\n\ndata: {\"error\":" + tt.object + "}\n\n"
		_, err := Join(strings.NewReader(stream), Chat)
		var got *EngineError
		if !errors.As(err, &got) {
			t.Errorf("%s: got %v", tt.object, err)
			continue
		}
		if want := `{"error":` + tt.object + `}`; got.Status != tt.want || string(got.Body) != want {
			t.Errorf("got %d %s, want %d %s", got.Status, got.Body, tt.want, want)
		}
	}
}

// A tool call's id and name may be sent again, longer; arguments are pieces. A second call opens behind the first.
func TestJoinToolCalls(t *testing.T) {
	var stream strings.Builder
	for _, calls := range []string{
		`[{"index":0,"id":"a","type":"function","function":{"name":"get","arguments":"{"}}]`,
		`[{"index":0,"id":"a","function":{"name":"get_weather","arguments":"\"x\":"}}]`,
		`[{"index":0,"function":{"arguments":"1}"}},{"index":1,"id":"b","type":"function","function":{"name":"f","arguments":""}}]`,
		`[{"index":1,"function":{"arguments":"{}"}}]`,
	} {
		fmt.Fprintf(&stream, "data: {\"choices\":[{\"index\":0,\"finish_reason\":null,\"delta\":{\"tool_calls\":%s}}]}\r\n\r\n", calls)
	}
	stream.WriteString(`data: {"choices":[{"index":0,"finish_reason":"tool_calls","delta":{}}],"__verbose":{"a":1}}` + "\n\ndata: [DONE]\n\n")
	got, err := Join(strings.NewReader(stream.String()), Chat)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"choices":[{"index":0,"finish_reason":"tool_calls","message":{"role":"assistant","content":"","tool_calls":[` +
		`{"type":"function","function":{"name":"get_weather","arguments":"{\"x\":1}"},"id":"a"},` +
		`{"type":"function","function":{"name":"f","arguments":"{}"},"id":"b"}]}}],"object":"chat.completion","__verbose":{"a":1}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestAskStream(t *testing.T) {
	const usage = `"stream_options":{"include_usage":true}`
	for _, tt := range []struct {
		name string
		kind Kind
		body string
		want string
	}{
		{"absent", Chat, `{"model":"m"}`, `{"stream":true,` + usage + `,"model":"m"}`},
		{"white space", Chat, " \n{ \"model\" : \"m\" }\n", " \n{\"stream\":true," + usage + ", \"model\" : \"m\" }\n"},
		{"false", Chat, `{"stream":false,"model":"m"}`, `{` + usage + `,"stream":true,"model":"m"}`},
		{"null at the end", Chat, `{"model":"m","stream": null}`, `{` + usage + `,"model":"m","stream": true}`},
		{"escaped name", Chat, `{"model":"m","str\u0065am":false}`, `{` + usage + `,"model":"m","str\u0065am":true}`},
		{"last one counts", Chat, `{"stream":false,"stream":false,"model":"m"}`, `{` + usage + `,"stream":false,"stream":true,"model":"m"}`},
		{"options first", Chat, `{"stream_options":{"include_usage":false},"a":1,"stream":false}`, `{` + usage + `,"a":1,"stream":true}`},
		{"options last", Chat, `{"stream":false,"a":1,"stream_options":null}`, `{"stream":true,"a":1,` + usage + `}`},
		{"options alone", Chat, `{"a":1,"stream_options":{}}`, `{"stream":true,"a":1,` + usage + `}`},
		{"no field", Chat, `{ }`, `{"stream":true,` + usage + ` }`},
		{"completion", Completion, `{"prompt":"p"}`, `{"stream":true,"prompt":"p"}`},
		{"completion false", Completion, `{"prompt":"p","stream":false}`, `{"prompt":"p","stream":true}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, err := Scan([]byte(tt.body))
			if err != nil || !req.Joinable() {
				t.Fatalf("joinable %v, %v", req.Joinable(), err)
			}
			if got := string(AskStream([]byte(tt.body), req, tt.kind)); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestJoinable(t *testing.T) {
	for body, want := range map[string]bool{
		`{"messages":[{"role":"user","content":"x"}]}`:                                      true,
		`{"messages":[{"role":"assistant","content":"x"},{"role":"user","content":"x"}]}`:   true,
		`{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"x"}]}`:   false,
		`{"messages":[{"role":"user"},{"content":"x","ro\u006ce":"\u0061ssistant"}]}`:       false,
		`{"messages":[{"role":"assistant"},7]}`:                                             true,
		`{"messages":[{"role":"user","content":[{"role":"assistant"}]}],"tools":[{"a":1}]}`: true,
		`{"prompt":"x"}`:                          true,
		`{"prompt":["x"]}`:                        false,
		`{"prompt":[1,2]}`:                        false,
		`{"prompt":"x","stream":true}`:            false,
		`{"prompt":"x","stream":null}`:            true,
		`{"prompt":"x","stream":"yes"}`:           false,
		`{"prompt":"x","stream":1}`:               false,
		`{"prompt":"x","n":1}`:                    true,
		`{"prompt":"x","n":2}`:                    false,
		`{"prompt":"x","n_cmpl":2}`:               false,
		`{"prompt":"x","best_of":2}`:              false,
		`{"prompt":"x","logprobs":null}`:          true,
		`{"prompt":"x","logprobs":false}`:         true,
		`{"prompt":"x","logprobs":true}`:          false,
		`{"prompt":"x","logprobs":5}`:             false,
		`{"prompt":"x","top_logprobs":2}`:         false,
		`{"prompt":"x","n_probs":1}`:              false,
		`{"prompt":"x","n_probs":0}`:              true,
		`{"prompt":"x","echo":true}`:              false,
		`{"prompt":"x","echo":false}`:             true,
		`{"prompt":"x","return_progress":true}`:   false,
		`{"prompt":"x","timings_per_token":true}`: false,
		`{"prompt":"x","response_fields":["a"]}`:  false,
		`{"prompt":"x","N":2,"logit_bias":{}}`:    true,
	} {
		req, err := Scan([]byte(body))
		if err != nil {
			t.Errorf("%s: %v", body, err)
		}
		if got := req.Joinable(); got != want {
			t.Errorf("%s: got %v, want %v", body, got, want)
		}
	}
}

func TestIsStream(t *testing.T) {
	for _, tt := range []struct {
		status int
		media  string
		want   bool
	}{
		{200, "text/event-stream", true},
		{200, "Text/Event-Stream; charset=utf-8", true},
		{200, "application/json; charset=utf-8", false},
		{400, "text/event-stream", false},
		{200, "", false},
	} {
		if got := IsStream(tt.status, http.Header{"Content-Type": {tt.media}}); got != tt.want {
			t.Errorf("%d %q: got %v", tt.status, tt.media, got)
		}
	}
}

// Arguments in many pieces come out whole.
func TestJoinLongAnswer(t *testing.T) {
	const pieces = 20_000
	chunk := `data: {"choices":[{"index":0,"finish_reason":null,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"abcd"}}]}}],"id":"x"}` + "\n\n"
	end := `data: {"choices":[{"index":0,"finish_reason":"tool_calls","delta":{}}]}` + "\n\ndata: [DONE]\n\n"
	stream := io.MultiReader(strings.NewReader(strings.Repeat(chunk, pieces)), strings.NewReader(end))
	got, err := Join(stream, Chat)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(got), "abcd"); n != pieces {
		t.Errorf("got %d pieces, want %d", n, pieces)
	}
}

// An engine gone mad can't fill our memory, neither with text nor with fields.
func TestJoinBounded(t *testing.T) {
	text := `data: {"choices":[{"index":0,"delta":{"content":"` + strings.Repeat("x", 1<<20) + `"}}]}` + "\n\n"
	var n int
	fields := readerFunc(func(p []byte) (int, error) {
		n++
		return copy(p, fmt.Sprintf("data: {\"f%d\":1}\n\n", n)), nil
	})
	for name, endless := range map[string]io.Reader{"text": repeat(text), "fields": fields} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Join(endless, Chat)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if used := after.HeapInuse - before.HeapInuse; int64(used) > 4*maxAnswer {
			t.Errorf("%s: %d MiB in use", name, used>>20)
		}
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// repeat reads s over and over.
func repeat(s string) io.Reader {
	at := 0
	return readerFunc(func(p []byte) (int, error) {
		n := copy(p, s[at:])
		at = (at + n) % len(s)
		return n, nil
	})
}

func FuzzJoin(f *testing.F) {
	for _, r := range recordings(f) {
		if len(r.stream) < 4<<10 {
			f.Add(r.stream, r.kind == Chat)
		}
	}
	f.Add([]byte("data: {\"error\":{}}\n\n"), true)
	f.Add([]byte("data: {\"choices\":[{\"delta\":{\"\\ud800\":\"\\udc00\"},\"finish_reason\":1}]}\n\ndata: [DONE]\n\n"), true)
	f.Fuzz(func(t *testing.T, stream []byte, chat bool) {
		kind := Completion
		if chat {
			kind = Chat
		}
		got, err := Join(bytes.NewReader(stream), kind)
		if err == nil && !json.Valid(got) {
			t.Errorf("joined to what is not JSON: %s", got)
		}
		if api := (*Error)(nil); errors.As(err, &api) {
			t.Errorf("blames the client: %v", api)
		}
	})
}

func BenchmarkJoin(b *testing.B) {
	r := recordings(b)["chat_tiny"] // 201 tokens
	b.SetBytes(int64(len(r.stream)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Join(bytes.NewReader(r.stream), Chat); err != nil {
			b.Fatal(err)
		}
	}
}
