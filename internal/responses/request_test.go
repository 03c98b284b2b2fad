package responses

import (
	"strings"
	"testing"
)

// What is asked of the engine. Each request has "model":"m" besides.
func TestChatRequest(t *testing.T) {
	const (
		hi      = `"messages":[{"role":"user","content":"hi"}]`
		weather = `{"type":"function","name":"w","description":"d","parameters":{"type":"object"},"strict":true}`
		asks    = `{"type":"function","function":{"name":"w","description":"d","parameters":{"type":"object"},"strict":true}}`
		time    = `{"type":"function","name":"t"}`
		asksT   = `{"type":"function","function":{"name":"t"}}`
	)
	for _, tt := range []struct{ name, body, want string }{
		{"text", `"input":"hi"`, hi},
		{"what is not known or of no effect", `"input":"hi","x":1,"truncation":"auto","reasoning":{"summary":"auto"},"stream_options":{"include_obfuscation":true}`, hi},
		{"null is nothing", `"input":"hi","tools":null,"conversation":null,"temperature":null,"text":null,"stream":null,"previous_response_id":null`, hi},
		{"stream", `"input":"hi","stream":true`, `"stream":true,"stream_options":{"include_usage":true},` + hi},
		{
			"parameters",
			`"input":"hi","max_output_tokens":9,"temperature":0.7,"top_p":1,"user":"u","reasoning":{"effort":"low"},"text":{"verbosity":"high"},"drop_params":true`,
			`"max_tokens":9,"temperature":0.7,"top_p":1,"user":"u","reasoning_effort":"low","verbosity":"high","drop_params":true,` + hi,
		},
		{"logprobs", `"input":"hi","include":["message.output_text.logprobs"],"top_logprobs":3`, `"logprobs":true,"top_logprobs":3,` + hi},
		{"logprobs without others", `"input":"hi","include":["message.output_text.logprobs"]`, `"logprobs":true,"top_logprobs":1,` + hi},
		{"logprobs not included", `"input":"hi","top_logprobs":3`, hi},
		{"format text", `"input":"hi","text":{"format":{"type":"text"}}`, hi},
		{"format json_object", `"input":"hi","text":{"format":{"type":"json_object"}}`, `"response_format":{"type":"json_object"},` + hi},
		{
			"format json_schema", `"input":"hi","text":{"format":{"type":"json_schema","name":"n","schema":{"type":"object"},"strict":false}}`,
			`"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"},"strict":false}},` + hi,
		},
		{
			"tools", `"input":"hi","tools":[` + weather + `,` + time + `],"parallel_tool_calls":false,"tool_choice":"required"`,
			`"tools":[` + asks + `,` + asksT + `],"parallel_tool_calls":false,"tool_choice":"required",` + hi,
		},
		{"tools left to the engine", `"input":"hi","tools":[` + time + `]`, `"tools":[` + asksT + `],` + hi},
		{"no tools", `"input":"hi","tools":[],"tool_choice":"auto","parallel_tool_calls":true`, hi},
		{
			"a tool by name", `"input":"hi","tools":[` + weather + `,` + time + `],"tool_choice":{"type":"function","name":"t"}`,
			`"tools":[` + asksT + `],"tool_choice":"required",` + hi,
		},
		{
			"allowed tools", `"input":"hi","tools":[` + weather + `,` + time + `],"tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"function","name":"w"}]}`,
			`"tools":[` + asks + `],"tool_choice":"auto",` + hi,
		},
		{
			"custom tool", `"input":"hi","tools":[{"type":"custom","name":"c","description":"d","format":{"type":"text"}}],"tool_choice":{"type":"custom","name":"c"}`,
			`"tools":[{"type":"function","function":{"name":"c","description":"d","parameters":` + string(customParameters) + `}}],"tool_choice":"required",` + hi,
		},
	} {
		c := create(t, NewStore(0), "", `{"model":"m",`+tt.body+`}`)
		same(t, tt.name, c.Body(), `{"model":"m",`+tt.want+`}`)
		if c.Path() != "/v1/chat/completions" || (c.Stream() != nil) != strings.Contains(tt.want, `"stream":true`) {
			t.Errorf("%s: path %q, stream %v", tt.name, c.Path(), c.Stream())
		}
	}
}

