package ollama

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"assistant/internal/dialect"
	"assistant/internal/openai"
)

const (
	done  = "data: [DONE]\n\n"
	total = `data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":4}}` + "\n\n"
)

var (
	times = regexp.MustCompile(`"created_at":"[^"]*"`)
	ids   = regexp.MustCompile(`call_[0-9a-f]{24}`)
)

// delta is a chunk.
func delta(fields string) string {
	return `data: {"id":"x","model":"file.gguf","choices":[{"index":0,"delta":{` + fields + `},"finish_reason":null}]}` + "\n\n"
}

func chunkWith(field, text string) string {
	return delta(fmt.Sprintf("%q:%s", field, openai.Marshal(text)))
}

// completing is a chunk of a text completion.
func completing(text, finish string) string {
	return fmt.Sprintf(`data: {"choices":[{"index":0,"text":%s,"finish_reason":%s}]}`+"\n\n", openai.Marshal(text), finish)
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
func streamed(t *testing.T, read func([]byte) (*Call, error), body, said string, size int) string {
	t.Helper()
	rec := httptest.NewRecorder()
	w := dialect.NewWriter(rec, ErrorBody)
	w.Answers(mustCall(t, read, body))
	for piece := range slices.Chunk([]byte(said), size) {
		if _, err := w.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	if got := rec.Header().Get("Content-Type"); got != "application/x-ndjson" {
		t.Errorf("Content-Type %q", got)
	}
	return ids.ReplaceAllString(rec.Body.String(), "call_*")
}

// brief makes of each line what changes.
func brief(stream string) (lines []string) {
	for line := range strings.Lines(stream) {
		line = strings.TrimSuffix(line, "\n")
		line = strings.TrimPrefix(line, `{"model":"m:latest","created_at":"2000-01-01T00:00:00Z",`)
		line = strings.Replace(line, `"message":{"role":"assistant","content":`, "{", 1)
		line = strings.TrimSuffix(line, `},"done":false}`)
		lines = append(lines, line)
	}
	return lines
}

func TestStreamsAreMadeLines(t *testing.T) {
	ends := func(reason string) string {
		return `{""},"done":true,"done_reason":"` + reason + `","total_duration":0,"load_duration":0,"prompt_eval_count":10,"prompt_eval_duration":0,"eval_count":4,"eval_duration":0}`
	}
	tool := func(id string, index int, name, arguments string) string {
		return fmt.Sprintf(`{"id":%q,"function":{"index":%d,"name":%q,"arguments":%s}}`, id, index, name, arguments)
	}
	tools := func(list ...string) string { return `{"","tool_calls":[` + strings.Join(list, ",") + `]` }
	for _, c := range []struct {
		name, said string
		want       []string
	}{
		{
			"text", delta(`"role":"assistant","content":null`) + chunkWith("content", "a <b>\n") + chunkWith("content", "c") + finish("stop") + total + done,
			[]string{`{"a <b>\n"`, `{"c"`, ends("stop")},
		},
		{"cut", chunkWith("content", "a") + finish("length") + total + done, []string{`{"a"`, ends("length")}},
		{"filtered", finish("content_filter") + total + done, []string{ends("stop")}},
		{"waiting", ": wait\n: wait\n\n" + chunkWith("content", "a") + finish("stop") + total + done, []string{`{"a"`, ends("stop")}},
		{"refusal", chunkWith("refusal", "no") + finish("stop") + total + done, []string{`{"no"`, ends("stop")}},
		{
			"thoughts", chunkWith("reasoning_content", "h") + chunkWith("reasoning", "m") + chunkWith("content", "a") + finish("stop") + total + done,
			[]string{`{"","thinking":"h"`, `{"","thinking":"m"`, `{"a"`, ends("stop")},
		},
		{
			"a call", chunkWith("content", "a") + calling(0, "c1", "f", "") + calling(0, "", "", `{"a":`) + calling(0, "", "", ` 1}`) + finish("tool_calls") + total + done,
			[]string{`{"a"`, tools(tool("c1", 0, "f", `{"a":1}`)), ends("stop")},
		},
		{
			"calls one after another", calling(0, "c1", "f", `{}`) + calling(1, "c2", "g", ``) + chunkWith("content", "b") + calling(1, "", "", `{"b":2}`) + finish("tool_calls") + total + done,
			[]string{tools(tool("c1", 0, "f", `{}`)), `{"b"`, tools(tool("c2", 1, "g", `{"b":2}`)), ends("stop")},
		},
		{
			"calls in turns", calling(0, "c1", "f", `{"a":`) + calling(1, "c2", "g", `{"b":`) + calling(0, "", "", `1}`) + calling(1, "", "", `2}`) + finish("tool_calls") + total + done,
			[]string{tools(tool("c1", 0, "f", `{"a":1}`)), tools(tool("c2", 1, "g", `{"b":2}`)), ends("stop")},
		},
		{
			"calls that share an index, without ids", calling(0, "", "f", "{}") + calling(0, "", "g", "") + finish("stop") + total + done,
			[]string{tools(tool("call_*", 0, "f", `{}`)), tools(tool("call_*", 1, "g", `{}`)), ends("stop")},
		},
		{
			"calls without a name and with broken arguments", calling(0, "c", "", "{}") + calling(1, "d", "f", `"{\"a\":1}"`) + calling(2, "e", "g", "nul") + finish("stop") + total + done,
			[]string{tools(tool("d", 0, "f", `{"a":1}`), tool("e", 1, "g", `{}`)), ends("stop")},
		},
		{"a call that is cut", calling(0, "c", "f", "{}") + calling(1, "d", "g", `{"a":"b`) + finish("length") + total + done, []string{tools(tool("c", 0, "f", "{}")), ends("length")}},
		{"an error at once", `data: {"error":{"message":"loading","code":503}}` + "\n\n", []string{`{"error":"loading"}`}},
		{"an error in the middle", chunkWith("content", "a") + `data: {"error":{"message":"no"}}` + "\n\n", []string{`{"a"`, `{"error":"no"}`}},
		{"no end", chunkWith("content", "a"), []string{`{"a"`, `{"error":"the engine ended in the middle of the answer"}`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const body = `{"model":"m:latest","messages":` + hi + `}`
				whole := streamed(t, Chat, body, c.said, len(c.said))
				if got := brief(whole); !slices.Equal(got, c.want) {
					t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
				}
				if cut := streamed(t, Chat, body, c.said, 1); cut != whole {
					t.Errorf("in bytes:\n%s\nwhole:\n%s", cut, whole)
				}
			})
		})
	}
}

