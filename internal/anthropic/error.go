package anthropic

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"assistant/internal/openai"
)

// statusOverloaded is Anthropic's own.
const statusOverloaded = 529

// wireError is the error object.
type wireError struct {
	Type    string `json:"type"`
	Message string `json:"message"`
}

// ErrorBody makes the body of an error response: {"type":"error","error":{"type":…,"message":…}}, without a newline at its end. The
// type goes by the status, as Anthropic's does.
func ErrorBody(e *openai.Error) []byte {
	return openai.Marshal(struct {
		Type  string    `json:"type"`
		Error wireError `json:"error"`
	}{"error", toldError(e)})
}

func toldError(e *openai.Error) wireError {
	return wireError{Type: errorType(e.Status), Message: explain(e)}
}

func errorType(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return "authentication_error"
	case http.StatusForbidden:
		return "permission_error"
	case http.StatusNotFound:
		return "not_found_error"
	case http.StatusRequestEntityTooLarge:
		return "request_too_large"
	case http.StatusTooManyRequests:
		return "rate_limit_error"
	case http.StatusServiceUnavailable, statusOverloaded:
		return "overloaded_error"
	case http.StatusGatewayTimeout:
		return "timeout_error"
	}
	if status >= http.StatusInternalServerError {
		return "api_error"
	}
	return "invalid_request_error"
}

var numbers = regexp.MustCompile(`\d+`)

// explain says what is wrong. Where the conversation does not fit into the context, it begins as Anthropic's: Claude Code makes the
// conversation shorter when it reads "prompt is too long: N tokens > M", and gives up on any other error.
func explain(e *openai.Error) string {
	if !tooLong(e) {
		return e.Message
	}
	var counts []int
	for _, n := range numbers.FindAllString(e.Message, 2) { // the engines' messages have both, in either order
		count, _ := strconv.Atoi(n)
		counts = append(counts, count)
	}
	if len(counts) < 2 {
		return "prompt is too long: " + e.Message
	}
	return fmt.Sprintf("prompt is too long: %d tokens > %d maximum (%s)", max(counts[0], counts[1]), min(counts[0], counts[1]), e.Message)
}

// tooLong knows what this router, llama-server and vLLM say.
func tooLong(e *openai.Error) bool {
	return e.Code == "context_length_exceeded" || e.Type == "exceed_context_size_error" ||
		strings.Contains(e.Message, "maximum context length is")
}
