package ollama

import (
	"encoding/json"
	"strings"
	"time"

	"assistant/internal/dialect"
	"assistant/internal/openai"
)

// answer is one of a chat's or a prompt's, or a line of its stream.
type answer struct {
	Model      string    `json:"model"`
	CreatedAt  time.Time `json:"created_at"`
	Message    *message  `json:"message,omitempty"`  // a chat's
	Response   *string   `json:"response,omitempty"` // a prompt's
	Thinking   string    `json:"thinking,omitempty"` // a prompt's
	Done       bool      `json:"done"`
	DoneReason string    `json:"done_reason,omitempty"`
	Logprobs   []logprob `json:"logprobs,omitempty"`
	*metrics
}

type message struct {
	Role      string     `json:"role"`
	Content   string     `json:"content"`
	Thinking  string     `json:"thinking,omitempty"`
	ToolCalls []toolCall `json:"tool_calls,omitempty"`
}

type toolCall struct {
	ID       string   `json:"id"`
	Function function `json:"function"`
}

type function struct {
	Index     int             `json:"index"`
	Name      string          `json:"name"`
	Arguments json.RawMessage `json:"arguments"`
}

// logprob is how likely a token was. Numbers and bytes are as the engine wrote them.
type logprob struct {
	Token   string          `json:"token"`
	Logprob json.RawMessage `json:"logprob"`
	Bytes   json.RawMessage `json:"bytes,omitempty"`
	Top     []logprob       `json:"top_logprobs,omitempty"`
}

// metrics end an answer. What nobody knows is 0: Ollama leaves out what is 0, but some clients want all of them. Durations are in nanoseconds.
type metrics struct {
	Total      time.Duration `json:"total_duration"` // from the request to the end
	Load       time.Duration `json:"load_duration"`  // of that, what the engine did neither of the two below: until it was ready and free
	Prompt     int           `json:"prompt_eval_count"`
	PromptEval time.Duration `json:"prompt_eval_duration"`
	Completion int           `json:"eval_count"`
	Eval       time.Duration `json:"eval_duration"`
}

// says makes an answer, or a line, of what the model says.
func (c *Call) says(text, thought string, calls []toolCall, probs []logprob) *answer {
	a := &answer{Model: c.model, CreatedAt: time.Now().UTC(), Logprobs: probs}
	if c.kind == chat {
		a.Message = &message{Role: "assistant", Content: text, Thinking: thought, ToolCalls: calls}
	} else {
		a.Response, a.Thinking = &text, thought
	}
	return a
}

// ends makes it the last.
func (a *answer) ends(finish string, m *metrics) *answer {
	a.Done, a.DoneReason, a.metrics = true, "stop", m
	if finish == finishLength {
		a.DoneReason = finishLength
	}
	return a
}

// finishLength is OpenAI's and Ollama's word for an answer that was cut.
const finishLength = "length"

// metrics are what the engine told, or what was seen: first is when its first token came, and until then it read the prompt; zero = that
// was not seen.
func (c *Call) metrics(first time.Time, u *dialect.Usage, t *dialect.Timings) *metrics {
	now := time.Now()
	m := &metrics{Total: now.Sub(c.start)}
	if u != nil {
		m.Prompt, m.Completion = u.Prompt, u.Completion
	}
	switch {
	case t != nil:
		m.PromptEval, m.Eval = t.Prompt, t.Completion
		m.Load = max(0, m.Total-m.PromptEval-m.Eval)
	case !first.IsZero():
		m.PromptEval, m.Eval = first.Sub(c.start), now.Sub(first)
	}
	return m
}

// Immediate is the answer to a request that asks the model nothing.
func (c *Call) Immediate() []byte {
	if c.kind == embed {
		return openai.Marshal(embedAnswer{Model: c.model, Embeddings: []json.RawMessage{}})
	}
	if c.kind == embeddings {
		return openai.Marshal(embeddingsAnswer{json.RawMessage("[]")})
	}
	a := c.says("", "", nil, nil)
	a.Done, a.DoneReason = true, "load"
	if c.action == Unload {
		a.DoneReason = "unload"
	}
	return openai.Marshal(a)
}

// Whole implements [dialect.Call].
func (c *Call) Whole(body []byte) ([]byte, error) {
	if c.kind == embed || c.kind == embeddings {
		return c.embedded(body)
	}
	a, err := dialect.ReadAnswer(body)
	if err != nil {
		return nil, err
	}
	var calls dialect.Calls
	for _, part := range a.ToolCalls {
		calls.Take(part)
	}
	// llama-server b11669 repeats what it goes on with, but not in a stream. Ollama never does.
	text := strings.TrimPrefix(a.Text, c.prefill) + a.Refusal
	said := c.says(text, a.Reasoning, newToolCalls(calls, 0, a.Finish), c.probs(a.Logprobs))
	return openai.Marshal(said.ends(a.Finish, c.metrics(time.Time{}, a.Usage, a.Timings))), nil
}

// newToolCalls makes them of the engine's, the first of which has the index from. Those without a name can't be run, and those that the
// end of the answer cut off must not be.
func newToolCalls(calls dialect.Calls, from int, finish string) (made []toolCall) {
	for _, call := range calls {
		arguments := string(call.Arguments)
		cut := finish == finishLength && arguments != "" && !dialect.IsObject(arguments)
		if call.Name == "" || cut {
			continue
		}
		id := call.ID
		if id == "" {
			id = dialect.NewID("call_")
		}
		made = append(made, toolCall{id, function{from + len(made), call.Name, json.RawMessage(dialect.ArgumentsObject(arguments))}})
	}
	return made
}

// probs reads those of a chunk, if they were asked for, with as many alternatives as were: llama-server sends more.
func (c *Call) probs(raw json.RawMessage) []logprob {
	if !c.logprobs || raw == nil {
		return nil
	}
	var of struct {
		Content []logprob `json:"content"`
	}
	if json.Unmarshal(raw, &of) != nil { // no reason to give up the text
		return nil
	}
	for i := range of.Content {
		p := &of.Content[i]
		p.Top = p.Top[:min(len(p.Top), c.topLogprobs)]
	}
	return of.Content
}
