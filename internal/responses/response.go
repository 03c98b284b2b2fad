package responses

import (
	"encoding/json"
	"net/http"
	"time"

	"assistant/internal/dialect"
	"assistant/internal/openai"
)

// response is the object of the API (Response of openai-openapi 2.3.0). What is nil is null, but for what the schema has no null for:
// that is left out.
type response struct {
	ID              string            `json:"id"`
	Object          string            `json:"object"`     // response
	Created         int64             `json:"created_at"` // seconds since 1970, as Completed
	Status          string            `json:"status"`
	Background      bool              `json:"background"`
	Completed       *int64            `json:"completed_at"`
	Error           *responseError    `json:"error"`
	Incomplete      *incomplete       `json:"incomplete_details"`
	Instructions    *string           `json:"instructions"`
	MaxOutputTokens *int              `json:"max_output_tokens"`
	MaxToolCalls    *int              `json:"max_tool_calls"`
	Model           string            `json:"model"`
	Output          []item            `json:"output"`
	Parallel        bool              `json:"parallel_tool_calls"`
	Previous        *string           `json:"previous_response_id"`
	CacheKey        *string           `json:"prompt_cache_key"`
	Reasoning       reasoningOptions  `json:"reasoning"`
	Safety          *string           `json:"safety_identifier"`
	ServiceTier     string            `json:"service_tier"`
	Store           bool              `json:"store"`
	Temperature     *float64          `json:"temperature"` // null = the model's own
	Text            textOptions       `json:"text"`
	ToolChoice      json.RawMessage   `json:"tool_choice"`
	Tools           []tool            `json:"tools"`
	TopLogprobs     *int              `json:"top_logprobs"`
	TopP            *float64          `json:"top_p"` // null = the model's own
	Truncation      string            `json:"truncation"`
	Usage           *usage            `json:"usage,omitempty"` // of one that ended with an answer
	User            *string           `json:"user,omitempty"`
	Metadata        map[string]string `json:"metadata"`
}

type responseError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

type incomplete struct {
	Reason string `json:"reason"`
}

type reasoningOptions struct {
	Effort  *string `json:"effort"`
	Summary *string `json:"summary"`
}

type textOptions struct {
	Format    json.RawMessage `json:"format"`
	Verbosity string          `json:"verbosity"`
}

// usage are counts of tokens.
type usage struct {
	Input   int `json:"input_tokens"`
	Details struct {
		Cached  int `json:"cached_tokens"`
		Written int `json:"cache_write_tokens"` // nothing is charged for that here
	} `json:"input_tokens_details"`
	Output    int `json:"output_tokens"`
	OfOutputs struct {
		Reasoning int `json:"reasoning_tokens"`
	} `json:"output_tokens_details"`
	Total int `json:"total_tokens"`
}

// newUsage makes usage of what the engine told. If it told nothing, that is no tokens: clients read the counts of an answer unasked.
func newUsage(u *dialect.Usage) *usage {
	if u == nil {
		u = &dialect.Usage{}
	}
	to := &usage{Input: u.Prompt, Output: u.Completion, Total: u.Prompt + u.Completion}
	to.Details.Cached, to.OfOutputs.Reasoning = u.Cached, u.Reasoning
	return to
}

// running says whether the response has not ended.
func (r *response) running() bool { return r.Status == statusQueued || r.Status == statusInProgress }

// ends makes the response one that ended as the engine says it did.
func (r *response) ends(finish string) {
	switch finish {
	case finishLength:
		r.Status, r.Incomplete = statusIncomplete, &incomplete{"max_output_tokens"}
	case finishFilter:
		r.Status, r.Incomplete = statusIncomplete, &incomplete{finishFilter}
	default:
		now := time.Now().Unix()
		r.Status, r.Completed = statusCompleted, &now
	}
}

// fails makes the response one that failed.
func (r *response) fails(e *openai.Error) {
	r.Status, r.Error = statusFailed, &responseError{Code: failureOf(e), Message: e.Message}
}

// failureOf is the code of an error, of those that the API has for a response's.
func failureOf(e *openai.Error) string {
	switch e.Status {
	case http.StatusTooManyRequests:
		return "rate_limit_exceeded"
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return "invalid_prompt"
	}
	return "server_error"
}

// Fields of chat completions' that clients of this API know under another name.
var paramNames = map[string]string{
	"messages": "input", "max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens",
	"response_format": "text.format", "reasoning_effort": "reasoning.effort", "verbosity": "text.verbosity",
}

// ErrorBody is the body of an error response: OpenAI's, with Param as this API names the field.
func ErrorBody(e *openai.Error) []byte { return renamed(e).JSON() }

func renamed(e *openai.Error) *openai.Error {
	name, ok := paramNames[e.Param]
	if !ok {
		return e
	}
	as := *e
	as.Param = name
	return &as
}
