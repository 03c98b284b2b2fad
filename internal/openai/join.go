package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
)

// llama-server notices that a client has left only while it streams. So that a request without "stream" frees its
// slot as well, AskStream makes a stream of it and Join makes the plain answer of that stream again. What the engine
// answers in both ways is recorded in testdata/join.

// maxAnswer bounds a joined answer's text, in bytes. The longest contexts fill about 4 MiB.
const maxAnswer = 64 << 20

// maxToolCalls bounds the calls of one answer.
const maxToolCalls = 1024

// maxFields bounds the fields that an object of the stream has.
const maxFields = 256

// Kind is the endpoint that an answer comes from.
type Kind int

// The endpoints of models. Join knows all that stream.
const (
	Chat       Kind = iota // /v1/chat/completions
	Completion             // /v1/completions
	Embeddings             // /v1/embeddings, which don't stream
)

// ErrStreamCut says that a stream ended without its proper end: the engine died, or dropped the request.
var ErrStreamCut = errors.New("the engine's stream ended early")

// EngineError is an error object that the engine sent in place of the rest of its stream. Without streaming it
// would have been the whole answer.
type EngineError struct {
	Status int    // HTTP status
	Body   []byte // {"error":{...}}, in the engine's own words
}

func (e *EngineError) Error() string {
	return fmt.Sprintf("the engine answered %d: %s", e.Status, e.Body)
}

// AskStream returns a copy of a joinable request's body that asks for a stream, and for the token counts in it. req
// is what Scan made of body. All other bytes stay as they are.
func AskStream(body []byte, req Request, kind Kind) []byte {
	edits := make([]edit, 0, 2)
	edits = append(edits, edit{req.StreamSpan, "stream", "true"})
	if kind == Chat { // a text completion's last chunk has the counts anyway
		edits = append(edits, edit{req.StreamOptionsSpan, "stream_options", `{"include_usage":true}`})
	}
	sortEdits(edits)
	return edited(body, req.first, edits)
}

// IsStream says whether an answer is the stream that AskStream asked for. Any other, such as an error, is already
// what the client would have got.
func IsStream(status int, h http.Header) bool {
	media, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return status == http.StatusOK && err == nil && media == "text/event-stream"
}

// Join reads a stream to its end and returns the plain answer: the same JSON that the engine would have sent
// without streaming. Never a part of it: if the stream lacks its finish_reason or its [DONE], the error is
// ErrStreamCut. Other errors are *EngineError, ErrEventTooLarge, r's own, or about chunks that make no sense.
//
// One thing is not in the stream and so differs: a chat answer cut by max_tokens before it had any content,
// reasoning or tool call (it had only begun to mark one) has the raw mark as its content in a plain answer, and ""
// in a joined one.
func Join(r io.Reader, kind Kind) ([]byte, error) {
	a := answer{kind: kind}
	events := NewEventReader(r)
	for {
		event, err := events.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, ErrStreamCut
		}
		if err != nil {
			return nil, err
		}
		if string(event) == "[DONE]" {
			break
		}
		if err := a.add(event); err != nil {
			return nil, err
		}
	}
	if a.finish() == "" {
		return nil, ErrStreamCut
	}
	_, _ = events.Next() // read to the end, so that the connection can be used again
	return a.json(), nil
}

// answer is what the chunks so far add up to.
type answer struct {
	kind    Kind
	top     fields // of the response, but for choices and object
	choice  fields // of the only choice, but for delta and text
	message fields // of its message, but for texts and calls
	texts   fields // of its message, or "text" of a text completion: what the chunks hold a piece of each
	calls   []toolCall
	size    int // bytes in all of these
}

// toolCall is a call in parts, or the part of one that a chunk holds.
type toolCall struct {
	index          int
	id, kind, name []byte
	arguments      []byte
}

// finish returns the raw finish_reason, "" before there is one.
func (a *answer) finish() string {
	switch reason := string(a.choice.get("finish_reason")); reason {
	case "null", `""`:
		return ""
	default:
		return reason
	}
}

// add takes in a chunk.
func (a *answer) add(chunk []byte) error {
	if string(chunk) == "null" { // b11669 starts some streams so
		return nil
	}
	return EachField(chunk, func(key, value []byte) error {
		switch string(key) {
		case "choices":
			return a.addChoices(value)
		case "error":
			return engineError(chunk)
		case "object":
			return nil // the chunk's own kind
		}
		return a.keep(&a.top, key, value)
	})
}

func (a *answer) addChoices(value []byte) error {
	var choices []json.RawMessage
	if err := json.Unmarshal(value, &choices); err != nil {
		return fmt.Errorf("choices of a chunk: %w", err)
	}
	for _, choice := range choices {
		if err := EachField(choice, a.addChoice); err != nil {
			return err
		}
	}
	return nil
}

func (a *answer) addChoice(key, value []byte) error {
	switch string(key) {
	case "delta":
		return EachField(value, a.addDelta)
	case "text":
		return a.addText(key, value)
	case "index":
		if string(value) != "0" {
			return fmt.Errorf("choice %s in the answer to a request for one", value)
		}
	}
	return a.keep(&a.choice, key, value)
}

func (a *answer) addDelta(key, value []byte) error {
	switch {
	case string(key) == "tool_calls":
		return a.addCalls(value)
	case string(key) == "role" || value[0] != '"' && string(value) != "null":
		return a.keep(&a.message, key, value)
	}
	return a.addText(key, value)
}

func (a *answer) addText(key, value []byte) error {
	if string(value) == "null" {
		return nil
	}
	text, err := text(key, value)
	if err != nil {
		return err
	}
	f, err := a.field(&a.texts, key)
	if err != nil {
		return err
	}
	f.value = append(f.value, text...)
	return a.grow(len(text))
}

