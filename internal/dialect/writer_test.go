package dialect

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"assistant/internal/openai"
)

// fakeCall is an API whose streams are words in brackets.
type fakeCall struct{ streams bool }

func (fakeCall) Path() string { return "/v1/chat/completions" }
func (fakeCall) Body() []byte { return nil }
func (c fakeCall) Stream() Stream {
	if c.streams {
		return fakeStream{}
	}
	return nil
}

func (fakeCall) Whole(answer []byte) ([]byte, error) {
	a, err := ReadAnswer(answer)
	if err != nil {
		return nil, err
	}
	return []byte("<" + a.Text + ">"), nil
}

type fakeStream struct{}

func (fakeStream) ContentType() string               { return "text/fake" }
func (fakeStream) Chunk(dst []byte, c *Chunk) []byte { return append(dst, "["+c.Text+c.Finish+"]"...) }
func (fakeStream) Wait(dst []byte) []byte            { return append(dst, "[wait]"...) }
func (fakeStream) End(dst []byte) []byte             { return append(dst, "[end]"...) }
func (fakeStream) Error(dst []byte, e *openai.Error) []byte {
	return append(dst, "["+e.Code+": "+e.Message+"]"...)
}

func fakeErrors(e *openai.Error) []byte { return []byte("!" + e.Code + ": " + e.Message) }

func chunkOf(text string) string {
	return `data: {"choices":[{"index":0,"delta":{"content":"` + text + `"}}]}` + "\n\n"
}

