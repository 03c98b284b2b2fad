package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"testing"
)

var testShape = &Shape{
	System:   "Be \"brief\".",
	Defaults: map[string]string{"temperature": "0.5", "chat_template_kwargs": `{"enable_thinking":false}`},
	Forced:   map[string]string{"seed": "7"},
	Caps:     map[string]float64{"max_tokens": 100, "top_k": 40},
}

func TestShape(t *testing.T) {
	const more = `"seed":7,"chat_template_kwargs":{"enable_thinking":false},"temperature":0.5,"max_tokens":100`
	for body, want := range map[string]string{
		`{}`:            `{` + more + `}`,
		`{"model":"m"}`: `{` + more + `,"model":"m"}`,
		`{"max_tokens":5,"temperature":1,"seed":1,"chat_template_kwargs":{}}`:                 `{"max_tokens":5,"temperature":1,"seed":7,"chat_template_kwargs":{}}`,
		`{"seed":2,"temperature":null,"chat_template_kwargs":1,"max_completion_tokens":500}`:  `{"seed":7,"temperature":0.5,"chat_template_kwargs":1,"max_completion_tokens":100}`,
		`{"seed":2,"temperature":0,"chat_template_kwargs":1,"max_tokens":-1,"top_k":41}`:      `{"seed":7,"temperature":0,"chat_template_kwargs":1,"max_tokens":100,"top_k":40}`,
		`{"max_tokens":null,"seed":2,"temperature":0,"chat_template_kwargs":1}`:               `{"max_tokens":100,"seed":7,"temperature":0,"chat_template_kwargs":1}`,
		`{"n_predict":null,"seed":null,"temperature":0,"chat_template_kwargs":1}`:             `{"n_predict":100,"seed":7,"temperature":0,"chat_template_kwargs":1}`,
		`{"max_tokens":null,"n_predict":5,"seed":2,"temperature":0,"chat_template_kwargs":1}`: `{"max_tokens":null,"n_predict":5,"seed":7,"temperature":0,"chat_template_kwargs":1}`,
		`{"max_tokens":"5"}`:                 "max_tokens",
		`{"max_tokens":5,"max_tokens":null}`: "max_tokens", // the last counts for llama-server: no bound
		`{"seed":5,"s\u0065ed":6}`:           "seed",
		`{"messages":[],"messages":[]}`:      "messages",
		`{"top_k":[]}`:                       "top_k",
	} {
		checkShape(t, testShape, body, want)
	}
}

// A cap holds for what the shape itself sets as well: a variant may have a lower one than its model's defaults.
func TestShapeCapsWhatItSets(t *testing.T) {
	s := &Shape{Defaults: map[string]string{"max_tokens": "200", "top_p": "2"}, Forced: map[string]string{"top_k": "50", "stop": `"9"`}, Caps: map[string]float64{"max_tokens": 100, "top_p": 1, "top_k": 40, "stop": 1}}
	checkShape(t, s, `{"model":"m"}`, `{"stop":"9","top_k":40,"max_tokens":100,"top_p":1,"model":"m"}`)
	checkShape(t, s, `{"top_k":1,"top_p":null,"stop":2,"max_completion_tokens":null}`, `{"top_k":40,"top_p":1,"stop":"9","max_completion_tokens":100}`)
}

// A forced bound on tokens holds under every name.
func TestShapeForcesTheLimit(t *testing.T) {
	s := &Shape{Forced: map[string]string{"max_tokens": "9"}}
	checkShape(t, s, `{"max_completion_tokens":5,"n_predict":3}`, `{"max_tokens":9,"max_completion_tokens":null,"n_predict":null}`)
	checkShape(t, s, `{"n_predict":3,"max_tokens":5}`, `{"n_predict":null,"max_tokens":9}`)
}

