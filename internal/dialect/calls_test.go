package dialect

import (
	"fmt"
	"strings"
	"testing"
)

func TestPartsFindTheirCalls(t *testing.T) {
	part := func(index int, id, name, arguments string) ToolCall {
		return ToolCall{Index: index, ID: id, Name: name, Arguments: arguments}
	}
	for _, c := range []struct {
		name  string
		parts []ToolCall
		want  string
	}{
		{"one", []ToolCall{part(0, "a", "f", ""), part(0, "", "", `{"x`), part(0, "", "", `":1}`)}, `a f {"x":1}`},
		{"one whose head is repeated", []ToolCall{part(0, "a", "f", ""), part(0, "a", "f", `{`), part(0, "a", "f", `}`)}, `a f {}`},
		{"one whose name is repeated", []ToolCall{part(0, "", "f", `{`), part(0, "", "f", `}`), part(0, "", "f", "")}, ` f {}`},
		{"one whose name turns out to be longer", []ToolCall{part(0, "a", "get", ""), part(0, "a", "get_all", `{}`)}, `a get_all {}`},
		{"one whose head comes in pieces", []ToolCall{part(0, "", "f", ""), part(0, "a", "", ""), part(0, "", "", `{}`)}, `a f {}`},
		{"one whose name comes last", []ToolCall{part(0, "a", "", `{`), part(0, "", "", `}`), part(0, "", "f", "")}, `a f {}`},
		{"one whose parts have ids of their own", []ToolCall{part(0, "a", "f", ""), part(0, "b", "", `{"x`), part(0, "c", "", `":1}`)}, `a f {"x":1}`},
		{"one whose parts have ids of their own and may be empty", []ToolCall{part(-1, "a", "f", ""), part(-1, "b", "", ""), part(-1, "c", "", `{}`), part(-1, "d", "", "")}, `a f {} | d  `},
		{"one after another", []ToolCall{part(0, "a", "f", `{}`), part(1, "b", "g", `{`), part(1, "", "", `}`)}, `a f {} | b g {}`},
		{"in turns", []ToolCall{part(0, "a", "f", `{`), part(1, "b", "g", `{`), part(0, "", "", `}`), part(1, "", "", `}`)}, `a f {} | b g {}`},
		{"of the same index", []ToolCall{part(0, "a", "f", `{}`), part(0, "b", "f", `{}`), part(0, "c", "g", `{`), part(0, "", "", `}`)}, `a f {} | b f {} | c g {}`},
		{"of the same index, without arguments", []ToolCall{part(0, "a", "f", ""), part(0, "b", "f", "")}, `a f  | b f `},
		{
			"of the same index, in turns",
			[]ToolCall{part(0, "a", "f", `{`), part(0, "b", "g", `{`), part(0, "a", "", `}`), part(0, "b", "", `}`)},
			`a f {} | b g {}`,
		},
		{"of the same index, the name after the id", []ToolCall{part(0, "a", "f", ""), part(0, "b", "", ""), part(0, "", "g", `{}`)}, `a f  |  g {}`},
		{"the name after another id", []ToolCall{part(0, "a", "", ""), part(0, "b", "g", `{}`)}, `a   | b g {}`},
		{"an id after a whole one", []ToolCall{part(0, "a", "f", `{}`), part(0, "b", "", " "), part(0, "b", "g", ``)}, `a f {} | b g  `},
		{"without ids and indexes", []ToolCall{part(0, "", "f", `{}`), part(0, "", "f", `{"x":1}`), part(0, "", "g", ``)}, ` f {} |  f {"x":1} |  g `},
		{"without ids and indexes, one name begins as another", []ToolCall{part(0, "", "f", `{}`), part(0, "", "fg", `{}`)}, ` f {} |  fg {}`},
		{"indexes with gaps, backwards", []ToolCall{part(7, "a", "f", `{`), part(3, "b", "g", `{}`), part(7, "", "", `}`)}, `a f {} | b g {}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var calls Calls
			for _, part := range c.parts {
				if at := calls.Take(part); at < 0 || at >= len(calls) {
					t.Fatalf("%+v at %d of %d", part, at, len(calls))
				}
			}
			var got []string
			for _, c := range calls {
				got = append(got, fmt.Sprintf("%s %s %s", c.ID, c.Name, c.Arguments))
			}
			if s := strings.Join(got, " | "); s != c.want {
				t.Errorf("got %s, want %s", s, c.want)
			}
		})
	}
}

func TestArgumentsAreObjects(t *testing.T) {
	for arguments, want := range map[string]string{
		`{"a":1}`: `{"a":1}`, ``: `{}`, `nul`: `{}`, `[1]`: `{}`, `{"a"`: `{}`, `"{\"a\":1}"`: `{"a":1}`, `"x"`: `{}`, `{}{}`: `{}`,
	} {
		if got := ArgumentsObject(arguments); got != want {
			t.Errorf("%s: got %s, want %s", arguments, got, want)
		}
	}
}
