package enginetest

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// raw asks an engine and returns what it says, as it says it.
func raw(t *testing.T, e *Engine, path, body string, header ...string) (status int, h http.Header, said string) {
	t.Helper()
	method := http.MethodPost
	if body == "" {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(t.Context(), method, e.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(b)
}

// The quirks of llama-api-server, by their numbers in docs/dialects.md: what the router's tests stand on.
func TestEdgeQuirks(t *testing.T) {
	const hi = `"messages":[{"role":"user","content":"Hi"}]`
	t.Setenv("API_KEY", "secret")
	start := func(flags ...string) *Engine {
		return Start(t, append([]string{"--dialect", DialectLlamaAPIServer, "-c", "100", "--model-name", "default"}, flags...)...)
	}
	e := start("--tokens", "50")
	tools := start("--tokens", "3", "--prompt-template", "chatml-tool")
	vectors := start("--embeddings")
	emoji := start("--text", "A 😀")
	for _, tt := range []struct {
		name   string
		e      *Engine
		path   string
		body   string
		status int
		has    []string
		lacks  []string
	}{
		{"1 no finish_reason", e, "chat/completions", `{"stream":true,` + hi + `}`, 200, []string{`"content":" 1","role":"assistant"`, "data: [DONE]\n\n"}, []string{`"stop"`, "usage"}},
		{"1 usage asked for", e, "chat/completions", `{"stream":true,"stream_options":{"include_usage":true},` + hi + `}`, 200, []string{`"choices":[],`, `"completion_tokens":50`}, []string{`"stop"`}},
		{
			"2 tool stream", tools, "chat/completions", `{"stream":true,"tools":[{"function":{"name":"f"}}],"tool_choice":"auto","messages":[{"role":"user","content":"tool"}]}`, 200,
			[]string{`"tool_calls":[{"index":0,"id":"call_abc123"`, `"usage"`},
			[]string{`"finish_reason":"`},
		},
		{"3 tools without tool_choice", tools, "chat/completions", `{"tools":[{"function":{"name":"f"}}],"messages":[{"role":"user","content":"tool"}]}`, 200, []string{`"1 2 3"`}, []string{"call_abc"}},
		{"4 max_tokens", e, "chat/completions", `{"max_tokens":2,` + hi + `}`, 200, []string{" 50\"", `"finish_reason":"stop"`}, nil},
		{"4 max_completion_tokens", e, "chat/completions", `{"max_completion_tokens":2,` + hi + `}`, 200, []string{" 20\"", `"finish_reason":"stop"`}, nil},
		{"5 stop string", e, "chat/completions", `{"stop":"3",` + hi + `}`, 400, []string{"400 Bad Request: Fail to deserialize chat completion request: ", "\njson_value: {"}, nil},
		{"5 stop array", e, "chat/completions", `{"stop":["3"],` + hi + `}`, 200, []string{" 50\""}, nil},
		{"6 ignored", e, "chat/completions", `{"n":2,"logprobs":true,"response_format":{"type":"json_object"},` + hi + `}`, 200, []string{`"logprobs":null`}, []string{`"index":1`}},
		{"7 unknown model", e, "chat/completions", `{"model":"nobody",` + hi + `}`, 200, []string{`"model":"default"`}, nil},
		{"8 user", e, "chat/completions", `{"user":"me",` + hi + `}`, 200, []string{`"id":"me"`}, nil},
		{"9 parts", e, "chat/completions", `{"messages":[{"role":"system","content":[{"type":"text","text":"a"}]}]}`, 400, []string{"Fail to deserialize"}, nil},
		{"10 no messages", e, "chat/completions", `{"messages":[]}`, 500, []string{"500 Internal Server Error: "}, []string{"{"}},
		{"10 tools with another template", e, "chat/completions", `{"tools":[{"function":{"name":"f"}}],"tool_choice":"auto",` + hi + `}`, 500, []string{"The tool use is only supported for"}, nil},
		{"10 too long", e, "chat/completions", `{"messages":[{"role":"user","content":"` + strings.Repeat("word ", 200) + `"}]}`, 500, []string{"is greater than the context size (100)"}, nil},
		{"11 pruned", e, "chat/completions", `{"messages":[{"role":"user","content":"` + strings.Repeat("word ", 200) + `"},{"role":"user","content":"Hi"}]}`, 200, []string{`"prompt_tokens":4,`}, nil},
		{
			"12 context full", e, "chat/completions", `{"stream":true,"messages":[{"role":"user","content":"` + strings.Repeat("word ", 60) + `"}]}`, 200,
			[]string{`{"content":"<|WASMEDGE-GGML-CONTEXT-FULL|>","role":"assistant"},"logprobs":null,"finish_reason":"length"`},
			nil,
		},
		{"16 completion", e, "completions", `{"prompt":["a","b"],"stream":true,"max_tokens":1}`, 200, []string{`"object":"text_completion"`, `"text":"1 2`, ` 50"`}, []string{"data:"}},
		{"16 numbers", vectors, "embeddings", `{"input":"a","encoding_format":"base64"}`, 200, []string{`"embedding":[`}, nil},
		{"16 tokens", vectors, "embeddings", `{"input":[[1,2],[3]]}`, 200, []string{`"embedding":[`, `"index":1`}, nil},
		{"17 emoji", emoji, "chat/completions", `{"stream":true,` + hi + `}`, 200, []string{`"content":""`, `"content":"😀"`}, nil},
		{"chat to an embedding model", vectors, "chat/completions", `{` + hi + `}`, 500, []string{"is only supported in the"}, nil},
		{"embeddings of a chat model", e, "embeddings", `{"input":"a"}`, 500, []string{"is only supported in the"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, header, said := raw(t, tt.e, "/v1/"+tt.path, tt.body)
			if status != tt.status || header.Get("Access-Control-Allow-Origin") != "*" {
				t.Fatalf("status %d, %v: %s", status, header, said)
			}
			for _, has := range tt.has {
				if !strings.Contains(said, has) {
					t.Errorf("lacks %s:\n%s", has, said)
				}
			}
			for _, lacks := range tt.lacks {
				if strings.Contains(said, lacks) {
					t.Errorf("has %s:\n%s", lacks, said)
				}
			}
		})
	}
	for path, want := range map[string]int{"/health": 404, "/echo": 200, "/v1/models": 200, "/v1/info": 200, "/v1/models/default": 404} {
		if status, _, said := raw(t, e, path, ""); status != want {
			t.Errorf("%s: status %d: %s", path, status, said)
		}
	}
	for key, want := range map[string]int{"Bearer wrong": 401, "Bearer secret": 200} { // 13
		if status, _, _ := raw(t, e, "/v1/models", "", "Authorization", key); status != want {
			t.Errorf("%s: status %d", key, status)
		}
	}
}

// What it streams is to the byte what the crate that upstream writes its chunks with makes of them, but for ids and times.
func TestEdgeStreamIsUpstreams(t *testing.T) {
	want, err := os.ReadFile("../openai/testdata/dialect/chat_no_usage.sse")
	if err != nil {
		t.Fatal(err)
	}
	e := Start(t, "--dialect", DialectLlamaAPIServer, "--model-name", "default", "--text", "Hello world")
	_, _, said := raw(t, e, "/v1/chat/completions", `{"stream":true,"messages":[{"role":"user","content":"Hi"}]}`)
	varying := regexp.MustCompile(`"id":"chatcmpl-[-0-9a-f]{36}"|"created":[0-9]+`)
	if got, want := varying.ReplaceAllString(said, "…"), varying.ReplaceAllString(string(want), "…"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// 14: one request at a time, whatever it is.
func TestEdgeIsSerial(t *testing.T) {
	e := Start(t, "--dialect", DialectLlamaAPIServer, "--tokens", "30", "--token-delay", "10ms")
	res, err := http.Post(e.URL+"/v1/chat/completions", "application/json", strings.NewReader(`{"stream":true,"messages":[{"role":"user","content":"Hi"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	first := make([]byte, 1)
	if _, err := res.Body.Read(first); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	raw(t, e, "/v1/models", "")
	if took := time.Since(began); took < 100*time.Millisecond {
		t.Errorf("answered in %v, while it generates for 300 ms", took)
	}
	if rest, err := io.ReadAll(res.Body); err != nil || !bytes.HasSuffix(rest, []byte("[DONE]\n\n")) {
		t.Errorf("%v: %q", err, rest)
	}
}