func TestShapeTellsTheSystemPrompt(t *testing.T) {
	s := &Shape{System: "Be \"brief\"."}
	for body, want := range map[string]string{
		`{"messages":[{"role":"user","content":"Hi"}]}`:                              `{"messages":[{"role":"system","content":"Be \"brief\"."},{"role":"user","content":"Hi"}]}`,
		`{"messages":[ {"content":"You are X.","role":"system"}, {"role":"user"}]}`:  `{"messages":[ {"content":"Be \"brief\".\n\nYou are X.","role":"system"}, {"role":"user"}]}`,
		`{"messages":[{"role":"developer","content":[{"type":"text","text":"X"}]}]}`: `{"messages":[{"role":"developer","content":[{"type":"text","text":"Be \"brief\".\n\n"},{"type":"text","text":"X"}]}]}`,
		`{"messages":[{"role":"system","content":[ ]}]}`:                             `{"messages":[{"role":"system","content":[{"type":"text","text":"Be \"brief\".\n\n"} ]}]}`,
		`{"messages":[{"role":"system","content":null}]}`:                            `{"messages":[{"role":"system","content":"Be \"brief\"."}]}`,
		`{"messages":[]}`:  `{"messages":[]}`,
		`{"messages":7}`:   `{"messages":7}`,
		`{"messages":[7]}`: `{"messages":[7]}`,
		`{"prompt":"Hi"}`:  `{"prompt":"Hi"}`,
	} {
		checkShape(t, s, body, want)
	}
}

// applied is Apply in one piece.
func (s *Shape) applied(body []byte, req Request) ([]byte, error) {
	pieces, err := s.Apply(body, req, Shaping{Chat: true, Answers: true})
	if pieces == nil {
		return body, err
	}
	return bytes.Join(pieces, nil), err
}

// checkShape compares; want is a parameter's name where that is to be refused.
func checkShape(t *testing.T, s *Shape, body, want string) {
	t.Helper()
	req, err := Scan([]byte(body))
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	got, err := s.applied([]byte(body), req)
	var api *Error
	switch {
	case want[0] != '{':
		if !errors.As(err, &api) || api.Param != want || api.Status != 400 {
			t.Errorf("%s: %s, %v, want %s to be refused", body, got, err, want)
		}
	case err != nil || string(got) != want:
		t.Errorf("%s:\n got %s, %v\nwant %s", body, got, err, want)
	case !json.Valid(got):
		t.Errorf("%s: no JSON: %s", body, got)
	}
}

// Whatever comes in, what goes out is JSON, and what the shape says nothing of is as it was.
func FuzzShape(f *testing.F) {
	for _, body := range []string{
		`{}`, `{"max_tokens":5,"messages":[{"role":"system","content":"x"}]}`, ` { "messages" : [ { } ] , "top_k":1e3}`,
		`{"messages":[{"role":"system","content":[]}],"n_predict":-1}`, `{"messages":[{"role":"user","content":"\u00e9"}],"seed":null}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		req, err := Scan(body)
		if err != nil {
			return
		}
		got, err := testShape.applied(body, req)
		if err != nil {
			return
		}
		limits := 0
		if err := EachField(bytes.TrimLeft(got, " \t\r\n"), func(key, value []byte) error {
			if name := string(key); isLimit(name) && string(value) != "null" {
				limits++
				if n, err := strconv.ParseFloat(string(value), 64); err != nil || n < 0 || n > 100 {
					t.Errorf("%s became %s: no bound", body, got)
				}
			}
			return nil
		}); err != nil || limits == 0 {
			t.Errorf("%s became %s, with %d bounds: %v", body, got, limits, err)
		}
		var before, after map[string]json.RawMessage
		if err := json.Unmarshal(got, &after); err != nil {
			t.Fatalf("%s: %v: %s", body, err, got)
		}
		if json.Unmarshal(body, &before) != nil {
			return
		}
		for _, name := range slices.Sorted(maps.Keys(before)) {
			switch name {
			case "messages", "seed", "temperature", "chat_template_kwargs", "max_tokens", "max_completion_tokens", "n_predict", "top_k":
			default:
				if string(before[name]) != string(after[name]) {
					t.Errorf("%s: %q became %s", body, name, after[name])
				}
			}
		}
	})
}