const lastChunk = `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"

func TestStreamsAreTranslatedHoweverTheyAreCut(t *testing.T) {
	for name, c := range map[string]struct{ said, want string }{
		"whole":            {chunkOf("a") + chunkOf("b") + lastChunk + "data: [DONE]\n\n", "[a][b][stop][end]"},
		"crlf":             {strings.ReplaceAll(chunkOf("a")+lastChunk+"data: [DONE]\n\n", "\n", "\r\n"), "[a][stop][end]"},
		"no space":         {`data:{"choices":[{"delta":{"content":"a"}}]}` + "\n\ndata:[DONE]\n\n", "[a][end]"},
		"of two lines":     {"data: {\"choices\":\ndata: [{\"text\":\"a\"}]}\n\ndata: [DONE]\n\n", "[a][end]"},
		"comments":         {": wait\n" + chunkOf("a") + ": wait\n\n" + "data: [DONE]\n\n", "[wait][a][wait][end]"},
		"null first":       {"data: null\n\n" + chunkOf("a") + "data: [DONE]\n\n", "[a][end]"},
		"event names":      {"event: x\nid: 3\n" + chunkOf("a") + "data: [DONE]\n\n", "[a][end]"},
		"said after done":  {chunkOf("a") + "data: [DONE]\n\n" + chunkOf("b"), "[a][end]"},
		"cut":              {chunkOf("a"), "[a][engine_crashed: the engine ended in the middle of the answer]"},
		"cut in a line":    {chunkOf("a") + "data: {", "[a][engine_crashed: the engine ended in the middle of the answer]"},
		"error":            {chunkOf("a") + `data: {"error":{"code":"x","message":"no","type":"server_error","param":null}}` + "\n\n" + "data: [DONE]\n\n", "[a][x: no]"},
		"error of llama's": {`data: {"error":{"code":400,"message":"too long","type":"invalid_request_error"}}` + "\n\n", "[: too long]"},
	} {
		t.Run(name, func(t *testing.T) {
			for cut := range len(c.said) + 1 {
				w := httptest.NewRecorder()
				d := NewWriter(w, fakeErrors)
				d.Answers(fakeCall{streams: true})
				for _, piece := range []string{c.said[:cut], c.said[cut:]} {
					if _, err := io.WriteString(d, piece); err != nil {
						t.Fatal(err)
					}
				}
				d.Close()
				if got := w.Body.String(); got != c.want {
					t.Fatalf("cut at %d: got %s, want %s", cut, got, c.want)
				}
				if got := w.Header().Get("Content-Type"); got != "text/fake" {
					t.Fatalf("Content-Type %q", got)
				}
			}
		})
	}
}

func TestNonsenseInAStreamEndsItWithAnError(t *testing.T) {
	w := httptest.NewRecorder()
	d := NewWriter(w, fakeErrors)
	d.Answers(fakeCall{streams: true})
	_, _ = io.WriteString(d, "data: {nonsense\n\n"+chunkOf("late"))
	d.Close()
	if got := w.Body.String(); !strings.HasPrefix(got, "[engine_failed: the engine's answer: ") || strings.Contains(got, "late") {
		t.Errorf("got %s", got)
	}
}

func TestWholeAnswersAreTranslated(t *testing.T) {
	w := httptest.NewRecorder()
	d := NewWriter(w, fakeErrors)
	d.Answers(fakeCall{})
	d.Header().Set("Content-Length", "3")
	_, _ = io.WriteString(d, `{"choices":[{"message":`)
	if err := http.NewResponseController(d).Flush(); err != nil || w.Flushed {
		t.Errorf("flushing half an answer: %v, flushed %t", err, w.Flushed)
	}
	_, _ = io.WriteString(d, `{"content":"hello"}}]}`)
	d.Close()
	if got := w.Body.String(); got != "<hello>" || w.Header().Get("Content-Length") != "7" || w.Code != http.StatusOK {
		t.Errorf("got %d %s, length %s", w.Code, got, w.Header().Get("Content-Length"))
	}
}

func TestErrorsTakeTheFormOfTheAPI(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(*Writer)
		status int
		want   string
	}{
		"before the call is read": {func(d *Writer) { openai.ModelRequired().WriteTo(d) }, 400, "!: "},
		"of the engine": {func(d *Writer) {
			d.Answers(fakeCall{streams: true})
			d.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(d, `{"error":{"code":"model_loading","message":"wait"}}`)
		}, 503, "!model_loading: wait"},
		"that is plain text": {func(d *Writer) {
			d.Answers(fakeCall{})
			d.WriteHeader(http.StatusTeapot)
			_, _ = io.WriteString(d, "no\ncoffee\n")
		}, 418, "!: no"},
		"without a word": {func(d *Writer) {
			d.Answers(fakeCall{})
			d.WriteHeader(http.StatusBadGateway)
		}, 502, "!: Bad Gateway"},
		"an answer that is none": {func(d *Writer) {
			d.Answers(fakeCall{})
			_, _ = io.WriteString(d, `{"choices":`)
		}, 502, "!engine_failed: the engine's answer: "},
		"an answer that broke off": {func(d *Writer) {
			d.Answers(fakeCall{})
			_, _ = io.WriteString(d, `{"choices":`)
			d.Fail(openai.EngineCrashed("m"))
		}, 502, "!engine_crashed: "},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			d := NewWriter(w, fakeErrors)
			c.answer(d)
			d.Close()
			if w.Code != c.status || !strings.HasPrefix(w.Body.String(), c.want) {
				t.Errorf("got %d %s, want %d %s…", w.Code, w.Body, c.status, c.want)
			}
		})
	}
}

func TestStreamThatFailsInTheMiddleSaysSoOnce(t *testing.T) {
	w := httptest.NewRecorder()
	d := NewWriter(w, fakeErrors)
	d.Answers(fakeCall{streams: true})
	_, _ = io.WriteString(d, chunkOf("a"))
	d.Fail(openai.ShuttingDown())
	d.Close()
	if got := w.Body.String(); strings.Count(got, "shutting_down") != 1 || strings.Contains(got, "engine_crashed") {
		t.Errorf("got %s", got)
	}
}

func TestWholeAnswerIsBounded(t *testing.T) {
	d := NewWriter(httptest.NewRecorder(), fakeErrors)
	d.Answers(fakeCall{})
	piece := make([]byte, 1<<20)
	var err error
	for range maxWhole>>20 + 1 {
		if _, err = d.Write(piece); err != nil {
			break
		}
	}
	if !errors.Is(err, openai.ErrEventTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestChunksAreRead(t *testing.T) {
	c, err := ReadAnswer([]byte(`{"id":"i","model":"m","created":7,"choices":[{"index":0,"finish_reason":"tool_calls","logprobs":{"content":[]},
		"message":{"content":null,"reasoning":"so","reasoning_content":"so","refusal":"no",
		"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}},{"index":5,"id":"b","function":{"name":"g","arguments":""}}]}}],
		"usage":{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":8},"completion_tokens_details":{"reasoning_tokens":3}},
		"timings":{"prompt_ms":1.5,"predicted_ms":-1}}`))
	if err != nil {
		t.Fatal(err)
	}
	if c.ID != "i" || c.Model != "m" || c.Created != 7 || c.Text != "" || c.Reasoning != "so" || c.Refusal != "no" || c.Finish != "tool_calls" {
		t.Errorf("got %+v", c)
	}
	if len(c.ToolCalls) != 2 || c.ToolCalls[0] != (ToolCall{Index: 0, ID: "a", Name: "f", Arguments: "{}"}) || c.ToolCalls[1].Index != 5 {
		t.Errorf("calls %+v", c.ToolCalls)
	}
	if *c.Usage != (Usage{Prompt: 9, Completion: 4, Cached: 8, Reasoning: 3}) {
		t.Errorf("usage %+v", c.Usage)
	}
	if *c.Timings != (Timings{Prompt: 1500 * time.Microsecond}) {
		t.Errorf("timings %+v", c.Timings)
	}
}
