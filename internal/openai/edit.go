package openai

import (
	"bytes"
	"slices"
)

// edit is a field to set. span is the value it has, 0,0 if the field is absent; an empty one elsewhere is where something is put in.
type edit struct {
	span        [2]int
	name, value string
}

// sortEdits puts edits into the order of the body.
func sortEdits(edits []edit) {
	slices.SortStableFunc(edits, func(a, b edit) int { return a.span[0] - b.span[0] })
}

// edited returns a copy of a body, an object, with edits in it that are in its order. New fields come first, at the offset first. All
// other bytes stay as they are.
func edited(body []byte, first int, edits []edit) []byte {
	grown := 0
	for _, e := range edits {
		grown += len(e.name) + len(e.value) + 4
	}
	out := make([]byte, 0, len(body)+grown)
	out = append(out, body[:first]...)
	for _, e := range edits {
		if e.span == [2]int{} {
			out = append(append(append(append(append(out, '"'), e.name...), `":`...), e.value...), ',')
		}
	}
	if rest := bytes.TrimLeft(body[first:], " \t\r\n"); len(rest) > 0 && rest[0] == '}' { // {}: no comma
		out = bytes.TrimSuffix(out, []byte(","))
	}
	at := first
	for _, e := range edits {
		if e.span != [2]int{} {
			out = append(append(out, body[at:e.span[0]]...), e.value...)
			at = e.span[1]
		}
	}
	return append(out, body[at:]...)
}
