package responses

import (
	"encoding/json"
	"math"
	"net/http"
	"time"

	"assistant/internal/dialect"
	"assistant/internal/openai"
)

// request is a POST to /v1/responses.
type request struct {
	fields
	store *Store
	owner string
}

// Values of "include" that ask for something that can be had here. Others are of tools that are not served.
const (
	includeLogprobs  = "message.output_text.logprobs"
	includeEncrypted = "reasoning.encrypted_content"
)

// maxLogprobs is the API's limit of top_logprobs.
const maxLogprobs = 20

// Create reads a POST to /v1/responses of an owner's. Errors are *openai.Error: with status 404 for an item_reference to what is not
// held, else 400, naming the field in Param, such as "input[2].content[0].type". Unknown fields are ignored.
//
// The call is a *[Call]. Where the request has "background": true, see [Call.Background].
func (s *Store) Create(owner string, body []byte) (dialect.Call, error) {
	first := &fault{}
	q := &request{fields: fields{first: first}, store: s, owner: owner}
	if err := json.Unmarshal(body, &q.of); err != nil {
		return nil, openai.BadJSON(err.Error())
	}
	if q.of == nil {
		return nil, openai.BadJSON("it is null")
	}
	c := q.call()
	if first.err != nil {
		return nil, first.err
	}
	c.size = int64(len(body))
	return c, nil
}

// call makes the call, to be forgotten if there was a fault.
func (q *request) call() *Call {
	c := &Call{store: q.store, owner: q.owner}
	if q.text("model") == "" {
		q.first.set(openai.ModelRequired())
	}
	q.refuse()
	tools := q.tools()
	c.custom = tools.custom
	c.input = q.input()
	q.modes(c)
	q.included(c)
	c.response = q.response(tools)
	if q.first.err != nil {
		return nil
	}
	chat := q.chat(c, tools)
	chat.Messages = q.messages(c)
	c.body = openai.Marshal(chat)
	return c
}

// refuse refuses what can't be done here.
func (q *request) refuse() {
	if q.has("conversation") {
		q.blame("conversation", `conversations are not held here: name the response before this one in "previous_response_id"`)
	}
	if q.has("prompt") {
		q.blame("prompt", `prompt templates are not held here: give the text in "instructions" and "input"`)
	}
}

// modes reads how the answer is to be given.
func (q *request) modes(c *Call) {
	store := q.flag("store")
	c.stored, c.stream, c.background = store == nil || *store, q.isTrue("stream"), q.isTrue("background")
	switch {
	case c.background && !c.stored:
		q.blame("background", `"background" needs "store": what is not stored can't be fetched`)
	case c.background && c.stream:
		q.blame("stream", `a response in the background is not streamed here: leave "stream" out, and ask for the response by its id until it has ended`)
	}
}

// included reads what is to be told besides.
func (q *request) included(c *Call) {
	var include []string
	q.into("include", &include, "an array of strings")
	for _, what := range include {
		switch what {
		case includeLogprobs:
			c.logprobs = true
		case includeEncrypted:
			c.encrypted = true
		}
	}
	if n := q.count("top_logprobs", 0, maxLogprobs); n != nil {
		c.topLogprobs = *n
	}
}

// chat makes the request for the engine, but for its messages.
func (q *request) chat(c *Call, tools *toolset) *chatRequest {
	r := &chatRequest{
		Model: q.text("model"), Stream: c.stream, Tools: tools.chat, ToolChoice: tools.choice, User: q.text("user"),
		MaxTokens: c.response.MaxOutputTokens, Temperature: c.response.Temperature, TopP: c.response.TopP,
		Format: q.format(), Verbosity: q.object("text").text("verbosity"), Effort: q.object("reasoning").text("effort"),
	}
	r.DropParams = q.raw("drop_params")
	if c.stream {
		r.StreamOptions = json.RawMessage(`{"include_usage":true}`)
	}
	if len(tools.chat) > 0 {
		r.Parallel = q.flag("parallel_tool_calls")
	}
	if c.logprobs {
		r.Logprobs, r.TopLogprobs = true, max(1, c.topLogprobs) // llama-server gives none at all for 0
	}
	return r
}

