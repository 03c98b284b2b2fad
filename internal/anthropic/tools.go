package anthropic

import (
	"fmt"
	"strings"

	"assistant/internal/dialect"
	"assistant/internal/openai"
)

// tool is one that the model may call.
type tool struct {
	name, description, schema []byte // as they were written; description may be nil
	strict                    bool
}

// choice is what the request says about calling tools.
type choice struct {
	kind     string // "" = nothing; auto, any, tool, none
	name     string // of the tool that must be called, if kind is tool
	oneByOne bool   // no more than one call in an answer
}

func readChoice(req dialect.Object) (choice, error) {
	var c choice
	o, err := req.Object("tool_choice")
	if err != nil || !req.Has("tool_choice") {
		return c, err
	}
	if c.kind, err = o.Text("type"); err != nil {
		return c, err
	}
	if c.oneByOne, err = o.Flag("disable_parallel_tool_use"); err != nil {
		return c, err
	}
	switch c.kind {
	case "auto", "any", "none":
	case "tool":
		if err := o.Need("name"); err != nil {
			return c, err
		}
		c.name, err = o.Text("name")
	default:
		err = dialect.MustBe(o.Where("type"), "auto, any, tool or none")
	}
	return c, err
}

// readTools reads those that are to be offered: where one must be called, no other. llama-server b11669 takes no tool's name as
// tool_choice and leaves the choice to the model then, but every engine that can force a call at all forces one of those it is offered.
func readTools(req dialect.Object, c choice) ([]tool, error) {
	list, err := req.Array("tools")
	if err != nil {
		return nil, err
	}
	var tools []tool
	for i, raw := range list {
		o, err := dialect.ReadObject(dialect.Element("tools", i), raw)
		if err != nil {
			return nil, err
		}
		t, offered, err := readTool(o)
		if err != nil {
			return nil, err
		}
		if offered && (c.kind != "tool" || dialect.Unquote(t.name) == c.name) {
			tools = append(tools, t)
		}
	}
	switch {
	case len(tools) > 0:
	case c.kind == "tool":
		err = openai.InvalidRequest("tool_choice.name", fmt.Sprintf(`no tool in "tools" has the name %q`, c.name))
	case c.kind == "any":
		err = openai.InvalidRequest("tool_choice", `a tool must be called, but "tools" has none`)
	}
	return tools, err
}

// readTool reads one tool, offered if it is for the model. What has a schema is the client's own, whatever it calls its type. All others
// are known by their type to Anthropic's models only, or run on Anthropic's servers.
func readTool(o dialect.Object) (t tool, offered bool, err error) {
	kind, err := o.Text("type")
	if err != nil {
		return t, false, err
	}
	if strings.HasPrefix(kind, "tool_search_tool_") { // it finds tools that are not offered yet: here all of them are
		return t, false, nil
	}
	if kind != "" && kind != "custom" && !o.Has("input_schema") {
		return t, false, openai.InvalidRequest(o.Where("type"),
			fmt.Sprintf(`a tool of type %q is not available here: leave it out, or describe it by an "input_schema" and run it in the client`, kind))
	}
	if t.name, err = o.NeedQuoted("name"); err != nil {
		return t, false, err
	}
	if t.description, err = o.Quoted("description"); err != nil {
		return t, false, err
	}
	if err := o.Need("input_schema"); err != nil {
		return t, false, err
	}
	if _, err := o.Object("input_schema"); err != nil {
		return t, false, err
	}
	t.schema = o.Fields["input_schema"]
	t.strict, err = o.Flag("strict")
	return t, true, err
}

// tools writes them as functions.
func (b *builder) tools(tools []tool) {
	if len(tools) == 0 {
		return
	}
	b.Name("tools")
	b.Open('[')
	for _, t := range tools {
		b.Open('{')
		b.Field("type", []byte(`"function"`))
		b.Name("function")
		b.Open('{')
		b.Field("name", t.name)
		b.Field("description", t.description)
		if t.strict {
			b.Field("strict", []byte("true"))
		}
		b.Field("parameters", t.schema)
		b.Close('}')
		b.Close('}')
	}
	b.Close(']')
}

// choice writes how they are to be used.
func (b *builder) choice(c choice) {
	switch c.kind {
	case "auto", "none":
		b.Text("tool_choice", []byte(c.kind))
	case "any", "tool":
		b.Field("tool_choice", []byte(`"required"`))
	}
	if c.oneByOne {
		b.Field("parallel_tool_calls", []byte("false"))
	}
}
