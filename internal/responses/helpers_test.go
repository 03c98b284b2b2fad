package responses

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"assistant/internal/dialect"
	"assistant/internal/openai"
)

func create(t testing.TB, s *Store, owner, body string) *Call {
	t.Helper()
	call, err := s.Create(owner, []byte(body))
	if err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return call.(*Call)
}

// whole answers a call, and returns the response.
func whole(t testing.TB, c *Call, message, finish string) map[string]any {
	t.Helper()
	answer, err := c.Whole([]byte(`{"choices":[{"index":0,"message":` + message + `,"finish_reason":"` + finish + `"}],` +
		`"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12,"prompt_tokens_details":{"cached_tokens":3}}}`))
	if err != nil {
		t.Fatal(err)
	}
	return parsed(t, answer)
}

// stored creates a response of a text and returns its id.
func stored(t testing.TB, s *Store, owner, body string) string {
	t.Helper()
	return whole(t, create(t, s, owner, body), `{"content":"yes"}`, "stop")["id"].(string)
}

func parsed(t testing.TB, data []byte) map[string]any {
	t.Helper()
	var of map[string]any
	if err := json.Unmarshal(data, &of); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	return of
}

// same compares JSON texts, in which what differs from run to run is written alike.
func same(t testing.TB, what string, got []byte, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(steady(string(got))), &g); err != nil {
		t.Fatalf("%s: %v: %s", what, err, got)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatalf("%s: %v: %s", what, err, want)
	}
	if diff := cmp.Diff(w, g); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

var (
	ids   = regexp.MustCompile(`[a-z]+_[0-9a-f]{48}`)
	times = regexp.MustCompile(`_at":\d+`)
)

// steady numbers the ids of each kind, and takes the times away.
func steady(text string) string {
	known, count := map[string]string{}, map[string]int{}
	text = ids.ReplaceAllStringFunc(text, func(id string) string {
		if known[id] == "" {
			kind, _, _ := strings.Cut(id, "_")
			count[kind]++
			known[id] = fmt.Sprintf("%s_%d", kind, count[kind])
		}
		return known[id]
	})
	return times.ReplaceAllString(text, `_at":1`)
}

// blamed is an error's status and field.
func blamed(err error) string {
	var e *openai.Error
	if !errors.As(err, &e) {
		return fmt.Sprint(err)
	}
	return fmt.Sprint(e.Status, " ", e.Param)
}

// sse is a stream of chat completions of these deltas, each an object.
func sse(finish string, deltas ...string) string {
	var b strings.Builder
	for _, delta := range deltas {
		fmt.Fprintf(&b, "data: {\"choices\":[{\"index\":0,\"delta\":%s,\"finish_reason\":null}]}\n\n", delta)
	}
	fmt.Fprintf(&b, "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":%q}]}\n\n", finish)
	b.WriteString(`data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":3}}}` + "\n\n")
	b.WriteString("data: [DONE]\n\n")
	return b.String()
}

// streamed is what a client is sent of a stream that comes in two pieces.
func streamed(c *Call, upstream string, cut int) string {
	rec := httptest.NewRecorder()
	w := dialect.NewWriter(rec, ErrorBody)
	w.Answers(c)
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write([]byte(upstream[:cut]))
	_, _ = w.Write([]byte(upstream[cut:]))
	w.Close()
	return rec.Body.String()
}

// told are the events of a stream, one a line: the type, where it is, and what it says.
func told(t testing.TB, stream string) string {
	t.Helper()
	var b strings.Builder
	for i, block := range strings.Split(strings.TrimSuffix(stream, "\n\n"), "\n\n") {
		for strings.HasPrefix(block, ":") {
			var comment string
			comment, block, _ = strings.Cut(block, "\n")
			b.WriteString(comment + "\n")
		}
		if block == "" {
			continue
		}
		name, data, _ := strings.Cut(block, "\ndata: ")
		e := parsed(t, []byte(data))
		if name != "event: "+e["type"].(string) {
			t.Errorf("event %d: %s", i, block)
		}
		b.WriteString(strings.TrimPrefix(e["type"].(string), "response."))
		for _, key := range []string{"output_index", "content_index", "delta", "text", "refusal", "name", "arguments", "input", "message"} {
			if value, ok := e[key]; ok {
				fmt.Fprintf(&b, " %v", value)
			}
		}
		for _, key := range []string{"item", "part", "response"} {
			if value, ok := e[key].(map[string]any); ok {
				fmt.Fprintf(&b, " %v", value["type"])
				if status, ok := value["status"]; ok {
					fmt.Fprintf(&b, " %v", status)
				}
			}
		}
		b.WriteByte('\n')
	}
	return strings.ReplaceAll(b.String(), " <nil> ", " ")
}

// last is the data of a stream's last event.
func last(t testing.TB, stream string) map[string]any {
	t.Helper()
	return parsed(t, []byte(stream[strings.LastIndex(stream, "\ndata: ")+len("\ndata: "):]))
}
