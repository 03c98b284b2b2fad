package anthropic

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"assistant/internal/dialect"
	"assistant/internal/openai"
)

const (
	done  = "data: [DONE]\n\n"
	total = `data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":6}}}` + "\n\n"
)

// delta is a chunk.
func delta(fields string) string {
	return `data: {"id":"x","model":"file.gguf","choices":[{"index":0,"delta":{` + fields + `},"finish_reason":null}]}` + "\n\n"
}

func chunkWith(field, text string) string {
	return delta(fmt.Sprintf("%q:%s", field, openai.Marshal(text)))
}

// calling is a chunk with a part of a call; id and name may be empty.
func calling(index int, id, name, arguments string) string {
	return delta(fmt.Sprintf(`"tool_calls":[{"index":%d,"id":%s,"type":"function","function":{"name":%s,"arguments":%s}}]`,
		index, openai.Marshal(id), openai.Marshal(name), openai.Marshal(arguments)))
}

func finish(reason string) string {
	return `data: {"choices":[{"index":0,"delta":{},"finish_reason":"` + reason + `"}]}` + "\n\n"
}

// streamed is what the client is sent of an engine's stream that comes in pieces of some bytes.
func streamed(t *testing.T, body, said string, size int) string {
	t.Helper()
	rec := httptest.NewRecorder()
	w := dialect.NewWriter(rec, ErrorBody)
	w.Answers(mustCall(t, Messages, body))
	for piece := range slices.Chunk([]byte(said), size) {
		if _, err := w.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	if got := rec.Header().Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type %q", got)
	}
	return ids.ReplaceAllString(rec.Body.String(), "${1}_*")
}

// brief makes a line of each event, and checks that it is in order.
func brief(t *testing.T, stream string) (lines []string) {
	t.Helper()
	open, next := -1, 0
	for event := range strings.SplitSeq(strings.TrimSuffix(stream, "\n\n"), "\n\n") {
		name, data, _ := strings.Cut(strings.TrimPrefix(event, "event: "), "\ndata: ")
		var e struct {
			Type    string
			Index   int
			Message *struct{ Usage json.RawMessage }
			Block   json.RawMessage `json:"content_block"`
			Delta   map[string]any
			Usage   json.RawMessage
			Error   json.RawMessage
		}
		if err := json.Unmarshal([]byte(data), &e); err != nil || e.Type != name {
			t.Fatalf("event %q: %v", event, err)
		}
		switch name {
		case "message_start", "ping", "message_stop":
			lines = append(lines, name)
		case "content_block_start":
			if open != -1 || e.Index != next {
				t.Fatalf("block %d begins while %d is open, after %d", e.Index, open, next)
			}
			open, next = e.Index, next+1
			lines = append(lines, "+"+string(e.Block))
		case "content_block_delta":
			if open != e.Index {
				t.Fatalf("delta of %d while %d is open", e.Index, open)
			}
			kind := e.Delta["type"].(string)
			delete(e.Delta, "type")
			for _, value := range e.Delta {
				lines = append(lines, fmt.Sprintf("%s %v", kind, value))
			}
		case "content_block_stop":
			if open != e.Index {
				t.Fatalf("end of %d while %d is open", e.Index, open)
			}
			open = -1
			lines = append(lines, "-")
		case "message_delta":
			lines = append(lines, fmt.Sprintf("%v %v %s", e.Delta["stop_reason"], e.Delta["stop_sequence"], e.Usage))
		case "error":
			lines = append(lines, string(e.Error))
		default:
			t.Fatalf("event %q", event)
		}
	}
	return lines
}

