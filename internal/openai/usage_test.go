package openai

import (
	"strings"
	"testing"
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

func BenchmarkUsageTap(b *testing.B) {
	var tap UsageTap
	chunk := []byte(strings.Repeat("x", 200))
	b.ReportAllocs()
	for b.Loop() {
		_, _ = tap.Write(chunk)
	}
}