func TestStreamsOfPrompts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const end = `,"done":true,"done_reason":"stop","total_duration":0,"load_duration":0,"prompt_eval_count":10,"prompt_eval_duration":0,"eval_count":4,"eval_duration":0}` + "\n"
		const begin = `{"model":"m","created_at":"2000-01-01T00:00:00Z","response":`
		for _, c := range []struct{ body, said, want string }{
			{
				`{"model":"m","prompt":"hi"}`, chunkWith("reasoning", "h") + chunkWith("content", "a") + finish("stop") + total + done,
				begin + `"","thinking":"h","done":false}` + "\n" + begin + `"a","done":false}` + "\n" + begin + `""` + end,
			},
			{
				`{"model":"m","prompt":"hi","raw":true}`, completing("a", "null") + completing("", `"stop"`) + total + done,
				begin + `"a","done":false}` + "\n" + begin + `""` + end,
			},
		} {
			if got := streamed(t, Generate, c.body, c.said, 5); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		}
	})
}

func TestTimesAreToldOrSeen(t *testing.T) {
	for _, c := range []struct {
		name, total string
		want        metrics
	}{
		{"seen", total, metrics{Total: 7 * time.Second, Prompt: 10, PromptEval: 5 * time.Second, Completion: 4, Eval: 2 * time.Second}},
		{
			"told", `data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":4},"timings":{"prompt_ms":500,"predicted_ms":1500.5}}` + "\n\n",
			metrics{Total: 7 * time.Second, Load: 4999500 * time.Microsecond, Prompt: 10, PromptEval: 500 * time.Millisecond, Completion: 4, Eval: 1500500 * time.Microsecond},
		},
		{"not told", "", metrics{Total: 7 * time.Second, PromptEval: 5 * time.Second, Eval: 2 * time.Second}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rec := httptest.NewRecorder()
				w := dialect.NewWriter(rec, ErrorBody)
				w.Answers(mustCall(t, Chat, `{"model":"m","messages":`+hi+`}`))
				w.WriteHeader(http.StatusOK)
				time.Sleep(5 * time.Second)
				_, _ = w.Write([]byte(delta(`"role":"assistant"`) + chunkWith("content", "a")))
				time.Sleep(2 * time.Second)
				_, _ = w.Write([]byte(finish("stop") + c.total + done))
				w.Close()
				lines := strings.Split(strings.TrimSpace(rec.Body.String()), "\n")
				var got struct {
					CreatedAt time.Time `json:"created_at"`
					metrics
				}
				if err := json.Unmarshal([]byte(lines[len(lines)-1]), &got); err != nil {
					t.Fatal(err)
				}
				if got.metrics != c.want || !got.CreatedAt.Equal(time.Now()) {
					t.Errorf("got %+v, want %+v", got, c.want)
				}
			})
		})
	}
}

