package openai

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

// Counts are the tokens of an answer.
type Counts struct {
	Prompt, Completion int
	Guessed            bool // the prompt's are a guess: the engine was stopped before it told
}

// head is how every chunk of an answer begins: the same id and time in all.
func (p *Plan) head() []byte {
	h := append(make([]byte, 0, 256), `{"id":"`...)
	h = p.appendID(h)
	h = append(h, `","object":"`...)
	if p.kind == Completion {
		h = append(h, "text_completion"...)
	} else {
		h = append(h, "chat.completion.chunk"...)
	}
	h = strconv.AppendInt(append(h, `","created":`...), time.Now().Unix(), 10)
	h = appendQuoted(append(h, `,"model":`...), p.model)
	return append(h, `,"choices":[`...)
}

// appendID makes up an id. It is a name, not a secret.
func (p *Plan) appendID(b []byte) []byte {
	b = append(b, "chatcmpl-"[min(int(p.kind)*4, 4):]...) // cmpl- for a text
	return fmt.Appendf(b, "%016x%016x", rand.Uint64(), rand.Uint64())
}

// start writes the chunk with the role, before anything else.
func (s *streamRepair) start() {
	if s.role || s.p.kind == Completion {
		return
	}
	s.role = true
	s.open()
	s.out = append(s.out, `"delta":{"role":"assistant","content":""`...)
	s.close("}", "")
}

// write writes the first n bytes of the text that is held.
func (s *streamRepair) write(n int) {
	if n <= 0 {
		return
	}
	s.open()
	brackets := ""
	if s.p.kind == Completion {
		s.out = append(s.out, `"text":`...)
	} else {
		s.out, brackets = append(s.out, `"delta":{"content":`...), "}"
	}
	s.out = appendQuoted(s.out, s.held[:n])
	s.close(brackets, "")
	s.held = s.held[:copy(s.held, s.held[n:])]
}

// finishChunk writes the chunk that says how the answer ended.
func (s *streamRepair) finishChunk() {
	s.open()
	if s.p.kind == Completion {
		s.out = append(s.out, `"text":""`...)
	} else {
		s.out = append(s.out, `"delta":{}`...)
	}
	s.close("", s.finish)
}

// open begins a chunk with a choice, close ends both.
func (s *streamRepair) open() {
	s.out = append(append(append(s.out, "data: "...), s.head...), `{"index":0,`...)
}

func (s *streamRepair) close(brackets, finish string) {
	s.out = append(append(s.out, brackets...), `,"logprobs":null,"finish_reason":`...)
	if finish == "" {
		s.out = append(s.out, "null"...)
	} else {
		s.out = appendQuoted(s.out, finish)
	}
	s.out = append(s.out, "}]"...)
	if s.p.usage {
		s.out = append(s.out, `,"usage":null`...)
	}
	s.out = append(append(s.out, s.more...), "}\n\n"...)
	s.more = s.more[:0]
}

// usageChunk writes the counts if they were asked for, by guess what the engine did not tell.
func (s *streamRepair) usageChunk() {
	c := &s.counts
	if !s.told {
		c.Prompt, c.Guessed = s.p.prompt, true
	}
	if !s.p.usage {
		return
	}
	s.out = append(append(append(s.out, "data: "...), s.head...), `],`...)
	s.out = append(c.appendJSON(s.out), s.more...)
	s.out = append(s.out, "}\n\n"...)
}

// JSON returns the counts as the field that answers have them in.
func (c Counts) JSON() []byte { return c.appendJSON(nil) }

func (c Counts) appendJSON(b []byte) []byte {
	b = fmt.Appendf(b, `"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d`, c.Prompt, c.Completion, c.Prompt+c.Completion)
	if c.Guessed {
		b = append(b, `,"estimated":true`...)
	}
	return append(b, '}')
}
