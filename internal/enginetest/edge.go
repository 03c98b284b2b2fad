package enginetest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// DialectLlamaAPIServer makes the engine speak as LlamaEdge's llama-api-server does.
const DialectLlamaAPIServer = "llama-api-server"

// edge answers as llama-api-server 0.28 does, with what is odd about that: the numbers are those of docs/dialects.md.
// What it does was read in its source, and that of the crates llama-core 0.35 and endpoints 0.38, and seen of it running.
type edge struct {
	s      *server
	mux    *http.ServeMux
	key    string // of the environment's API_KEY
	serial chan struct{}
}

// newEdge makes the handler. It has no /health: that it listens means that it is ready.
func newEdge(s *server) *edge {
	e := &edge{s: s, mux: http.NewServeMux(), key: os.Getenv("API_KEY"), serial: make(chan struct{}, 1)}
	e.mux.HandleFunc("GET /v1/models", e.models)
	e.mux.HandleFunc("GET /v1/info", e.info)
	e.mux.HandleFunc("/echo", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "echo test") })
	e.mux.HandleFunc("POST /v1/chat/completions", e.post(e.chat))
	e.mux.HandleFunc("POST /v1/completions", e.post(e.completion))
	e.mux.HandleFunc("POST /v1/embeddings", e.post(e.embeddings))
	e.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusNotFound, "404 Not Found") })
	return e
}

// ServeHTTP lets one request in at a time, whatever it is: the server has one thread, which computes as well.
func (e *edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set(PidHeader, e.s.pid)
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "*")
	h.Set("Access-Control-Allow-Headers", "*")
	if given := r.Header.Get("Authorization"); given != "" && e.key != "" && given != "Bearer "+e.key { // 13: none is as good as the right one
		say(w, http.StatusUnauthorized, "401 Unauthorized")
		return
	}
	select {
	case e.serial <- struct{}{}:
		defer func() { <-e.serial }()
	case <-r.Context().Done():
		return
	}
	e.mux.ServeHTTP(w, r)
}

