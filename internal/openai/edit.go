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

// edited returns a copy of a body with edits made, see [splice].
func edited(body []byte, first int, edits []edit) []byte {
	grown := 0
	for _, e := range edits {
		grown += len(e.name) + len(e.value) + 4
	}
	out := make([]byte, 0, len(body)+grown)
	splice(body, first, edits, func(piece []byte) { out = append(out, piece...) })
	return out
}

// splice passes a body, an object, to emit with edits in it that are in its order, piece by piece. New fields come first, at the offset
// first. All other bytes stay as they are.
func splice(body []byte, first int, edits []edit, emit func(piece []byte)) {
	var added []byte
	for _, e := range edits {
		if e.span == [2]int{} {
			added = append(append(append(appendQuoted(added, e.name), ':'), e.value...), ',')
		}
	}
	if rest := bytes.TrimLeft(body[first:], " \t\r\n"); len(rest) > 0 && rest[0] == '}' { // {}: no comma
		added = bytes.TrimSuffix(added, []byte(","))
	}
	emit(body[:first])
	emit(added)
	at := first
	for _, e := range edits {
		if e.span != [2]int{} {
			emit(body[at:e.span[0]])
			emit([]byte(e.value))
			at = e.span[1]
		}
	}
	emit(body[at:])
}
