package openai

import (
	"bytes"
	"errors"
	"strings"
	"unicode/utf8"
)

// Request is what a router needs to know of a request's body. Spans are byte offsets [from, to) of a field's value,
// 0,0 when the field is absent.
type Request struct {
	Model             string // "" when absent
	ModelSpan         [2]int // with its quotes
	Stream            bool
	StreamSpan        [2]int
	StreamOptionsSpan [2]int
	MessagesSpan      [2]int // of a chat
	PromptSpan        [2]int // of a text completion
	InputSpan         [2]int // of a request for embeddings

	first     int  // offset of the first field's name, or of the closing brace
	unusual   bool // a field gives the answer a shape that Join does not know
	continues bool // the last message is the assistant's own: the engine goes on with it
}

// Joinable says whether Join can put the answer to this request, a chat or text completion, together from a stream:
// it has one choice and no log probabilities or the like, and did not ask for a stream itself. A request that has
// the engine finish the assistant's own last message isn't joinable, because the plain answer repeats that message
// and the stream does not.
func (r *Request) Joinable() bool { return !r.Stream && !r.unusual && !r.continues }

// Scan reads the top-level fields of a JSON object without decoding it. It accepts what encoding/json accepts and no
// more: field names are exact and case-sensitive, and nothing but white space may follow the object. A second
// "model", however its name is escaped, is refused, since the engine might obey the other one; so is a model that
// isn't a string, is empty or isn't valid Unicode. Of other repeated fields the last one counts, as it does for the
// engines. Errors are *Error with status 400.
func Scan(body []byte) (Request, error) {
	s := scanner{b: body}
	s.space()
	switch {
	case s.i == len(body):
		return Request{}, BadJSON("it is empty")
	case body[s.i] != '{':
		return Request{}, BadJSON("it is not an object")
	}
	var req Request
	err := s.object(1, func(key []byte, from, to int) error {
		return req.field(&s, key, from, to)
	})
	if s.space(); err == nil && s.i != len(body) {
		err = s.bad("something follows the object")
	}
	if err != nil {
		return Request{}, blame(err)
	}
	req.first = bytes.IndexByte(body, '{') + 1
	return req, nil
}

// blame makes an API error of the scanner's own errors.
func blame(err error) error {
	var syntax *syntaxError
	if errors.As(err, &syntax) {
		return BadJSON(syntax.Error())
	}
	return err
}

// field takes note of a top-level field. It runs right after the scanner has passed the field's value.
func (r *Request) field(s *scanner, key []byte, from, to int) error {
	value := s.b[from:to]
	switch string(key) {
	case "model":
		return r.setModel(value, from, to)
	case "stream":
		r.Stream, r.StreamSpan = string(value) == "true", [2]int{from, to}
		if !r.Stream && string(value) != "false" && string(value) != "null" {
			r.unusual = true // engines differ in what they make of "true" or 1
		}
	case "stream_options":
		r.StreamOptionsSpan = [2]int{from, to}
	case "messages":
		r.MessagesSpan = [2]int{from, to}
		r.continues = s.assistant
	case "prompt":
		r.PromptSpan = [2]int{from, to}
		r.unusual = r.unusual || value[0] != '"' // a list of prompts is a list of choices
	case "input":
		r.InputSpan = [2]int{from, to}
	case "n", "n_cmpl", "best_of":
		r.unusual = r.unusual || string(value) != "1" && string(value) != "null"
	case "logprobs", "top_logprobs", "n_probs", "echo", "return_progress", "return_tokens", "timings_per_token",
		"post_sampling_probs", "response_fields", "verbose":
		r.unusual = r.unusual || string(value) != "false" && string(value) != "null" && string(value) != "0"
	}
	return nil
}

func (r *Request) setModel(value []byte, from, to int) error {
	if r.ModelSpan != [2]int{} {
		return InvalidRequest("model", `"model" is given more than once`)
	}
	if value[0] != '"' {
		return InvalidRequest("model", `"model" must be a string`)
	}
	name := unquote(value)
	if err := checkModel(name); err != nil {
		return err
	}
	r.Model, r.ModelSpan = name, [2]int{from, to}
	return nil
}

// checkModel refuses names that no catalog can hold.
func checkModel(name string) error {
	if name == "" {
		return InvalidRequest("model", `"model" is empty`)
	}
	if !utf8.ValidString(name) || strings.ContainsRune(name, utf8.RuneError) {
		return InvalidRequest("model", `"model" is not valid Unicode`)
	}
	return nil
}

// unquote decodes a scanned string; half a surrogate pair and invalid UTF-8 become U+FFFD, which checkModel refuses.
func unquote(value []byte) string {
	raw := value[1 : len(value)-1]
	if bytes.IndexByte(raw, '\\') >= 0 {
		raw = unescape(raw)
	}
	return string(raw)
}