// say answers in plain text (10), without a content type of its own.
func say(w http.ResponseWriter, status int, text string) {
	w.Header()["Content-Type"] = nil
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// fault is an error's status and text.
type fault struct {
	status int
	text   string
}

func (f *fault) Error() string { return f.text }

func internal(format string, args ...any) error {
	return &fault{http.StatusInternalServerError, "500 Internal Server Error: " + fmt.Sprintf(format, args...)}
}

// unreadable is what it says of a body that is not as it wants it, all of which it repeats.
func unreadable(what string, err error, body []byte) error {
	text := fmt.Sprintf("400 Bad Request: Fail to deserialize %s request: %v.", what, err)
	if json.Valid(body) {
		text += "\njson_value: " + string(body)
	}
	return &fault{http.StatusBadRequest, text}
}

func (e *edge) models(w http.ResponseWriter, _ *http.Request) {
	send(w, map[string]any{"object": "list", "data": []any{map[string]any{
		"id": e.s.o.Alias, "created": time.Now().Unix(), "object": "model", "owned_by": "Not specified",
	}}})
}

func (e *edge) info(w http.ResponseWriter, _ *http.Request) {
	send(w, map[string]any{
		"type": "llama", "version": "0.28.1", "ggml_plugin_version": "fake", "port": strconv.Itoa(e.s.o.Port),
		"chat_model": map[string]any{"name": e.s.o.Alias, "type": "chat", "ctx_size": e.s.o.Ctx, "prompt_template": e.s.o.Template},
	})
}

// post reads a request's body, and notes what becomes of it.
func (e *edge) post(answer func(context.Context, http.ResponseWriter, []byte) (int, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n := e.s.requests.Add(1)
		body, err := io.ReadAll(r.Body)
		var named struct {
			Model string `json:"model"`
		}
		_ = json.Unmarshal(body, &named) // what it is not, answer says
		e.s.events.add(Event{Name: EventBegin, Request: n, Path: r.URL.Path, Model: named.Model})
		if e.s.o.DieOnRequest {
			die()
		}
		done := Event{Name: EventEnd, Request: n, Path: r.URL.Path, Model: named.Model}
		if err == nil {
			done.Tokens, err = answer(r.Context(), w, body)
		}
		if told := (*fault)(nil); asFault(err, &told) {
			say(w, told.status, told.text)
		} else if err != nil {
			done.Name = EventCancel
		}
		e.s.events.add(done)
	}
}

func asFault(err error, to **fault) bool {
	f, ok := err.(*fault) //nolint:errorlint // never wrapped
	*to = f
	return ok
}

// edgeRequest is what it reads of a chat's request. There is no max_tokens (4), and no seed, logprobs, top_k or min_p
// (6); n, stop, logit_bias and response_format are read and forgotten (5, 6).
type edgeRequest struct {
	User      string             `json:"user"`
	Stream    bool               `json:"stream"`
	Options   *streamOptions     `json:"stream_options"`
	Stop      []string           `json:"stop"`
	Limit     *int               `json:"max_completion_tokens"`
	N         *int               `json:"n"`
	LogitBias map[string]float64 `json:"logit_bias"`
	Messages  []edgeMessage      `json:"messages"`
	Tools     []edgeTool         `json:"tools"`
	Choice    json.RawMessage    `json:"tool_choice"`
}

type edgeTool struct {
	Function struct {
		Name string `json:"name"`
	} `json:"function"`
}

type edgeMessage struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

// text is the content. Only a user's may be parts (9), of which it sees the text.
func (m *edgeMessage) text() (string, error) {
	var text *string
	err := json.Unmarshal(m.Content, &text)
	switch {
	case len(m.Content) == 0, err == nil && text == nil:
		return "", nil
	case err == nil:
		return *text, nil
	case m.Role != "user":
		return "", fmt.Errorf("invalid type: sequence, expected a string")
	}
	var parts []struct {
		Text string `json:"text"`
	}
	err = json.Unmarshal(m.Content, &parts)
	all := make([]string, len(parts))
	for i := range parts {
		all[i] = parts[i].Text
	}
	return strings.Join(all, "\n"), err
}

// words counts tokens of a prompt.
func words(text string) int { return len(strings.Fields(text)) }

// prompt returns the tokens of the conversation, from which the oldest messages are dropped until it fits into four
// fifths of the context (11), and the last message.
func (e *edge) prompt(list []edgeMessage, body []byte) (tokens int, last string, err error) {
	sizes := make([]int, len(list))
	for i := range list {
		if last, err = list[i].text(); err != nil {
			return 0, "", unreadable("chat completion", err, body)
		}
		sizes[i] = words(last) + 3
		tokens += sizes[i]
	}
	for len(list) > 1 && tokens > e.s.o.Ctx*4/5 {
		drop := 0
		if list[0].Role == "system" && len(list) > 2 {
			drop = 1
		}
		tokens -= sizes[drop]
		list, sizes = slices.Delete(slices.Clone(list), drop, drop+1), slices.Delete(sizes, drop, drop+1)
	}
	if tokens > e.s.o.Ctx {
		return 0, "", internal("Failed to get chat completions. Reason: The number of prompt tokens (%d) is greater than the context size (%d)."+
			" Please increase the context size, or simplify the input message.", tokens, e.s.o.Ctx)
	}
	return tokens, last, nil
}

// edgeAnswer is an answer to a chat.
type edgeAnswer struct {
	e      *edge
	id     string
	prompt int
	tokens []string
	full   bool // the context is, behind the tokens
	said   int
}

func (e *edge) chat(ctx context.Context, w http.ResponseWriter, body []byte) (int, error) {
	var req edgeRequest
	if err := json.Unmarshal(body, &req); err != nil {
		return 0, unreadable("chat completion", err, body)
	}
	if e.s.o.Embeddings {
		return 0, internal("Failed to get chat completions. Reason: The chat completion is only supported in the chat or rag mode.")
	}
	if len(req.Messages) == 0 {
		return 0, internal("Failed to get chat completions. Reason: The messages in the chat request are empty.")
	}
	a := edgeAnswer{e: e, id: req.User} // 8
	if a.id == "" {
		a.id = fmt.Sprintf("chatcmpl-%08x-0000-4000-8000-%012x", os.Getpid(), e.s.requests.Load())
	}
	var last string
	var err error
	if a.prompt, last, err = e.prompt(req.Messages, body); err != nil {
		return 0, err
	}
	a.generate(req.Limit)
	w.Header().Set("User", a.id)
	usage := req.Options != nil && req.Options.IncludeUsage
	choice := strings.Trim(string(req.Choice), `"`)
	if len(req.Tools) > 0 && choice != "" && choice != "null" && choice != "none" { // 3: none of these is "none"
		return a.callTool(ctx, w, req, last)
	}
	if req.Stream {
		return a.stream(ctx, w, usage)
	}
	for range a.tokens { // 4 of engine-wasm.md: whoever has left
		if err := pause(context.WithoutCancel(ctx), e.s.o.TokenDelay); err != nil {
			return 0, err
		}
	}
	finish := "stop" // 1: whatever the reason
	if a.full {
		finish = "length"
	}
	write(w, http.StatusOK, a.plain(strings.TrimSpace(strings.Join(a.tokens, "")), "[]", finish))
	return len(a.tokens), ctx.Err()
}

// generate decides what is said. A limit below a fifth of the context is raised to that (4).
func (a *edgeAnswer) generate(limit *int) {
	a.tokens = a.e.tokens()
	if limit != nil {
		a.tokens = a.tokens[:min(len(a.tokens), max(*limit, a.e.s.o.Ctx-a.e.s.o.Ctx*4/5))]
	}
	if room := a.e.s.o.Ctx - a.prompt; len(a.tokens) > room {
		a.tokens, a.full = a.tokens[:max(0, room)], true
	}
}

// tokens are those of --text, or --tokens of them. A character of four bytes is two tokens, of which the first has no
// text yet (17).
func (e *edge) tokens() (list []string) {
	if e.s.o.Text == "" {
		for i := range e.s.o.Tokens {
			list = append(list, " "+strconv.Itoa(i+1))
		}
		return list
	}
	piece := ""
	cut := func() {
		if piece != "" {
			list, piece = append(list, piece), ""
		}
	}
	for _, r := range e.s.o.Text {
		if r == ' ' {
			cut()
		}
		if utf8.RuneLen(r) == utf8.UTFMax {
			cut()
			list = append(list, "", string(r))
			continue
		}
		piece += string(r)
	}
	cut()
	return list
}

// chunk is one of the stream: every one has the role (1), none a finish_reason unless the context is full.
func (a *edgeAnswer) chunk(choices, usage string) []byte {
	return fmt.Appendf(nil, `data: {"id":%s,"choices":[%s],"created":%d,"model":%s,"system_fingerprint":"fp_44709d6fcb","object":"chat.completion.chunk"%s}`+"\n\n",
		quote(a.id), choices, time.Now().Unix(), quote(a.e.s.o.Alias), usage) // 7: its own name, whatever was asked for
}

func (a *edgeAnswer) choice(content, more, finish string) string {
	return `{"index":0,"delta":{"content":` + content + more + `,"role":"assistant"},"logprobs":null,"finish_reason":` + finish + `}`
}

func (a *edgeAnswer) usage() string {
	return fmt.Sprintf(`"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`, a.prompt, a.said, a.prompt+a.said)
}

// stream ends as it does: text, usage, [DONE] (1), or with the mark of a full context as text (12).
func (a *edgeAnswer) stream(ctx context.Context, w http.ResponseWriter, usage bool) (int, error) {
	send := a.begin(w)
	for _, t := range a.tokens {
		if err := pause(ctx, a.e.s.o.TokenDelay); err != nil {
			return a.said, err
		}
		if err := send(a.chunk(a.choice(quote(t), "", "null"), "")); err != nil {
			return a.said, err
		}
		if a.said++; a.said == a.e.s.o.DieAfterTokens {
			die()
		}
	}
	var end []byte
	if a.full {
		end = a.chunk(a.choice(`"<|WASMEDGE-GGML-CONTEXT-FULL|>"`, "", `"length"`), "")
	}
	if usage {
		end = append(end, a.chunk("", ","+a.usage())...)
	}
	return a.said, send(append(end, "data: [DONE]\n\n"...))
}

func (a *edgeAnswer) begin(w http.ResponseWriter) (send func([]byte) error) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	rc := http.NewResponseController(w)
	return func(b []byte) error {
		if _, err := w.Write(b); err != nil {
			return err
		}
		return rc.Flush()
	}
}

