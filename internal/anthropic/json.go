package anthropic

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"assistant/internal/openai"
)

// Requests hold images of megabytes, and the whole conversation each time. So a body is checked once, by json.Valid, and walked then;
// what is found are pieces of it, which are copied once, into the chat request. Everything here relies on that check.

// object are the fields of a JSON object of the request, as they were written. One that is null is not there; of equal names the
// last one counts.
type object struct {
	at     string // where it is, as errors name it, such as messages[2].content[0]; "" = it is the request
	fields map[string][]byte
}

// readObject reads a valid value.
func readObject(at string, raw []byte) (object, error) {
	o := object{at: at, fields: map[string][]byte{}}
	if raw[0] != '{' {
		return o, mustBe(at, "an object")
	}
	_ = openai.EachField(raw, func(name, value []byte) error { // it is valid
		if value[0] == 'n' {
			delete(o.fields, string(name))
		} else {
			o.fields[string(name)] = value
		}
		return nil
	})
	return o, nil
}

// readArray reads a valid value.
func readArray(at string, raw []byte) (elements [][]byte, err error) {
	if raw[0] != '[' {
		return nil, mustBe(at, "an array")
	}
	_ = openai.EachElement(raw, func(value []byte) error { // it is valid
		elements = append(elements, value)
		return nil
	})
	return elements, nil
}

// unquote reads a JSON string.
func unquote(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(inside(quoted))
	}
	var s string
	_ = json.Unmarshal(quoted, &s) // it is valid
	return s
}

// inside is a JSON string without its quotes.
func inside(quoted []byte) []byte { return quoted[1 : len(quoted)-1] }

// element names a part of an array.
func element(at string, i int) string { return at + "[" + strconv.Itoa(i) + "]" }

// mustBe blames a field for what it is.
func mustBe(at, what string) error {
	return openai.InvalidRequest(at, fmt.Sprintf("%q must be %s", at, what))
}

// where names a field.
func (o object) where(name string) string {
	if o.at == "" {
		return name
	}
	return o.at + "." + name
}

// has says whether a field is there.
func (o object) has(name string) bool { return o.fields[name] != nil }

// need blames the request for a field that is not there.
func (o object) need(name string) error {
	if o.has(name) {
		return nil
	}
	return openai.InvalidRequest(o.where(name), fmt.Sprintf("%q is required", o.where(name)))
}

// quoted is a string as it was written, quotes and escapes included; nil = it is not there.
func (o object) quoted(name string) ([]byte, error) {
	raw := o.fields[name]
	if raw != nil && raw[0] != '"' {
		return nil, mustBe(o.where(name), "a string")
	}
	return raw, nil
}

// needQuoted is a quoted that has to be there.
func (o object) needQuoted(name string) ([]byte, error) {
	if err := o.need(name); err != nil {
		return nil, err
	}
	return o.quoted(name)
}

// text is a string, "" if it is not there.
func (o object) text(name string) (string, error) {
	raw, err := o.quoted(name)
	if raw == nil {
		return "", err
	}
	return unquote(raw), nil
}

// flag is a boolean, false if it is not there.
func (o object) flag(name string) (bool, error) {
	switch raw := o.fields[name]; string(raw) {
	case "true":
		return true, nil
	case "", "false":
		return false, nil
	}
	return false, mustBe(o.where(name), "true or false")
}

// number is a number as it was written; nil = it is not there.
func (o object) number(name string) ([]byte, error) {
	raw := o.fields[name]
	if raw != nil && raw[0] != '-' && (raw[0] < '0' || raw[0] > '9') {
		return nil, mustBe(o.where(name), "a number")
	}
	return raw, nil
}

// count is a whole number that is not negative; -1 = it is not there.
func (o object) count(name string) (int, error) {
	raw := o.fields[name]
	if raw == nil {
		return -1, nil
	}
	n, err := strconv.Atoi(string(raw))
	if err != nil || n < 0 {
		return -1, mustBe(o.where(name), "a whole number that is not negative")
	}
	return n, nil
}

// object is a field that is one; without fields if it is not there.
func (o object) object(name string) (object, error) {
	if !o.has(name) {
		return object{at: o.where(name)}, nil
	}
	return readObject(o.where(name), o.fields[name])
}

// array is a field that is one; empty if it is not there.
func (o object) array(name string) ([][]byte, error) {
	if !o.has(name) {
		return nil, nil
	}
	return readArray(o.where(name), o.fields[name])
}
