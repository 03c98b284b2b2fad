package responses

import (
	"encoding/json"
	"slices"
)

// customInput is the argument of the function that a custom tool is made: its input as a text.
const customInput = "input"

var customParameters = json.RawMessage(`{"type":"object","properties":{"` + customInput +
	`":{"type":"string","description":"the tool's input, as plain text"}},"required":["` + customInput + `"],"additionalProperties":false}`)

// toolset are the tools of a request.
type toolset struct {
	chat       []chatTool      // those that the model may call
	choice     string          // auto, none, required; "" = it is left to the engine
	custom     map[string]bool // the names of custom tools
	echo       []tool          // all, as the response has them
	echoChoice json.RawMessage
}

// tool is one as the response has it.
type tool struct {
	Type        string          `json:"type"`
	Name        string          `json:"name"`
	Description *string         `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parameters,omitempty"`
	Strict      *bool           `json:"strict,omitempty"`
	Format      json.RawMessage `json:"format,omitempty"`
}

func (q *request) tools() *toolset {
	t := &toolset{echo: []tool{}, custom: map[string]bool{}}
	q.each("tools", func(f fields) {
		switch kind := f.need("type"); kind {
		case "function":
			t.function(f)
		case "custom":
			t.customTool(f)
		default:
			f.blame("type", "the tool %q is not served here: only function and custom are, which the client runs", kind)
		}
	})
	q.choice(t)
	return t
}

func (t *toolset) function(f fields) {
	of := tool{
		Type: "function", Name: f.need("name"), Description: f.maybe("description"), Strict: f.flag("strict"), Parameters: f.raw("parameters"),
	}
	f.object("parameters")
	called := chatFunction{Name: of.Name, Parameters: of.Parameters, Strict: of.Strict}
	if of.Description != nil {
		called.Description = *of.Description
	}
	if of.Parameters == nil {
		of.Parameters = json.RawMessage("{}")
	}
	if of.Strict == nil {
		of.Strict = new(bool)
	}
	t.echo = append(t.echo, of)
	t.chat = append(t.chat, chatTool{"function", called})
}

// customTool makes a custom tool a function. No engine holds the model to a grammar in a call, so there may be none.
func (t *toolset) customTool(f fields) {
	of := tool{Type: "custom", Name: f.need("name"), Description: f.maybe("description"), Format: json.RawMessage(`{"type":"text"}`)}
	if format := f.object("format"); format.has("type") && format.text("type") != "text" {
		format.blame("type", `custom tools are served here with a "format" of type text only: make the tool a function, with a schema`)
	}
	called := chatFunction{Name: of.Name, Parameters: customParameters}
	if of.Description != nil {
		called.Description = *of.Description
	}
	t.custom[of.Name] = true
	t.echo = append(t.echo, of)
	t.chat = append(t.chat, chatTool{"function", called})
}

// choice reads tool_choice. llama-server takes no name there, without a word: of a tool that has to be called, and of those that are
// allowed, the others are left out instead.
func (q *request) choice(t *toolset) {
	const name = "tool_choice"
	t.echoChoice = q.raw(name)
	switch {
	case t.echoChoice == nil:
		t.echoChoice = json.RawMessage(`"auto"`)
		return
	case q.isText(name):
		t.choice = q.oneOf(name, "auto", "none", "required")
	default:
		q.named(t, q.object(name))
	}
	if len(t.echo) > 0 {
		return
	}
	if t.choice == "required" {
		q.blame(name, `%q needs "tools"`, name)
	}
	t.choice = ""
}

// named reads a tool_choice that names tools.
func (q *request) named(t *toolset, f fields) {
	switch kind := f.need("type"); kind {
	case "function", "custom":
		t.choice = "required"
		t.only(f, "name", []string{kind + " " + f.need("name")})
	case "allowed_tools":
		if t.choice = f.oneOf("mode", "auto", "required"); t.choice == "" {
			f.need("mode")
		}
		var names []string
		f.each("tools", func(f fields) { names = append(names, f.need("type")+" "+f.text("name")) })
		t.only(f, "tools", names)
	default:
		f.blame("type", "the choice %q is not served here: auto, none, required, function, custom and allowed_tools are", kind)
	}
}

// only leaves out all tools but those that a field names, by type and name.
func (t *toolset) only(f fields, field string, names []string) {
	left := t.chat[:0:0]
	for i, of := range t.echo {
		if slices.Contains(names, of.Type+" "+of.Name) {
			left = append(left, t.chat[i])
		}
	}
	if len(left) == 0 {
		f.blame(field, `%q names no tool that is in "tools"`, f.where(field))
	}
	t.chat = left
}