// What becomes of input.
func TestMessages(t *testing.T) {
	const user = `{"role":"user","content":"hi"}`
	for _, tt := range []struct{ name, body, want string }{
		{"instructions", `"instructions":"be kind","input":"hi"`, `{"role":"system","content":"be kind"},` + user},
		{"empty instructions", `"instructions":"","input":"hi"`, user},
		{
			"rules at the beginning are one message", `"instructions":"a","input":[{"role":"developer","content":"b"},{"role":"system","content":[{"type":"input_text","text":"c"}]},` + user + `,{"role":"developer","content":"d"}]`,
			`{"role":"system","content":"a\n\nb\n\nc"},` + user + `,{"role":"system","content":"d"}`,
		},
		{
			"parts", `"input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_image","image_url":"data:image/png;base64,AA==","detail":"high"},` +
				`{"type":"input_image","image_url":"http://x"},{"type":"input_audio","input_audio":{"data":"AA==","format":"wav"}},{"type":"input_file","filename":"n.txt","file_data":"aGk="},` +
				`{"type":"input_file","file_data":"data:text/plain;base64,aGk="}]}]`,
			`{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AA==","detail":"high"}},` +
				`{"type":"image_url","image_url":{"url":"http://x"}},{"type":"input_audio","input_audio":{"data":"AA==","format":"wav"}},{"type":"text","text":"n.txt:\nhi"},{"type":"text","text":"hi"}]}`,
		},
		{"one part is a text", `"input":[{"role":"user","content":[{"type":"input_text","text":"hi"}]}]`, user},
		{"no parts", `"input":[{"role":"user","content":[]}]`, `{"role":"user","content":""}`},
		{
			"the assistant's", `"input":[` + user + `,{"role":"assistant","content":"a"},{"type":"message","role":"assistant","id":"msg_1","status":"completed","content":[{"type":"output_text","text":"b","annotations":[]},{"type":"refusal","refusal":"c"}]},` + user + `]`,
			user + `,{"role":"assistant","content":"a"},{"role":"assistant","content":"b\nc"},` + user,
		},
		{
			"a turn with tools", `"input":[` + user + `,{"type":"reasoning","id":"rs_1","summary":[],"content":[{"type":"reasoning_text","text":"hm"}]},` +
				`{"type":"message","role":"assistant","content":[{"type":"output_text","text":"look"}]},` +
				`{"type":"function_call","call_id":"1","name":"f","arguments":"{}"},{"type":"function_call","id":"fc_2","status":"completed","call_id":"2","name":"g","arguments":"{\"a\":1}"},` +
				`{"type":"function_call_output","call_id":"1","output":"one"},{"type":"function_call_output","call_id":"2","output":[{"type":"input_text","text":"two"},{"type":"input_text","text":"three"}]}]`,
			user + `,{"role":"assistant","content":"look","reasoning_content":"hm","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}},` +
				`{"id":"2","type":"function","function":{"name":"g","arguments":"{\"a\":1}"}}]},{"role":"tool","tool_call_id":"1","content":"one"},{"role":"tool","tool_call_id":"2","content":"two\nthree"}`,
		},
		{
			"calls alone, an image comes back", `"input":[` + user + `,{"type":"function_call","call_id":"1","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"1","output":[{"type":"input_image","image_url":"data:,"}]},` +
				`{"type":"function_call","call_id":"2","name":"f","arguments":"{}"}]`,
			user + `,{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]},` +
				`{"role":"tool","tool_call_id":"1","content":[{"type":"image_url","image_url":{"url":"data:,"}}]},` +
				`{"role":"assistant","content":null,"tool_calls":[{"id":"2","type":"function","function":{"name":"f","arguments":"{}"}}]}`,
		},
		{
			"custom", `"input":[` + user + `,{"type":"custom_tool_call","call_id":"1","name":"c","input":"a\"b"},{"type":"custom_tool_call_output","call_id":"1","output":"o"}]`,
			user + `,{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"c","arguments":"{\"input\":\"a\\\"b\"}"}}]},{"role":"tool","tool_call_id":"1","content":"o"}`,
		},
		{
			"thoughts that led to nothing", `"input":[` + user + `,{"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"s"}]},{"type":"reasoning","id":"rs_2","summary":[],"encrypted_content":"` + seal("e") + `"},` + user + `]`,
			user + `,{"role":"assistant","content":"","reasoning_content":"s\ne"},` + user,
		},
		{
			"thoughts that can't be read", `"input":[` + user + `,{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"gAAAAB"},{"role":"assistant","content":"a"},` + user + `]`,
			user + `,{"role":"assistant","content":"a"},` + user,
		},
	} {
		c := create(t, NewStore(0), "", `{"model":"m",`+tt.body+`}`)
		same(t, tt.name, c.Body(), `{"model":"m","messages":[`+tt.want+`]}`)
	}
}