func (a *answer) addCalls(value []byte) error {
	var deltas []json.RawMessage
	if err := json.Unmarshal(value, &deltas); err != nil {
		return fmt.Errorf("tool calls of a chunk: %w", err)
	}
	for _, delta := range deltas {
		var d toolCall
		if err := EachField(delta, d.field); err != nil {
			return err
		}
		if d.index > len(a.calls) || d.index >= maxToolCalls {
			return fmt.Errorf("tool call %d after %d of them", d.index, len(a.calls))
		}
		if d.index == len(a.calls) {
			a.calls = append(a.calls, toolCall{kind: []byte("function")})
		}
		a.calls[d.index].merge(d)
		if err := a.grow(len(d.id) + len(d.kind) + len(d.name) + len(d.arguments)); err != nil {
			return err
		}
	}
	return nil
}

// merge adds a part. The engine sends id and name again, whole, when it finds that they are longer than it thought;
// arguments come in pieces.
func (c *toolCall) merge(part toolCall) {
	if len(part.id) > 0 {
		c.id = bytes.Clone(part.id)
	}
	if len(part.kind) > 0 {
		c.kind = bytes.Clone(part.kind)
	}
	if len(part.name) > 0 {
		c.name = bytes.Clone(part.name)
	}
	c.arguments = append(c.arguments, part.arguments...)
}

func (c *toolCall) field(key, value []byte) (err error) {
	if string(value) == "null" {
		return nil
	}
	switch string(key) {
	case "index":
		c.index, err = strconv.Atoi(string(value))
		if err == nil && c.index < 0 {
			err = errors.New("tool call with a negative index")
		}
	case "id":
		c.id, err = text(key, value)
	case "type":
		c.kind, err = text(key, value)
	case "function":
		err = EachField(value, c.field)
	case "name":
		c.name, err = text(key, value)
	case "arguments":
		c.arguments, err = text(key, value)
	}
	return err
}

// keep remembers the latest value of a field. A null does not undo one.
func (a *answer) keep(to *fields, key, value []byte) error {
	f, err := a.field(to, key)
	if err != nil || f.value != nil && string(value) == "null" {
		return err
	}
	grown := len(value) - len(f.value)
	f.value = append(f.value[:0], value...)
	return a.grow(grown)
}

// field finds a field or makes it.
func (a *answer) field(of *fields, key []byte) (*field, error) {
	for i := range *of {
		if (*of)[i].key == string(key) {
			return &(*of)[i], nil
		}
	}
	if len(*of) == maxFields {
		return nil, fmt.Errorf("more than %d fields in an object of the stream", maxFields)
	}
	*of = append(*of, field{key: string(key)})
	return &(*of)[len(*of)-1], a.grow(len(key))
}

func (a *answer) grow(n int) error {
	if a.size += n; a.size > maxAnswer {
		return fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	return nil
}

// fields are the fields of an object in the order in which they came.
type fields []field

// field holds raw JSON, or plain text if it is one of texts.
type field struct {
	key   string
	value []byte
}

func (f fields) get(key string) []byte {
	for i := range f {
		if f[i].key == key {
			return f[i].value
		}
	}
	return nil
}

// json writes the plain answer.
func (a *answer) json() []byte {
	b := Builder{Buf: make([]byte, 0, a.size+a.size/8+512)}
	b.Open('{')
	b.Name("choices")
	b.Open('[')
	b.Open('{')
	for _, f := range a.choice {
		b.Field(f.key, f.value)
	}
	kind := `"chat.completion"`
	if a.kind == Completion {
		b.Quote("text", a.texts.get("text"))
		kind = `"text_completion"`
	} else {
		a.writeMessage(&b)
	}
	b.Close('}')
	b.Close(']')
	b.Field("object", []byte(kind))
	for _, f := range a.top {
		b.Field(f.key, f.value)
	}
	b.Close('}')
	return b.Buf
}

// writeMessage writes a chat message, which has a role and a content whatever came.
func (a *answer) writeMessage(b *Builder) {
	b.Name("message")
	b.Open('{')
	if a.message.get("role") == nil {
		b.Field("role", []byte(`"assistant"`))
	}
	for _, f := range a.message {
		b.Field(f.key, f.value)
	}
	b.Quote("content", a.texts.get("content"))
	for _, f := range a.texts {
		if f.key != "content" {
			b.Quote(f.key, f.value)
		}
	}
	if len(a.calls) > 0 {
		b.Name("tool_calls")
		b.Open('[')
		for i := range a.calls {
			a.calls[i].write(b)
		}
		b.Close(']')
	}
	b.Close('}')
}

func (c *toolCall) write(b *Builder) {
	b.Open('{')
	b.Quote("type", c.kind)
	b.Name("function")
	b.Open('{')
	b.Quote("name", c.name)
	b.Quote("arguments", c.arguments)
	b.Close('}')
	if len(c.id) > 0 {
		b.Quote("id", c.id)
	}
	b.Close('}')
}

// text decodes a string.
func text(key, value []byte) ([]byte, error) {
	if value[0] != '"' {
		return nil, fmt.Errorf("%s of a chunk is not a string", key)
	}
	raw := value[1 : len(value)-1]
	if bytes.IndexByte(raw, '\\') >= 0 {
		return unescape(raw), nil
	}
	return raw, nil
}

// engineError makes an error of an error event.
func engineError(chunk []byte) error {
	return &EngineError{Status: statusOf(chunk), Body: bytes.Clone(chunk)}
}