// format is what text.format asks for; nil = text.
func (q *request) format() *chatFormat {
	f := q.object("text").object("format")
	switch kind := f.text("type"); kind {
	case "", "text":
	case "json_object":
		return &chatFormat{Type: kind}
	case "json_schema":
		schema := f.object("schema")
		if schema.of == nil {
			f.blame("schema", "you must give %q", f.where("schema"))
		}
		return &chatFormat{Type: kind, Schema: &chatSchema{
			Name: f.need("name"), Description: f.text("description"), Schema: f.raw("schema"), Strict: f.flag("strict"),
		}}
	default:
		f.must("type", "text, json_schema or json_object")
	}
	return nil
}

// messages are those of the instructions, of the responses before and of the input.
func (q *request) messages(c *Call) []chatMessage {
	var d dialogue
	if rules := c.response.Instructions; rules != nil && *rules != "" {
		d.others(chatMessage{Role: roleSystem, Content: *rules})
	}
	if before := c.response.Previous; before != nil {
		items, err := q.store.chain(q.owner, *before)
		if err != nil {
			q.first.set(err)
			return nil
		}
		for i := range items {
			d.add(&items[i])
		}
	}
	for i := range c.input {
		d.add(&c.input[i])
	}
	return d.end()
}

// response is what is known of the response before there is an answer.
func (q *request) response(tools *toolset) response {
	text, reasoning := q.object("text"), q.object("reasoning")
	r := response{
		ID: newID("resp_"), Object: "response", Created: time.Now().Unix(), Status: statusInProgress, Model: q.text("model"),
		Background: q.isTrue("background"), Output: []item{}, Instructions: q.maybe("instructions"),
		MaxOutputTokens: q.count("max_output_tokens", 1, math.MaxInt32), MaxToolCalls: q.count("max_tool_calls", 0, math.MaxInt32),
		Parallel: true, Previous: q.maybe("previous_response_id"), CacheKey: q.maybe("prompt_cache_key"),
		Safety: q.maybe("safety_identifier"), ServiceTier: q.text("service_tier"), Store: true,
		Temperature: q.number("temperature", 0, 2), TopP: q.number("top_p", 0, 1), TopLogprobs: q.count("top_logprobs", 0, maxLogprobs),
		ToolChoice: tools.echoChoice, Tools: tools.echo, Truncation: q.oneOf("truncation", "auto", "disabled"),
		User: q.maybe("user"), Metadata: q.metadata(),
	}
	r.Reasoning.Effort, r.Reasoning.Summary = reasoning.maybe("effort"), reasoning.maybe("summary")
	r.Text.Format, r.Text.Verbosity = text.raw("format"), text.oneOf("verbosity", "low", "medium", "high")
	q.defaults(&r)
	return r
}

// defaults fills in what the request leaves to us.
func (q *request) defaults(r *response) {
	if store := q.flag("store"); store != nil {
		r.Store = *store
	}
	if parallel := q.flag("parallel_tool_calls"); parallel != nil {
		r.Parallel = *parallel
	}
	if r.ServiceTier == "" {
		r.ServiceTier = "default"
	}
	if r.Truncation == "" {
		r.Truncation = "disabled"
	}
	if r.Text.Format == nil {
		r.Text.Format = json.RawMessage(`{"type":"text"}`)
	}
	if r.Text.Verbosity == "" {
		r.Text.Verbosity = "medium"
	}
	if r.TopLogprobs == nil {
		r.TopLogprobs = new(int)
	}
}

// metadata are what the client notes on the response.
func (q *request) metadata() map[string]string {
	const most, maxKey, maxValue = 16, 64, 512 // as the API limits them
	notes := map[string]string{}
	q.into("metadata", &notes, "an object of strings")
	if len(notes) > most {
		q.blame("metadata", `"metadata" has more than %d fields`, most)
	}
	for key, value := range notes {
		if len([]rune(key)) > maxKey || len([]rune(value)) > maxValue {
			q.blame("metadata", `"metadata" has a name longer than %d characters, or a value longer than %d`, maxKey, maxValue)
		}
	}
	return notes
}

// notFound says that there is no such response of the owner's.
func notFound(id string) *openai.Error {
	return &openai.Error{
		Status: http.StatusNotFound, Type: openai.TypeInvalidRequest, Message: "Response with id '" + id + "' not found.",
	}
}