func TestStreamsAreMadeEvents(t *testing.T) {
	const (
		counted = `{"input_tokens":4,"cache_creation_input_tokens":0,"cache_read_input_tokens":6,"output_tokens":4}`
		text    = `+{"type":"text","text":""}`
		thought = `+{"type":"thinking","thinking":"","signature":""}`
	)
	tool := func(id, name string) string {
		return fmt.Sprintf(`+{"type":"tool_use","id":%q,"name":%q,"input":{}}`, id, name)
	}
	role := delta(`"role":"assistant","content":null`)
	for _, c := range []struct {
		name, said string
		want       []string // between message_start, ping and message_stop
	}{
		{
			"text", role + chunkWith("content", "Hel") + chunkWith("content", "lo <b>\n") + finish("stop") + total + done,
			[]string{text, "text_delta Hel", "text_delta lo <b>\n", "-", "end_turn <nil> " + counted},
		},
		{
			"counts with the end", chunkWith("content", "a") + strings.Replace(finish("length"), `]}`, `],"usage":{"prompt_tokens":1,"completion_tokens":2}}`, 1) + done,
			[]string{text, "text_delta a", "-", `max_tokens <nil> {"input_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":2}`},
		},
		{"nothing", role + finish("stop") + total + done, []string{"end_turn <nil> " + counted}},
		{"less than nothing", done, []string{`end_turn <nil> {"input_tokens":0,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}`}},
		{
			"thoughts, text and calls",
			role + chunkWith("reasoning_content", "h") + chunkWith("reasoning_content", "m") + chunkWith("content", "\n\n") + chunkWith("content", "a") +
				calling(0, "c1", "f", "") + calling(0, "", "", `{"a"`) + calling(0, "", "", `:1}`) + calling(1, "c2", "g", `{}`) + finish("tool_calls") + total + done,
			[]string{
				thought, "thinking_delta h", "thinking_delta m", "signature_delta ", "-", text, "text_delta \n\na", "-",
				tool("c1", "f"), `input_json_delta {"a"`, `input_json_delta :1}`, "-", tool("c2", "g"), "input_json_delta {}", "-", "tool_use <nil> " + counted,
			},
		},
		{
			"white space between thoughts and calls", chunkWith("reasoning", "h") + chunkWith("content", "\n") + calling(0, "c", "f", "{}") + chunkWith("content", "\n") + finish("stop") + total + done,
			[]string{thought, "thinking_delta h", "signature_delta ", "-", tool("c", "f"), "input_json_delta {}", "-", "tool_use <nil> " + counted},
		},
		{
			"calls at the same time",
			calling(0, "c1", "f", `{"a`) + calling(1, "c2", "g", `{"b`) + calling(0, "", "", `":1}`) + calling(1, "", "", `":2}`) + finish("tool_calls") + total + done,
			[]string{
				tool("c1", "f"), `input_json_delta {"a`, `input_json_delta ":1}`, "-",
				tool("c2", "g"), `input_json_delta {"b`, `input_json_delta ":2}`, "-", "tool_use <nil> " + counted,
			},
		},
		{
			"a call without arguments, and one after it", calling(0, "c1", "f", "") + calling(1, "c2", "g", ` {"b":`) + calling(1, "", "", `2}`) + finish("tool_calls") + total + done,
			[]string{tool("c1", "f"), "input_json_delta {}", "-", tool("c2", "g"), `input_json_delta {"b":2}`, "-", "tool_use <nil> " + counted},
		},
		{
			"calls that share an index", calling(0, "c1", "f", "{}") + calling(0, "c2", "g", "{}") + finish("stop") + total + done,
			[]string{tool("c1", "f"), "input_json_delta {}", "-", tool("c2", "g"), "input_json_delta {}", "-", "tool_use <nil> " + counted},
		},
		{
			"arguments that are no object", calling(0, "", "f", `"{\"a\"`) + calling(0, "", "", `:1}"`) + calling(1, "", "g", "nul") + finish("stop") + total + done,
			[]string{
				tool("toolu_*", "f"), `input_json_delta {"a":1}`, "-",
				tool("toolu_*", "g"), "input_json_delta {}", "-", "tool_use <nil> " + counted,
			},
		},
		{
			"arguments that are cut", calling(0, "c", "f", `{"a":"b`) + finish("length") + total + done,
			[]string{tool("c", "f"), `input_json_delta {"a":"b`, "-", "max_tokens <nil> " + counted},
		},
		{"a call that never gets a name", calling(0, "c", "", `{}`) + finish("tool_calls") + total + done, []string{"end_turn <nil> " + counted}},
		{
			"text after calls", calling(0, "c", "f", `{"a":`) + chunkWith("content", "\n") + chunkWith("content", "b") + calling(0, "", "", `1}`) + finish("tool_calls") + total + done,
			[]string{tool("c", "f"), `input_json_delta {"a":`, `input_json_delta 1}`, "-", text, "text_delta \nb", "-", "tool_use <nil> " + counted},
		},
		{
			"thoughts after text", chunkWith("content", "a") + chunkWith("reasoning", "h") + chunkWith("content", "b") + finish("stop") + total + done,
			[]string{
				text, "text_delta a", "-", thought, "thinking_delta h", "signature_delta ", "-", text, "text_delta b", "-", "end_turn <nil> " + counted,
			},
		},
		{"refusal", chunkWith("refusal", "no") + finish("stop") + total + done, []string{text, "text_delta no", "-", "refusal <nil> " + counted}},
		{
			"wait in between", chunkWith("content", "a") + ": wait\n" + chunkWith("content", "b") + finish("stop") + total + done,
			[]string{text, "text_delta a", "ping", "text_delta b", "-", "end_turn <nil> " + counted},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := asks(hi, `,"stream":true`)
			whole := streamed(t, body, c.said, len(c.said))
			want := append(append([]string{"message_start", "ping"}, c.want...), "message_stop")
			if got := brief(t, whole); !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if cut := streamed(t, body, c.said, 1); cut != whole {
				t.Errorf("in bytes:\n%s\nwhole:\n%s", cut, whole)
			}
		})
	}
}

