package caddymodule

import (
	"assistant/internal/anthropic"
	"assistant/internal/dialect"
)

// Anthropic's Messages API: https://platform.claude.com/docs/en/api/messages.
func init() {
	for path, read := range map[string]func([]byte) (dialect.Call, error){
		"/v1/messages": anthropic.Messages, "/v1/messages/count_tokens": anthropic.CountTokens,
	} {
		endpoints[path] = endpoint{api: &api{
			errors:    anthropic.ErrorBody,
			read:      func(_ *exchange, body []byte) (dialect.Call, error) { return read(body) },
			requestID: "Request-Id",
		}}
	}
}
