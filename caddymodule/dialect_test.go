package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"assistant/internal/enginetest"
)

// edgeModel writes the file of a model served by the fake engine in llama-api-server's dialect.
func (s *site) edgeModel(name, more string, flags ...string) {
	s.tb.Helper()
	argv := append([]string{
		s.engine, "--port", "{{port}}", "--events", s.events, "--dialect", enginetest.DialectLlamaAPIServer, "-c", "{{ctx_size}}", "--model-name", "default",
	}, flags...)
	quoted, err := json.Marshal(argv) // JSON's strings are TOML's
	if err != nil {
		s.tb.Fatal(err)
	}
	s.file(name, fmt.Sprintf("command = %s\ndialect = \"llama-api-server\"\nctx_size = 500\n%s\n", quoted, more))
}

// reply is a plain answer.
type reply struct {
	ID, Model, Object string
	Choices           []struct {
		Text    string
		Message struct {
			Content string
			Calls   []struct {
				Function struct{ Name, Arguments string }
			} `json:"tool_calls"`
		}
		Delta struct {
			Role    string
			Content string
			Calls   []struct{ Function struct{ Name string } } `json:"tool_calls"`
		}
		Finish *string `json:"finish_reason"`
	}
	Usage *struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
	}
}

func (a answered) reply(t *testing.T) (r reply) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), &r); err != nil || a.status != http.StatusOK {
		t.Fatalf("status %d, %v: %s", a.status, err, a.body)
	}
	return r
}

// streamed is what the events of an answered request say.
func (a answered) streamed(t *testing.T) (text, finish string, usage int) {
	t.Helper()
	events := strings.Split(strings.TrimSuffix(a.body, "\n\n"), "\n\n")
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "text/event-stream" || events[len(events)-1] != "data: [DONE]" {
		t.Fatalf("status %d, %v: %s", a.status, a.header, a.body)
	}
	for _, event := range events[:len(events)-1] {
		var r reply
		if err := json.Unmarshal([]byte(strings.TrimPrefix(event, "data: ")), &r); err != nil {
			t.Fatalf("%v: %s", err, event)
		}
		for _, c := range r.Choices {
			text += c.Delta.Content + c.Text
			if c.Finish != nil {
				finish += *c.Finish
			}
		}
		if r.Usage != nil {
			usage = r.Usage.Completion
		}
	}
	return text, finish, usage
}

const greeting = `"messages":[{"role":"user","content":"Hi"}]`

func TestDialectThroughTheHandler(t *testing.T) {
	overTransports(t, func(t *testing.T, s *site) {
		s.edgeModel("m", `aliases = ["other"]`, "--tokens", "200", "--prompt-template", "chatml-tool")
		s.edgeModel("say", "", "--text", "One 😀 two\nUser: three")
		s.start()
		ask := func(path, body string) answered {
			t.Helper()
			return s.ask(http.MethodPost, path, body)
		}

		r := ask(chatPath, `{"model":"other",`+greeting+`,"max_tokens":5}`).reply(t)
		if c := r.Choices[0]; c.Message.Content != " 1 2 3 4 5" || *c.Finish != "length" || r.Model != "other" || !strings.HasPrefix(r.ID, "chatcmpl-") || r.Usage.Completion != 5 {
			t.Errorf("max_tokens, plain: %+v", r)
		}
		a := ask(chatPath, `{"model":"m",`+greeting+`,"max_tokens":5,"stream":true,"user":"me"}`)
		if text, finish, usage := a.streamed(t); text != " 1 2 3 4 5" || finish != "length" || usage != 0 || strings.Contains(a.body, `"me"`) {
			t.Errorf("max_tokens, streamed: %q, %s: %s", text, finish, a.body)
		}
		if a.header.Get("User") != "" || a.header.Get("Access-Control-Allow-Origin") != "" || a.header.Get(requestIDHeader) == "" {
			t.Errorf("header %v", a.header)
		}
		if text, finish, usage := ask(chatPath, `{"model":"m",`+greeting+`,"stream":true,"stream_options":{"include_usage":true}}`).streamed(t); !strings.HasSuffix(text, " 200") || finish != "stop" || usage != 200 {
			t.Errorf("streamed to its end: %q, %s, %d", text, finish, usage)
		}
		if text, finish, _ := ask(chatPath, `{"model":"say",`+greeting+`,"stream":true,"stop":["\nUser:"]}`).streamed(t); text != "One 😀 two" || finish != "stop" {
			t.Errorf("stop: %q, %s", text, finish)
		}
		r = ask(chatPath, `{"model":"m","tools":[{"type":"function","function":{"name":"weather"}}],"messages":[{"role":"user","content":[{"type":"text","text":"use the tool"}]}]}`).reply(t)
		if c := r.Choices[0]; *c.Finish != "tool_calls" || len(c.Message.Calls) != 1 || c.Message.Calls[0].Function.Name != "weather" {
			t.Errorf("tools: %+v", r)
		}
		if text, finish, _ := ask("/v1/completions", `{"model":"m","prompt":"Hi","stream":true,"stop":" 4"}`).streamed(t); text != "1 2 3" || finish != "stop" {
			t.Errorf("completion: %q, %s", text, finish)
		}
		if r := ask("/v1/completions", `{"model":"m","prompt":"Hi"}`).reply(t); r.Object != "text_completion" || r.Model != "m" || *r.Choices[0].Finish != "stop" {
			t.Errorf("completion: %+v", r)
		}
		if a := ask(chatPath, `{"model":"m",`+greeting+`,"max_tokens":1,"seed":7}`); a.header.Get(ignoredHeader) != "seed" {
			t.Errorf("header %v", a.header)
		}
	})
}

