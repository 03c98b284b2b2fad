package openai

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var edge = Dialect{Repairs: LlamaAPIServer, Context: 512}

func planOf(t testing.TB, body string, kind Kind, d Dialect) (*Plan, error) {
	t.Helper()
	req, err := Scan([]byte(body))
	if err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return NewPlan([]byte(body), req, "default", kind, d)
}

func mustPlan(t testing.TB, body string, kind Kind) *Plan {
	t.Helper()
	p, err := planOf(t, body, kind, edge)
	if err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return p
}

const hello = `"messages":[{"role":"user","content":"Hi"}]`

// Each quirk of a request, by its number.
func TestRepairedRequest(t *testing.T) {
	const streams = `"stream":true,"stream_options":{"include_usage":true},`
	for _, tt := range []struct {
		name string
		kind Kind
		body string
		want string // JSON; as sent, but for the order
	}{
		{"always streamed", Chat, `{"model":"m",` + hello + `}`, `{` + streams + `"model":"m",` + hello + `}`},
		{
			"3 tools without tool_choice", Chat, `{"tools":[{"type":"function"}],` + hello + `}`,
			`{` + streams + `"tool_choice":"auto","tools":[{"type":"function"}],` + hello + `}`,
		},
		{
			"3 tool_choice null", Chat, `{"tools":[{}],"tool_choice":null,` + hello + `}`,
			`{` + streams + `"tool_choice":"auto","tools":[{}],` + hello + `}`,
		},
		{
			"3 tool_choice none", Chat, `{"tools":[{}],"tool_choice":"none",` + hello + `}`,
			`{` + streams + `"tool_choice":"none","tools":[{}],` + hello + `}`,
		},
		{
			"4 max_tokens", Chat, `{"max_tokens":7,` + hello + `}`,
			`{` + streams + `"max_completion_tokens":7,"max_tokens":null,` + hello + `}`,
		},
		{
			"4 both limits", Chat, `{"max_tokens":7,"max_completion_tokens":9,` + hello + `}`,
			`{` + streams + `"max_completion_tokens":7,"max_tokens":null,` + hello + `}`,
		},
		{"4 no limit", Chat, `{"max_tokens":-1,` + hello + `}`, `{` + streams + `"max_tokens":null,` + hello + `}`},
		{"5 stop", Chat, `{"stop":"x",` + hello + `}`, `{` + streams + `"stop":null,` + hello + `}`},
		{"5 stop array", Chat, `{"stop":["x","\n"],` + hello + `}`, `{` + streams + `"stop":null,` + hello + `}`},
		{
			"6 what may be ignored", Chat, `{"n":2,"logprobs":true,"drop_params":true,` + hello + `}`,
			`{` + streams + `"n":null,"logprobs":null,"drop_params":null,` + hello + `}`,
		},
		{
			"6 what asks for nothing", Chat, `{"n":1,"logprobs":false,"response_format":{"type":"text"},` + hello + `}`,
			`{` + streams + `"n":1,"logprobs":false,"response_format":{"type":"text"},` + hello + `}`,
		},
		{"8 user", Chat, `{"user":"me",` + hello + `}`, `{` + streams + `"user":null,` + hello + `}`},
		{
			"9 parts", Chat, `{"messages":[{"role":"system","content":[{"type":"text","text":"a\"b"},{"type":"text","text":"c"}]},{"content":[],"role":"tool"}]}`,
			`{` + streams + `"messages":[{"role":"system","content":"a\"b\nc"},{"content":"","role":"tool"}]}`,
		},
		{
			"16 completion", Completion, `{"prompt":["Hi"],"stream":true,"stream_options":{"include_usage":true},"stop":"x","max_tokens":-1}`,
			`{"prompt":"Hi","stream":null,"stream_options":null,"stop":null,"max_tokens":null}`,
		},
		{"16 base64", Embeddings, `{"input":"a","encoding_format":"base64"}`, `{"input":"a","encoding_format":"float"}`},
		{"16 texts", Embeddings, `{"input":["a","b"]}`, `{"input":["a","b"]}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got, want any
			sent := mustPlan(t, tt.body, tt.kind).Body([]byte(tt.body))
			if err := json.Unmarshal(sent, &got); err != nil {
				t.Fatalf("%v: %s", err, sent)
			}
			if err := json.Unmarshal([]byte(tt.want), &want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("sent (- want):\n%s", diff)
			}
		})
	}
}

// The engine's own name for the model goes into any object.
func TestRepairedModelName(t *testing.T) {
	for body, want := range map[string]string{
		`{}`:             `{"model":"own \"name\""}`,
		`{ "model":"m"}`: `{ "model":"own \"name\""}`,
		`{"input":"a"}`:  `{"model":"own \"name\"","input":"a"}`,
	} {
		p, err := planOf(t, body, Embeddings, Dialect{Repairs: RepairAnswers, Model: `own "name"`})
		if err != nil {
			t.Fatal(err)
		}
		if got := string(p.Body([]byte(body))); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// What can't be honoured is refused by the parameter's name (6, 9, 16).
func TestRefusedRequest(t *testing.T) {
	for _, tt := range []struct {
		kind  Kind
		body  string
		param string
	}{
		{Chat, `{"response_format":{"type":"json_schema","json_schema":{}},` + hello + `}`, "response_format"},
		{Chat, `{"response_format":{"type":"json_object"},` + hello + `}`, "response_format"},
		{Chat, `{"response_format":"json",` + hello + `}`, "response_format"},
		{Chat, `{"logprobs":true,` + hello + `}`, "logprobs"},
		{Chat, `{"top_logprobs":2,` + hello + `}`, "top_logprobs"},
		{Chat, `{"n":2,` + hello + `}`, "n"},
		{Chat, `{"n":2,"drop_params":false,` + hello + `}`, "n"},
		{Chat, `{"logit_bias":{"5":1},` + hello + `}`, "logit_bias"},
		{Chat, `{"top_k":5,` + hello + `}`, "top_k"},
		{Chat, `{"min_p":0.1,` + hello + `}`, "min_p"},
		{Chat, `{"max_tokens":0,` + hello + `}`, "max_tokens"},
		{Chat, `{"max_tokens":"many",` + hello + `}`, "max_tokens"},
		{Chat, `{"max_tokens":1,"max_tokens":2,` + hello + `}`, "max_tokens"},
		{Chat, `{"max_completion_tokens":1.5,` + hello + `}`, "max_completion_tokens"},
		{Chat, `{"stop":5,` + hello + `}`, "stop"},
		{Chat, `{"stop":["a",5],` + hello + `}`, "stop"},
		{Chat, `{"stop":["` + strings.Repeat("a", maxStopSize+1) + `"],` + hello + `}`, "stop"},
		{Chat, `{"stream_options":true,` + hello + `}`, "stream_options"},
		{Chat, `{"drop_params":1,` + hello + `}`, "drop_params"},
		{Chat, `{}`, "messages"},
		{Chat, `{"messages":[]}`, "messages"},
		{Chat, `{"messages":"Hi"}`, "messages"},
		{Chat, `{"messages":["Hi"]}`, "messages"},
		{Chat, `{"messages":[{"role":"user","content":["Hi"]}]}`, "messages"},
		{Chat, `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}}]}]}`, "messages"},
		{Chat, `{"messages":[{"role":"user","content":[{"type":"input_audio"}]}]}`, "messages"},
		{Completion, `{"prompt":["a","b"]}`, "prompt"},
		{Completion, `{"prompt":[1,2]}`, "prompt"},
		{Completion, `{"prompt":"a","best_of":2}`, "best_of"},
		{Completion, `{"prompt":"a","echo":true}`, "echo"},
		{Completion, `{"prompt":"a","suffix":"b"}`, "suffix"},
		{Completion, `{"prompt":"a","logprobs":2}`, "logprobs"},
		{Embeddings, `{"input":[1,2]}`, "input"},
		{Embeddings, `{"input":[[1,2],[3]]}`, "input"},
		{Embeddings, `{"input":[]}`, "input"},
		{Embeddings, `{"input":""}`, "input"},
		{Embeddings, `{"input":"a","dimensions":5}`, "dimensions"},
		{Embeddings, `{"input":"a","encoding_format":"hex"}`, "encoding_format"},
	} {
		_, err := planOf(t, tt.body, tt.kind, edge)
		var e *Error
		if !errors.As(err, &e) || e.Status != 400 || e.Param != tt.param || e.Type != TypeInvalidRequest {
			t.Errorf("%.80s: got %v (%+v), want a 400 about %s", tt.body, err, e, tt.param)
		}
	}
}

func TestImagesStayWhereTheModelSees(t *testing.T) {
	seeing := edge
	seeing.Images = true
	body := `{"messages":[{"role":"user","content":[{"type":"text","text":"What is it?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}}]}]}`
	p, err := planOf(t, body, Chat, seeing)
	if err != nil {
		t.Fatal(err)
	}
	if sent := string(p.Body([]byte(body))); !strings.Contains(sent, `"image_url":{"url":"data:image/png;base64,AA=="}`) {
		t.Errorf("sent %s", sent)
	}
	if _, err := planOf(t, strings.Replace(body, "data:image/png;base64,AA==", "https://example.org/a.png", 1), Chat, seeing); err == nil {
		t.Error("an image that the engine would have to fetch is not refused")
	}
}

func TestIgnoredIsTold(t *testing.T) {
	p := mustPlan(t, `{"seed":1,"n":2,"drop_params":true,`+hello+`}`, Chat)
	if diff := cmp.Diff([]string{"seed", "n"}, p.Ignored); diff != "" {
		t.Error(diff)
	}
}

// 11: the engine drops the oldest messages of a conversation that fills more than four fifths of its context.
func TestPruningIsTold(t *testing.T) {
	long := `{"messages":[{"role":"user","content":"` + strings.Repeat("word ", 400) + `"},{"role":"user","content":"Hi"}]}`
	if !mustPlan(t, long, Chat).Pruned {
		t.Error("a conversation of 500 tokens is not told to be too long for a context of 512")
	}
	if mustPlan(t, `{`+hello+`}`, Chat).Pruned {
		t.Error("a short one is")
	}
}

// 10, and what is told apart by it.
func TestRepairedError(t *testing.T) {
	p := mustPlan(t, `{"model":"m",`+hello+`}`, Chat)
	for _, tt := range []struct {
		status     int
		said       string
		want       int
		kind       string
		param      string
		code       string
		has, hides string
	}{
		{
			500, "500 Internal Server Error: Failed to get chat completions. Reason: The number of prompt tokens (900) is greater than the context size (512). Please increase the context size, or simplify the input message.",
			400, TypeInvalidRequest, "messages", "context_length_exceeded", "900", "500 Internal",
		},
		{400, "400 Bad Request: Fail to deserialize chat completion request: invalid type.\njson_value: {\"secret\":1}", 400, TypeInvalidRequest, "", "", "invalid type", "secret"},
		{
			500, "500 Internal Server Error: Failed to get chat completions. Reason: Unsupported prompt template: chatml. The tool use is only supported for 'chatml-tool'.",
			400, TypeInvalidRequest, "tools", "unsupported_parameter", "chatml-tool", "",
		},
		{500, "500 Internal Server Error: The chat completion is only supported in the chat or rag mode.", 400, TypeInvalidRequest, "model", "", "chat or rag", ""},
		{500, "500 Internal Server Error: Failed to execute the inference.", 502, TypeServer, "", CodeEngineFailed, "execute", "500"},
		{500, "500 Internal Server Error", 502, TypeServer, "", CodeEngineFailed, "why", ""},
		{401, "401 Unauthorized", 502, TypeServer, "", CodeEngineFailed, "401", ""},
		{404, "404 Not Found", 502, TypeServer, "", CodeEngineFailed, "404", ""},
		{400, `{"error":{"message":"no","type":"invalid_request_error","code":400}}`, 400, TypeInvalidRequest, "", "", "no", ""},
		{503, "busy", 503, TypeServer, "", "", "busy", ""},
		{429, "busy", 429, TypeRateLimit, "", "", "busy", ""},
		{0, `{"error":{"message":"boom"}}`, 502, TypeServer, "", CodeEngineFailed, "boom", ""},
	} {
		e := p.Error(tt.status, []byte(tt.said))
		if e.Status != tt.want || e.Type != tt.kind || e.Param != tt.param || e.Code != tt.code {
			t.Errorf("%.60q: got %+v", tt.said, e)
		}
		if !strings.Contains(e.Message, tt.has) || tt.hides != "" && strings.Contains(e.Message, tt.hides) {
			t.Errorf("%.60q: message %q", tt.said, e.Message)
		}
	}
}

// 16: vectors in base64, by which official SDKs ask.
func TestRepairedEmbeddings(t *testing.T) {
	said, err := os.ReadFile(filepath.Join("testdata", "dialect", "embeddings.json"))
	if err != nil {
		t.Fatal(err)
	}
	for encoding, want := range map[string]string{
		"float":  `{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5,-1,3.25e-2]},{"object":"embedding","index":1,"embedding":[]}],"model":"asked","usage":{"prompt_tokens":6,"total_tokens":6}}`,
		"base64": `{"object":"list","data":[{"object":"embedding","index":0,"embedding":"AAAAPwAAgL+4HgU9"},{"object":"embedding","index":1,"embedding":""}],"model":"asked","usage":{"prompt_tokens":6,"total_tokens":6}}`,
	} {
		p := mustPlan(t, `{"model":"asked","input":"a","encoding_format":"`+encoding+`"}`, Embeddings)
		got, counts, err := p.Answer(said)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want || counts != (Counts{Prompt: 6}) {
			t.Errorf("%s: got %s\nwant %s (%+v)", encoding, got, want, counts)
		}
	}
	for _, said := range []string{`{}`, `[]`, `{"data":[{}]}`, `{"data":[{"embedding":["x"]}]}`, `oops`} {
		p := mustPlan(t, `{"input":"a","encoding_format":"base64"}`, Embeddings)
		if got, _, err := p.Answer([]byte(said)); err == nil {
			t.Errorf("%s passes as %s", said, got)
		}
	}
}
