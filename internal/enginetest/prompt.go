package enginetest

import (
	"encoding/json"
	"hash/fnv"
	"io"
	"net/http"
	"strings"
)

// applyTemplate is llama-server's /apply-template: what a chat's messages are as one text.
func applyTemplate(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || !json.Valid(body) {
		refuse(w, http.StatusBadRequest, "invalid_request_error", errSyntax.Error())
		return
	}
	send(w, map[string]string{"prompt": render(body)})
}

// tokenize is llama-server's /tokenize.
func tokenize(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Content string `json:"content"`
	}
	if json.NewDecoder(r.Body).Decode(&req) != nil {
		refuse(w, http.StatusBadRequest, "invalid_request_error", errSyntax.Error())
		return
	}
	send(w, map[string][]int32{"tokens": tokensOf(req.Content)})
}

// promptOf returns the tokens of a completion's prompt.
func promptOf(path string, body []byte) []int32 {
	if strings.HasSuffix(path, "/chat/completions") {
		return tokensOf(render(body))
	}
	var req struct {
		Prompt any `json:"prompt"`
	}
	_ = json.Unmarshal(body, &req) // it was read before; any prompt will do
	if text, ok := req.Prompt.(string); ok {
		return tokensOf(text)
	}
	return tokensOf("")
}

// render writes messages as ChatML does. What is not a string is taken as JSON.
func render(body []byte) string {
	var req struct {
		Messages []struct {
			Role    string          `json:"role"`
			Content json.RawMessage `json:"content"`
		} `json:"messages"`
	}
	_ = json.Unmarshal(body, &req) // it was read before; what can't be understood is not there
	var out strings.Builder
	for _, m := range req.Messages {
		var text string
		if json.Unmarshal(m.Content, &text) != nil {
			text = string(m.Content)
		}
		out.WriteString("<|im_start|>" + m.Role + "\n" + text + "<|im_end|>\n")
	}
	out.WriteString("<|im_start|>assistant\n")
	return out.String()
}

// tokensOf makes a token of each word, with the white space or mark that it begins with. The first is that of
// the beginning.
func tokensOf(text string) []int32 {
	tokens := []int32{1}
	for text != "" {
		end := strings.IndexAny(text[1:], " \n<") + 1
		if end == 0 {
			end = len(text)
		}
		h := fnv.New32a()
		_, _ = h.Write([]byte(text[:end])) // never fails
		tokens = append(tokens, int32(h.Sum32()>>1))
		text = text[end:]
	}
	return tokens
}
