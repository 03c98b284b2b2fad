package anthropic

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"assistant/internal/dialect"
	"assistant/internal/openai"
)

// asks makes a request of messages and more fields.
func asks(messages, more string) string {
	return `{"model":"m","max_tokens":9,"messages":` + messages + more + `}`
}

const hi = `[{"role":"user","content":"hi"}]`

// wants is the chat request for it.
func wants(messages, more string) string {
	return `{"model":"m","max_tokens":9,"messages":` + messages + more + `}`
}

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

func mustCall(t *testing.T, read func([]byte) (dialect.Call, error), body string) dialect.Call {
	t.Helper()
	call, err := read([]byte(body))
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return call
}

func TestMessagesAreMadeChats(t *testing.T) {
	const (
		tool     = `{"name":"f","description":"d","input_schema":{"type":"object"}}`
		other    = `{"type":"custom","name":"g","input_schema":{"type":"object"},"strict":true,"cache_control":{"type":"ephemeral"},"defer_loading":true}`
		function = `{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}}`
		strict   = `{"type":"function","function":{"name":"g","strict":true,"parameters":{"type":"object"}}}`
		use      = `{"type":"tool_use","id":"t1","name":"f","input":{"a": "\"\n"}}`
		called   = `"tool_calls":[{"id":"t1","type":"function","function":{"name":"f","arguments":"{\"a\": \"\\\"\\n\"}"}}]`
		asked    = `{"role":"user","content":"q"}`
	)
	for _, c := range []struct{ name, body, want string }{
		{"string", asks(hi, ""), wants(hi, "")},
		{"streamed", asks(hi, `,"stream":true`), wants(hi, `,"stream":true,"stream_options":{"include_usage":true}`)},
		{"not streamed", asks(hi, `,"stream":false`), wants(hi, "")},
		{"warming", `{"model":"m","max_tokens":0,"messages":` + hi + `}`, `{"model":"m","max_tokens":1,"messages":` + hi + `}`},
		{
			"sampling", asks(hi, `,"temperature":0.5,"top_p":1,"top_k":4,"stop_sequences":["a","\n"],"metadata":{"user_id":"u"}`),
			wants(hi, `,"temperature":0.5,"top_p":1,"top_k":4,"stop":["a","\n"],"user":"u"`),
		},
		{
			"ignored", asks(hi, `,"context_management":{"edits":[]},"betas":["x"],"service_tier":"auto","container":null,"mcp_servers":[],`+
				`"stop_sequences":[],"metadata":null,"thinking":null,"tools":null,"cache_control":{"type":"ephemeral"},"x":[1,{"y":"]"}]`),
			wants(hi, ""),
		},
		{"system", asks(hi, `,"system":"s"`), wants(`[{"role":"system","content":"s"},{"role":"user","content":"hi"}]`, "")},
		{
			"system blocks", asks(hi, `,"system":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}},{"type":"text","text":"b"}]`),
			wants(`[{"role":"system","content":"a\nb"},{"role":"user","content":"hi"}]`, ""),
		},
		{
			"Claude Code's billing", asks(hi, `,"system":[{"type":"text","text":"x-anthropic-billing-header: cc_version=2.1.100.e51; `+
				`cc_entrypoint=cli; cch=a5145; cc_workload=w;"},{"type":"text","text":"You are Claude Code."}]`),
			wants(`[{"role":"system","content":"You are Claude Code."},{"role":"user","content":"hi"}]`, ""),
		},
		{
			"billing before text", asks(hi, `,"system":"x-anthropic-billing-header: cc_version=1; cch=a5145;You; are=1;\nb"`),
			wants(`[{"role":"system","content":"You; are=1;\nb"},{"role":"user","content":"hi"}]`, ""),
		},
		{"no system", asks(hi, `,"system":[]`), wants(hi, "")},
		{
			"system among the messages",
			asks(`[{"role":"system","content":"a"},`+asked+`,{"role":"system","content":"b"},{"role":"assistant","content":"c"}]`, ""),
			wants(`[{"role":"system","content":"a"},{"role":"user","content":"q\n<system-reminder>\nb\n</system-reminder>"},`+
				`{"role":"assistant","content":"c"}]`, ""),
		},
		{
			"texts", asks(`[{"role":"user","content":[{"type":"text","text":"a\u00e9"},{"type":"text","text":"b\""}]}]`, ""),
			wants(`[{"role":"user","content":"aé\nb\""}]`, ""),
		},
		{
			"messages in a row", asks(`[`+asked+`,{"role":"user","content":"r"},{"role":"assistant","content":"a"},{"role":"assistant","content":"b"}]`, ""),
			wants(`[{"role":"user","content":"q\nr"},{"role":"assistant","content":"ab"}]`, ""),
		},
		{
			"prefill", asks(`[`+asked+`,{"role":"assistant","content":"The answer is ("}]`, ""),
			wants(`[`+asked+`,{"role":"assistant","content":"The answer is ("}]`, ""),
		},
		{
			"images", asks(`[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBO"}},`+
				`{"type":"text","text":"a"},{"type":"image","source":{"type":"url","url":"https:\/\/x\/y"}}]}]`, ""),
			wants(`[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBO"}},{"type":"text","text":"a"},`+
				`{"type":"image_url","image_url":{"url":"https://x/y"}}]}]`, ""),
		},
		{
			"documents", asks(`[{"role":"user","content":[{"type":"document","title":"T","source":{"type":"text","media_type":"text/plain","data":"d"}},`+
				`{"type":"document","source":{"type":"content","content":[{"type":"text","text":"e"},{"type":"text","text":"f"}]}},`+
				`{"type":"document","context":"","source":{"type":"content","content":"g"}}]}]`, ""),
			wants(`[{"role":"user","content":"T\nd\ne\nf\ng"}]`, ""),
		},
		{
			"search result", asks(`[{"role":"user","content":[{"type":"search_result","source":"s","title":"t","content":[{"type":"text","text":"x"}]}]}]`, ""),
			wants(`[{"role":"user","content":"t\ns\nx"}]`, ""),
		},
		{
			"a call and its result", asks(`[`+asked+`,{"role":"assistant","content":[{"type":"text","text":"a"},`+use+`]},`+
				`{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"r"}]}]`, ""),
			wants(`[`+asked+`,{"role":"assistant","content":"a",`+called+`},{"role":"tool","tool_call_id":"t1","content":"r"}]`, ""),
		},
		{
			"thoughts", asks(`[`+asked+`,{"role":"assistant","content":[{"type":"thinking","thinking":"h","signature":""},`+
				`{"type":"redacted_thinking","data":"x"},{"type":"thinking","thinking":"","signature":"s"},`+use+`]}]`, ""),
			wants(`[`+asked+`,{"role":"assistant","content":"","reasoning_content":"h",`+called+`}]`, ""),
		},
		{
			"nothing left of an answer", asks(`[`+asked+`,{"role":"assistant","content":[{"type":"redacted_thinking","data":"x"}]},`+asked+`]`, ""),
			wants(`[`+asked+`,`+asked+`]`, ""),
		},
		{
			"what a server did", asks(`[`+asked+`,{"role":"assistant","content":[{"type":"server_tool_use","id":"s","name":"web_search","input":{}},`+
				`{"type":"web_search_tool_result","tool_use_id":"s","content":[]},{"type":"text","text":"a"},{"type":"text","text":"b","citations":[]}]}]`, ""),
			wants(`[`+asked+`,{"role":"assistant","content":"ab"}]`, ""),
		},
		{
			"results come first, their images after them", asks(`[{"role":"user","content":[`+
				`{"type":"text","text":"see"},`+
				`{"type":"tool_result","tool_use_id":"a","content":[{"type":"text","text":"r"},{"type":"text","text":"s"},`+
				`{"type":"image","source":{"type":"base64","media_type":"image/png","data":"QQ"}}]},`+
				`{"type":"tool_result","tool_use_id":"b","is_error":true,"content":"no"},`+
				`{"type":"tool_result","tool_use_id":"c"},`+
				`{"type":"tool_result","tool_use_id":"d","content":[{"type":"image","source":{"type":"url","url":"u"}}]},`+
				`{"type":"tool_result","tool_use_id":"e","content":[{"type":"tool_reference","tool_name":"g"}]}]}]`, ""),
			wants(`[{"role":"tool","tool_call_id":"a","content":"r\ns"},{"role":"tool","tool_call_id":"b","content":"Error: no"},`+
				`{"role":"tool","tool_call_id":"c","content":""},{"role":"tool","tool_call_id":"d","content":"The image is in the next message."},`+
				`{"role":"tool","tool_call_id":"e","content":"g"},`+
				`{"role":"user","content":[{"type":"text","text":"see"},{"type":"image_url","image_url":{"url":"data:image/png;base64,QQ"}},`+
				`{"type":"image_url","image_url":{"url":"u"}}]}]`, ""),
		},
		{"tools", asks(hi, `,"tools":[`+tool+`,`+other+`]`), wants(hi, `,"tools":[`+function+`,`+strict+`]`)},
		{
			"a tool search has nothing to find", asks(hi, `,"tools":[{"type":"tool_search_tool_regex_20251119","name":"tool_search_tool_regex"},`+tool+`]`),
			wants(hi, `,"tools":[`+function+`]`),
		},
		{
			"a type of the client's own", asks(hi, `,"tools":[{"type":"mine_1","name":"f","description":"d","input_schema":{"type":"object"}}]`),
			wants(hi, `,"tools":[`+function+`]`),
		},
		{"auto", asks(hi, `,"tools":[`+tool+`],"tool_choice":{"type":"auto"}`), wants(hi, `,"tools":[`+function+`],"tool_choice":"auto"`)},
		{"none", asks(hi, `,"tools":[`+tool+`],"tool_choice":{"type":"none"}`), wants(hi, `,"tools":[`+function+`],"tool_choice":"none"`)},
		{
			"any, one at a time", asks(hi, `,"tools":[`+tool+`],"tool_choice":{"type":"any","disable_parallel_tool_use":true}`),
			wants(hi, `,"tools":[`+function+`],"tool_choice":"required","parallel_tool_calls":false`),
		},
		{
			"one tool", asks(hi, `,"tools":[`+tool+`,`+other+`],"tool_choice":{"type":"tool","name":"g"}`),
			wants(hi, `,"tools":[`+strict+`],"tool_choice":"required"`),
		},
		{"no tools to choose from", asks(hi, `,"tools":[],"tool_choice":{"type":"auto"}`), wants(hi, "")},
		{
			"to think", asks(hi, `,"thinking":{"type":"enabled","budget_tokens":2048}`),
			wants(hi, `,"chat_template_kwargs":{"enable_thinking":true},"thinking_budget_tokens":2048`),
		},
		{"not to think", asks(hi, `,"thinking":{"type":"disabled"}`), wants(hi, `,"chat_template_kwargs":{"enable_thinking":false}`)},
		{"to think as it likes", asks(hi, `,"thinking":{"type":"adaptive"}`), wants(hi, "")},
		{
			"schema", asks(hi, `,"output_config":{"effort":"high","format":{"type":"json_schema","schema":{"type":"object"}}}`),
			wants(hi, `,"response_format":{"type":"json_schema","json_schema":{"name":"answer","strict":true,"schema":{"type":"object"}}}`),
		},
		{
			"schema of old", asks(hi, `,"output_format":{"type":"json_schema","schema":{"type":"object"}},"output_config":{"effort":"low"}`),
			wants(hi, `,"response_format":{"type":"json_schema","json_schema":{"name":"answer","strict":true,"schema":{"type":"object"}}}`),
		},
		{"the last of two counts", `{"model":"m","m\u0061x_tokens":9,"system":"s","system":null,"messages":[],"messages":` + hi + `}`, wants(hi, "")},
		{"white space", " \n{ \"model\" : \"m\" ,\t\"max_tokens\" :9 , \"messages\" : [ {\"role\":\"user\" , \"content\" : \"hi\" } ] } \r\n", wants(hi, "")},
	} {
		t.Run(c.name, func(t *testing.T) {
			call := mustCall(t, Messages, c.body)
			sameJSON(t, call.Body(), c.want)
			if call.Path() != "/v1/chat/completions" {
				t.Errorf("path %s", call.Path())
			}
			if streams := call.Stream() != nil; streams != strings.Contains(c.want, `"stream":true`) {
				t.Errorf("streams: %v", streams)
			}
			if !strings.HasPrefix(string(call.Body()), `{"model":"m",`) {
				t.Errorf("the model is not first: %s", call.Body())
			}
		})
	}
}

