package responses

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"assistant/internal/openai"
)

// failedAfterA are the events of an answer that broke off after "a".
const failedAfterA = `created in_progress
in_progress in_progress
output_item.added 0 message in_progress
content_part.added 0 0 output_text
output_text.delta 0 0 a
failed failed
`

func TestStreamEvents(t *testing.T) {
	ask := func(body string) *Call {
		return create(t, NewStore(0), "", `{"model":"m","input":"hi","stream":true`+body+`}`)
	}
	for _, tt := range []struct {
		name, more, upstream, want string
	}{
		{
			"waiting, thoughts, text", "", ": wait\n\n: wait\n\n" + sse("stop", `{"reasoning_content":"h"}`, `{"reasoning_content":"m"}`, `{"content":"Hi "}`, `{"content":"you"}`),
			`created in_progress
in_progress in_progress
: waiting for the model
output_item.added 0 reasoning in_progress
content_part.added 0 0 reasoning_text
reasoning_text.delta 0 0 h
reasoning_text.delta 0 0 m
reasoning_text.done 0 0 hm
content_part.done 0 0 reasoning_text
output_item.done 0 reasoning completed
output_item.added 1 message in_progress
content_part.added 1 0 output_text
output_text.delta 1 0 Hi ` + `
output_text.delta 1 0 you
output_text.done 1 0 Hi you
content_part.done 1 0 output_text
output_item.done 1 message completed
completed completed
`,
		},
		{
			"text, refusal", "", sse("length", `{"content":"well"}`, `{"refusal":"no"}`),
			`created in_progress
in_progress in_progress
output_item.added 0 message in_progress
content_part.added 0 0 output_text
output_text.delta 0 0 well
output_text.done 0 0 well
content_part.done 0 0 output_text
content_part.added 0 1 refusal
refusal.delta 0 1 no
refusal.done 0 1 no
content_part.done 0 1 refusal
output_item.done 0 message incomplete
incomplete incomplete
`,
		},
		{
			"calls", `,"tools":[{"type":"custom","name":"c"}]`, sse("tool_calls",
				`{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\""}}]}`, `{"tool_calls":[{"index":1,"id":"b","function":{"name":"c","arguments":"{\"input\":"}}]}`,
				`{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]}`, `{"tool_calls":[{"index":1,"function":{"arguments":"\"ls\"}"}}]}`,
				`{"tool_calls":[{"index":2,"id":"d","function":{"name":"g"}}]}`),
			`created in_progress
in_progress in_progress
output_item.added 0 function_call in_progress
function_call_arguments.delta 0 {"x"
output_item.added 1 custom_tool_call in_progress
function_call_arguments.delta 0 :1}
output_item.added 2 function_call in_progress
function_call_arguments.done 0 f {"x":1}
output_item.done 0 function_call completed
custom_tool_call_input.delta 1 ls
custom_tool_call_input.done 1 ls
output_item.done 1 custom_tool_call completed
function_call_arguments.delta 2 {}
function_call_arguments.done 2 g {}
output_item.done 2 function_call completed
completed completed
`,
		},
		{
			"nothing", "", "data: [DONE]\n\n",
			`created in_progress
in_progress in_progress
output_item.added 0 message in_progress
content_part.added 0 0 output_text
output_text.done 0 0 ` + `
content_part.done 0 0 output_text
output_item.done 0 message completed
completed completed
`,
		},
		{
			"an error in the middle", "", `data: {"choices":[{"index":0,"delta":{"content":"a"}}]}` + "\n\n" + `data: {"error":{"message":"no room","type":"rate_limit_error","code":"rate_limit_exceeded"}}` + "\n\n",
			failedAfterA,
		},
		{
			"cut off", "", `data: {"choices":[{"index":0,"delta":{"content":"a"}}]}` + "\n\n",
			failedAfterA,
		},
		{"an error at once", "", `data: {"error":{"message":"no room","type":"server_error","code":503}}` + "\n\n", "error no room\n"},
	} {
		for cut := range len(tt.upstream) + 1 {
			got := streamed(ask(tt.more), tt.upstream, cut)
			if diff := cmp.Diff(tt.want, strings.ReplaceAll(told(t, got), "<nil>", "")); diff != "" {
				t.Errorf("%s, cut at %d (-want +got):\n%s", tt.name, cut, diff)
				break
			}
		}
	}
}

// The last event holds what a whole answer would be, and that is what is stored.
func TestStreamIsAsWhole(t *testing.T) {
	for _, tt := range answers {
		s := NewStore(0)
		body := `{"model":"m","input":"hi"` + tt.ask
		want := steady(string(openai.Marshal(whole(t, create(t, s, "", body+`}`), tt.message, tt.finish))))
		got := streamed(create(t, s, "", body+`,"stream":true}`), sse(tt.finish, tt.deltas...), 0)
		r := last(t, got)["response"].(map[string]any)
		same(t, tt.name, openai.Marshal(r), want)
		held, err := s.Get("", r["id"].(string), nil)
		if err != nil {
			t.Fatal(err)
		}
		same(t, tt.name+", stored", held, steady(string(openai.Marshal(r))))
		done := []any{}
		for i, line := range strings.Split(strings.TrimSpace(got), "\n\n") {
			_, data, _ := strings.Cut(line, "\ndata: ")
			e := parsed(t, []byte(data))
			if e["sequence_number"] != float64(i) {
				t.Errorf("%s: event %d: %s", tt.name, i, data)
			}
			if e["type"] == "response.output_item.done" {
				done = append(done, e["item"])
			}
		}
		same(t, tt.name+", items", openai.Marshal(done), steady(string(openai.Marshal(r["output"]))))
	}
}

func TestStreamFails(t *testing.T) {
	s := NewStore(0)
	for code, want := range map[string]string{`"rate_limit_exceeded"`: "rate_limit_exceeded", `400`: "invalid_prompt", `"engine_crashed"`: "server_error"} {
		c := create(t, s, "", `{"model":"m","input":"hi","stream":true}`)
		r := last(t, streamed(c, `data: {"choices":[{"index":0,"delta":{"content":"a"}}]}`+"\n\n"+`data: {"error":{"message":"why","code":`+code+`}}`+"\n\n", 0))["response"].(map[string]any)
		same(t, code, openai.Marshal(r["error"]), `{"code":"`+want+`","message":"why"}`)
		same(t, code, openai.Marshal(r["output"]), `[{"id":"msg_1","type":"message","status":"incomplete","role":"assistant","content":[{"type":"output_text","text":"a","annotations":[],"logprobs":[]}]}]`)
		held, err := s.Get("", r["id"].(string), nil)
		if err != nil || parsed(t, held)["status"] != "failed" {
			t.Errorf("%s: %s, %v", code, held, err)
		}
	}
	c := create(t, s, "", `{"model":"m","input":"hi","stream":true}`)
	got := streamed(c, `data: {"error":{"message":"why","type":"invalid_request_error","param":"messages","code":"x"}}`+"\n\n", 0)
	want := "event: error\n" + `data: {"type":"error","code":"x","message":"why","param":"input","sequence_number":0,"error":{"message":"why","type":"invalid_request_error","param":"input","code":"x"}}` + "\n\n"
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if len(s.entries) != 3 {
		t.Errorf("%d are stored", len(s.entries))
	}
}
