package dialect

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// Calls are those of an answer, in the order they began. They grow by the parts that a stream has of them.
type Calls []GrowingCall

// GrowingCall is what there is of a call.
type GrowingCall struct {
	Index     int    // the engine's
	ID        string // the first that was told; "" = none yet
	Name      string // the last that was told; "" = none yet. A call that never gets one can't be run
	Arguments []byte
}

// Take adds a part to the call it is of, which may be a new one, and returns where that is.
//
// Engines number the calls of an answer, and give each an id. Some number them all 0, some give no ids, and some give each part of the same
// call an id of its own (vLLM once did). So the index decides first, then an id that is known. A part with another id, or another
// name, begins a call where it can't be the rest of the one before it.
func (c *Calls) Take(part ToolCall) (at int) {
	if at = c.find(part); at < 0 {
		*c = append(*c, GrowingCall{part.Index, part.ID, part.Name, []byte(part.Arguments)})
		return len(*c) - 1
	}
	call := &(*c)[at]
	if call.ID == "" {
		call.ID = part.ID
	}
	if part.Name != "" { // again: llama-server tells it once more when it turns out to be longer
		call.Name = part.Name
	}
	call.Arguments = append(call.Arguments, part.Arguments...)
	return at
}

// find finds the call that a part is of; -1 = it begins one.
func (c Calls) find(part ToolCall) int {
	last := -1
	for i, call := range slices.Backward(c) {
		if call.Index != part.Index {
			continue
		}
		if part.ID != "" && part.ID == call.ID {
			return i
		}
		if last < 0 {
			last = i
		}
	}
	if last >= 0 && c[last].endsBefore(part) {
		return -1
	}
	return last
}

// endsBefore says whether a part of the same index, but not of the same id, begins another call.
func (g *GrowingCall) endsBefore(part ToolCall) bool {
	otherID := g.ID != "" && part.ID != "" && !strings.HasPrefix(part.ID, g.ID)
	switch {
	case part.Name == "":
		// It is the rest of this one, unless nothing can be missing. If it was the head of the next after all, that one lacks an id then.
		return otherID && (g.Name == "" || IsObject(string(g.Arguments)))
	case g.Name == "":
		return otherID
	case !strings.HasPrefix(part.Name, g.Name):
		return true
	}
	return otherID || part.ID == "" && part.Arguments != "" && IsObject(string(g.Arguments)) // the same function again
}

// ArgumentsObject is the object that arguments hold, and {} where they hold none. Clients fail on arguments that are no object, and the
// whole answer is lost then; an object without fields is a call like any other, which the client's tool refuses for what it lacks, and the
// model reads that and tries again.
func ArgumentsObject(arguments string) string {
	if IsObject(arguments) {
		return arguments
	}
	var quoted string // an object in a string, as some models write it
	if json.Unmarshal([]byte(arguments), &quoted) == nil && IsObject(quoted) {
		return quoted
	}
	return "{}"
}

// IsObject says whether a text is a JSON object, and nothing more.
func IsObject(text string) bool {
	raw := bytes.TrimSpace([]byte(text))
	return len(raw) > 0 && raw[0] == '{' && raw[len(raw)-1] == '}' && json.Valid(raw)
}

// NewID makes an id: the prefix and 24 hexadecimal digits.
func NewID(prefix string) string {
	return prefix + fmt.Sprintf("%016x%08x", rand.Uint64(), rand.Uint32())
}
