package anthropic

import (
	"bytes"
	"errors"
	"regexp"
	"testing"

	"assistant/internal/openai"
)

// ids are made anew for each answer.
var ids = regexp.MustCompile(`(msg|toolu)_[0-9a-f]{24}`)

func TestAnswersAreMadeMessages(t *testing.T) {
	const told = `,"usage":{"prompt_tokens":10,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":6}}}`
	const counted = `"usage":{"input_tokens":4,"cache_creation_input_tokens":0,"cache_read_input_tokens":6,"output_tokens":4}`
	says := func(message, finish string) string {
		return `{"id":"x","model":"file.gguf","choices":[{"index":0,"finish_reason":` + finish + `,"message":` + message + `}]` + told
	}
	is := func(content, reason string) string {
		return `{"id":"msg_*","type":"message","role":"assistant","model":"m","content":` + content + `,"stop_reason":"` + reason +
			`","stop_sequence":null,` + counted + `}`
	}
	call := func(id, arguments string) string {
		return `{"id":"` + id + `","type":"function","function":{"name":"f","arguments":` + arguments + `}}`
	}
	use := func(id, input string) string {
		return `{"type":"tool_use","id":"` + id + `","name":"f","input":` + input + `}`
	}
	for _, c := range []struct{ name, answer, want string }{
		{"text", says(`{"content":"hi <b>"}`, `"stop"`), is(`[{"type":"text","text":"hi <b>"}]`, "end_turn")},
		{"cut", says(`{"content":"hi"}`, `"length"`), is(`[{"type":"text","text":"hi"}]`, "max_tokens")},
		{"filtered", says(`{"content":null}`, `"content_filter"`), is(`[]`, "refusal")},
		{"refused", says(`{"content":null,"refusal":"no"}`, `"stop"`), is(`[{"type":"text","text":"no"}]`, "refusal")},
		{"nothing", says(`{"content":""}`, `"stop"`), is(`[]`, "end_turn")},
		{
			"thoughts", says(`{"reasoning_content":"h","content":"\n\n"}`, `"stop"`),
			is(`[{"type":"thinking","thinking":"h","signature":""}]`, "end_turn"),
		},
		{
			"calls", says(`{"reasoning":"h","content":"a","tool_calls":[`+call("c1", `"{\"a\": 1}"`)+`,`+call("", `"{}"`)+`]}`, `"tool_calls"`),
			is(`[{"type":"thinking","thinking":"h","signature":""},{"type":"text","text":"a"},`+use("c1", `{"a":1}`)+`,`+use("toolu_*", `{}`)+`]`, "tool_use"),
		},
		{
			"calls of an engine that says stop", says(`{"content":null,"tool_calls":[`+call("c1", `"{}"`)+`]}`, `"stop"`),
			is(`[`+use("c1", `{}`)+`]`, "tool_use"),
		},
		{"no calls, though it says so", says(`{"content":"a","tool_calls":[]}`, `"tool_calls"`), is(`[{"type":"text","text":"a"}]`, "end_turn")},
		{
			"broken arguments", says(`{"tool_calls":[`+call("a", `"{\"a\":"`)+`,`+call("b", `""`)+`,`+call("c", `"[1]"`)+`,`+call("d", `"\"{\\\"a\\\":1}\""`)+`]}`, `"stop"`),
			is(`[`+use("a", `{}`)+`,`+use("b", `{}`)+`,`+use("c", `{}`)+`,`+use("d", `{"a":1}`)+`]`, "tool_use"),
		},
		{"no choices", `{"choices":[]` + told, is(`[]`, "end_turn")},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := mustCall(t, Messages, asks(hi, "")).Whole([]byte(c.answer))
			if err != nil {
				t.Fatal(err)
			}
			sameJSON(t, ids.ReplaceAll(got, []byte("${1}_*")), c.want)
		})
	}
}

func TestAnswersHaveIDsOfTheirOwn(t *testing.T) {
	call := mustCall(t, Messages, asks(hi, ""))
	one, _ := call.Whole([]byte(`{}`))
	two, _ := call.Whole([]byte(`{}`))
	if bytes.Equal(ids.Find(one), ids.Find(two)) || len(ids.Find(one)) != len("msg_")+24 {
		t.Errorf("ids %s and %s", ids.Find(one), ids.Find(two))
	}
}

func TestReasoningIsCounted(t *testing.T) {
	got, err := mustCall(t, Messages, asks(hi, "")).Whole([]byte(`{"usage":{"prompt_tokens":1,"completion_tokens":5,"completion_tokens_details":{"reasoning_tokens":3}}}`))
	if err != nil || !bytes.Contains(got, []byte(`"output_tokens":5,"output_tokens_details":{"thinking_tokens":3}`)) {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestWarmingSaysNothing(t *testing.T) {
	call := mustCall(t, Messages, `{"model":"m","max_tokens":0,"messages":`+hi+`}`)
	got, err := call.Whole([]byte(`{"choices":[{"message":{"content":"x"},"finish_reason":"length"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}`))
	if err != nil {
		t.Fatal(err)
	}
	sameJSON(t, ids.ReplaceAll(got, []byte("msg_*")), `{"id":"msg_*","type":"message","role":"assistant","model":"m","content":[],`+
		`"stop_reason":"max_tokens","stop_sequence":null,`+
		`"usage":{"input_tokens":3,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}}`)
}

// llama-server's plain answer has the beginning that it was given, its stream has not.
func TestAnswersGoOn(t *testing.T) {
	for _, c := range []struct{ messages, text, want string }{
		{`[{"role":"user","content":"q"},{"role":"assistant","content":"It is \u00e9("}]`, "It is é(A)", "A)"},
		{`[{"role":"user","content":"q"},{"role":"assistant","content":"It is ("}]`, "A)", "A)"},
		{`[{"role":"user","content":"q"},{"role":"assistant","content":"It"},{"role":"user","content":"go on"}]`, "It is", "It is"},
	} {
		got, err := mustCall(t, Messages, asks(c.messages, "")).Whole(openai.Marshal(map[string]any{
			"choices": []any{map[string]any{"message": map[string]any{"content": c.text}, "finish_reason": "stop"}},
		}))
		if err != nil || !bytes.Contains(got, []byte(`"text":"`+c.want+`"`)) {
			t.Errorf("%s: got %s, %v, want %s", c.messages, got, err, c.want)
		}
	}
}

func TestTokensAreTold(t *testing.T) {
	call := mustCall(t, CountTokens, `{"model":"m","messages":`+hi+`}`)
	got, err := call.Whole([]byte(`{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":12,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":11}}}`))
	if err != nil || string(got) != `{"input_tokens":12}` {
		t.Errorf("got %s, %v", got, err)
	}
	_, err = call.Whole([]byte(`{"choices":[{"message":{"content":"x"}}]}`))
	var e *openai.Error
	if !errors.As(err, &e) || e.Status != 502 {
		t.Errorf("without counts: %v", err)
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	call := mustCall(t, Messages, asks(hi, ""))
	for _, answer := range []string{``, `{"choices":`, `{"error":{"message":"no","code":503}}`} {
		if got, err := call.Whole([]byte(answer)); err == nil {
			t.Errorf("%q gives %s", answer, got)
		}
	}
}