const (
	probable = `"logprobs":{"content":[{"id":3,"token":"a","bytes":[97],"logprob":-0.5,"top_logprobs":[{"id":3,"token":"a","bytes":[97],"logprob":-0.5},{"token":"b","logprob":-1}]}]}`
	likely   = `"logprobs":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"a","logprob":-0.5,"bytes":[97]}]}]`
)

func TestLogprobsAreToldIfTheyAreWanted(t *testing.T) {
	said := `data: {"choices":[{"index":0,"delta":{"content":"a"},` + probable + `}]}` + "\n\n" + `data: {"choices":[{"index":0,"delta":{},` + probable + `}]}` + "\n\n" +
		`data: {"choices":[{"index":0,"delta":{},"logprobs":"?"}]}` + "\n\n" + finish("stop") + done
	for more, want := range map[string]int{"": 0, `,"logprobs":true,"top_logprobs":1`: 2} {
		got := streamed(t, Chat, `{"model":"m","messages":`+hi+more+`}`, said, 1<<20)
		if strings.Count(got, likely) != want || strings.Count(got, "logprobs\":[") != 2*want {
			t.Errorf("%s: got %s", more, got)
		}
	}
}

func TestErrorsBeforeAnAnswer(t *testing.T) {
	rec := httptest.NewRecorder()
	w := dialect.NewWriter(rec, ErrorBody)
	_, err := Chat([]byte(`{}`))
	var e *openai.Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	e.WriteTo(w)
	w.Close()
	if rec.Code != 400 {
		t.Errorf("status %d", rec.Code)
	}
	sameJSON(t, rec.Body.Bytes(), `{"error":"you must name a model in \"model\""}`)
}

// FuzzStream: whatever an engine sends, each line is JSON and the last one says that it is.
func FuzzStream(f *testing.F) {
	f.Add([]byte(chunkWith("reasoning", "h")+chunkWith("content", " a")+calling(0, "c", "f", `{"a`)+calling(1, "", "g", `{}`)+calling(0, "", "", `":1}`)+chunkWith("content", "b")+finish("stop")+total+done), 5)
	f.Add([]byte(calling(0, "a", "", "x")+calling(0, "b", "f", "")+finish("length")), 1)
	f.Add([]byte(`data: {"choices":[{"text":"a","logprobs":{"content":[{"token":"a"}]}}],"timings":{"prompt_ms":1e300}}`+"\n\n"+done), 3)
	f.Fuzz(func(t *testing.T, said []byte, size int) {
		got := streamed(t, Chat, `{"model":"m","logprobs":true,"messages":`+hi+`}`, string(said)+"\n\n", 1+max(0, size)%1000)
		lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
		for i, line := range lines {
			var is struct {
				Done  bool
				Error *string
			}
			if err := json.Unmarshal([]byte(line), &is); err != nil || (is.Done || is.Error != nil) != (i == len(lines)-1) {
				t.Fatalf("line %d of %d: %q, %v", i, len(lines), line, err)
			}
		}
	})
}
