package ollama

import (
	"strconv"
	"strings"
	"time"

	"assistant/internal/dialect"
	"assistant/internal/openai"
)

// Action is what a request is for.
type Action int

// Requests without a prompt are about the model itself.
const (
	Ask    Action = iota // the model is to answer
	Load                 // the model is to be made ready
	Unload               // the model is to be stopped
)

// kind is the route that a request came by.
type kind int

const (
	chat kind = iota
	generate
	embed
	embeddings
)

// Call is a request. It implements [dialect.Call].
type Call struct {
	kind   kind
	action Action
	path   string
	body   []byte
	model  string // as the client wrote it
	start  time.Time

	stream      bool
	logprobs    bool
	topLogprobs int
	prefill     string // what the model has to go on with; "" = it begins anew
	inputs      int    // texts to embed
	dimensions  int    // that their vectors are cut to; 0 = they are not
}

// Action tells what the request is for. Where that is not Ask, nothing is to be sent to an engine: Body names the model and holds no more,
// and the client's answer, once it is done, is what Immediate returns.
func (c *Call) Action() Action { return c.action }

// Path implements [dialect.Call].
func (c *Call) Path() string { return c.path }

// Body implements [dialect.Call].
func (c *Call) Body() []byte { return c.body }

// Stream implements [dialect.Call].
func (c *Call) Stream() dialect.Stream {
	if !c.stream {
		return nil
	}
	return &stream{call: c}
}

// builder writes the request to the endpoint.
type builder struct{ openai.Builder }

// Chat reads the body of POST /api/chat. The body may be reused when it returns. Errors are *openai.Error with status 400 that name the
// field at fault as in messages[2].images[0].
//
// model is required. These are understood beside it: messages, tools, stream, which is true unless it is said, format, options, think,
// logprobs, top_logprobs and keep_alive. All others are ignored. Without messages the model is to be loaded, with a keep_alive of 0 to be
// unloaded.
func Chat(body []byte) (*Call, error) {
	c, req, err := newCall(chat, body)
	if err != nil {
		return nil, err
	}
	messages, err := req.Array("messages")
	if err != nil {
		return nil, err
	}
	if len(messages) == 0 {
		return c, c.rests(req)
	}
	return c, c.write(req, len(body), func(b *builder) error {
		if err := b.tools(req); err != nil {
			return err
		}
		return c.conversation(b, messages)
	})
}

// Generate reads the body of POST /api/generate, as [Chat]: prompt, system and images are made a chat. With raw, or with a suffix, which
// the model is to write the text before, prompt and suffix are sent as they are, to be completed; system is ignored with a suffix, as
// Ollama does. A template is refused: the model file has it. context is ignored, and answers have none.
func Generate(body []byte) (*Call, error) {
	c, req, err := newCall(generate, body)
	if err != nil {
		return nil, err
	}
	p, err := readPrompt(req)
	if err != nil {
		return nil, err
	}
	if !isText(p.text) {
		return c, c.rests(req)
	}
	if p.raw {
		c.path = "/v1/completions"
	}
	return c, c.write(req, len(body), p.write)
}

// newCall reads what all requests have.
func newCall(of kind, body []byte) (*Call, dialect.Object, error) {
	c := &Call{kind: of, path: "/v1/chat/completions", start: time.Now()}
	req, err := dialect.ReadRequest(body)
	if err != nil {
		return nil, req, err
	}
	if c.model, err = req.Text("model"); err != nil || c.model == "" {
		return nil, req, openai.ModelRequired()
	}
	return c, req, nil
}

// rests is for a request that asks the model nothing.
func (c *Call) rests(req dialect.Object) error {
	ends, err := endsAtOnce(req)
	if err != nil {
		return err
	}
	c.action = Load
	if ends {
		c.action = Unload
	}
	b := c.begin(0)
	b.Close('}')
	c.body = b.Buf
	return nil
}

// write makes the body: the model first, then how to answer, and at the end what to, which rest writes.
func (c *Call) write(req dialect.Object, size int, rest func(*builder) error) (err error) {
	if _, err := endsAtOnce(req); err != nil {
		return err
	}
	if c.stream, err = req.Flag("stream"); err != nil {
		return err
	}
	c.stream = c.stream || !req.Has("stream")
	b := c.begin(size + size/8)
	if c.stream {
		b.Field("stream", []byte("true"))
		b.Field("stream_options", []byte(`{"include_usage":true}`))
	}
	for _, part := range []func(*builder, dialect.Object) error{options, c.readLogprobs, c.format, c.think} {
		if err := part(b, req); err != nil {
			return err
		}
	}
	if err := rest(b); err != nil {
		return err
	}
	b.Close('}')
	c.body = b.Buf
	return nil
}