func TestTokensAreCountedByTheSameChat(t *testing.T) {
	const tools = `,"tools":[{"name":"f","input_schema":{"type":"object"}}]`
	for _, c := range []struct{ name, body, want string }{
		{"plain", `{"model":"m","messages":` + hi + `}`, `{"model":"m","max_tokens":1,"messages":` + hi + `}`},
		{
			"all", asks(hi, `,"stream":true,"temperature":1,"system":"s","thinking":{"type":"disabled"},"tool_choice":{"type":"any"}`+tools),
			`{"model":"m","max_tokens":1,"chat_template_kwargs":{"enable_thinking":false},"messages":[{"role":"system","content":"s"},` +
				`{"role":"user","content":"hi"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			call := mustCall(t, CountTokens, c.body)
			sameJSON(t, call.Body(), c.want)
			if call.Stream() != nil {
				t.Error("it streams")
			}
		})
	}
}

func TestRequestsAreRefused(t *testing.T) {
	user := func(block string) string { return asks(`[{"role":"user","content":[`+block+`]}]`, "") }
	assistant := func(block string) string { return asks(`[{"role":"assistant","content":[`+block+`]}]`, "") }
	for _, c := range []struct{ name, body, param, says string }{
		{"empty", ``, "", "JSON"},
		{"cut", `{"model":"m"`, "", "JSON"},
		{"more", `{} {}`, "", "JSON"},
		{"array", `[]`, "", "not an object"},
		{"no model", `{"max_tokens":1,"messages":` + hi + `}`, "model", "name a model"},
		{"a model's number", `{"model":3,"max_tokens":1,"messages":` + hi + `}`, "model", "name a model"},
		{"no max_tokens", `{"model":"m","messages":` + hi + `}`, "max_tokens", "required"},
		{"less than no tokens", `{"model":"m","max_tokens":-1,"messages":` + hi + `}`, "max_tokens", "whole number"},
		{"half a token", `{"model":"m","max_tokens":0.5,"messages":` + hi + `}`, "max_tokens", "whole number"},
		{"no messages", `{"model":"m","max_tokens":1}`, "messages", "required"},
		{"empty messages", asks(`[]`, ""), "messages", "at least one"},
		{"one message", asks(`{}`, ""), "messages", "an array"},
		{"a message's text", asks(`["hi"]`, ""), "messages[0]", "an object"},
		{"role", asks(`[{"role":"tool","content":"x"}]`, ""), "messages[0].role", "user, assistant"},
		{"no content", asks(`[{"role":"user"}]`, ""), "messages[0].content", "required"},
		{"content", asks(`[{"role":"user","content":{}}]`, ""), "messages[0].content", "content blocks"},
		{"untyped block", user(`{"text":"a"}`), "messages[0].content[0].type", "required"},
		{"unknown block", user(`{"type":"video"}`), "messages[0].content[0].type", `"video"`},
		{"text without text", user(`{"type":"text"}`), "messages[0].content[0].text", "required"},
		{"text that is a number", user(`{"type":"text","text":1}`), "messages[0].content[0].text", "a string"},
		{"image without source", user(`{"type":"image"}`), "messages[0].content[0].source", "required"},
		{"image of a file", user(`{"type":"image","source":{"type":"file","file_id":"f"}}`), "messages[0].content[0].source.type", "base64 or url"},
		{"image without data", user(`{"type":"image","source":{"type":"base64","media_type":"image/png"}}`), "messages[0].content[0].source.data", "required"},
		{"pdf", user(`{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":""}}`), "messages[0].content[0].source.type", "send its text"},
		{"image in a document", user(`{"type":"document","source":{"type":"content","content":[{"type":"image"}]}}`), "messages[0].content[0].source.content[0].type", "image"},
		{"a user's call", user(`{"type":"tool_use","id":"a","name":"f","input":{}}`), "messages[0].content[0].type", "tool_use"},
		{"result of nothing", user(`{"type":"tool_result","content":"x"}`), "messages[0].content[0].tool_use_id", "required"},
		{"pdf in a result", user(`{"type":"tool_result","tool_use_id":"a","content":[{"type":"document","source":{"type":"url"}}]}`), "messages[0].content[0].content[0].source.type", "send its text"},
		{"an assistant's result", assistant(`{"type":"tool_result","tool_use_id":"a"}`), "messages[0].content[0].type", "role user"},
		{"an assistant's image", assistant(`{"type":"image"}`), "messages[0].content[0].type", "image"},
		{"call without id", assistant(`{"type":"tool_use","name":"f","input":{}}`), "messages[0].content[0].id", "required"},
		{"call with a list", assistant(`{"type":"tool_use","id":"a","name":"f","input":[]}`), "messages[0].content[0].input", "an object"},
		{"image in the system prompt", asks(hi, `,"system":[{"type":"image"}]`), "system[0].type", "image"},
		{"stream", asks(hi, `,"stream":1`), "stream", "true or false"},
		{"temperature", asks(hi, `,"temperature":"warm"`), "temperature", "a number"},
		{"stops", asks(hi, `,"stop_sequences":"a"`), "stop_sequences", "an array"},
		{"stop", asks(hi, `,"stop_sequences":["a",1]`), "stop_sequences[1]", "a string"},
		{"user", asks(hi, `,"metadata":{"user_id":1}`), "metadata.user_id", "a string"},
		{"mcp", asks(hi, `,"mcp_servers":[{"type":"url"}]`), "mcp_servers", "have the client connect"},
		{"web search", asks(hi, `,"tools":[{"type":"web_search_20250305","name":"web_search"}]`), "tools[0].type", `"web_search_20250305"`},
		{"bash", asks(hi, `,"tools":[{"type":"bash_20250124","name":"bash"}]`), "tools[0].type", "input_schema"},
		{"tool without name", asks(hi, `,"tools":[{"input_schema":{}}]`), "tools[0].name", "required"},
		{"tool without schema", asks(hi, `,"tools":[{"name":"f"}]`), "tools[0].input_schema", "required"},
		{"choice", asks(hi, `,"tool_choice":{"type":"all"}`), "tool_choice.type", "auto, any, tool or none"},
		{"choice without name", asks(hi, `,"tool_choice":{"type":"tool"}`), "tool_choice.name", "required"},
		{"choice of no tool", asks(hi, `,"tool_choice":{"type":"tool","name":"x"}`), "tool_choice.name", `"x"`},
		{"any of none", asks(hi, `,"tool_choice":{"type":"any"}`), "tool_choice", "none"},
		{"thinking", asks(hi, `,"thinking":true`), "thinking", "an object"},
		{"format", asks(hi, `,"output_config":{"format":{"type":"xml"}}`), "output_config.format.type", "json_schema"},
		{"format without schema", asks(hi, `,"output_format":{"type":"json_schema"}`), "output_format.schema", "required"},
	} {
		t.Run(c.name, func(t *testing.T) {
			call, err := Messages([]byte(c.body))
			var e *openai.Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v, %v", call, err)
			}
			if e.Status != 400 || e.Type != openai.TypeInvalidRequest || e.Param != c.param || !strings.Contains(e.Message, c.says) {
				t.Errorf("got %d %s at %q: %s; want %q: %s", e.Status, e.Type, e.Param, e.Message, c.param, c.says)
			}
		})
	}
}

// FuzzMessages: whatever is sent, nothing panics, and what is made of it is JSON.
func FuzzMessages(f *testing.F) {
	for _, body := range []string{
		asks(hi, `,"stream":true,"system":"x-anthropic-billing-header: a=b;"`),
		asks(`[{"role":"user","content":[{"type":"text","text":"a\\\"\\"},{"type":"tool_result","tool_use_id":"a","content":[{"type":"image","source":{"type":"base64","media_type":"","data":""}}]}]}]`, ""),
		asks(`[{"role":"assistant","content":[{"type":"thinking","thinking":"t"},{"type":"tool_use","id":"","name":"","input":{ "a" : [1, {}]}}]}]`,
			`,"tools":[{"name":"f","input_schema":{}}],"tool_choice":{"type":"any"},"thinking":{"type":"enabled","budget_tokens":1e3}`),
		asks(`[{"role":"user","content":[{"type":"document","title":"","source":{"type":"content","content":"x"}}]},{"role":"system","content":[]}]`,
			`,"output_config":{"format":{"type":"json_schema","schema":{}}},"metadata":{},"stop_sequences":[""]`),
		"{\"model\":\"\\ud800\xff\",\"max_tokens\":0,\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}",
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, read := range []func([]byte) (dialect.Call, error){Messages, CountTokens} {
			call, err := read(body)
			var e *openai.Error
			switch {
			case err != nil && !errors.As(err, &e):
				t.Fatalf("error %v", err)
			case err == nil && !json.Valid(call.Body()):
				t.Fatalf("%s makes %s", body, call.Body())
			}
		}
	})
}

// Images of past turns are sent again each time: a megabyte of them must cost about as much as to check that it is JSON.
func BenchmarkMessages(b *testing.B) {
	image := `{"type":"image","source":{"type":"base64","media_type":"image/png","data":"` + strings.Repeat("iVBORw0KGgo", 1<<20/11) + `"}}`
	body := []byte(asks(`[{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":[`+image+`]}]}]`, ""))
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := Messages(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkValid(b *testing.B) {
	body := []byte(`"` + strings.Repeat("iVBORw0KGgo", 1<<20/11) + `"`)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		json.Valid(body)
	}
}
