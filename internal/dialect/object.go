package dialect

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"assistant/internal/openai"
)

// Requests hold images of megabytes, and the whole conversation each time. So a body is checked once, by json.Valid, and walked then;
// what is found are pieces of it, which are copied once, into the chat request. Everything here relies on that check.

// Object are the fields of a JSON object of a request, as they were written. One that is null is not there; of equal names the
// last one counts.
type Object struct {
	At     string // where it is, as errors name it, such as messages[2].content[0]; "" = it is the request
	Fields map[string][]byte
}

// ReadRequest checks that a body is a JSON object and reads its fields, which are pieces of it. Errors of this and all of an Object's
// methods are *openai.Error with status 400 that name the field at fault.
func ReadRequest(body []byte) (Object, error) {
	if !json.Valid(body) {
		return Object{}, openai.BadJSON(json.Unmarshal(body, &struct{}{}).Error())
	}
	body = bytes.TrimLeft(body, " \t\r\n")
	if body[0] != '{' {
		return Object{}, openai.BadJSON("it is not an object")
	}
	return ReadObject("", body)
}

// ReadObject reads a value of a request; at is where it is.
func ReadObject(at string, raw []byte) (Object, error) {
	o := Object{At: at, Fields: map[string][]byte{}}
	if raw[0] != '{' {
		return o, MustBe(at, "an object")
	}
	_ = openai.EachField(raw, func(name, value []byte) error { // it is valid
		if value[0] == 'n' {
			delete(o.Fields, string(name))
		} else {
			o.Fields[string(name)] = value
		}
		return nil
	})
	return o, nil
}

// readArray reads a valid value.
func readArray(at string, raw []byte) (elements [][]byte, err error) {
	if raw[0] != '[' {
		return nil, MustBe(at, "an array")
	}
	_ = openai.EachElement(raw, func(value []byte) error { // it is valid
		elements = append(elements, value)
		return nil
	})
	return elements, nil
}

// Unquote reads a JSON string.
func Unquote(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(Inside(quoted))
	}
	var s string
	_ = json.Unmarshal(quoted, &s) // it is valid
	return s
}

// Inside is a JSON string without its quotes.
func Inside(quoted []byte) []byte { return quoted[1 : len(quoted)-1] }

// Element names a part of an array.
func Element(at string, i int) string { return at + "[" + strconv.Itoa(i) + "]" }

// MustBe blames a field for what it is.
func MustBe(at, what string) error {
	return openai.InvalidRequest(at, fmt.Sprintf("%q must be %s", at, what))
}

// Where names a field.
func (o Object) Where(name string) string {
	if o.At == "" {
		return name
	}
	return o.At + "." + name
}

// Has says whether a field is there.
func (o Object) Has(name string) bool { return o.Fields[name] != nil }

// Need blames the request for a field that is not there.
func (o Object) Need(name string) error {
	if o.Has(name) {
		return nil
	}
	return openai.InvalidRequest(o.Where(name), fmt.Sprintf("%q is required", o.Where(name)))
}

// Quoted is a string as it was written, quotes and escapes included; nil = it is not there.
func (o Object) Quoted(name string) ([]byte, error) {
	raw := o.Fields[name]
	if raw != nil && raw[0] != '"' {
		return nil, MustBe(o.Where(name), "a string")
	}
	return raw, nil
}

// NeedQuoted is a Quoted that has to be there.
func (o Object) NeedQuoted(name string) ([]byte, error) {
	if err := o.Need(name); err != nil {
		return nil, err
	}
	return o.Quoted(name)
}

// Text is a string, "" if it is not there.
func (o Object) Text(name string) (string, error) {
	raw, err := o.Quoted(name)
	if raw == nil {
		return "", err
	}
	return Unquote(raw), nil
}

// Flag is a boolean, false if it is not there.
func (o Object) Flag(name string) (bool, error) {
	switch raw := o.Fields[name]; string(raw) {
	case "true":
		return true, nil
	case "", "false":
		return false, nil
	}
	return false, MustBe(o.Where(name), "true or false")
}

// Number is a number as it was written; nil = it is not there.
func (o Object) Number(name string) ([]byte, error) {
	raw := o.Fields[name]
	if raw != nil && raw[0] != '-' && (raw[0] < '0' || raw[0] > '9') {
		return nil, MustBe(o.Where(name), "a number")
	}
	return raw, nil
}

// Count is a whole number that is not negative; -1 = it is not there.
func (o Object) Count(name string) (int, error) {
	raw := o.Fields[name]
	if raw == nil {
		return -1, nil
	}
	n, err := strconv.Atoi(string(raw))
	if err != nil || n < 0 {
		return -1, MustBe(o.Where(name), "a whole number that is not negative")
	}
	return n, nil
}

// Object is a field that is one; without fields if it is not there.
func (o Object) Object(name string) (Object, error) {
	if !o.Has(name) {
		return Object{At: o.Where(name)}, nil
	}
	return ReadObject(o.Where(name), o.Fields[name])
}

// Array is a field that is one; empty if it is not there.
func (o Object) Array(name string) ([][]byte, error) {
	if !o.Has(name) {
		return nil, nil
	}
	return readArray(o.Where(name), o.Fields[name])
}

// WriteSchema writes response_format: the schema that the answer has to follow.
func WriteSchema(b *openai.Builder, schema []byte) {
	b.Name("response_format")
	b.Open('{')
	b.Field("type", []byte(`"json_schema"`))
	b.Name("json_schema")
	b.Open('{')
	b.Field("name", []byte(`"answer"`)) // OpenAI's has to have one
	b.Field("strict", []byte("true"))
	b.Field("schema", schema)
	b.Close('}')
	b.Close('}')
}
