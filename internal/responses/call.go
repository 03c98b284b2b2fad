package responses

import (
	"assistant/internal/dialect"
	"assistant/internal/openai"
)

// Call is a request to /v1/responses. It implements [dialect.Call], by a chat completion. Where the request asks for the answer to be
// stored, which is the default, it is from the moment it is whole: before the client is told.
type Call struct {
	store    *Store
	owner    string
	body     []byte
	size     int64 // of the request, in bytes
	input    []item
	response response // before there is an answer

	stored      bool
	stream      bool
	background  bool
	custom      map[string]bool // the names of custom tools
	logprobs    bool
	topLogprobs int
	encrypted   bool
}

// Path implements [dialect.Call].
func (c *Call) Path() string { return "/v1/chat/completions" }

// Body implements [dialect.Call].
func (c *Call) Body() []byte { return c.body }

// Stream implements [dialect.Call].
func (c *Call) Stream() dialect.Stream {
	if !c.stream {
		return nil
	}
	return &stream{call: c, build: newBuilder(c, nil)}
}

// Whole implements [dialect.Call]. It fails on what is no chat completion; the response is not stored then, unless it is one that
// [Call.Start] stored.
func (c *Call) Whole(answer []byte) ([]byte, error) {
	a, err := dialect.ReadAnswer(answer)
	if err != nil {
		return nil, err
	}
	b := newBuilder(c, nil)
	b.mute = true
	b.add(a)
	return openai.Marshal(c.keep(b.end())), nil
}

// keep stores a response, if it is to be stored, and returns it.
func (c *Call) keep(r *response) *response {
	if c.stored {
		c.store.keep(c, r)
	}
	return r
}
