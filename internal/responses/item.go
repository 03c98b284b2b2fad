package responses

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"

	"assistant/internal/openai"
)

// Types of items, as the API spells them.
const (
	typeMessage      = "message"
	typeReasoning    = "reasoning"
	typeCall         = "function_call"
	typeCallOutput   = "function_call_output"
	typeCustom       = "custom_tool_call"
	typeCustomOutput = "custom_tool_call_output"
	typeReference    = "item_reference"
)

// Types of parts.
const (
	partInput     = "input_text"
	partOutput    = "output_text"
	partRefusal   = "refusal"
	partImage     = "input_image"
	partFile      = "input_file"
	partAudio     = "input_audio"
	partReasoning = "reasoning_text"
	partSummary   = "summary_text"
)

// Roles.
const (
	roleUser      = "user"
	roleAssistant = "assistant"
	roleSystem    = "system"
	roleDeveloper = "developer"
	roleTool      = "tool" // of chat completions only
)

// Values of "status", of responses and of items.
const (
	statusQueued     = "queued"
	statusInProgress = "in_progress"
	statusCompleted  = "completed"
	statusIncomplete = "incomplete"
	statusFailed     = "failed"
	statusCancelled  = "cancelled"
)

// item is an element of an input or an output, as clients are given it. It is not changed once it is whole.
type item struct {
	ID        string      `json:"id"`
	Type      string      `json:"type"`
	Status    string      `json:"status,omitempty"`
	Role      string      `json:"role,omitempty"`  // of a message
	Phase     string      `json:"phase,omitempty"` // of a message of the assistant's
	Summary   []part      `json:"summary,omitzero"`
	Content   []part      `json:"content,omitzero"`
	Encrypted *string     `json:"encrypted_content,omitempty"`
	CallID    string      `json:"call_id,omitempty"`
	Name      string      `json:"name,omitempty"`
	Arguments *string     `json:"arguments,omitempty"` // of a function_call
	Input     *string     `json:"input,omitempty"`     // of a custom_tool_call
	Output    *toolOutput `json:"output,omitempty"`
}

// part is one of a content.
type part struct {
	Type        string          `json:"type"`
	Text        *string         `json:"text,omitempty"`
	Annotations []struct{}      `json:"annotations,omitzero"`
	Logprobs    []logprob       `json:"logprobs,omitzero"`
	Refusal     *string         `json:"refusal,omitempty"`
	ImageURL    string          `json:"image_url,omitempty"`
	Detail      string          `json:"detail,omitempty"`
	Filename    string          `json:"filename,omitempty"`
	FileData    string          `json:"file_data,omitempty"` // base64, as a data: URL or bare
	Audio       json.RawMessage `json:"input_audio,omitempty"`
}

// toolOutput is what a tool gave: a text, or parts.
type toolOutput struct {
	text  string
	parts []part // nil = it is a text
}

// MarshalJSON implements [json.Marshaler].
func (o *toolOutput) MarshalJSON() ([]byte, error) {
	if o.parts != nil {
		return openai.Marshal(o.parts), nil
	}
	return openai.Marshal(o.text), nil
}

// Which item an id is of can be read off it.
var idPrefixes = map[string]string{
	typeMessage: "msg_", typeReasoning: "rs_", typeCall: "fc_", typeCallOutput: "fco_", typeCustom: "ctc_", typeCustomOutput: "ctco_",
}

// newID returns an id of OpenAI's kind: a prefix and 48 hexadecimal digits.
func newID(prefix string) string {
	var random [24]byte
	_, _ = rand.Read(random[:]) // never fails
	return prefix + hex.EncodeToString(random[:])
}

func newItemID(kind string) string { return newID(idPrefixes[kind]) }

// textPart is one that holds nothing but text, of any type.
func textPart(kind, text string) part {
	p := part{Type: kind}
	switch kind {
	case partRefusal:
		p.Refusal = &text
	case partOutput:
		p.Annotations, p.Logprobs = []struct{}{}, []logprob{}
		fallthrough
	default:
		p.Text = &text
	}
	return p
}

// says is the text of a part.
func (p *part) says() string {
	switch {
	case p.Text != nil:
		return *p.Text
	case p.Refusal != nil:
		return *p.Refusal
	}
	return ""
}

// texts puts the texts of parts together, with a line's end between two, as llama-server does.
func texts(parts []part) string {
	var all []string
	for i := range parts {
		all = append(all, parts[i].says())
	}
	return strings.Join(all, "\n")
}

// sealed begins what we give as encrypted_content: clients that have nothing stored send it back, and some of them send back nothing
// else. Others' is not ours to read.
const sealed = "plain."

func seal(thoughts string) string {
	return sealed + base64.StdEncoding.EncodeToString([]byte(thoughts))
}

// thoughts is the text of a reasoning item.
func (it *item) thoughts() string {
	if text := texts(it.Content); text != "" {
		return text
	}
	if text := texts(it.Summary); text != "" || it.Encrypted == nil {
		return text
	}
	data, ours := strings.CutPrefix(*it.Encrypted, sealed)
	if !ours {
		return ""
	}
	text, _ := base64.StdEncoding.DecodeString(data)
	return strings.ToValidUTF8(string(text), "\uFFFD")
}
