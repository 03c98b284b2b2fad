package ollama

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"assistant/internal/openai"
)

// asks makes a request of messages and more fields, that is not streamed.
func asks(messages, more string) string {
	return `{"model":"m","stream":false,"messages":` + messages + more + `}`
}

// wants is the chat request for it.
func wants(messages, more string) string {
	return `{"model":"m","messages":` + messages + more + `}`
}

const (
	hi  = `[{"role":"user","content":"hi"}]`
	png = "iVBORw0KGgoAAAANSUhEUg"
)

func sameJSON(t *testing.T, got []byte, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal(got, &g); err != nil {
		t.Fatalf("got %s: %v", got, err)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatalf("want %s: %v", want, err)
	}
	if !reflect.DeepEqual(g, w) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func mustCall(t *testing.T, read func([]byte) (*Call, error), body string) *Call {
	t.Helper()
	call, err := read([]byte(body))
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return call
}

func TestChatsAreMadeChats(t *testing.T) {
	const (
		tool  = `{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{}}}}`
		asked = `{"role":"user","content":"q"}`
	)
	calls := func(list ...string) string {
		return `{"role":"assistant","content":"","tool_calls":[` + strings.Join(list, ",") + `]}`
	}
	call := func(id, name, arguments string) string {
		return `{` + id + `"function":{"name":"` + name + `","arguments":` + arguments + `}}`
	}
	made := func(id, name, arguments string) string {
		return `{"id":"` + id + `","type":"function","function":{"name":"` + name + `","arguments":` + arguments + `}}`
	}
	for _, c := range []struct{ name, body, want string }{
		{"plain", asks(hi, ""), wants(hi, "")},
		{"streamed unless it is said", `{"model":"m","messages":` + hi + `}`, wants(hi, `,"stream":true,"stream_options":{"include_usage":true}`)},
		{"streamed", `{"model":"m","stream":true,"messages":` + hi + `}`, wants(hi, `,"stream":true,"stream_options":{"include_usage":true}`)},
		{"with a tag", `{"model":"m:latest","stream":false,"messages":` + hi + `}`, wants(hi, "")},
		{"ignored", asks(hi, `,"keep_alive":"5m","truncate":true,"shift":false,"x":[1],"format":null,"think":null,"options":null,"tools":[],"logprobs":false`), wants(hi, "")},
		{"what clients send that have nothing to say", asks(hi, `,"format":"","options":{"stop":[],"num_predict":null},"keep_alive":-1`), wants(hi, "")},
		{
			"options", asks(hi, `,"options":{"num_predict":100.0,"temperature":0.5,"top_p":0.9,"top_k":40,"min_p":0.1,"typical_p":0.7,"seed":42,"stop":["a","\n"],`+
				`"repeat_penalty":1.1,"repeat_last_n":64,"presence_penalty":1,"frequency_penalty":0.2,"mirostat":1,"mirostat_tau":5.0,"mirostat_eta":0.1,"num_keep":4}`),
			wants(hi, `,"max_tokens":100,"temperature":0.5,"top_p":0.9,"top_k":40,"min_p":0.1,"typical_p":0.7,"seed":42,"stop":["a","\n"],`+
				`"repeat_penalty":1.1,"repeat_last_n":64,"presence_penalty":1,"frequency_penalty":0.2,"mirostat":1,"mirostat_tau":5.0,"mirostat_eta":0.1,"n_keep":4`),
		},
		{
			"options of the model's file", asks(hi, `,"options":{"num_ctx":8192,"num_gpu":99,"num_batch":512,"main_gpu":0,"use_mmap":true,"num_thread":8,"numa":false,`+
				`"tfs_z":1,"penalize_newline":true,"draft_num_predict":4,"num_predict":-1,"seed":-1,"repeat_last_n":-1,"stop":"x"}`),
			wants(hi, `,"stop":"x"`),
		},
		{"no bound", asks(hi, `,"options":{"num_predict":0,"seed":0,"repeat_last_n":0,"stop":""}`), wants(hi, `,"seed":0,"repeat_last_n":0`)},
		{"json", asks(hi, `,"format":"json"`), wants(hi, `,"response_format":{"type":"json_object"}`)},
		{
			"schema", asks(hi, `,"format":{"type":"object","properties":{"a":{"type":"integer"}}}`),
			wants(hi, `,"response_format":{"type":"json_schema","json_schema":{"name":"answer","strict":true,"schema":{"type":"object","properties":{"a":{"type":"integer"}}}}}`),
		},
		{"to think", asks(hi, `,"think":true`), wants(hi, `,"chat_template_kwargs":{"enable_thinking":true}`)},
		{"not to think", asks(hi, `,"think":false`), wants(hi, `,"chat_template_kwargs":{"enable_thinking":false}`)},
		{"to think little", asks(hi, `,"think":"low"`), wants(hi, `,"chat_template_kwargs":{"enable_thinking":true,"reasoning_effort":"low"},"reasoning_effort":"low"`)},
		{"to think most", asks(hi, `,"think":"max"`), wants(hi, `,"chat_template_kwargs":{"enable_thinking":true,"reasoning_effort":"high"},"reasoning_effort":"high"`)},
		{"logprobs", asks(hi, `,"logprobs":true`), wants(hi, `,"logprobs":true`)},
		{"top logprobs", asks(hi, `,"logprobs":true,"top_logprobs":3`), wants(hi, `,"logprobs":true,"top_logprobs":3`)},
		{"top logprobs without any", asks(hi, `,"top_logprobs":3`), wants(hi, "")},
		{
			"roles", asks(`[{"role":"system","content":"s"},{"role":"User","content":"a\u00e9"},{"role":"assistant","content":"b"},{"role":"user"}]`, ""),
			wants(`[{"role":"system","content":"s"},{"role":"user","content":"aé"},{"role":"assistant","content":"b"},{"role":"user","content":""}]`, ""),
		},
		{
			"thoughts", asks(`[`+asked+`,{"role":"assistant","content":"a","thinking":"h"},{"role":"assistant","content":"b","thinking":""}]`, ""),
			wants(`[`+asked+`,{"role":"assistant","content":"a","reasoning_content":"h"},{"role":"assistant","content":"b"}]`, ""),
		},
		{
			"images", asks(`[{"role":"user","content":"see","images":["`+png+`","\/9j\/4AAQSkZJRg==","R0lGODlhAQABAA","UklGRiQAAABXRUJQVlA4","Qk0="]},{"role":"user","content":"","images":["`+png+`"]}]`, ""),
			wants(`[{"role":"user","content":[{"type":"text","text":"see"},{"type":"image_url","image_url":{"url":"data:image/png;base64,`+png+`"}},`+
				`{"type":"image_url","image_url":{"url":"data:image/jpeg;base64,/9j/4AAQSkZJRg=="}},{"type":"image_url","image_url":{"url":"data:image/gif;base64,R0lGODlhAQABAA"}},`+
				`{"type":"image_url","image_url":{"url":"data:image/webp;base64,UklGRiQAAABXRUJQVlA4"}},{"type":"image_url","image_url":{"url":"data:image/bmp;base64,Qk0="}}]},`+
				`{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,`+png+`"}}]}]`, ""),
		},
		{"no images", asks(`[{"role":"user","content":"hi","images":[],"tool_calls":null}]`, ""), wants(hi, "")},
		{"tools", asks(hi, `,"tools":[`+tool+`]`), wants(hi, `,"tools":[`+tool+`]`)},
		{
			"calls and results, in order", asks(`[`+asked+`,`+calls(call("", "f", `{"a": "\"\n"}`), call("", "g", `{}`))+`,{"role":"tool","content":"1"},{"role":"tool","content":"2"}]`, ""),
			wants(`[`+asked+`,`+calls(made("call00001", "f", `"{\"a\": \"\\\"\\n\"}"`), made("call00002", "g", `"{}"`))+
				`,{"role":"tool","tool_call_id":"call00001","content":"1"},{"role":"tool","tool_call_id":"call00002","content":"2"}]`, ""),
		},
		{
			"results by the names of their tools", asks(`[`+calls(call("", "f", `{}`), call("", "g", `{}`), call("", "f", `{"a":1}`))+
				`,{"role":"tool","content":"2","tool_name":"g"},{"role":"tool","content":"1","tool_name":"f"},{"role":"tool","content":"3","tool_name":"f"}]`, ""),
			wants(`[`+calls(made("call00001", "f", `"{}"`), made("call00002", "g", `"{}"`), made("call00003", "f", `"{\"a\":1}"`))+
				`,{"role":"tool","tool_call_id":"call00002","name":"g","content":"2"},{"role":"tool","tool_call_id":"call00001","name":"f","content":"1"},`+
				`{"role":"tool","tool_call_id":"call00003","name":"f","content":"3"}]`, ""),
		},
		{
			"results by their ids", asks(`[`+calls(call(`"id":"x",`, "f", `{}`), call(`"id":"y",`, "f", `{}`))+`,{"role":"tool","tool_call_id":"y","content":"2"},{"role":"tool","content":"1"}]`, ""),
			wants(`[`+calls(made("x", "f", `"{}"`), made("y", "f", `"{}"`))+`,{"role":"tool","tool_call_id":"y","content":"2"},{"role":"tool","tool_call_id":"x","content":"1"}]`, ""),
		},
		{
			"results by ids that the calls did not have", asks(`[`+calls(call("", "f", `{}`), call("", "g", `{}`))+`,{"role":"tool","tool_call_id":"x","content":"1"},{"role":"tool","tool_call_id":"y","content":"2"}]`, ""),
			wants(`[`+calls(made("call00001", "f", `"{}"`), made("call00002", "g", `"{}"`))+
				`,{"role":"tool","tool_call_id":"call00001","content":"1"},{"role":"tool","tool_call_id":"call00002","content":"2"}]`, ""),
		},
		{
			"results of nothing", asks(`[`+asked+`,{"role":"tool","content":"1","tool_name":"f"},{"role":"tool","tool_call_id":"x","content":"2"}]`, ""),
			wants(`[`+asked+`,{"role":"tool","tool_call_id":"call00001","name":"f","content":"1"},{"role":"tool","tool_call_id":"x","content":"2"}]`, ""),
		},
		{
			"a result of another tool than was called", asks(`[`+calls(call("", "f", `{}`))+`,{"role":"tool","content":"1","tool_name":"g"}]`, ""),
			wants(`[`+calls(made("call00001", "f", `"{}"`))+`,{"role":"tool","tool_call_id":"call00001","name":"g","content":"1"}]`, ""),
		},
		{
			"calls that were never answered", asks(`[`+calls(call("", "f", `{}`))+`,`+calls(`{"function":{"name":"f"}}`)+`,{"role":"tool","content":"1"}]`, ""),
			wants(`[`+calls(made("call00001", "f", `"{}"`))+`,`+calls(made("call00002", "f", `"{}"`))+`,{"role":"tool","tool_call_id":"call00002","content":"1"}]`, ""),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			sends(t, mustCall(t, Chat, c.body), "/v1/chat/completions", c.want)
		})
	}
}