func TestBadRequest(t *testing.T) {
	const m = `"model":"m",`
	for _, tt := range []struct{ body, param, says string }{
		{`[]`, "", "JSON object"},
		{`null`, "", "JSON object"},
		{`{`, "", "JSON object"},
		{`{"input":"hi"}`, "model", "you must name a model"},
		{`{"model":5,"input":"hi"}`, "model", "must be a string"},
		{`{"model":"m"}`, "input", "not empty"},
		{`{` + m + `"input":[]}`, "input", "not empty"},
		{`{` + m + `"input":5}`, "input", "a string or an array"},
		{`{` + m + `"input":{"role":"user"}}`, "input", "a string or an array"},
		{`{` + m + `"input":["hi"]}`, "input[0]", "must be an object"},
		{`{` + m + `"input":[null]}`, "input[0]", "must be an object"},
		{`{` + m + `"input":[{"type":"computer_call"}]}`, "input[0].type", `"computer_call"`},
		{`{` + m + `"input":[{"role":"user"}]}`, "input[0].content", "you must give"},
		{`{` + m + `"input":[{"role":"user","content":5}]}`, "input[0].content", "an array"},
		{`{` + m + `"input":[{"role":"tool","content":"x"}]}`, "input[0].role", "must be user"},
		{`{` + m + `"input":[{"role":"user","content":"a"},{"role":"user","content":[{"type":"input_text","text":"a"},{"type":"video"}]}]}`, "input[1].content[1].type", `"video"`},
		{`{` + m + `"input":[{"role":"user","content":[{"type":"input_text"}]}]}`, "input[0].content[0].text", "you must give"},
		{`{` + m + `"input":[{"role":"user","content":[{"text":"a"}]}]}`, "input[0].content[0].type", "you must give"},
		{`{` + m + `"input":[{"role":"assistant","content":[{"type":"input_image","image_url":"data:,"}]}]}`, "input[0].content[0].type", "can't be the assistant's"},
		{`{` + m + `"input":[{"role":"user","content":[{"type":"input_image","file_id":"f"}]}]}`, "input[0].content[0].file_id", "image_url"},
		{`{` + m + `"input":[{"role":"user","content":[{"type":"input_file","file_id":"f"}]}]}`, "input[0].content[0].file_id", "file_data"},
		{`{` + m + `"input":[{"role":"user","content":[{"type":"input_file","file_url":"f"}]}]}`, "input[0].content[0].file_url", "file_data"},
		{`{` + m + `"input":[{"role":"user","content":[{"type":"input_file","file_data":"data:application/pdf;base64,JVBERi0xLjQ="}]}]}`, "input[0].content[0].file_data", "UTF-8"},
		{`{` + m + `"input":[{"role":"user","content":[{"type":"input_file","file_data":"?"}]}]}`, "input[0].content[0].file_data", "base64"},
		{`{` + m + `"input":[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"x"}}]}]}`, "input[0].content[0].input_audio.format", "you must give"},
		{`{` + m + `"input":[{"type":"function_call","call_id":"1","name":"f"}]}`, "input[0].arguments", "you must give"},
		{`{` + m + `"input":[{"type":"function_call_output","call_id":"1"}]}`, "input[0].output", "you must give"},
		{`{` + m + `"input":[{"type":"function_call_output","output":"x"}]}`, "input[0].call_id", "you must give"},
		{`{` + m + `"input":[{"type":"reasoning","summary":{}}]}`, "input[0].summary", "an array"},
		{`{` + m + `"input":"hi","instructions":["x"]}`, "instructions", "must be a string"},
		{`{` + m + `"input":"hi","previous_response_id":"resp_x"}`, "previous_response_id", "Previous response with id 'resp_x' not found."},
		{`{` + m + `"input":"hi","conversation":"c"}`, "conversation", "previous_response_id"},
		{`{` + m + `"input":"hi","prompt":{"id":"p"}}`, "prompt", "instructions"},
		{`{` + m + `"input":"hi","stream":"yes"}`, "stream", "true or false"},
		{`{` + m + `"input":"hi","background":true,"store":false}`, "background", "store"},
		{`{` + m + `"input":"hi","background":true,"stream":true}`, "stream", "leave"},
		{`{` + m + `"input":"hi","temperature":3}`, "temperature", "from 0 to 2"},
		{`{` + m + `"input":"hi","top_p":-1}`, "top_p", "from 0 to 1"},
		{`{` + m + `"input":"hi","max_output_tokens":0}`, "max_output_tokens", "from 1"},
		{`{` + m + `"input":"hi","max_output_tokens":1.5}`, "max_output_tokens", "a whole number"},
		{`{` + m + `"input":"hi","top_logprobs":21}`, "top_logprobs", "from 0 to 20"},
		{`{` + m + `"input":"hi","include":"x"}`, "include", "an array of strings"},
		{`{` + m + `"input":"hi","truncation":"x"}`, "truncation", "auto"},
		{`{` + m + `"input":"hi","metadata":{"a":1}}`, "metadata", "strings"},
		{`{` + m + `"input":"hi","metadata":{"a":"` + strings.Repeat("ä", 513) + `"}}`, "metadata", "512"},
		{`{` + m + `"input":"hi","reasoning":{"effort":1}}`, "reasoning.effort", "a string"},
		{`{` + m + `"input":"hi","text":{"verbosity":"x"}}`, "text.verbosity", "medium"},
		{`{` + m + `"input":"hi","text":{"format":{"type":"xml"}}}`, "text.format.type", "json_schema"},
		{`{` + m + `"input":"hi","text":{"format":{"type":"json_schema","schema":{}}}}`, "text.format.name", "you must give"},
		{`{` + m + `"input":"hi","text":{"format":{"type":"json_schema","name":"n"}}}`, "text.format.schema", "you must give"},
		{`{` + m + `"input":"hi","tools":{}}`, "tools", "an array"},
		{`{` + m + `"input":"hi","tools":[{"type":"function","name":"f"},{"type":"web_search"}]}`, "tools[1].type", `"web_search" is not served here: only function and custom`},
		{`{` + m + `"input":"hi","tools":[{"type":"function"}]}`, "tools[0].name", "you must give"},
		{`{` + m + `"input":"hi","tools":[{"type":"function","name":"f","parameters":"x"}]}`, "tools[0].parameters", "an object"},
		{`{` + m + `"input":"hi","tools":[{"type":"custom","name":"c","format":{"type":"grammar"}}]}`, "tools[0].format.type", "text only"},
		{`{` + m + `"input":"hi","tool_choice":"required"}`, "tool_choice", `needs "tools"`},
		{`{` + m + `"input":"hi","tool_choice":"maybe"}`, "tool_choice", "one of"},
		{`{` + m + `"input":"hi","tool_choice":{"type":"web_search_preview"}}`, "tool_choice.type", "web_search_preview"},
		{`{` + m + `"input":"hi","tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"function","name":"g"}}`, "tool_choice.name", "names no tool"},
		{`{` + m + `"input":"hi","tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"allowed_tools","tools":[]}}`, "tool_choice.mode", "you must give"},
	} {
		_, err := NewStore(0).Create("", []byte(tt.body))
		if got, want := blamed(err), "400 "+tt.param; got != want || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got %s: %v, want %s: %s", tt.body, got, err, want, tt.says)
		}
	}
}