// begin opens the body and names the model in it, as the catalog does.
func (c *Call) begin(size int) *builder {
	b := &builder{openai.Builder{Buf: make([]byte, 0, size+256)}}
	b.Open('{')
	b.Quote("model", []byte(Name(c.model)))
	return b
}

// isText says whether a string of the request is there and not empty.
func isText(quoted []byte) bool { return len(quoted) > len(`""`) }

// endsAtOnce reads keep_alive, seconds or a duration, and says whether it is 0. How long models stay otherwise is for the router to say.
func endsAtOnce(req dialect.Object) (bool, error) {
	raw := req.Fields["keep_alive"]
	if raw == nil {
		return false, nil
	}
	text := string(raw)
	if raw[0] == '"' {
		text = dialect.Unquote(raw)
	}
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		return seconds == 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return false, dialect.MustBe("keep_alive", `seconds, or a duration such as "5m"`)
	}
	return d == 0, nil
}

// readLogprobs asks for those that the client wants.
func (c *Call) readLogprobs(b *builder, req dialect.Object) (err error) {
	if c.logprobs, err = req.Flag("logprobs"); err != nil {
		return err
	}
	top, err := req.Count("top_logprobs")
	if err != nil || top > maxTopLogprobs {
		return dialect.MustBe("top_logprobs", "a whole number from 0 to "+strconv.Itoa(maxTopLogprobs))
	}
	c.topLogprobs = max(0, top)
	if !c.logprobs {
		return nil
	}
	if c.completes() {
		b.Field("logprobs", strconv.AppendInt(nil, int64(max(1, c.topLogprobs)), 10)) // 0 asks for none of llama-server
		return nil
	}
	b.Field("logprobs", []byte("true"))
	if c.topLogprobs > 0 {
		b.Field("top_logprobs", strconv.AppendInt(nil, int64(c.topLogprobs), 10))
	}
	return nil
}

// maxTopLogprobs is Ollama's.
const maxTopLogprobs = 20

// completes says whether the request is for text completions.
func (c *Call) completes() bool { return c.path == "/v1/completions" }

// format writes what the answer has to be like. llama-server b11669 takes a text completion's schema by another name than a chat's, which
// others know by the same.
func (c *Call) format(b *builder, req dialect.Object) error {
	raw := req.Fields["format"]
	switch {
	case raw == nil, string(raw) == `""`:
		return nil
	case string(raw) == `"json"`:
		b.Field("response_format", []byte(`{"type":"json_object"}`))
		raw = []byte(`{"type":"object"}`)
	case raw[0] == '{':
		dialect.WriteSchema(&b.Builder, raw)
	default:
		return dialect.MustBe("format", `"json" or a JSON schema`)
	}
	if c.completes() {
		b.Field("json_schema", raw)
	}
	return nil
}

// think switches reasoning on or off. llama-server b11669 and vLLM hand chat_template_kwargs to the model's template; reasoning_effort is
// OpenAI's. Of the levels, templates know the three of OpenAI's.
func (c *Call) think(b *builder, req dialect.Object) error {
	if !req.Has("think") {
		return nil
	}
	level := string(req.Fields["think"])
	switch level {
	case "true", "false":
		b.Field("chat_template_kwargs", []byte(`{"enable_thinking":`+level+`}`))
		return nil
	case `"max"`:
		level = `"high"`
	case `"low"`, `"medium"`, `"high"`:
	default:
		return dialect.MustBe("think", `true, false, "low", "medium", "high" or "max"`)
	}
	b.Field("chat_template_kwargs", []byte(`{"enable_thinking":true,"reasoning_effort":`+level+`}`))
	b.Field("reasoning_effort", []byte(level))
	return nil
}

// latest is the tag of names that have none.
const latest = ":latest"

// Name is a model's name without the tag that Ollama's clients give names that have none: the one to look up in the catalog.
func Name(model string) string { return strings.TrimSuffix(model, latest) }