// sends checks what an engine is sent.
func sends(t *testing.T, call *Call, path, want string) {
	t.Helper()
	sameJSON(t, call.Body(), want)
	if call.Path() != path || call.Action() != Ask {
		t.Errorf("path %s, action %d", call.Path(), call.Action())
	}
	if streams := call.Stream() != nil; streams != strings.Contains(want, `"stream":true`) {
		t.Errorf("streams: %v", streams)
	}
	if !strings.HasPrefix(string(call.Body()), `{"model":"m"`) {
		t.Errorf("the model is not first: %s", call.Body())
	}
}

func TestPromptsAreMadeChatsOrCompletions(t *testing.T) {
	const chats, completions = "/v1/chat/completions", "/v1/completions"
	asks := func(more string) string { return `{"model":"m","stream":false` + more + `}` }
	for _, c := range []struct{ name, body, path, want string }{
		{"plain", asks(`,"prompt":"hi"`), chats, wants(hi, "")},
		{"streamed unless it is said", `{"model":"m","prompt":"hi"}`, chats, wants(hi, `,"stream":true,"stream_options":{"include_usage":true}`)},
		{"system", asks(`,"prompt":"hi","system":"s"`), chats, wants(`[{"role":"system","content":"s"},{"role":"user","content":"hi"}]`, "")},
		{
			"what clients send that have nothing to say", asks(`,"prompt":"hi","system":"","suffix":"","template":"","context":[1,2],"raw":false,"images":[]`), chats,
			wants(hi, ""),
		},
		{
			"image", asks(`,"prompt":"hi","images":["` + png + `"]`), chats,
			wants(`[{"role":"user","content":[{"type":"text","text":"hi"},{"type":"image_url","image_url":{"url":"data:image/png;base64,`+png+`"}}]}]`, ""),
		},
		{
			"how to answer", asks(`,"prompt":"hi","format":"json","think":false,"logprobs":true,"options":{"num_predict":3}`), chats,
			wants(hi, `,"response_format":{"type":"json_object"},"chat_template_kwargs":{"enable_thinking":false},"logprobs":true,"max_tokens":3`),
		},
		{"raw", asks(`,"prompt":"[INST] hi","raw":true`), completions, `{"model":"m","prompt":"[INST] hi"}`},
		{"suffix", asks(`,"prompt":"def","suffix":"return","system":"s"`), completions, `{"model":"m","prompt":"def","suffix":"return"}`},
		{
			"raw, streamed", `{"model":"m","prompt":"hi","raw":true,"logprobs":true}`, completions,
			`{"model":"m","prompt":"hi","stream":true,"stream_options":{"include_usage":true},"logprobs":1}`,
		},
		{
			"raw, how to answer", asks(`,"prompt":"hi","raw":true,"format":{"type":"object"},"logprobs":true,"top_logprobs":4`), completions,
			`{"model":"m","prompt":"hi","logprobs":4,"json_schema":{"type":"object"},` +
				`"response_format":{"type":"json_schema","json_schema":{"name":"answer","strict":true,"schema":{"type":"object"}}}}`,
		},
		{
			"raw, json", asks(`,"prompt":"hi","raw":true,"format":"json"`), completions,
			`{"model":"m","prompt":"hi","json_schema":{"type":"object"},"response_format":{"type":"json_object"}}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			sends(t, mustCall(t, Generate, c.body), c.path, c.want)
		})
	}
}

func TestTextsAreEmbedded(t *testing.T) {
	for _, c := range []struct {
		name, body string
		read       func([]byte) (*Call, error)
		want       string
	}{
		{"a text", `{"model":"m","input":"a"}`, Embed, `{"model":"m","input":"a","encoding_format":"float"}`},
		{
			"texts", `{"model":"m","input":["a","b\n"],"truncate":true,"dimensions":2,"options":{"num_ctx":1},"keep_alive":"5m"}`, Embed,
			`{"model":"m","input":["a","b\n"],"encoding_format":"float"}`,
		},
		{"of old", `{"model":"m:latest","prompt":"a","options":{}}`, Embeddings, `{"model":"m","input":"a","encoding_format":"float"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			sends(t, mustCall(t, c.read, c.body), "/v1/embeddings", c.want)
		})
	}
}

