package anthropic

import (
	"testing"

	"assistant/internal/openai"
)

func TestErrorsAreAnthropics(t *testing.T) {
	for status, want := range map[int]string{
		400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
		405: "invalid_request_error", 413: "request_too_large", 415: "invalid_request_error", 422: "invalid_request_error",
		429: "rate_limit_error", 500: "api_error", 502: "api_error", 503: "overloaded_error", 504: "timeout_error", 529: "overloaded_error",
	} {
		got := ErrorBody(&openai.Error{Status: status, Type: "x", Message: `say "<why>"`})
		sameJSON(t, got, `{"type":"error","error":{"type":"`+want+`","message":"say \"<why>\""}}`)
	}
}

// Claude Code looks for the words and the numbers.
func TestTooLongIsSaidInAnthropicsWords(t *testing.T) {
	for _, c := range []struct {
		e    openai.Error
		want string
	}{
		{
			openai.Error{Type: "exceed_context_size_error", Message: "request (1300 tokens) exceeds the available context size (1024 tokens), try increasing it"},
			"prompt is too long: 1300 tokens > 1024 maximum (request (1300 tokens) exceeds the available context size (1024 tokens), try increasing it)",
		},
		{
			openai.Error{Type: "BadRequestError", Message: "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens."},
			"prompt is too long: 5000 tokens > 4096 maximum (This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.)",
		},
		{openai.Error{Code: "context_length_exceeded", Message: "it does not fit"}, "prompt is too long: it does not fit"},
		{openai.Error{Message: "2 of 3"}, "2 of 3"},
	} {
		if got := explain(&c.e); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