func (a *edgeAnswer) plain(content, calls, finish string) []byte {
	a.said = len(a.tokens)
	return fmt.Appendf(nil, `{"id":%s,"object":"chat.completion","created":%d,"model":%s,"choices":[{"index":0,"message":{"content":%s,"tool_calls":%s,"role":"assistant"},"finish_reason":"%s","logprobs":null}],%s}`,
		quote(a.id), time.Now().Unix(), quote(a.e.s.o.Alias), quote(content), calls, finish, a.usage())
}

// toolTemplates are some of those that can call tools.
var toolTemplates = []string{"mistral-tool", "chatml-tool", "groq-llama3-tool", "llama-3-tool", "qwen3-no-think"}

// callTool computes the whole answer before it says a word; then it is one chunk, the usage that nobody asked for, and
// no finish_reason (2). The first tool is called if the last message has the word tool in it.
func (a *edgeAnswer) callTool(ctx context.Context, w http.ResponseWriter, req edgeRequest, last string) (int, error) {
	if !slices.Contains(toolTemplates, a.e.s.o.Template) {
		return 0, internal("Failed to get chat completions. Reason: Unsupported prompt template: %s. The tool use is only supported for 'mistral-tool', 'chatml-tool', …", a.e.s.o.Template)
	}
	for range a.tokens {
		if err := pause(context.WithoutCancel(ctx), a.e.s.o.TokenDelay); err != nil {
			return 0, err
		}
	}
	a.said = len(a.tokens)
	calls := strings.Contains(last, "tool")
	w.Header().Set("Requires-Tool-Call", strconv.FormatBool(calls))
	content, call := quote(strings.TrimSpace(strings.Join(a.tokens, ""))), ""
	if calls {
		content = "null"
		call = `{"id":"call_abc123","type":"function","function":{"name":` + quote(req.Tools[0].Function.Name) + `,"arguments":"{\"city\":\"Paris\"}"}}`
	}
	if !req.Stream {
		finish := "stop"
		if calls {
			finish, content = "tool_calls", `""`
		}
		text, _ := strconv.Unquote(content)
		write(w, http.StatusOK, a.plain(text, "["+call+"]", finish))
		return a.said, nil
	}
	if calls {
		call = `,"tool_calls":[{"index":0,` + call[1:] + `]`
	}
	out := a.chunk(a.choice(content, call, "null"), "")
	out = append(out, a.chunk("", ","+a.usage())...)
	return a.said, a.begin(w)(append(out, "data: [DONE]\n\n"...))
}