func TestRequestsForNothingAreAboutTheModel(t *testing.T) {
	for _, c := range []struct {
		read   func([]byte) (*Call, error)
		body   string
		action Action
		want   string
	}{
		{Chat, `{"model":"m:latest"}`, Load, `{"model":"m:latest","created_at":"…","message":{"role":"assistant","content":""},"done":true,"done_reason":"load"}`},
		{Chat, `{"model":"m:latest","messages":[],"keep_alive":"10m"}`, Load, `{"model":"m:latest","created_at":"…","message":{"role":"assistant","content":""},"done":true,"done_reason":"load"}`},
		{Chat, `{"model":"m:latest","messages":[],"keep_alive":0}`, Unload, `{"model":"m:latest","created_at":"…","message":{"role":"assistant","content":""},"done":true,"done_reason":"unload"}`},
		{Generate, `{"model":"m:latest"}`, Load, `{"model":"m:latest","created_at":"…","response":"","done":true,"done_reason":"load"}`},
		{Generate, `{"model":"m:latest","prompt":"","keep_alive":-1}`, Load, `{"model":"m:latest","created_at":"…","response":"","done":true,"done_reason":"load"}`},
		{Generate, `{"model":"m:latest","keep_alive":"0s"}`, Unload, `{"model":"m:latest","created_at":"…","response":"","done":true,"done_reason":"unload"}`},
		{Generate, `{"model":"m:latest","keep_alive":"0"}`, Unload, `{"model":"m:latest","created_at":"…","response":"","done":true,"done_reason":"unload"}`},
		{Embed, `{"model":"m:latest"}`, Load, `{"model":"m:latest","embeddings":[],"total_duration":0,"load_duration":0,"prompt_eval_count":0}`},
		{Embed, `{"model":"m:latest","input":[]}`, Load, `{"model":"m:latest","embeddings":[],"total_duration":0,"load_duration":0,"prompt_eval_count":0}`},
		{Embeddings, `{"model":"m:latest","prompt":""}`, Load, `{"embedding":[]}`},
	} {
		call := mustCall(t, c.read, c.body)
		if call.Action() != c.action || call.Stream() != nil {
			t.Errorf("%s: action %d, streams %v", c.body, call.Action(), call.Stream() != nil)
		}
		sameJSON(t, call.Body(), `{"model":"m"}`)
		sameJSON(t, times.ReplaceAll(call.Immediate(), []byte(`"created_at":"…"`)), c.want)
	}
}

