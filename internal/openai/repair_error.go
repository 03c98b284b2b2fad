package openai

import (
	"encoding/json"
	"net/http"
	"strings"
)

// engineFaults are what llama-api-server says of requests that are at fault, whatever its status, and what that is in
// the API's terms.
var engineFaults = []struct{ says, param, code string }{
	{"is greater than the context size", "messages", "context_length_exceeded"},
	{"is greater than the max prompt tokens", "messages", "context_length_exceeded"},
	{"The tool use is only supported", "tools", "unsupported_parameter"},
	{"The image is provided in URL format", "messages", ""},
	{"should be a user message", "messages", ""},
	{"messages in the chat request are empty", "messages", ""},
	{"Fail to build chat prompts", "messages", ""},
	{"is only supported in the", "model", ""}, // chat to an embedding model, or the other way round
	{"Fail to deserialize", "", ""},
}

// Error makes an API error of what an engine said instead of an answer: an error object or plain text. status is the
// HTTP status it came with, 0 if that was the stream's.
func (p *Plan) Error(status int, said []byte) *Error {
	e := errorObject(said)
	if e.Message == "" {
		e.Message = plainFault(said)
	}
	for _, f := range engineFaults {
		if strings.Contains(e.Message, f.says) {
			return &Error{Status: http.StatusBadRequest, Type: TypeInvalidRequest, Message: e.Message, Param: f.param, Code: f.code}
		}
	}
	switch status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity, http.StatusTooManyRequests,
		http.StatusNotImplemented, http.StatusServiceUnavailable:
		e.Status = status
		if e.Type == "" {
			e.Type = typeOf(status)
		}
		return &e
	}
	return EngineFailed(p.model, e.Message)
}

func typeOf(status int) string {
	switch {
	case status == http.StatusTooManyRequests:
		return TypeRateLimit
	case status < http.StatusInternalServerError:
		return TypeInvalidRequest
	}
	return TypeServer
}

// errorObject reads an error object, of whose fields engines have some, of any type.
func errorObject(said []byte) (e Error) {
	var object struct {
		Error struct {
			Message, Type, Param, Code json.RawMessage
		} `json:"error"`
	}
	if json.Unmarshal(said, &object) != nil {
		return e
	}
	str := func(raw json.RawMessage) (s string) {
		_ = json.Unmarshal(raw, &s) // a number is no code
		return s
	}
	e.Message, e.Type = trimText(str(object.Error.Message)), str(object.Error.Type)
	e.Param, e.Code = str(object.Error.Param), str(object.Error.Code)
	return e
}

// plainFault is the message of an error in plain text: "500 Internal Server Error: …", behind which may come a copy of
// the request, which is nobody else's business.
func plainFault(said []byte) string {
	text, _, _ := strings.Cut(string(said), "\njson_value:")
	for _, prefix := range []string{"500 Internal Server Error", "400 Bad Request"} {
		if rest, ok := strings.CutPrefix(text, prefix); ok {
			text = strings.TrimPrefix(rest, ":")
		}
	}
	if text = trimText(text); text == "" {
		return "it did not say why"
	}
	return text
}

// trimText shortens what an engine said to what fits into a message.
func trimText(text string) string {
	const longest = 1 << 10
	text = strings.TrimSpace(text)
	if len(text) > longest {
		return text[:longest] + "…"
	}
	return text
}
