package openai

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// Shape is what is done to the requests to a model before its engine has them: modeldir.Shape, as it stands there. Parameters are top-level fields of a request, their
// values JSON. The names that a bound on the answer's tokens has are one parameter: max_tokens, max_completion_tokens and n_predict.
type Shape struct {
	System   string             // goes before what a chat tells the model itself; "" = nothing
	Defaults map[string]string  // what parameters are that a request does not give, or gives as null
	Forced   map[string]string  // what parameters are, whatever a request says
	Caps     map[string]float64 // the most that numbers may be. A bound on tokens that is not given, or is none (-1), is set
}

// MaxTokens is the parameter that bounds an answer, in tokens.
const MaxTokens = "max_tokens"

// limitNames are its names.
var limitNames = []string{MaxTokens, "max_completion_tokens", "n_predict"}

// Shaping is how a shape is put on a request.
type Shaping struct {
	Chat    bool // it is a chat: it can be told the system prompt
	Answers bool // its answer is bounded in tokens
}

// Apply returns a copy of a body with the shape put on it; req is what [Scan] made of it. All other bytes stay as they are. Errors are
// *Error with status 400: what has a cap is no number.
func (s *Shape) Apply(body []byte, req Request, how Shaping) ([]byte, error) {
	e := &shaper{shape: s, body: body, given: map[string]bool{}, how: how}
	scan := scanner{b: body}
	scan.space()
	if err := scan.object(1, e.field); err != nil {
		return nil, blame(err)
	}
	e.missing()
	if how.Chat && s.System != "" && req.MessagesSpan != [2]int{} {
		if err := e.system(req.MessagesSpan); err != nil {
			return nil, blame(err)
		}
	}
	sortEdits(e.edits)
	return edited(body, req.first, e.edits), nil
}

// shaper puts a shape on a body.
type shaper struct {
	shape *Shape
	body  []byte
	how   Shaping
	edits []edit
	given map[string]bool // parameters that are set, by the request or by us
}

func isLimit(name string) bool { return slices.Contains(limitNames, name) }

// forcedLimit is the name by which the bound on tokens is forced; "" = it is not.
func (s *Shape) forcedLimit() string {
	for _, name := range limitNames {
		if _, ok := s.Forced[name]; ok {
			return name
		}
	}
	return ""
}

// limit is what a map has under one of the names of the bound on tokens.
func limit[V any](of map[string]V) (v V, ok bool) {
	for _, name := range limitNames {
		if v, ok = of[name]; ok {
			return v, true
		}
	}
	return v, false
}

// field looks at a field of the request. Of repeated ones each is, as engines differ in which they obey.
func (e *shaper) field(key []byte, from, to int) error {
	name, value := string(key), string(e.body[from:to])
	set := func(value string) { e.edits = append(e.edits, edit{[2]int{from, to}, name, value}) }
	if forced, ok := e.shape.Forced[name]; ok {
		set(forced)
		e.give(name)
		return nil
	}
	if isLimit(name) && e.shape.forcedLimit() != "" {
		set("null") // another name of what is forced
		return nil
	}
	if value == "null" {
		if byDefault, ok := e.shape.Defaults[name]; ok {
			set(byDefault)
			e.give(name)
		}
		return nil
	}
	e.give(name)
	most, capped := e.shape.Caps[name]
	if isLimit(name) {
		most, capped = limit(e.shape.Caps)
	}
	if !capped {
		return nil
	}
	n, err := strconv.ParseFloat(value, 64)
	if err != nil {
		return InvalidRequest(name, fmt.Sprintf("%q must be a number", name))
	}
	if n > most || n < 0 && isLimit(name) {
		set(number(most))
	}
	return nil
}

func (e *shaper) give(name string) {
	e.given[name] = true
	if isLimit(name) {
		for _, other := range limitNames {
			e.given[other] = true
		}
	}
}

// missing sets what the request does not give.
func (e *shaper) missing() {
	add := func(name, value string) {
		if !e.given[name] && (e.how.Answers || !isLimit(name)) {
			e.edits = append(e.edits, edit{name: name, value: value})
			e.give(name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.shape.Forced)) {
		add(name, e.shape.Forced[name])
	}
	for _, name := range slices.Sorted(maps.Keys(e.shape.Defaults)) {
		add(name, e.shape.Defaults[name])
	}
	if most, capped := limit(e.shape.Caps); capped {
		add(MaxTokens, number(most))
	}
}

func number(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

// system puts the system prompt before the request's own, in the same message where it has one: templates take one at the beginning only.
func (e *shaper) system(messages [2]int) error {
	s := scanner{b: e.body[:messages[1]], i: messages[0]}
	if e.body[messages[0]] != '[' {
		return nil // the engine says what is wrong with it
	}
	var first [2]int
	err := s.each(func(from, to int) error {
		if first == [2]int{} {
			first = [2]int{from, to}
		}
		return nil
	})
	if err != nil || first == [2]int{} {
		return err
	}
	if e.body[first[0]] != '{' {
		return nil
	}
	var role, content [2]int
	s = scanner{b: e.body[:first[1]], i: first[0]}
	err = s.object(1, func(key []byte, from, to int) error {
		switch string(key) {
		case "role":
			role = [2]int{from, to}
		case "content":
			content = [2]int{from, to}
		}
		return nil
	})
	if err != nil {
		return err
	}
	own := e.body[role[0]:role[1]]
	tells := len(own) > 0 && (stringIs(own, "system") || stringIs(own, "developer"))
	if !tells || content == [2]int{} {
		e.insert(first[0], `{"role":"system","content":`+string(Marshal(e.shape.System))+`},`)
		return nil
	}
	e.before(content)
	return nil
}

// before puts the system prompt before a content.
func (e *shaper) before(content [2]int) {
	switch prompt := Marshal(e.shape.System + "\n\n"); e.body[content[0]] {
	case '"':
		e.insert(content[0]+1, string(prompt[1:len(prompt)-1]))
	case '[':
		part := `{"type":"text","text":` + string(prompt) + `}`
		if rest := bytes.TrimLeft(e.body[content[0]+1:content[1]], " \t\r\n"); rest[0] != ']' {
			part += ","
		}
		e.insert(content[0]+1, part)
	case 'n': // null
		e.edits = append(e.edits, edit{content, "content", string(Marshal(e.shape.System))})
	}
}

func (e *shaper) insert(at int, what string) {
	e.edits = append(e.edits, edit{span: [2]int{at, at}, value: what})
}
