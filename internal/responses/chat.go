package responses

import (
	"encoding/json"
	"strings"

	"assistant/internal/openai"
)

// chatRequest is a request to /v1/chat/completions.
type chatRequest struct {
	Model         string          `json:"model"`
	Messages      []chatMessage   `json:"messages"`
	Stream        bool            `json:"stream,omitempty"`
	StreamOptions json.RawMessage `json:"stream_options,omitempty"`
	Tools         []chatTool      `json:"tools,omitempty"`
	ToolChoice    string          `json:"tool_choice,omitempty"`
	Parallel      *bool           `json:"parallel_tool_calls,omitempty"`
	Format        *chatFormat     `json:"response_format,omitempty"`
	Verbosity     string          `json:"verbosity,omitempty"`
	Effort        string          `json:"reasoning_effort,omitempty"`
	MaxTokens     *int            `json:"max_tokens,omitempty"` // the name that every engine knows, llama-server among them
	Temperature   *float64        `json:"temperature,omitempty"`
	TopP          *float64        `json:"top_p,omitempty"`
	Logprobs      bool            `json:"logprobs,omitempty"`
	TopLogprobs   int             `json:"top_logprobs,omitempty"`
	User          string          `json:"user,omitempty"`
	DropParams    json.RawMessage `json:"drop_params,omitempty"` // ours: what an engine can't honour may be ignored
}

type chatMessage struct {
	Role      string     `json:"role"`
	Content   any        `json:"content"` // a string, []chatPart or nil
	Reasoning string     `json:"reasoning_content,omitempty"`
	Calls     []chatCall `json:"tool_calls,omitempty"`
	CallID    string     `json:"tool_call_id,omitempty"`
}

type chatPart struct {
	Type  string          `json:"type"`
	Text  *string         `json:"text,omitempty"`
	Image *chatImage      `json:"image_url,omitempty"`
	Audio json.RawMessage `json:"input_audio,omitempty"`
}

type chatImage struct {
	URL    string `json:"url"`
	Detail string `json:"detail,omitempty"`
}

type chatCall struct {
	ID       string           `json:"id"`
	Type     string           `json:"type"` // function
	Function chatCallFunction `json:"function"`
}

type chatCallFunction struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

type chatTool struct {
	Type     string       `json:"type"` // function
	Function chatFunction `json:"function"`
}

type chatFunction struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parameters,omitempty"`
	Strict      *bool           `json:"strict,omitempty"`
}

type chatFormat struct {
	Type   string      `json:"type"`
	Schema *chatSchema `json:"json_schema,omitempty"`
}

type chatSchema struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Schema      json.RawMessage `json:"schema"`
	Strict      *bool           `json:"strict,omitempty"`
}

// dialogue makes messages of items. What the assistant thought, said and called in one go is one message, as chat completions have it.
type dialogue struct {
	messages []chatMessage
	open     bool     // the last message is the assistant's, and calls that follow are of it
	thoughts []string // of the assistant's message that comes next
}

func (d *dialogue) add(it *item) {
	switch it.Type {
	case typeReasoning:
		if text := it.thoughts(); text != "" {
			d.open = false
			d.thoughts = append(d.thoughts, text)
		}
	case typeMessage:
		d.message(it)
	case typeCall:
		d.call(it, *it.Arguments)
	case typeCustom:
		d.call(it, string(openai.Marshal(map[string]string{customInput: *it.Input})))
	case typeCallOutput, typeCustomOutput:
		d.others(chatMessage{Role: roleTool, CallID: it.CallID, Content: it.Output.content()})
	}
}

func (d *dialogue) message(it *item) {
	switch it.Role {
	case roleAssistant:
		d.assistant(chatMessage{Content: texts(it.Content)})
	case roleUser:
		d.others(chatMessage{Role: roleUser, Content: userContent(it.Content)})
	default: // templates know no developer
		d.others(chatMessage{Role: roleSystem, Content: plainContent(it.Content)})
	}
}

// call adds to what the assistant calls.
func (d *dialogue) call(it *item, arguments string) {
	if !d.open {
		d.assistant(chatMessage{})
	}
	m := &d.messages[len(d.messages)-1]
	m.Calls = append(m.Calls, chatCall{ID: it.CallID, Type: "function", Function: chatCallFunction{it.Name, arguments}})
}

// assistant begins a message of the assistant's.
func (d *dialogue) assistant(m chatMessage) {
	m.Role, m.Reasoning = roleAssistant, strings.Join(d.thoughts, "\n")
	d.messages = append(d.messages, m)
	d.open, d.thoughts = true, nil
}

// others adds a message that is not the assistant's. Thoughts that led to no answer stand for one, so that turns alternate.
func (d *dialogue) others(m chatMessage) {
	if len(d.thoughts) > 0 {
		d.assistant(chatMessage{Content: ""})
	}
	d.messages = append(d.messages, m)
	d.open = false
}

// end returns the messages. Templates want one message of the system's at most, before all others: those at the beginning are put
// together.
func (d *dialogue) end() []chatMessage {
	var rules []string
	for _, m := range d.messages {
		text, plain := m.Content.(string)
		if m.Role != roleSystem || !plain {
			break
		}
		rules = append(rules, text)
	}
	if len(rules) < 2 {
		return d.messages
	}
	return append([]chatMessage{{Role: roleSystem, Content: strings.Join(rules, "\n\n")}}, d.messages[len(rules):]...)
}

// userContent is a text if it is just one: every engine takes that.
func userContent(parts []part) any {
	if len(parts) == 0 {
		return ""
	}
	if len(parts) == 1 && parts[0].Text != nil {
		return *parts[0].Text
	}
	return chatParts(parts)
}

// plainContent is a text unless there is more than that.
func plainContent(parts []part) any {
	for i := range parts {
		if parts[i].Type == partImage || parts[i].Type == partAudio {
			return chatParts(parts)
		}
	}
	var all []string
	for _, p := range chatParts(parts) {
		all = append(all, *p.Text)
	}
	return strings.Join(all, "\n")
}

func (o *toolOutput) content() any {
	if o.parts != nil {
		return plainContent(o.parts)
	}
	return o.text
}

func chatParts(parts []part) []chatPart {
	list := []chatPart{}
	for i := range parts {
		list = append(list, parts[i].chat())
	}
	return list
}

func (p *part) chat() chatPart {
	switch p.Type {
	case partImage:
		image := &chatImage{URL: p.ImageURL}
		if p.Detail == "low" || p.Detail == "high" {
			image.Detail = p.Detail
		}
		return chatPart{Type: "image_url", Image: image}
	case partAudio:
		return chatPart{Type: partAudio, Audio: p.Audio}
	case partFile:
		text := p.asText()
		return chatPart{Type: "text", Text: &text}
	}
	text := p.says()
	return chatPart{Type: "text", Text: &text}
}
