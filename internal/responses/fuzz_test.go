package responses

import (
	"encoding/json"
	"testing"
)

// FuzzCreate: whatever is asked for, there is an error that is a client's fault, or a request and answers that are JSON.
func FuzzCreate(f *testing.F) {
	for _, seed := range []string{
		`{"model":"m","input":"hi"}`,
		`{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_image","image_url":"data:,"},{"type":"input_file","file_data":"aGk="}]}]}`,
		`{"model":"m","input":[{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"plain.aG0="},{"type":"function_call","call_id":"1","name":"f","arguments":"{}"},` +
			`{"type":"function_call_output","call_id":"1","output":[{"type":"input_text","text":"a"}]}],"stream":true}`,
		`{"model":"m","input":[{"type":"custom_tool_call","call_id":"1","name":"c","input":"x"},{"type":"custom_tool_call_output","call_id":"1","output":""}],"tools":[{"type":"custom","name":"c"}],"tool_choice":{"type":"custom","name":"c"}}`,
		`{"model":"m","input":[{"id":"x"}],"previous_response_id":"resp_1","background":true}`,
		`{"model":"m","input":"hi","text":{"format":{"type":"json_schema","name":"n","schema":{}}},"include":["message.output_text.logprobs"],"metadata":{"a":"b"},"tools":[{"type":"function","name":"f"}]}`,
		`null`, `[]`, `{"input":[[]]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		s := NewStore(0)
		call, err := s.Create("", body)
		if err != nil {
			if b := blamed(err); b[:2] != "40" {
				t.Fatalf("%s: %v", b, err)
			}
			return
		}
		c := call.(*Call)
		if !json.Valid(c.Body()) {
			t.Fatalf("%s makes %s", body, c.Body())
		}
		if c.Stream() != nil {
			last(t, streamed(c, sse("stop", `{"content":"a"}`, `{"tool_calls":[{"index":0,"id":"1","function":{"name":"c","arguments":"{}"}}]}`), 0))
			return
		}
		r := whole(t, c, `{"content":"a","tool_calls":[{"id":"1","function":{"name":"c","arguments":"{}"}}]}`, "stop")
		if c.stored && !c.background {
			if _, err := s.InputItems("", r["id"].(string), nil); err != nil {
				t.Fatal(err)
			}
		}
	})
}