func TestRequestsAreRefused(t *testing.T) {
	message := func(fields string) string { return asks(`[{"role":"user",`+fields+`}]`, "") }
	calls := func(call string) string { return asks(`[{"role":"assistant","tool_calls":[`+call+`]}]`, "") }
	for _, c := range []struct {
		name        string
		read        func([]byte) (*Call, error)
		body        string
		param, says string
	}{
		{"empty", Chat, ``, "", "JSON"},
		{"cut", Generate, `{"model":"m"`, "", "JSON"},
		{"array", Embed, `[]`, "", "not an object"},
		{"no model", Chat, `{"messages":` + hi + `}`, "model", "name a model"},
		{"an empty model", Generate, `{"model":"","prompt":"x"}`, "model", "name a model"},
		{"a model's number", Embeddings, `{"model":3}`, "model", "name a model"},
		{"one message", Chat, asks(`{}`, ""), "messages", "an array"},
		{"a message's text", Chat, asks(`["hi"]`, ""), "messages[0]", "an object"},
		{"role", Chat, asks(`[{"role":"developer","content":"x"}]`, ""), "messages[0].role", "system, user"},
		{"no role", Chat, asks(`[{"content":"x"}]`, ""), "messages[0].role", "system, user"},
		{"a role's number", Chat, asks(`[{"role":1}]`, ""), "messages[0].role", "a string"},
		{"content in parts", Chat, message(`"content":[{"type":"text"}]`), "messages[0].content", "a string"},
		{"an image's number", Chat, message(`"images":[1]`), "messages[0].images[0]", "a string"},
		{"one image", Chat, message(`"images":"x"`), "messages[0].images", "an array"},
		{"image with its type", Chat, message(`"images":["data:image/png;base64,` + png + `"]`), "messages[0].images[0]", "data:"},
		{"image that is text", Chat, message(`"images":["` + png + `","aGVsbG8="]`), "messages[0].images[1]", "PNG"},
		{"thoughts", Chat, asks(`[{"role":"assistant","thinking":true}]`, ""), "messages[0].thinking", "a string"},
		{"calls", Chat, asks(`[{"role":"assistant","tool_calls":{}}]`, ""), "messages[0].tool_calls", "an array"},
		{"a call's number", Chat, calls(`1`), "messages[0].tool_calls[0]", "an object"},
		{"call without function", Chat, calls(`{}`), "messages[0].tool_calls[0].function", "required"},
		{"call's function", Chat, calls(`{"function":"f"}`), "messages[0].tool_calls[0].function", "an object"},
		{"call without name", Chat, calls(`{"function":{"arguments":{}}}`), "messages[0].tool_calls[0].function.name", "required"},
		{"call with arguments in a string", Chat, calls(`{"function":{"name":"f","arguments":"{}"}}`), "messages[0].tool_calls[0].function.arguments", "an object"},
		{"call's id", Chat, calls(`{"id":1,"function":{"name":"f"}}`), "messages[0].tool_calls[0].id", "a string"},
		{"result's id", Chat, asks(`[{"role":"tool","tool_call_id":1}]`, ""), "messages[0].tool_call_id", "a string"},
		{"result's tool", Chat, asks(`[{"role":"tool","tool_name":1}]`, ""), "messages[0].tool_name", "a string"},
		{"tools", Chat, asks(hi, `,"tools":{}`), "tools", "an array"},
		{"a tool's name", Chat, asks(hi, `,"tools":["f"]`), "tools[0]", "an object"},
		{"a tool's function", Chat, asks(hi, `,"tools":[{"function":"f"}]`), "tools[0].function", "an object"},
		{"a tool without name", Chat, asks(hi, `,"tools":[{"type":"function","function":{}}]`), "tools[0].function.name", "required"},
		{"stream", Chat, `{"model":"m","stream":"no","messages":` + hi + `}`, "stream", "true or false"},
		{"format", Chat, asks(hi, `,"format":"xml"`), "format", "JSON schema"},
		{"think", Chat, asks(hi, `,"think":"hard"`), "think", "medium"},
		{"options", Chat, asks(hi, `,"options":[]`), "options", "an object"},
		{"temperature", Chat, asks(hi, `,"options":{"temperature":"warm"}`), "options.temperature", "a number"},
		{"num_predict", Chat, asks(hi, `,"options":{"num_predict":1.5}`), "options.num_predict", "a whole number"},
		{"seed", Chat, asks(hi, `,"options":{"seed":"x"}`), "options.seed", "a number"},
		{"a seed beyond all bounds", Chat, asks(hi, `,"options":{"seed":1e400}`), "options.seed", "a whole number"},
		{"stop", Chat, asks(hi, `,"options":{"stop":1}`), "options.stop", "array of strings"},
		{"stops", Chat, asks(hi, `,"options":{"stop":["a",1]}`), "options.stop[1]", "a string"},
		{"logprobs", Chat, asks(hi, `,"logprobs":5`), "logprobs", "true or false"},
		{"top_logprobs", Chat, asks(hi, `,"top_logprobs":21`), "top_logprobs", "0 to 20"},
		{"no top_logprobs", Chat, asks(hi, `,"top_logprobs":-1`), "top_logprobs", "0 to 20"},
		{"keep_alive", Chat, asks(hi, `,"keep_alive":"long"`), "keep_alive", "seconds"},
		{"keep_alive of nothing", Chat, `{"model":"m","keep_alive":{}}`, "keep_alive", "seconds"},
		{"prompt", Generate, `{"model":"m","prompt":["x"]}`, "prompt", "a string"},
		{"template", Generate, `{"model":"m","prompt":"x","template":"{{ .Prompt }}"}`, "template", "raw"},
		{"a template's number", Generate, `{"model":"m","prompt":"x","template":1}`, "template", "a string"},
		{"raw", Generate, `{"model":"m","prompt":"x","raw":1}`, "raw", "true or false"},
		{"raw with system", Generate, `{"model":"m","prompt":"x","raw":true,"system":"s"}`, "system", "raw"},
		{"raw with images", Generate, `{"model":"m","prompt":"x","suffix":"y","images":["` + png + `"]}`, "images", "raw"},
		{"image", Generate, `{"model":"m","prompt":"x","images":["!"]}`, "images[0]", "PNG"},
		{"input", Embed, `{"model":"m","input":{}}`, "input", "array of strings"},
		{"tokens", Embed, `{"model":"m","input":[1,2]}`, "input[0]", "a string"},
		{"dimensions", Embed, `{"model":"m","input":"x","dimensions":"2"}`, "dimensions", "a whole number"},
		{"options of vectors", Embed, `{"model":"m","input":"x","options":1}`, "options", "an object"},
		{"prompts", Embeddings, `{"model":"m","prompt":["x"]}`, "prompt", "a string"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.read([]byte(c.body))
			var e *openai.Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v", err)
			}
			if e.Status != 400 || e.Type != openai.TypeInvalidRequest || e.Param != c.param || !strings.Contains(e.Message, c.says) {
				t.Errorf("got %d %s at %q: %s; want %q: %s", e.Status, e.Type, e.Param, e.Message, c.param, c.says)
			}
		})
	}
}

