package responses

import (
	"strings"
	"testing"

	"assistant/internal/openai"
)

// The whole object, with every field that the API's schema requires.
func TestResponse(t *testing.T) {
	s := NewStore(0)
	before := stored(t, s, "", `{"model":"m","input":"hi"}`)
	c := create(t, s, "", `{"model":"m","input":"hi","instructions":"i","max_output_tokens":9,"max_tool_calls":1,"parallel_tool_calls":false,"previous_response_id":"`+before+`",`+
		`"prompt_cache_key":"k","reasoning":{"effort":"low","summary":"auto"},"safety_identifier":"s","service_tier":"flex","temperature":0.5,"text":{"format":{"type":"json_object"},"verbosity":"low"},`+
		`"tools":[{"type":"function","name":"f"},{"type":"custom","name":"c"}],"tool_choice":{"type":"function","name":"f"},"top_logprobs":2,"top_p":0.9,"truncation":"auto","user":"u","metadata":{"a":"b"}}`)
	answer, err := c.Whole([]byte(`{"choices":[{"index":0,"message":{"content":"{}"},"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12,"prompt_tokens_details":{"cached_tokens":3},"completion_tokens_details":{"reasoning_tokens":2}}}`))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "all given", answer, `{"id":"resp_1","object":"response","created_at":1,"status":"completed","background":false,"completed_at":1,"error":null,"incomplete_details":null,
		"instructions":"i","max_output_tokens":9,"max_tool_calls":1,"model":"m","parallel_tool_calls":false,"previous_response_id":"resp_2","prompt_cache_key":"k",
		"output":[{"id":"msg_1","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"{}","annotations":[],"logprobs":[]}]}],
		"reasoning":{"effort":"low","summary":"auto"},"safety_identifier":"s","service_tier":"flex","store":true,"temperature":0.5,"text":{"format":{"type":"json_object"},"verbosity":"low"},
		"tool_choice":{"type":"function","name":"f"},"tools":[{"type":"function","name":"f","parameters":{},"strict":false},{"type":"custom","name":"c","format":{"type":"text"}}],
		"top_logprobs":2,"top_p":0.9,"truncation":"auto","user":"u","metadata":{"a":"b"},
		"usage":{"input_tokens":7,"input_tokens_details":{"cached_tokens":3,"cache_write_tokens":0},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":12}}`)

	c = create(t, s, "", `{"model":"m","input":"hi","store":false}`)
	answer, err = c.Whole([]byte(`{"choices":[{"index":0,"message":{"content":"yes"},"finish_reason":"stop"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "nothing given", answer, `{"id":"resp_1","object":"response","created_at":1,"status":"completed","background":false,"completed_at":1,"error":null,"incomplete_details":null,
		"instructions":null,"max_output_tokens":null,"max_tool_calls":null,"model":"m","parallel_tool_calls":true,"previous_response_id":null,"prompt_cache_key":null,
		"output":[{"id":"msg_1","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"yes","annotations":[],"logprobs":[]}]}],
		"reasoning":{"effort":null,"summary":null},"safety_identifier":null,"service_tier":"default","store":false,"temperature":null,"text":{"format":{"type":"text"},"verbosity":"medium"},
		"tool_choice":"auto","tools":[],"top_logprobs":0,"top_p":null,"truncation":"disabled","metadata":{},"usage":{"input_tokens":0,"input_tokens_details":{"cached_tokens":0,"cache_write_tokens":0},"output_tokens":0,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":0}}`)
	if _, err := s.Get("", parsed(t, answer)["id"].(string), nil); blamed(err) != "404 " {
		t.Errorf("not to be stored: %v", err)
	}
}

// What becomes of answers: whole ones, and streams that say the same.
var answers = []struct {
	name, ask, message, finish string
	deltas                     []string
	status, output             string
}{
	{
		"text", ``, `{"role":"assistant","content":"Hi you"}`, "stop",
		[]string{`{"role":"assistant","content":null}`, `{"content":"Hi "}`, `{"content":""}`, `{"content":"you"}`},
		"completed", `[{"id":"msg_1","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Hi you","annotations":[],"logprobs":[]}]}]`,
	},
	{
		"nothing", ``, `{"role":"assistant","content":""}`, "stop",
		[]string{`{"role":"assistant","content":""}`},
		"completed", `[{"id":"msg_1","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"","annotations":[],"logprobs":[]}]}]`,
	},
	{
		"thoughts", ``, `{"content":"yes","reasoning_content":"hm, well"}`, "stop",
		[]string{`{"reasoning_content":"hm, "}`, `{"reasoning":"well"}`, `{"content":"yes"}`},
		"completed", `[{"id":"rs_1","type":"reasoning","status":"completed","summary":[],"content":[{"type":"reasoning_text","text":"hm, well"}]},
			{"id":"msg_1","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"yes","annotations":[],"logprobs":[]}]}]`,
	},
	{
		"thoughts for clients that store nothing", `,"include":["reasoning.encrypted_content"]`, `{"content":"yes","reasoning_content":"hm"}`, "stop",
		[]string{`{"reasoning_content":"hm"}`, `{"content":"yes"}`},
		"completed", `[{"id":"rs_1","type":"reasoning","status":"completed","summary":[],"content":[{"type":"reasoning_text","text":"hm"}],"encrypted_content":"plain.aG0="},
			{"id":"msg_1","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"yes","annotations":[],"logprobs":[]}]}]`,
	},
	{
		"cut in the thoughts", ``, `{"content":"","reasoning_content":"hm"}`, "length",
		[]string{`{"reasoning_content":"hm"}`},
		"incomplete", `[{"id":"rs_1","type":"reasoning","status":"incomplete","summary":[],"content":[{"type":"reasoning_text","text":"hm"}]}]`,
	},
	{
		"filtered", ``, `{"content":"a"}`, "content_filter",
		[]string{`{"content":"a"}`},
		"incomplete", `[{"id":"msg_1","type":"message","status":"incomplete","role":"assistant","content":[{"type":"output_text","text":"a","annotations":[],"logprobs":[]}]}]`,
	},
	{
		"refusal", ``, `{"content":"well","refusal":"no, never"}`, "stop",
		[]string{`{"content":"well"}`, `{"refusal":"no, "}`, `{"refusal":"never"}`},
		"completed", `[{"id":"msg_1","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"well","annotations":[],"logprobs":[]},{"type":"refusal","refusal":"no, never"}]}]`,
	},
	{
		"calls in turns", ``, `{"content":"look","tool_calls":[{"id":"a","function":{"name":"f","arguments":"{\"x\":1}"}},{"id":"b","function":{"name":"g","arguments":""}}]}`, "tool_calls",
		[]string{
			`{"content":"look"}`, `{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\""}}]}`, `{"tool_calls":[{"index":1,"id":"b","function":{"name":"g","arguments":""}}]}`,
			`{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]}`,
		},
		"completed", `[{"id":"msg_1","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"look","annotations":[],"logprobs":[]}]},
			{"id":"fc_1","type":"function_call","status":"completed","call_id":"a","name":"f","arguments":"{\"x\":1}"},{"id":"fc_2","type":"function_call","status":"completed","call_id":"b","name":"g","arguments":"{}"}]`,
	},
	{
		"calls all numbered 0", ``, `{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}},{"id":"b","function":{"name":"f","arguments":"{}"}}]}`, "stop",
		[]string{`{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]}`, `{"tool_calls":[{"index":0,"id":"b","function":{"name":"f","arguments":"{"}}]}`, `{"tool_calls":[{"index":0,"id":"b","function":{"arguments":"}"}}]}`},
		"completed", `[{"id":"fc_1","type":"function_call","status":"completed","call_id":"a","name":"f","arguments":"{}"},{"id":"fc_2","type":"function_call","status":"completed","call_id":"b","name":"f","arguments":"{}"}]`,
	},
	{
		"a call without an id, one without a name", ``, `{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{}"}},{"index":1,"function":{"arguments":"{}"}}]}`, "stop",
		[]string{`{"tool_calls":[{"index":0,"function":{"arguments":"{"}},{"index":1,"function":{"arguments":"{}"}}]}`, `{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"}"}}]}`},
		"completed", `[{"id":"fc_1","type":"function_call","status":"completed","call_id":"call_1","name":"f","arguments":"{}"}]`,
	},
	{
		"a call that was cut", ``, `{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}},{"id":"b","function":{"name":"f","arguments":"{\""}}]}`, "length",
		[]string{`{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]}`, `{"tool_calls":[{"index":1,"id":"b","function":{"name":"f","arguments":"{\""}}]}`},
		"incomplete", `[{"id":"fc_1","type":"function_call","status":"completed","call_id":"a","name":"f","arguments":"{}"},{"id":"fc_2","type":"function_call","status":"incomplete","call_id":"b","name":"f","arguments":"{\""}]`,
	},
	{
		"custom", `,"tools":[{"type":"custom","name":"c"}]`, `{"tool_calls":[{"id":"a","function":{"name":"c","arguments":"{\"input\":\"ls\"}"}},{"id":"b","function":{"name":"c","arguments":"ls"}}]}`, "tool_calls",
		[]string{`{"tool_calls":[{"index":0,"id":"a","function":{"name":"c","arguments":"{\"input\":"}}]}`, `{"tool_calls":[{"index":0,"function":{"arguments":"\"ls\"}"}}]}`, `{"tool_calls":[{"index":1,"id":"b","function":{"name":"c","arguments":"ls"}}]}`},
		"completed", `[{"id":"ctc_1","type":"custom_tool_call","status":"completed","call_id":"a","name":"c","input":"ls"},{"id":"ctc_2","type":"custom_tool_call","status":"completed","call_id":"b","name":"c","input":"ls"}]`,
	},
}

func TestWhole(t *testing.T) {
	for _, tt := range answers {
		s := NewStore(0)
		r := whole(t, create(t, s, "", `{"model":"m","input":"hi"`+tt.ask+`}`), tt.message, tt.finish)
		if r["status"] != tt.status || (r["completed_at"] != nil) != (tt.status == "completed") || (r["incomplete_details"] != nil) != (tt.status == "incomplete") {
			t.Errorf("%s: %v", tt.name, r)
		}
		same(t, tt.name, openai.Marshal(r["output"]), tt.output)
		held, err := s.Get("", r["id"].(string), nil)
		if err != nil {
			t.Fatal(err)
		}
		same(t, tt.name+", stored", held, steady(string(openai.Marshal(r))))
	}
}

func TestWholeThatIsNone(t *testing.T) {
	s := NewStore(0)
	c := create(t, s, "", `{"model":"m","input":"hi"}`)
	for answer, want := range map[string]string{`<html>`: "invalid character", `{"error":{"message":"no room","type":"x","code":503}}`: "no room"} {
		if _, err := c.Whole([]byte(answer)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", answer, err)
		}
	}
	if len(s.entries) != 0 {
		t.Errorf("%d are stored", len(s.entries))
	}
}

func TestLogprobs(t *testing.T) {
	const probs = `{"content":[{"token":"é","logprob":-0.5,"bytes":null,"top_logprobs":[{"token":"é","logprob":-0.5,"bytes":[195,169]},{"token":"e","logprob":-1}]}]}`
	answer := []byte(`{"choices":[{"index":0,"message":{"content":"é"},"logprobs":` + probs + `,"finish_reason":"stop"}]}`)
	for ask, want := range map[string]string{
		``:                  `[]`,
		`,"top_logprobs":1`: `[]`,
		`,"include":["message.output_text.logprobs"]`:                  `[{"token":"é","logprob":-0.5,"bytes":[195,169],"top_logprobs":[]}]`,
		`,"include":["message.output_text.logprobs"],"top_logprobs":2`: `[{"token":"é","logprob":-0.5,"bytes":[195,169],"top_logprobs":[{"token":"é","logprob":-0.5,"bytes":[195,169]},{"token":"e","logprob":-1,"bytes":[101]}]}]`,
	} {
		c := create(t, NewStore(0), "", `{"model":"m","input":"hi"`+ask+`}`)
		got, err := c.Whole(answer)
		if err != nil {
			t.Fatal(err)
		}
		part := parsed(t, got)["output"].([]any)[0].(map[string]any)["content"].([]any)[0].(map[string]any)
		same(t, ask, openai.Marshal(part["logprobs"]), want)
	}
	c := create(t, NewStore(0), "", `{"model":"m","input":"hi","stream":true,"include":["message.output_text.logprobs"]}`)
	got := streamed(c, `data: {"choices":[{"index":0,"delta":{"content":"é"},"logprobs":`+probs+"}]}\n\ndata: [DONE]\n\n", 0)
	if n := strings.Count(got, `"logprobs":[{"token":"é","bytes":[195,169],"logprob":-0.5,"top_logprobs":[]}]`); n != 5 { // delta, text, part, item, response
		t.Errorf("in %d places: %s", n, got)
	}
}

func TestErrorBody(t *testing.T) {
	same(t, "a field of chat completions", ErrorBody(openai.InvalidRequest("max_tokens", "too many")),
		`{"error":{"message":"too many","type":"invalid_request_error","param":"max_output_tokens","code":null}}`)
	same(t, "another", ErrorBody(openai.ModelNotFound("m")),
		`{"error":{"message":"the model \"m\" does not exist","type":"invalid_request_error","param":"model","code":"model_not_found"}}`)
}
