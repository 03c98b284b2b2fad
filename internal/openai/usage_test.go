package openai

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestUsageTap(t *testing.T) {
	type tokens struct {
		prompt, completion int
		ok                 bool
	}
	all := recordings(t)
	vectors := strings.Repeat("0.123456,", 10_000) + "0"
	for _, tt := range []struct {
		name   string
		answer string
		want   tokens
	}{
		{"nothing", "", tokens{}},
		{"chat", string(all["chat_smol"].plain), tokens{37, 40, true}},
		{"chat stream", string(all["chat_smol"].stream), tokens{37, 40, true}},
		{"completion stream", string(all["completion_tiny"].stream), tokens{10, 201, true}},
		{"embeddings", `{"model":"m","object":"list","usage":{"prompt_tokens":7,"total_tokens":7},"data":[` + vectors + `]}`, tokens{7, 0, true}},
		{"null before", `data: {"usage":{"prompt_tokens":3,"completion_tokens":4}}` + "\n\n" + `data: {"choices":[],"usage":null}`, tokens{3, 4, true}},
		{"only null", `{"usage":null}`, tokens{}},
		{"white space", `{"usage" : { "completion_tokens" : 5, "prompt_tokens" : 6 } }`, tokens{6, 5, true}},
		{"responses", `{"usage":{"input_tokens":8,"output_tokens":9}}`, tokens{8, 9, true}},
		{"not asked for", `data: {"choices":[],"timings":{"cache_n":5,"prompt_n":2,"prompt_ms":1.5,"predicted_n":3}}` + "\n\ndata: [DONE]\n\n", tokens{7, 3, true}},
		{"no timings", `{"timings":null}`, tokens{}},
		{"the model writes of usage", `{"choices":[{"text":"\"usage\":{\"prompt_tokens\":1}"}]}`, tokens{}},
		{"error", `{"error":{"message":"x"}}`, tokens{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, size := range []int{1, 7, 4096, 1 << 20} {
				var tap UsageTap
				for rest := tt.answer; rest != ""; {
					n := min(size, len(rest))
					if wrote, err := tap.Write([]byte(rest[:n])); wrote != n || err != nil {
						t.Fatalf("wrote %d of %d, %v", wrote, n, err)
					}
					rest = rest[n:]
				}
				var got tokens
				got.prompt, got.completion, got.ok = tap.Tokens()
				if got != tt.want {
					t.Errorf("in pieces of %d: got %+v, want %+v", size, got, tt.want)
				}
			}
		})
	}
}

func TestUsageTapCountsEvents(t *testing.T) {
	var tap UsageTap
	for _, piece := range []string{"data: {\"text\":\"a\"}\n\n", ": waiting\n", "data: {}\r\n\r\ndata: [DONE]\r\n\r\n"} {
		tap.Write([]byte(piece))
	}
	if got := tap.Events(); got != 3 {
		t.Errorf("%d events", got)
	}
	if tap.Reset(); tap.Events() != 0 {
		t.Error("they are counted again")
	}
}

func BenchmarkUsageTap(b *testing.B) {
	var tap UsageTap
	chunk := []byte(strings.Repeat("x", 200))
	b.ReportAllocs()
	for b.Loop() {
		_, _ = tap.Write(chunk)
	}
}

func TestReuse(t *testing.T) {
	all := recordings(t)
	for _, tt := range []struct {
		name   string
		answer string
		want   Reuse
		ok     bool
	}{
		{"nothing", "", Reuse{}, false},
		{"chat", string(all["chat_smol"].plain), Reuse{0, 37, 0}, true},
		{"chat stream", string(all["chat_smol"].stream), Reuse{0, 37, 0}, true},
		{"completion stream", string(all["completion_tiny"].stream), Reuse{0, 10, 0}, true},
		{"hot", `{"usage":{"prompt_tokens":238},"timings":{"cache_n":224,"prompt_n":14,"prompt_ms":3463.4567}}`, Reuse{224, 14, 3463456 * time.Microsecond}, true},
		{"each token's", `data: {"timings":{"cache_n":1,"prompt_n":1}}` + "\n\n" + `data: {"timings" : { "prompt_n" : 3 , "cache_n" : 2 } }`, Reuse{2, 3, 0}, true},
		{"by usage", `{"usage":{"prompt_tokens":10,"prompt_tokens_details":{"cached_tokens":4}}}`, Reuse{4, 6, 0}, true},
		{"by usage, no timings", `{"timings":null,"usage":{"prompt_tokens":10,"prompt_tokens_details":{"cached_tokens":4}}}`, Reuse{4, 6, 0}, true},
		{"more than all", `{"usage":{"prompt_tokens":1,"prompt_tokens_details":{"cached_tokens":4}}}`, Reuse{}, false},
		{"huge", `{"timings":{"cache_n":99999999999999999999999,"prompt_n":1}}`, Reuse{}, false},
		{"the model writes of it", `{"choices":[{"text":"\"timings\":{\"cache_n\":1,\"prompt_n\":2}"}]}`, Reuse{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, size := range []int{1, 7, 4096, 1 << 20} {
				var tap UsageTap
				for rest := tt.answer; rest != ""; {
					n := min(size, len(rest))
					tap.Write([]byte(rest[:n]))
					rest = rest[n:]
				}
				got, ok := tap.Reuse()
				if tt.want.Took == 0 && got.Took > 0 && !strings.Contains(tt.name, "hot") {
					got.Took = 0 // recorded: as long as it took that day
				}
				if got != tt.want || ok != tt.ok {
					t.Errorf("in pieces of %d: got %+v %v, want %+v %v", size, got, ok, tt.want, tt.ok)
				}
				if again, _ := tap.Reuse(); again.Cached != tt.want.Cached || again.Computed != tt.want.Computed {
					t.Errorf("in pieces of %d: asked again, got %+v", size, again)
				}
			}
		})
	}
}

// What is asked at the end of every answer allocates nothing, however long the answer was.
func TestUsageTapAllocatesNothing(t *testing.T) {
	answer := append(bytes.Repeat([]byte("x"), 3*usageTail+11), recordings(t)["chat_smol"].plain...)
	var tap UsageTap
	tap.Write(answer)
	if n := testing.AllocsPerRun(100, func() {
		tap.Reset()
		tap.Write(answer)
		tap.Tokens()
		if r, ok := tap.Reuse(); !ok || r.Computed != 37 {
			t.Fatalf("got %+v %v", r, ok)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
