package enginetest

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"
)

// answer writes one completion in llama-server's shapes, of which
// internal/openai/testdata/join holds recordings.
type answer struct {
	chat    bool
	model   string // as asked, quoted
	id      string
	created int64
	tokens  int    // content tokens; the text is " 1 2 3 …"
	finish  string // stop or length
	prompt  int    // prompt tokens
	cached  int    // of these, how many the slot held
	garbled int    // added to the numbers of the text, if what the slot held was not what it should have been
}

// newAnswer decides how long the answer to r is. As with llama-server, asking
// for no tokens gives one, and an answer that was not cut has an invisible
// last token, which is counted.
func newAnswer(chat bool, r request, model string, id int64, bodyLen, tokens int) answer {
	a := answer{
		chat: chat, tokens: tokens, finish: "stop", created: time.Now().Unix(),
		model:  quote(model),
		id:     fmt.Sprintf("chatcmpl-%08x%024x", os.Getpid(), id),
		prompt: 1 + bodyLen/4,
	}
	limit := r.MaxTokens
	if limit == nil {
		limit = r.MaxCompletion
	}
	if limit != nil && *limit >= 0 && *limit <= tokens {
		a.tokens, a.finish = max(1, *limit), "length"
	}
	return a
}

func (a *answer) predicted() int {
	if a.finish == "stop" {
		return a.tokens + 1
	}
	return a.tokens
}

func (a *answer) object(chunk string) string {
	if a.chat {
		return "chat.completion" + chunk
	}
	return "text_completion"
}

// tail is what ends every object: usage and timings are at its end if asked for.
func (a *answer) tail(b []byte, object string, usage bool) []byte {
	b = append(b, `"created":`...)
	b = strconv.AppendInt(b, a.created, 10)
	b = append(b, `,"id":"`+a.id+`","model":`+a.model+`,"system_fingerprint":"b11669-fake","object":"`+object+`"`...)
	if usage {
		b = a.usage(b)
	}
	return b
}

func (a *answer) usage(b []byte) []byte {
	n := a.predicted()
	return fmt.Appendf(b, `,"usage":{"completion_tokens":%d,"prompt_tokens":%d,"total_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d}}`,
		n, a.prompt, n+a.prompt, a.cached)
}

// timings are those of an engine that needs 1 ms a token and 0.1 ms a prompt
// token, whatever the clock says, so that two answers to one request compare equal.
func (a *answer) timings(b []byte) []byte {
	n := a.predicted()
	return fmt.Appendf(b, `,"timings":{"cache_n":%d,"prompt_n":%d,"prompt_ms":%.1f,"prompt_per_token_ms":0.1,"prompt_per_second":10000.0,"predicted_n":%d,"predicted_ms":%d.0,"predicted_per_token_ms":1.0,"predicted_per_second":1000.0}`,
		a.cached, a.prompt-a.cached, float64(a.prompt-a.cached)/10, n, n)
}

// plain is the answer to a request that does not stream.
func (a *answer) plain() []byte {
	b := make([]byte, 0, 800+5*a.tokens)
	if a.chat {
		b = append(b, `{"choices":[{"finish_reason":"`+a.finish+`","index":0,"message":{"role":"assistant","content":"`...)
	} else {
		b = append(b, `{"choices":[{"text":"`...)
	}
	for i := range a.tokens {
		b = append(b, ' ')
		b = strconv.AppendInt(b, int64(i+1+a.garbled), 10)
	}
	if a.chat {
		b = append(b, `"}}],`...)
	} else {
		b = append(b, `","index":0,"logprobs":null,"finish_reason":"`+a.finish+`"}],`...)
	}
	b = a.tail(b, a.object(""), true)
	return append(a.timings(b), '}')
}

// role is the first chunk of a chat's stream.
func (a *answer) role(b []byte) []byte {
	b = append(b, `data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],`...)
	return append(a.tail(b, a.object(".chunk"), false), "}\n\n"...)
}

// token is the chunk of the n-th token, n from 1.
func (a *answer) token(b []byte, n int) []byte {
	if a.chat {
		b = append(b, `data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":" `...)
		b = strconv.AppendInt(b, int64(n+a.garbled), 10)
		b = append(b, `"}}],`...)
	} else {
		b = append(b, `data: {"choices":[{"text":" `...)
		b = strconv.AppendInt(b, int64(n+a.garbled), 10)
		b = append(b, `","index":0,"logprobs":null,"finish_reason":null}],`...)
	}
	return append(a.tail(b, a.object(".chunk"), false), "}\n\n"...)
}

// last is the chunk with the finish reason, then the one with the usage if it
// was asked for, then the end mark. The timings are in the last object of all.
func (a *answer) last(b []byte, usage bool) []byte {
	if !a.chat { // which shows the invisible token, and always says its usage, in the same chunk
		if a.finish == "stop" {
			b = append(b, `data: {"choices":[{"text":"","index":0,"logprobs":null,"finish_reason":null}],`...)
			b = append(a.tail(b, a.object(""), false), "}\n\n"...)
		}
		b = append(b, `data: {"choices":[{"text":"","index":0,"logprobs":null,"finish_reason":"`+a.finish+`"}],`...)
		b = a.tail(b, a.object(""), true)
		return append(a.timings(b), "}\n\ndata: [DONE]\n\n"...)
	}
	b = append(b, `data: {"choices":[{"finish_reason":"`+a.finish+`","index":0,"delta":{}}],`...)
	b = a.tail(b, a.object(".chunk"), false)
	if usage {
		b = append(b, "}\n\ndata: {\"choices\":[],"...)
		b = a.tail(b, a.object(".chunk"), true)
	}
	return append(a.timings(b), "}\n\ndata: [DONE]\n\n"...)
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		return `""`
	}
	return string(b)
}