// completion answers a text completion: as a whole, even if a stream was asked for (16), to the prompts all in one,
// without regard for max_tokens (4), with white space trimmed and always "stop" (1).
func (e *edge) completion(ctx context.Context, w http.ResponseWriter, body []byte) (int, error) {
	var req struct {
		Prompt json.RawMessage `json:"prompt"`
		Stop   []string        `json:"stop"`
		Limit  *uint32         `json:"max_tokens"`
	}
	err := json.Unmarshal(body, &req)
	var prompts []string
	if err == nil {
		if prompts, err = texts(req.Prompt); err != nil {
			err = fmt.Errorf("data did not match any variant of untagged enum CompletionPrompt")
		}
	}
	if err != nil {
		return 0, unreadable("completions", err, body)
	}
	if e.s.o.Embeddings {
		return 0, internal("The completion is only supported in the chat mode.")
	}
	a := edgeAnswer{e: e, prompt: words(strings.Join(prompts, " "))}
	a.generate(nil)
	for range a.tokens {
		if err := pause(context.WithoutCancel(ctx), e.s.o.TokenDelay); err != nil {
			return 0, err
		}
	}
	a.said = len(a.tokens)
	write(w, http.StatusOK, fmt.Appendf(nil, `{"id":"00000000-0000-4000-8000-000000000000","object":"text_completion","created":%d,"model":%s,"choices":[{"index":0,"text":%s,"finish_reason":"stop","logprobs":null}],%s}`,
		time.Now().Unix(), quote(e.s.o.Alias), quote(strings.TrimSpace(strings.Join(a.tokens, ""))), a.usage()))
	return a.said, ctx.Err()
}

// embeddings answers with numbers whatever the encoding_format, and embeds the digits of tokens (16).
func (e *edge) embeddings(_ context.Context, w http.ResponseWriter, body []byte) (int, error) {
	var req struct {
		Input json.RawMessage `json:"input"`
		User  string          `json:"user"`
	}
	if err := json.Unmarshal(body, &req); err != nil {
		return 0, unreadable("embedding", err, body)
	}
	if !e.s.o.Embeddings {
		return 0, internal("Computing embeddings is only supported in the embeddings and rag modes.")
	}
	inputs, err := texts(req.Input)
	var tokens []json.RawMessage
	if err != nil && json.Unmarshal(req.Input, &tokens) == nil {
		for _, t := range tokens {
			inputs = append(inputs, strings.Trim(strings.ReplaceAll(string(t), ",", " "), "[]"))
		}
	}
	all, _ := json.Marshal(inputs) // strings can be marshalled
	list, err := embeddings(request{Input: all}, e.s.o.Alias)
	if err != nil {
		return 0, unreadable("embedding", err, body)
	}
	list.Usage["completion_tokens"] = 0
	w.Header().Set("User", req.User)
	send(w, list)
	return 0, nil
}