func TestDialectErrors(t *testing.T) {
	s := newSite(t)
	s.edgeModel("m", "", "--tokens", "5")
	s.start()
	if a := s.ask(http.MethodPost, chatPath, `{"model":"m",`+greeting+`,"n":2}`); a.status != http.StatusBadRequest || text(a.apiError(t).Param) != "n" {
		t.Errorf("n: status %d: %s", a.status, a.body)
	}
	if n := len(s.started()); n != 0 {
		t.Errorf("%d engines were started for a request that none can serve", n)
	}
	long := strings.Repeat("word ", 600)
	for _, tt := range []struct {
		body   string
		status int
		param  string
		code   string
	}{
		{`{"model":"m","messages":[{"role":"user","content":"` + long + `"}]}`, 400, "messages", "context_length_exceeded"},
		{`{"model":"m","stream":true,"messages":[{"role":"user","content":"` + long + `"}]}`, 400, "messages", "context_length_exceeded"},
		{`{"model":"m",` + greeting + `,"tools":[{"type":"function","function":{"name":"f"}}]}`, 400, "tools", "unsupported_parameter"},
		{`{"model":"m",` + greeting + `,"logit_bias":{"5":"x"},"drop_params":true,"tools":{}}`, 400, "", ""},
		{`{"model":"nobody",` + greeting + `}`, 404, "model", "model_not_found"},
	} {
		a := s.ask(http.MethodPost, chatPath, tt.body)
		e := a.apiError(t)
		if a.status != tt.status || text(e.Param) != tt.param || text(e.Code) != tt.code || e.Type != "invalid_request_error" {
			t.Errorf("%.80s: status %d: %s", tt.body, a.status, a.body)
		}
	}
	a := s.ask(http.MethodPost, chatPath, `{"model":"m","messages":[{"role":"user","content":"`+long+`"},{"role":"user","content":"Hi"}]}`)
	if a.status != http.StatusOK || a.header.Get(prunedHeader) != "likely" {
		t.Errorf("a conversation that was pruned: status %d, %v", a.status, a.header)
	}
}

func TestDialectEmbeddings(t *testing.T) {
	s := newSite(t)
	s.edgeModel("m", `kind = "embedding"`, "--embeddings")
	s.edgeModel("own", "kind = \"embedding\"\ntoken_ids = \"model\"", "--embeddings")
	s.start()
	a := s.ask(http.MethodPost, "/v1/embeddings", `{"model":"m","input":["cat","dog"],"encoding_format":"base64"}`)
	var list struct {
		Model string
		Data  []struct{ Embedding []byte }
	}
	if err := json.Unmarshal([]byte(a.body), &list); err != nil || len(list.Data) != 2 || len(list.Data[0].Embedding) != 4*enginetest.Dimensions || list.Model != "m" {
		t.Errorf("status %d, %v: %.200s", a.status, err, a.body)
	}
	if a := s.ask(http.MethodPost, "/v1/embeddings", `{"model":"m","input":[1,2,3]}`); a.status != http.StatusOK {
		t.Errorf("OpenAI's tokens: status %d: %s", a.status, a.body)
	}
	if a := s.ask(http.MethodPost, "/v1/embeddings", `{"model":"own","input":[1,2,3]}`); a.status != http.StatusBadRequest || text(a.apiError(t).Param) != "input" {
		t.Errorf("tokens: status %d: %s", a.status, a.body)
	}
}

// A full context is told apart from a normal end (12).
func TestDialectContextFull(t *testing.T) {
	s := newSite(t)
	s.edgeModel("m", "", "--tokens", "1000")
	s.start()
	text, finish, _ := s.ask(http.MethodPost, chatPath, `{"model":"m",`+greeting+`,"stream":true}`).streamed(t)
	if finish != "length" || strings.Contains(text, "WASMEDGE") || !strings.HasSuffix(text, " 496") {
		t.Errorf("%s: %q", finish, text[max(0, len(text)-60):])
	}
}

