package responses

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"assistant/internal/openai"
)

// fields are those of an object in the request, read one by one. A field that is null is taken for one that is not there. The first
// fault is kept and the reading goes on, so that callers look for it once.
type fields struct {
	at    string // where the object is, as errors name it: "input[2].content[0]"; "" = it is the request
	of    map[string]json.RawMessage
	first *fault
}

// fault is the first fault that was found in a request.
type fault struct{ err error }

func (f *fault) blame(param, format string, args ...any) {
	f.set(openai.InvalidRequest(param, fmt.Sprintf(format, args...)))
}

func (f *fault) set(err *openai.Error) {
	if f.err == nil {
		f.err = err
	}
}

// where names a field.
func (f fields) where(name string) string {
	if f.at == "" {
		return name
	}
	return f.at + "." + name
}

// blame finds fault with a field.
func (f fields) blame(name, format string, args ...any) {
	f.first.blame(f.where(name), format, args...)
}

// must says what a field has to be.
func (f fields) must(name, what string) { f.blame(name, "%q must be %s", f.where(name), what) }

// raw is a field as it was written; nil = it is not there.
func (f fields) raw(name string) json.RawMessage {
	if raw := f.of[name]; string(raw) != "null" {
		return raw
	}
	return nil
}

func (f fields) has(name string) bool { return f.raw(name) != nil }

// into reads a field into what to points to, if it is there.
func (f fields) into(name string, to any, what string) bool {
	raw := f.raw(name)
	if raw == nil {
		return false
	}
	if err := json.Unmarshal(raw, to); err != nil {
		f.must(name, what)
		return false
	}
	return true
}

// optional is a field of a type; nil = it is not there.
func optional[T any](f fields, name, what string) *T {
	var value T
	if !f.into(name, &value, what) {
		return nil
	}
	return &value
}

// ranged is an optional of low to high.
func ranged[T int | float64](f fields, name string, low, high T, what string) *T {
	n := optional[T](f, name, what)
	if n != nil && (*n < low || *n > high) {
		f.must(name, what)
	}
	return n
}

// text is a string, "" if it is not there.
func (f fields) text(name string) (s string) {
	f.into(name, &s, "a string")
	return s
}

// maybe is a string; nil = it is not there.
func (f fields) maybe(name string) *string {
	return optional[string](f, name, "a string")
}

// need is a string that has to be there.
func (f fields) need(name string) string {
	if !f.has(name) {
		f.blame(name, "you must give %q", f.where(name))
	}
	return f.text(name)
}

// flag is a boolean; nil = it is not there.
func (f fields) flag(name string) *bool {
	return optional[bool](f, name, "true or false")
}

func (f fields) isTrue(name string) bool {
	is := f.flag(name)
	return is != nil && *is
}

// number is one of low to high; nil = it is not there.
func (f fields) number(name string, low, high float64) *float64 {
	return ranged(f, name, low, high, fmt.Sprintf("a number from %g to %g", low, high))
}

// count is a whole number of low to high; nil = it is not there.
func (f fields) count(name string, low, high int) *int {
	return ranged(f, name, low, high, fmt.Sprintf("a whole number from %d to %d", low, high))
}

// oneOf is a string of a few; "" = it is not there.
func (f fields) oneOf(name string, values ...string) string {
	s := f.maybe(name)
	if s == nil {
		return ""
	}
	for _, value := range values {
		if *s == value {
			return value
		}
	}
	f.must(name, fmt.Sprintf("one of %q", values))
	return ""
}

// object is a field that is an object; without any fields if it is not there.
func (f fields) object(name string) fields {
	o := fields{at: f.where(name), first: f.first}
	f.into(name, &o.of, "an object")
	return o
}

// each calls do for each object of an array.
func (f fields) each(name string, do func(fields)) {
	var list []json.RawMessage
	f.into(name, &list, "an array")
	for i, raw := range list {
		o := fields{at: f.where(name) + "[" + strconv.Itoa(i) + "]", first: f.first}
		if json.Unmarshal(raw, &o.of) != nil || o.of == nil {
			f.first.blame(o.at, "%q must be an object", o.at)
			return
		}
		do(o)
	}
}

// isText says whether a field is a string.
func (f fields) isText(name string) bool { return bytes.HasPrefix(f.raw(name), []byte(`"`)) }
