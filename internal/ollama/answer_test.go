package ollama

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"assistant/internal/openai"
)

func TestAnswersAreOllamas(t *testing.T) {
	const (
		told  = `,"usage":{"prompt_tokens":10,"completion_tokens":4},"timings":{"prompt_ms":1,"predicted_ms":2}}`
		ended = `,"done":true,"total_duration":5000000,"load_duration":2000000,"prompt_eval_count":10,"prompt_eval_duration":1000000,"eval_count":4,"eval_duration":2000000}`
	)
	says := func(message, finish string) string {
		return `{"id":"x","model":"file.gguf","choices":[{"index":0,"finish_reason":"` + finish + `","message":` + message + `}]` + told
	}
	is := func(message, reason string) string {
		return `{"model":"m:latest","created_at":"2000-01-01T00:00:00.005Z",` + message + `,"done_reason":"` + reason + `"` + ended
	}
	chat := func(message string) string { return `"message":{"role":"assistant",` + message + `}` }
	call := func(id, arguments string) string {
		return `{"id":"` + id + `","type":"function","function":{"name":"f","arguments":` + arguments + `}}`
	}
	const plain, prompts = `{"model":"m:latest","stream":false,"messages":` + hi + `}`, `{"model":"m:latest","stream":false,"prompt":"hi"}`
	for _, c := range []struct {
		name         string
		read         func([]byte) (*Call, error)
		ask          string
		answer, want string
	}{
		{"text", Chat, plain, says(`{"content":"hi <b>"}`, "stop"), is(chat(`"content":"hi <b>"`), "stop")},
		{"cut", Chat, plain, says(`{"content":"hi"}`, "length"), is(chat(`"content":"hi"`), "length")},
		{"refused", Chat, plain, says(`{"content":null,"refusal":"no"}`, "stop"), is(chat(`"content":"no"`), "stop")},
		{"nothing", Chat, plain, `{"choices":[]` + told, is(chat(`"content":""`), "stop")},
		{"thoughts", Chat, plain, says(`{"reasoning_content":"h","content":"a"}`, "stop"), is(chat(`"content":"a","thinking":"h"`), "stop")},
		{
			"calls", Chat, plain, says(`{"content":null,"tool_calls":[`+call("c1", `"{\"a\": 1}"`)+`,`+call("", `""`)+`]}`, "tool_calls"),
			is(chat(`"content":"","tool_calls":[{"id":"c1","function":{"index":0,"name":"f","arguments":{"a":1}}},`+
				`{"id":"call_*","function":{"index":1,"name":"f","arguments":{}}}]`), "stop"),
		},
		{"a call that is cut", Chat, plain, says(`{"content":"a","tool_calls":[`+call("c1", `"{\"a"`)+`]}`, "length"), is(chat(`"content":"a"`), "length")},
		{"a prompt's", Generate, prompts, says(`{"content":"a","reasoning":"h"}`, "stop"), is(`"response":"a","thinking":"h"`, "stop")},
		{
			"a raw prompt's", Generate, strings.Replace(prompts, `"prompt"`, `"raw":true,"prompt"`, 1),
			`{"choices":[{"index":0,"finish_reason":"length","text":"a"}]` + told, is(`"response":"a"`, "length"),
		},
		{
			"likely", Chat, strings.Replace(plain, `"stream"`, `"logprobs":true,"top_logprobs":1,"stream"`, 1),
			`{"choices":[{"finish_reason":"stop","message":{"content":"a"},` + probable + `}]` + told, is(chat(`"content":"a"`)+`,`+likely, "stop"),
		},
		{
			"that goes on", Chat, strings.Replace(plain, hi, `[{"role":"user","content":"q"},{"role":"assistant","content":"It is \u00e9("}]`, 1),
			says(`{"content":"It is é(A)"}`, "stop"), is(chat(`"content":"A)"`), "stop"),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := mustCall(t, c.read, c.ask)
				time.Sleep(5 * time.Millisecond)
				got, err := asked.Whole([]byte(c.answer))
				if err != nil {
					t.Fatal(err)
				}
				sameJSON(t, ids.ReplaceAll(got, []byte("call_*")), c.want)
			})
		})
	}
}

func TestOnlyTheWholeTimeIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := mustCall(t, Chat, asks(hi, ""))
		time.Sleep(time.Second)
		got, err := asked.Whole([]byte(`{"choices":[{"message":{"content":"a"}}]}`))
		if err != nil || !strings.HasSuffix(string(got), `"total_duration":1000000000,"load_duration":0,"prompt_eval_count":0,"prompt_eval_duration":0,"eval_count":0,"eval_duration":0}`) {
			t.Errorf("got %s, %v", got, err)
		}
	})
}

func TestVectorsAreOllamas(t *testing.T) {
	const answer = `{"data":[{"index":1,"embedding":[3,4.0e0,5]},{"index":0,"embedding":[0.6,0.8,0.0]}],"usage":{"prompt_tokens":7}}`
	const both = `{"model":"m:latest","input":["a","b"]`
	for _, c := range []struct {
		name         string
		read         func([]byte) (*Call, error)
		ask          string
		answer, want string
	}{
		{"as they are", Embed, both + `}`, answer, `{"model":"m:latest","embeddings":[[0.6,0.8,0.0],[3,4.0e0,5]],"total_duration":5000000,"load_duration":0,"prompt_eval_count":7}`},
		{"shortened", Embed, both + `,"dimensions":2}`, answer, `{"model":"m:latest","embeddings":[[0.6,0.8],[0.6,0.8]],"total_duration":5000000,"load_duration":0,"prompt_eval_count":7}`},
		{"short", Embed, both + `,"dimensions":3}`, answer, `{"model":"m:latest","embeddings":[[0.6,0.8,0.0],[3,4.0e0,5]],"total_duration":5000000,"load_duration":0,"prompt_eval_count":7}`},
		{"of old", Embeddings, `{"model":"m","prompt":"a"}`, `{"data":[{"index":0,"embedding":[1,2]}]}`, `{"embedding":[1,2]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := mustCall(t, c.read, c.ask)
				time.Sleep(5 * time.Millisecond)
				got, err := asked.Whole([]byte(c.answer))
				if err != nil || string(got) != c.want {
					t.Errorf("got %s, %v, want %s", got, err, c.want)
				}
			})
		})
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	for _, c := range []struct {
		call           *Call
		answer, blames string
	}{
		{mustCall(t, Chat, asks(hi, "")), ``, "the engine's answer"},
		{mustCall(t, Chat, asks(hi, "")), `{"error":{"message":"no","code":503}}`, "no"},
		{mustCall(t, Embed, `{"model":"m","input":"a"}`), `{"data":`, "the engine's answer"},
		{mustCall(t, Embed, `{"model":"m","input":"a"}`), `{"error":{"message":"too long","code":400}}`, "too long"},
		{mustCall(t, Embed, `{"model":"m","input":"a"}`), `{"data":[]}`, "lacks vector 0 of 1"},
		{mustCall(t, Embed, `{"model":"m","input":"a"}`), `{"data":[{"index":1,"embedding":[]}]}`, "has vector 1 of 1"},
		{mustCall(t, Embed, `{"model":"m","input":"a","dimensions":1}`), `{"data":[{"index":0,"embedding":["a",1]}]}`, "the engine's answer"},
		{mustCall(t, Embed, `{"model":"m","input":"a"}`), `{"data":[{"index":0,"embedding":"AAAA"}]}`, "vector 0 is no list"},
		{mustCall(t, Embed, `{"model":"m","input":"a"}`), `{"data":[{"index":0,"embedding":null}]}`, "vector 0 is no list"},
		{mustCall(t, Embed, `{"model":"m","input":"a"}`), `{"data":[{"index":0}]}`, "vector 0 is no list"},
		{mustCall(t, Embeddings, `{"model":"m","prompt":"a"}`), `{}`, "lacks vector 0 of 1"},
	} {
		got, err := c.call.Whole([]byte(c.answer))
		if err == nil || !strings.Contains(err.Error(), c.blames) {
			t.Errorf("%q gives %s, %v", c.answer, got, err)
		}
		var e *openai.Error
		if errors.As(err, &e) && e.Status < 400 {
			t.Errorf("%q: status %d", c.answer, e.Status)
		}
	}
}