// FuzzChat: whatever is sent, nothing panics, and what is made of it is JSON.
func FuzzChat(f *testing.F) {
	for _, body := range []string{
		asks(hi, `,"stream":true,"options":{"num_predict":1e3,"stop":["\\"],"seed":-1},"format":{},"think":"max","keep_alive":0.5`),
		asks(`[{"role":"user","content":"a\\\"","images":["`+png+`","\/9j\/"]},{"role":"assistant","thinking":"h","tool_calls":[{"function":{"name":"f","arguments":{ "a" : [1, {}]}}}]},`+
			`{"role":"tool","tool_name":"f","content":"r"}]`, `,"tools":[{"function":{"name":"f"}}],"logprobs":true,"top_logprobs":2`),
		`{"model":"m:latest","prompt":"p","suffix":"s","raw":true,"format":"json","images":[]}`,
		`{"model":"m","input":["a"],"prompt":"","dimensions":3,"keep_alive":"0m"}`,
		`{"name":"m","verbose":true}`,
		"{\"model\":\"\\ud800\xff\",\"prompt\":\"\xff\",\"messages\":[{\"role\":\"TOOL\",\"content\":\"\xff\"}]}",
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var e *openai.Error
		for _, read := range []func([]byte) (*Call, error){Chat, Generate, Embed, Embeddings} {
			call, err := read(body)
			switch {
			case err != nil && !errors.As(err, &e):
				t.Fatalf("error %v", err)
			case err != nil:
			case !json.Valid(call.Body()) || !json.Valid(call.Immediate()):
				t.Fatalf("%s makes %s and %s", body, call.Body(), call.Immediate())
			}
		}
		if _, _, err := ReadShow(body); err != nil && !errors.As(err, &e) {
			t.Fatalf("error %v", err)
		}
	})
}