func TestStreamsBeginWithAMessage(t *testing.T) {
	got := streamed(t, asks(hi, `,"stream":true`), ": wait\n: wait\n\n"+delta(`"role":"assistant"`)+finish("stop")+done, 7)
	const want = "event: ping\ndata: {\"type\": \"ping\"}\n\n" + "event: ping\ndata: {\"type\": \"ping\"}\n\n" +
		"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_*\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\"," +
		"\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":0,\"cache_creation_input_tokens\":0," +
		"\"cache_read_input_tokens\":0,\"output_tokens\":0}}}\n\n" + "event: ping\ndata: {\"type\": \"ping\"}\n\n"
	if !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestStreamsThatWarmSayNothing(t *testing.T) {
	body := `{"model":"m","max_tokens":0,"stream":true,"messages":` + hi + `}`
	got := brief(t, streamed(t, body, chunkWith("content", "x")+finish("length")+total+done, 1<<20))
	want := []string{
		"message_start", "ping",
		`max_tokens <nil> {"input_tokens":4,"cache_creation_input_tokens":0,"cache_read_input_tokens":6,"output_tokens":0}`, "message_stop",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestStreamsFail(t *testing.T) {
	body := asks(hi, `,"stream":true`)
	for _, c := range []struct{ name, said, want string }{
		{"at once", `data: {"error":{"message":"loading","code":503}}` + "\n\n", `{"type":"overloaded_error","message":"loading"}`},
		{"in the middle", chunkWith("content", "a") + `data: {"error":{"message":"no"}}` + "\n\n", `{"type":"api_error","message":"no"}`},
		{"by their end", chunkWith("content", "a"), `{"type":"api_error","message":"the engine ended in the middle of the answer"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			whole := streamed(t, body, c.said, len(c.said))
			got := brief(t, whole)
			if got[len(got)-1] != c.want || !strings.HasSuffix(whole, ",\"request_id\":null}\n\n") {
				t.Errorf("got %s", whole)
			}
		})
	}
}

func TestErrorsBeforeAnAnswer(t *testing.T) {
	rec := httptest.NewRecorder()
	w := dialect.NewWriter(rec, ErrorBody)
	_, err := Messages([]byte(`{"model":"m"}`))
	var e *openai.Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	e.WriteTo(w)
	w.Close()
	if rec.Code != 400 {
		t.Errorf("status %d", rec.Code)
	}
	sameJSON(t, rec.Body.Bytes(), `{"type":"error","error":{"type":"invalid_request_error","message":"\"max_tokens\" is required"}}`)
}

// FuzzStream: whatever an engine sends, the events are in order.
func FuzzStream(f *testing.F) {
	f.Add([]byte(chunkWith("reasoning", "h")+chunkWith("content", " a")+calling(0, "c", "f", `{"a`)+calling(1, "", "g", `{}`)+calling(0, "", "", `":1}`)+chunkWith("content", "b")+finish("stop")+total+done), 5)
	f.Add([]byte(calling(0, "a", "", "x")+calling(0, "b", "f", "")+finish("length")), 1)
	f.Fuzz(func(t *testing.T, said []byte, size int) {
		got := brief(t, streamed(t, asks(hi, `,"stream":true`), string(said)+"\n\n", 1+max(0, size)%1000))
		if last := got[len(got)-1]; last != "message_stop" && !strings.HasPrefix(last, `{"type":`) {
			t.Fatalf("it ends with %q", last)
		}
	})
}