func TestMessagesOfTheResponsesBefore(t *testing.T) {
	s := NewStore(0)
	first := stored(t, s, "ann", `{"model":"m","input":"one","instructions":"for the first only"}`)
	second := whole(t, create(t, s, "ann", `{"model":"m","input":"two","previous_response_id":"`+first+`"}`),
		`{"content":"look","reasoning_content":"hm","tool_calls":[{"id":"1","function":{"name":"f","arguments":"{}"}}]}`, "tool_calls")
	c := create(t, s, "ann", `{"model":"m","instructions":"now","input":[{"type":"function_call_output","call_id":"1","output":"x"}],"previous_response_id":"`+second["id"].(string)+`"}`)
	const chain = `{"role":"user","content":"one"},{"role":"assistant","content":"yes"},{"role":"user","content":"two"},` +
		`{"role":"assistant","content":"look","reasoning_content":"hm","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]}`
	same(t, "chain", c.Body(), `{"model":"m","messages":[{"role":"system","content":"now"},`+chain+`,{"role":"tool","tool_call_id":"1","content":"x"}]}`)

	c = create(t, s, "ann", `{"model":"m","previous_response_id":"`+first+`"}`)
	same(t, "without input", c.Body(), `{"model":"m","messages":[{"role":"user","content":"one"},{"role":"assistant","content":"yes"}]}`)

	for _, owner := range []string{"bob", ""} {
		_, err := s.Create(owner, []byte(`{"model":"m","input":"x","previous_response_id":"`+first+`"}`))
		if blamed(err) != "400 previous_response_id" {
			t.Errorf("owner %q: %v", owner, err)
		}
	}
	if _, err := s.Delete("ann", first); err != nil {
		t.Fatal(err)
	}
	_, err := s.Create("ann", []byte(`{"model":"m","input":"x","previous_response_id":"`+second["id"].(string)+`"}`))
	if blamed(err) != "400 previous_response_id" || !strings.Contains(err.Error(), first) {
		t.Errorf("chain with a gap: %v", err)
	}
}

func TestItemReference(t *testing.T) {
	s := NewStore(0)
	r := whole(t, create(t, s, "ann", `{"model":"m","input":[{"id":"msg_own","role":"user","content":"one"}]}`), `{"content":"yes"}`, "stop")
	answer := r["output"].([]any)[0].(map[string]any)["id"].(string)
	body := `{"model":"m","input":[{"type":"item_reference","id":"msg_own"},{"id":"` + answer + `"},{"role":"user","content":"two"}]}`
	c := create(t, s, "ann", body)
	same(t, "references", c.Body(), `{"model":"m","messages":[{"role":"user","content":"one"},{"role":"assistant","content":"yes"},{"role":"user","content":"two"}]}`)
	if _, err := s.Create("bob", []byte(body)); blamed(err) != "404 input[0].id" {
		t.Errorf("another owner: %v", err)
	}
	if _, err := s.Delete("ann", r["id"].(string)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create("ann", []byte(body)); blamed(err) != "404 input[0].id" {
		t.Errorf("deleted: %v", err)
	}
	whole(t, c, `{"content":"ok"}`, "stop") // holds what was referred to
	create(t, s, "ann", body)
}
