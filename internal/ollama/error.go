package ollama

import "assistant/internal/openai"

// ErrorBody makes the body of an error response, and the line that ends a stream which can't go on: {"error":"…"}, without a newline at
// its end.
func ErrorBody(e *openai.Error) []byte {
	return openai.Marshal(struct {
		Error string `json:"error"`
	}{e.Message})
}
