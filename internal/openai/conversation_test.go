package openai

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// key scans a body and makes its key.
func key(t *testing.T, body string) uint64 {
	t.Helper()
	req, err := Scan([]byte(body))
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return ConversationKey([]byte(body), req)
}

func TestConversationKeyOfTurns(t *testing.T) {
	long := strings.Repeat("x", 100<<10)
	image := `[{"type":"text","text":"what is it?"},{"type":"image_url","image_url":{"url":"data:` + long + `"}}]`
	for _, tt := range []struct {
		name  string
		turns []string // of one conversation
	}{
		{"chat", []string{
			`{"messages":[{"role":"user","content":"a"}]}`,
			`{"model":"m","messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}],"stream":true}`,
			"{ \"messages\" :\t[ {\"role\":\"user\",\"content\":\"a\"} ,{\"role\":\"assistant\"}\n]}",
		}},
		{"system first", []string{
			`{"messages":[{"role":"system","content":"s"},{"role":"developer","content":"d"},{"role":"user","content":"a"}]}`,
			`{"messages":[{"role":"system","content":"s"},{"role":"developer","content":"d"},{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}`,
		}},
		{"content parts", []string{
			`{"messages":[{"role":"user","content":` + image + `}]}`,
			`{"messages":[{"role":"user","content":` + image + `},{"role":"tool"}],"tools":[{"role":"user"}]}`,
		}},
		{"cut", []string{
			`{"messages":[{"role":"system","content":"` + long + `"},{"role":"user","content":"a"}]}`,
			`{"messages":[{"role":"system","content":"` + long + `"},{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}`,
		}},
		{"cut in a number", []string{
			`{"messages":[` + strings.Repeat("1234567,", 8192) + `23456789,{"role":"user"}]}`,
			`{"messages":[` + strings.Repeat("1234567,", 8192) + `23456789,{"role":"user"},{}]}`,
		}},
		{"escaped role", []string{`{"messages":[{"r\u006fle":"\u0075ser","content":"a"}]}`, `{"messages":[{"r\u006fle":"\u0075ser","content":"a"},{}]}`}},
		{"not all objects", []string{`{"messages":[1,"user",[{"role":"user"}],null,{"role":"user"}]}`, `{"messages":[1,"user",[{"role":"user"}],null,{"role":"user"},2]}`}},
		{"prompt", []string{
			`{"prompt":"` + strings.Repeat("once upon a time ", 40) + `"}`,
			`{"prompt":"` + strings.Repeat("once upon a time ", 41) + `"}`,
		}},
		{"prompts", []string{`{"prompt":["a","b"]}`, `{"prompt":[ "a" ]}`, `{"prompt":"a"}`}},
		{"tokens", []string{`{"prompt":[1,2,3]}`, `{"prompt": [1,2,3]}`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := key(t, tt.turns[0])
			if want == 0 {
				t.Fatal("no key")
			}
			for _, turn := range tt.turns[1:] {
				if got := key(t, turn); got != want {
					t.Errorf("a turn has key %x, the first has %x: %.200s", got, want, turn)
				}
			}
		})
	}
}

func TestConversationKeysDiffer(t *testing.T) {
	bodies := []string{
		`{"messages":[{"role":"user","content":"a"}]}`,
		`{"messages":[{"role":"user","content":"b"}]}`,
		`{"messages":[{"role":"system","content":"s"},{"role":"user","content":"a"}]}`,
		`{"messages":[{"role":"system","content":"s"},{"role":"system","content":"s"},{"role":"user","content":"a"}]}`,
		`{"messages":[{"role":"user","content":[{"type":"text","text":"a"}]}]}`,
		`{"messages":[{"role":"assistant","role":"user","content":"a"}]}`,
		`{"prompt":"a"}`, `{"prompt":"b"}`, `{"prompt":[1,2]}`, `{"prompt":[[1],[2]]}`,
	}
	seen := map[uint64]string{}
	for _, body := range bodies {
		k := key(t, body)
		if other, ok := seen[k]; ok || k == 0 {
			t.Errorf("%s and %s both have key %x", body, other, k)
		}
		seen[k] = body
	}
}

func TestNoConversationKey(t *testing.T) {
	for _, body := range []string{
		`{}`, `{"messages":[]}`, `{"messages":null}`, `{"messages":{"role":"user"}}`, `{"messages":"user"}`,
		`{"messages":[{"role":"system","content":"s"}]}`, `{"messages":[{"role":"user","role":"assistant"}]}`,
		`{"prompt":""}`, `{"prompt":null}`, `{"prompt":1}`, `{"prompt":[]}`, `{"prompt":{}}`, `{"input":"a"}`,
	} {
		if got := key(t, body); got != 0 {
			t.Errorf("%s has key %x, want none", body, got)
		}
	}
}

// referenceKey is ConversationKey of a chat by encoding/json.
func referenceKey(messages json.RawMessage) uint64 {
	var elements []json.RawMessage
	if json.Unmarshal(messages, &elements) != nil {
		return 0
	}
	var text []byte
	for _, e := range elements {
		e = bytes.TrimSpace(e)
		text = append(append(text, e...), 0)
		if isUser(e) {
			return max(1, xxhash.Sum64(text))
		}
	}
	return 0
}

// isUser reports whether a message's last role, named exactly so, is "user".
func isUser(message []byte) (user bool) {
	d := json.NewDecoder(bytes.NewReader(message))
	if open, _ := d.Token(); open != json.Delim('{') {
		return false
	}
	for d.More() {
		name, _ := d.Token()
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return false
		}
		if name == "role" {
			var role any
			_ = json.Unmarshal(value, &role)
			user = role == "user"
		}
	}
	return user
}

func FuzzConversationKey(f *testing.F) {
	for _, seed := range []string{
		`[]`, `[{"role":"user"}]`, `[ {"role":"system"} , {"role":"user","content":[{"a":1}]},{"role":"user"}]`,
		`[{"r\u006fle":"user"}]`, `[{"role":"user","role":1}]`, `[1,[2],"user",null,{"role":"us\u0065r"}]`, `{"role":"user"}`, `"user"`,
		`[{"content":"\ud800","role":"user"}]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, messages []byte) {
		body := fmt.Appendf(nil, `{"model":"m","messages":%s}`, messages)
		var fields map[string]json.RawMessage
		if len(messages) > maxKeyed || json.Unmarshal(body, &fields) != nil || len(fields) != 2 {
			return
		}
		req, err := Scan(body)
		if err != nil {
			return
		}
		if got, want := ConversationKey(body, req), referenceKey(fields["messages"]); got != want {
			t.Errorf("%s: key %x, want %x", messages, got, want)
		}
	})
}

func TestConversationKeyAllocatesNothing(t *testing.T) {
	body := []byte(longChat(8 << 10))
	req, err := Scan(body)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { ConversationKey(body, req) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// longChat is a chat whose first user message has n bytes.
func longChat(n int) string {
	return `{"model":"m","messages":[{"role":"system","content":"You help."},{"role":"user","content":"` + strings.Repeat("a", n) + `"},{"role":"assistant","content":"b"}]}`
}

func BenchmarkConversationKey(b *testing.B) {
	for _, n := range []int{1 << 10, 64 << 10, 8 << 20} {
		body := []byte(longChat(n))
		req, err := Scan(body)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprint(n>>10, "KiB"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ConversationKey(body, req)
			}
		})
	}
}
