package anthropic

import (
	"fmt"
	"strconv"

	"assistant/internal/dialect"
	"assistant/internal/openai"
)

// call is a request whose chat request is made. It implements dialect.Call.
type call struct {
	body    []byte
	model   string // as the client named it
	prefill string // what the model has to go on with; "" = it begins anew
	stream  bool
	silent  bool // max_tokens is 0: nothing is to be said
	counts  bool // the client wants to know how many tokens it sends, and no more
}

// builder writes the chat request.
type builder struct{ openai.Builder }

// Messages reads the body of POST /v1/messages. The body may be reused when it returns. Errors are *openai.Error with status 400 that
// name the field at fault as in messages[2].content[0].type.
//
// model, max_tokens and messages are required. max_tokens 0, which the API has for warming caches, reads the prompt and says nothing.
// These are understood beside them: system, stop_sequences, temperature, top_p, top_k, metadata.user_id, stream, tools, tool_choice,
// thinking and output_config.format, also as output_format. All others are ignored, but for mcp_servers: nobody would call them.
func Messages(body []byte) (dialect.Call, error) { return newCall(body, false) }

// CountTokens reads the body of POST /v1/messages/count_tokens, as [Messages]; max_tokens is not required and the answer is never
// streamed. The prompt is counted by reading it and generating one token, so what is counted is in the engine's cache afterwards. The
// answer is {"input_tokens": n}, cached ones included.
func CountTokens(body []byte) (dialect.Call, error) { return newCall(body, true) }

// newCall makes the chat request. The model comes first in it, what says how to answer next, the conversation last.
func newCall(body []byte, counts bool) (dialect.Call, error) {
	req, err := readRequest(body)
	if err != nil {
		return nil, err
	}
	model, err := req.NeedQuoted("model")
	if err != nil {
		return nil, openai.ModelRequired()
	}
	c := &call{model: dialect.Unquote(model), counts: counts}
	b := builder{openai.Builder{Buf: make([]byte, 0, len(body)+len(body)/8+256)}}
	b.Open('{')
	b.Field("model", model)
	choice, err := readChoice(req)
	if err != nil {
		return nil, err
	}
	tools, err := readTools(req, choice)
	if err != nil {
		return nil, err
	}
	if counts {
		b.Field("max_tokens", []byte("1"))
	} else if err := c.limits(&b, req); err != nil {
		return nil, err
	}
	if err := reasoning(&b, req); err != nil {
		return nil, err
	}
	if err := format(&b, req); err != nil {
		return nil, err
	}
	b.tools(tools)
	if len(tools) > 0 && !counts { // an engine that is forced to call fails to read the first token of a call as one
		b.choice(choice)
	}
	prefill, err := b.conversation(req)
	if err != nil {
		return nil, err
	}
	if prefill != nil {
		c.prefill = dialect.Unquote(prefill)
	}
	b.Close('}')
	c.body = b.Buf
	return c, nil
}

// readRequest checks the body and reads its fields.
func readRequest(body []byte) (dialect.Object, error) {
	req, err := dialect.ReadRequest(body)
	if err != nil {
		return req, err
	}
	if servers, _ := req.Array("mcp_servers"); len(servers) > 0 {
		return req, openai.InvalidRequest("mcp_servers",
			`"mcp_servers" are not called here: have the client connect to them and send their tools as "tools" with an "input_schema"`)
	}
	return req, nil
}

// limits writes what bounds and steers the answer.
func (c *call) limits(b *builder, req dialect.Object) error {
	if err := req.Need("max_tokens"); err != nil {
		return err
	}
	limit, err := req.Count("max_tokens")
	if err != nil {
		return err
	}
	c.silent = limit == 0
	b.Field("max_tokens", strconv.AppendInt(nil, int64(max(1, limit)), 10))
	if c.stream, err = req.Flag("stream"); err != nil {
		return err
	}
	if c.stream {
		b.Field("stream", []byte("true"))
		b.Field("stream_options", []byte(`{"include_usage":true}`))
	}
	for _, name := range []string{"temperature", "top_p", "top_k"} {
		value, err := req.Number(name)
		if err != nil {
			return err
		}
		b.Field(name, value)
	}
	stops, err := req.Array("stop_sequences")
	if err != nil {
		return err
	}
	for i, stop := range stops {
		if stop[0] != '"' {
			return dialect.MustBe(dialect.Element("stop_sequences", i), "a string")
		}
	}
	if len(stops) > 0 {
		b.Field("stop", req.Fields["stop_sequences"])
	}
	metadata, err := req.Object("metadata")
	if err != nil {
		return err
	}
	user, err := metadata.Quoted("user_id")
	b.Field("user", user)
	return err
}

// reasoning switches a model's reasoning on or off where the client says so. "adaptive" and others leave it to the model.
// llama-server b11669 and vLLM hand chat_template_kwargs to the template; thinking_budget_tokens is llama-server's name of a budget, by
// which it passes on that of its own /v1/messages.
func reasoning(b *builder, req dialect.Object) error {
	config, err := req.Object("thinking")
	if err != nil {
		return err
	}
	kind, err := config.Text("type")
	if err != nil {
		return err
	}
	switch kind {
	case "enabled":
		budget, err := config.Number("budget_tokens")
		if err != nil {
			return err
		}
		b.Field("chat_template_kwargs", []byte(`{"enable_thinking":true}`))
		b.Field("thinking_budget_tokens", budget)
	case "disabled":
		b.Field("chat_template_kwargs", []byte(`{"enable_thinking":false}`))
	}
	return nil
}

// format writes the schema that the answer has to follow.
func format(b *builder, req dialect.Object) error {
	config, err := req.Object("output_config")
	if err != nil {
		return err
	}
	from, name := config, "format"
	if !config.Has(name) {
		from, name = req, "output_format" // as it was called before it was a part of output_config
	}
	if !from.Has(name) {
		return nil
	}
	asked, err := from.Object(name)
	if err != nil {
		return err
	}
	kind, err := asked.Text("type")
	if err != nil {
		return err
	}
	if kind != "json_schema" {
		return openai.InvalidRequest(asked.Where("type"), fmt.Sprintf("an answer can't be of type %q: ask for json_schema", kind))
	}
	if err := asked.Need("schema"); err != nil {
		return err
	}
	if _, err := asked.Object("schema"); err != nil {
		return err
	}
	dialect.WriteSchema(&b.Builder, asked.Fields["schema"])
	return nil
}

func (c *call) Path() string { return "/v1/chat/completions" }

func (c *call) Body() []byte { return c.body }

func (c *call) Stream() dialect.Stream {
	if !c.stream {
		return nil
	}
	return &stream{call: c}
}
