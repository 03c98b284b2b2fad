package dialect

import (
	"encoding/json"
	"fmt"
	"time"

	"assistant/internal/openai"
)

// Usage are counts of tokens.
type Usage struct {
	Prompt     int // read, the cached ones among them
	Completion int // generated, reasoning among them
	Cached     int // of the prompt, computed before
	Reasoning  int // of the completion
}

// Timings are how long an engine says that its own work took.
type Timings struct {
	Prompt     time.Duration // to read what of the prompt it did not know
	Completion time.Duration // to generate
}

// ToolCall is a call, or the part of one that a chunk holds: ID and Name are whole where they are not empty, pieces of Arguments follow
// one another.
type ToolCall struct {
	Index     int
	ID        string
	Name      string
	Arguments string
}

// Chunk is an event of a stream of chat or text completions, as far as it matters here: one choice.
type Chunk struct {
	ID        string
	Model     string
	Created   int64           // seconds since 1970
	Text      string          // the next of the content
	Reasoning string          // the next of what the model thinks
	Refusal   string          // the next of why it won't
	ToolCalls []ToolCall      // parts of calls
	Logprobs  json.RawMessage // {"content": …}; nil = none
	Finish    string          // "" before the end; then stop, length, tool_calls, content_filter
	Usage     *Usage          // nil = not told here
	Timings   *Timings        // nil = not told here, or never: llama-server tells them with the usage
}

// Answer is a whole chat or text completion: as if it were one chunk.
type Answer = Chunk

// wireUsage is "usage" of both.
type wireUsage struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
	Details    struct {
		Cached int `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
	OutDetails struct {
		Reasoning int `json:"reasoning_tokens"`
	} `json:"completion_tokens_details"`
}

// wireMessage is "delta" of a chunk, and "message" of a whole.
type wireMessage struct {
	Content   *string `json:"content"`
	Reasoning *string `json:"reasoning_content"` // llama.cpp, DeepSeek, vLLM before 0.12
	Thought   *string `json:"reasoning"`         // vLLM, OpenRouter
	Refusal   *string `json:"refusal"`
	ToolCalls []struct {
		Index    *int   `json:"index"`
		ID       string `json:"id"`
		Function struct {
			Name      string `json:"name"`
			Arguments string `json:"arguments"`
		} `json:"function"`
	} `json:"tool_calls"`
}

type wireChunk struct {
	ID      string `json:"id"`
	Model   string `json:"model"`
	Created int64  `json:"created"`
	Choices []struct {
		Index    int             `json:"index"`
		Delta    wireMessage     `json:"delta"`
		Message  wireMessage     `json:"message"`
		Text     string          `json:"text"`
		Logprobs json.RawMessage `json:"logprobs"`
		Finish   *string         `json:"finish_reason"`
	} `json:"choices"`
	Usage   *wireUsage `json:"usage"`
	Timings *struct {
		Prompt    float64 `json:"prompt_ms"`
		Predicted float64 `json:"predicted_ms"`
	} `json:"timings"`
	Error json.RawMessage `json:"error"`
}

// ReadAnswer reads a whole completion.
func ReadAnswer(answer []byte) (*Answer, error) { return ReadChunk(answer) }

// ReadChunk reads an event of a stream, or a whole completion. An event that tells of an error is an *openai.Error.
func ReadChunk(data []byte) (*Chunk, error) {
	var wire wireChunk
	if err := json.Unmarshal(data, &wire); err != nil {
		return nil, fmt.Errorf("the engine's answer: %w", err)
	}
	if len(wire.Error) > 0 && string(wire.Error) != "null" {
		return nil, openai.ReadError(0, data)
	}
	c := &Chunk{ID: wire.ID, Model: wire.Model, Created: wire.Created}
	if u := wire.Usage; u != nil {
		c.Usage = &Usage{Prompt: u.Prompt, Completion: u.Completion, Cached: u.Details.Cached, Reasoning: u.OutDetails.Reasoning}
	}
	if t := wire.Timings; t != nil {
		c.Timings = &Timings{Prompt: milliseconds(t.Prompt), Completion: milliseconds(t.Predicted)}
	}
	if len(wire.Choices) == 0 {
		return c, nil
	}
	choice := &wire.Choices[0]
	c.Text = choice.Text
	c.add(&choice.Delta)
	c.add(&choice.Message)
	if string(choice.Logprobs) != "null" {
		c.Logprobs = choice.Logprobs
	}
	if choice.Finish != nil {
		c.Finish = *choice.Finish
	}
	return c, nil
}

// milliseconds is a time of an engine's, which may be nonsense.
func milliseconds(ms float64) time.Duration {
	const most = 1e12 // 31 years
	return time.Duration(min(max(ms, 0), most) * float64(time.Millisecond))
}

func (c *Chunk) add(m *wireMessage) {
	for _, part := range []struct {
		to   *string
		text *string
	}{{&c.Text, m.Content}, {&c.Reasoning, m.Reasoning}, {&c.Reasoning, m.Thought}, {&c.Refusal, m.Refusal}} {
		if part.text != nil && *part.to == "" { // some say the same under both names
			*part.to = *part.text
		}
	}
	for i, call := range m.ToolCalls {
		index := i
		if call.Index != nil {
			index = *call.Index
		}
		c.ToolCalls = append(c.ToolCalls, ToolCall{Index: index, ID: call.ID, Name: call.Function.Name, Arguments: call.Function.Arguments})
	}
}
