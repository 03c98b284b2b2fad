package openai

import (
	"bytes"
	"fmt"
	"maps"
	"net"
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

// Apply returns a body with the shape put on it, in pieces that follow one another and are the body's own where nothing is changed: a body
// may be long. nil is for one that stays as it is. req is what [Scan] made of it. Errors are
// *Error with status 400: what has a cap is no number, or what the shape is about is given twice, so that engines could differ in which
// they obey.
func (s *Shape) Apply(body []byte, req Request, how Shaping) (net.Buffers, error) {
	e := &shaper{shape: s, body: body, nulls: map[string][2]int{}, seen: map[string]bool{}, given: map[string]bool{}, how: how}
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
	if len(e.edits) == 0 {
		return nil, nil
	}
	sortEdits(e.edits)
	var pieces net.Buffers
	splice(body, req.first, e.edits, func(piece []byte) { pieces = append(pieces, piece) })
	return pieces, nil
}

// shaper puts a shape on a body.
type shaper struct {
	shape *Shape
	body  []byte
	how   Shaping
	edits []edit
	seen  map[string]bool   // what the shape is about and the request has
	nulls map[string][2]int // where that is null
	given map[string]bool   // parameters that are set, by the request or by us
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

// cap is the most that a parameter may be.
func (s *Shape) cap(name string) (most float64, capped bool) {
	if isLimit(name) {
		return limit(s.Caps)
	}
	most, capped = s.Caps[name]
	return most, capped
}

// capped is a value of a parameter, or its cap if that is less.
func (s *Shape) capped(name, value string) string {
	most, capped := s.cap(name)
	if n, err := strconv.ParseFloat(value, 64); capped && err == nil && (n > most || n < 0 && isLimit(name)) {
		return number(most)
	}
	return value
}

// isAbout reports whether the shape has a say in a field.
func (e *shaper) isAbout(name string) bool {
	_, forced := e.shape.Forced[name]
	_, byDefault := e.shape.Defaults[name]
	if isLimit(name) {
		_, forced = limit(e.shape.Forced)
		_, byDefault = limit(e.shape.Defaults)
	}
	_, capped := e.shape.cap(name)
	return forced || byDefault || capped || name == "messages" && e.shape.System != ""
}

// field looks at a field of the request.
func (e *shaper) field(key []byte, from, to int) error {
	name, value := string(key), string(e.body[from:to])
	if !e.isAbout(name) {
		return nil
	}
	if e.seen[name] {
		return InvalidRequest(name, fmt.Sprintf("%q is given more than once", name))
	}
	e.seen[name] = true
	set := func(value string) { e.edits = append(e.edits, edit{[2]int{from, to}, name, value}) }
	if forced, ok := e.shape.Forced[name]; ok {
		set(e.shape.capped(name, forced))
		e.give(name)
		return nil
	}
	if isLimit(name) && e.shape.forcedLimit() != "" {
		set("null") // another name of what is forced
		return nil
	}
	if value == "null" {
		e.nulls[name] = [2]int{from, to} // as good as missing
		return nil
	}
	e.give(name)
	if _, capped := e.shape.cap(name); !capped {
		return nil
	}
	if _, err := strconv.ParseFloat(value, 64); err != nil {
		return InvalidRequest(name, fmt.Sprintf("%q must be a number", name))
	}
	if within := e.shape.capped(name, value); within != value {
		set(within)
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

// missing sets what the request does not give. A null is replaced: engines obey the last of a field that is there twice, and take null for
// no bound.
func (e *shaper) missing() {
	add := func(name, value string) {
		if e.given[name] || isLimit(name) && !e.how.Answers {
			return
		}
		set := edit{span: e.nulls[name], name: name, value: e.shape.capped(name, value)}
		for _, other := range limitNames {
			if isLimit(name) && set.span == [2]int{} {
				set.span = e.nulls[other]
			}
		}
		e.edits = append(e.edits, set)
		e.give(name)
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