// A client that leaves stops the generation, of plain requests too, and so does enough of it. The one slot is free at
// once for the next.
func TestDialectFreesTheEngine(t *testing.T) {
	for _, transport := range []string{transportLean, transportStd} {
		for _, stream := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, stream %v", transport, stream), func(t *testing.T) {
				s := newSite(t)
				s.handler["transport"] = transport
				s.edgeModel("m", "", "--tokens", "450", "--token-delay", "20ms")
				s.start()
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				left := make(chan error)
				go func() {
					_, err := do(ctx, http.MethodPost, s.url+chatPath, fmt.Sprintf(`{"model":"m",%s,"stream":%v}`, greeting, stream))
					left <- err
				}()
				s.eventually("the engine has the request", func() bool { return len(s.happened(enginetest.EventBegin)) == 1 })
				leave()
				<-left
				if !within(time.Second, func() bool { return len(s.happened(enginetest.EventCancel)) == 1 }) {
					t.Error("the engine generates for nobody")
				}
				a := s.ask(http.MethodPost, chatPath, fmt.Sprintf(`{"model":"m",%s,"stream":%v,"max_tokens":2}`, greeting, stream))
				if a.status != http.StatusOK {
					t.Errorf("the next: status %d: %s", a.status, a.body)
				}
				if !within(time.Second, func() bool { return len(s.happened(enginetest.EventCancel)) == 2 }) {
					t.Error("the engine goes on behind max_tokens")
				}
				s.eventually("the lease is given back", func() bool { return engineFree(t, "m") })
			})
		}
	}
}

// The engine dies in the middle of a stream, and before it has said a word.
func TestDialectEngineDies(t *testing.T) {
	s := newSite(t)
	s.edgeModel("dies", "", "--die-after-tokens", "3")
	s.edgeModel("mute", "", "--die-on-request")
	s.start()
	a := s.ask(http.MethodPost, chatPath, `{"model":"dies",`+greeting+`,"stream":true}`)
	if !strings.HasSuffix(strings.TrimSpace(a.body), `"code":"engine_crashed"}}`) || strings.Contains(a.body, "[DONE]") {
		t.Errorf("status %d: %s", a.status, a.body)
	}
	for _, body := range []string{`{"model":"mute",` + greeting + `}`, `{"model":"mute",` + greeting + `,"stream":true}`} {
		if a := s.ask(http.MethodPost, chatPath, body); a.status != http.StatusBadGateway || text(a.apiError(t).Code) != "engine_crashed" {
			t.Errorf("status %d: %s", a.status, a.body)
		}
	}
}

// With keep_alive the status has gone out before the engine answers.
func TestDialectAfterKeepAlive(t *testing.T) {
	s := newSite(t)
	s.handler["keep_alive"] = "10ms"
	s.edgeModel("m", "", "--tokens", "3", "--start-delay", "300ms")
	s.start()
	a := s.ask(http.MethodPost, chatPath, `{"model":"m",`+greeting+`,"stream":true}`)
	if !strings.HasPrefix(a.body, ": waiting") {
		t.Fatalf("no comment: %s", a.body)
	}
	a.body = a.body[strings.LastIndex(a.body, ": waiting"):]
	a.body = a.body[strings.Index(a.body, "\n")+1:]
	if text, finish, _ := a.streamed(t); text != " 1 2 3" || finish != "stop" {
		t.Errorf("%q, %s", text, finish)
	}
}

// Metrics have the tokens, whether or not the client asked for them.
func TestDialectTokensAreCounted(t *testing.T) {
	s := newSite(t)
	s.edgeModel("m", "", "--tokens", "7")
	s.start()
	s.ask(http.MethodPost, chatPath, `{"model":"m",`+greeting+`,"stream":true}`)
	if got := current(t).stats.of("m").completeTokens.Get(); got != 7 {
		t.Errorf("%d tokens counted, want 7", got)
	}
}

// TestSpeech: a command may speak, in whatever bytes; of engines that cannot, a client is told what it takes.
func TestSpeech(t *testing.T) {
	overTransports(t, func(t *testing.T, s *site) {
		s.file("voice", fmt.Sprintf("kind = \"speech\"\ncommand = [%q, \"--port\", \"{{port}}\", \"--echo\"]\n", s.engine))
		s.file("guest", "kind = \"speech\"\nengine = \"wasmedge\"\nwasm = \"guest\"\nmodel_path = \"/m.gguf\"\n")
		s.file("llama", "kind = \"speech\"\nengine = \"llama-server\"\nmodel_path = \"/m.gguf\"\n")
		s.start()
		const path = "/v1/audio/speech"
		if a := s.ask(http.MethodPost, path, `{"model":"voice","input":"Hi","voice":"x"}`); a.status != http.StatusOK || !strings.Contains(a.body, path) {
			t.Errorf("%d: %s", a.status, a.body)
		}
		for model, want := range map[string]string{"guest": "OuteTTS", "llama": `engine = \"command\"`} {
			a := s.ask(http.MethodPost, path, `{"model":"`+model+`","input":"Hi"}`)
			if a.status != http.StatusBadRequest || !strings.Contains(a.body, want) || !strings.Contains(a.body, `"code":"unsupported_model"`) {
				t.Errorf("%s: %d: %s", model, a.status, a.body)
			}
		}
	})
}
