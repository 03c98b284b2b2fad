package anthropic

import (
	"encoding/json"
	"net/http"
	"strings"

	"assistant/internal/dialect"
	"assistant/internal/openai"
)

// message is an answer, and what a stream begins with.
type message struct {
	ID           string     `json:"id"`
	Type         string     `json:"type"`
	Role         string     `json:"role"`
	Model        string     `json:"model"`
	Content      []answered `json:"content"`
	StopReason   *string    `json:"stop_reason"`
	StopSequence *string    `json:"stop_sequence"` // always null: a chat does not tell which one it was, nor whether it was one
	Usage        usage      `json:"usage"`
}

// answered is a block of an answer: thinking, text or tool_use.
type answered struct {
	Type      string          `json:"type"`
	Thinking  *string         `json:"thinking,omitempty"`
	Signature *string         `json:"signature,omitempty"` // of Anthropic's; SDKs require one
	Text      *string         `json:"text,omitempty"`
	ID        string          `json:"id,omitempty"`
	Name      string          `json:"name,omitempty"`
	Input     json.RawMessage `json:"input,omitempty"`
}

func thoughtBlock(thought string) answered {
	return answered{Type: "thinking", Thinking: &thought, Signature: new(string)}
}

func textBlock(text string) answered { return answered{Type: "text", Text: &text} }

func toolBlock(id, name, input string) answered {
	return answered{Type: "tool_use", ID: id, Name: name, Input: json.RawMessage(input)}
}

// usage counts tokens as the API does: what came from the cache is not input.
type usage struct {
	Input        int           `json:"input_tokens"`
	CacheCreated int           `json:"cache_creation_input_tokens"` // always 0: local engines keep what they read anyway
	CacheRead    int           `json:"cache_read_input_tokens"`
	Output       int           `json:"output_tokens"`
	Details      *usageDetails `json:"output_tokens_details,omitempty"`
}

type usageDetails struct {
	Thinking int `json:"thinking_tokens"`
}

func newUsage(u *dialect.Usage) usage {
	if u == nil {
		return usage{}
	}
	told := usage{Input: max(0, u.Prompt-u.Cached), CacheRead: u.Cached, Output: u.Completion}
	if u.Reasoning > 0 {
		told.Details = &usageDetails{u.Reasoning}
	}
	return told
}

// newMessage is an answer that says nothing yet.
func (c *call) newMessage() message {
	return message{ID: dialect.NewID("msg_"), Type: "message", Role: "assistant", Model: c.model, Content: []answered{}}
}

// stopReason is why an answer ended. Engines that say "stop" after a call are put right: clients run tools only where they read
// tool_use. One that says "tool_calls" without any would have them wait for nothing.
func stopReason(finish string, calls, refused bool) string {
	switch {
	case finish == "length":
		return "max_tokens"
	case finish == "content_filter", refused && !calls:
		return "refusal"
	case calls:
		return "tool_use"
	}
	return "end_turn"
}

// Whole implements dialect.Call.
func (c *call) Whole(answer []byte) ([]byte, error) {
	a, err := dialect.ReadAnswer(answer)
	if err != nil {
		return nil, err
	}
	if c.counts {
		return countTold(a)
	}
	m := c.newMessage()
	reason := "max_tokens"
	m.Usage = newUsage(a.Usage)
	if c.silent {
		m.Usage.Output, m.Usage.Details = 0, nil
	} else {
		// llama-server b11669 repeats what it goes on with, but not in a stream. The API never does.
		a.Text = strings.TrimPrefix(a.Text, c.prefill)
		m.Content = blocksOf(a)
		reason = stopReason(a.Finish, len(m.Content) > 0 && m.Content[len(m.Content)-1].Type == "tool_use", a.Refusal != "")
	}
	m.StopReason = &reason
	return openai.Marshal(m), nil
}

// countTold is the answer to CountTokens.
func countTold(a *dialect.Answer) ([]byte, error) {
	if a.Usage == nil {
		return nil, &openai.Error{
			Status: http.StatusBadGateway, Type: openai.TypeServer, Code: openai.CodeEngineFailed,
			Message: "the model's engine does not tell how many tokens it read",
		}
	}
	return openai.Marshal(struct {
		Input int `json:"input_tokens"`
	}{a.Usage.Prompt}), nil
}

// blocksOf are the blocks of a whole answer. White space alone is no text: the API refuses it when it is sent back.
func blocksOf(a *dialect.Answer) []answered {
	blocks := []answered{}
	if strings.TrimSpace(a.Reasoning) != "" {
		blocks = append(blocks, thoughtBlock(a.Reasoning))
	}
	if text := a.Text + a.Refusal; strings.TrimSpace(text) != "" {
		blocks = append(blocks, textBlock(text))
	}
	for _, t := range a.ToolCalls {
		if t.Name != "" {
			blocks = append(blocks, toolBlock(toolID(t.ID), t.Name, dialect.ArgumentsObject(t.Arguments)))
		}
	}
	return blocks
}

// toolID is an engine's own, if it has any.
func toolID(id string) string {
	if id == "" {
		return dialect.NewID("toolu_")
	}
	return id
}
