package ollama

import (
	"time"

	"assistant/internal/dialect"
	"assistant/internal/openai"
)

// stream makes lines of a completion's chunks. It implements [dialect.Stream]. Calls of tools are sent whole: when the next one begins, or at
// the end.
type stream struct {
	call *Call

	first   time.Time // when the first token came
	calls   dialect.Calls
	told    int // of them, those that were sent or left out
	sent    int // of them, those that were sent
	finish  string
	usage   *dialect.Usage
	timings *dialect.Timings
}

// ContentType implements [dialect.Stream].
func (s *stream) ContentType() string { return "application/x-ndjson" }

// Wait implements [dialect.Stream]: the API has nothing to say that.
func (s *stream) Wait(dst []byte) []byte { return dst }

// Chunk implements [dialect.Stream].
func (s *stream) Chunk(dst []byte, c *dialect.Chunk) []byte {
	text, probs := c.Text+c.Refusal, s.call.probs(c.Logprobs)
	speaks := text != "" || c.Reasoning != "" || len(probs) > 0
	if s.first.IsZero() && (speaks || len(c.ToolCalls) > 0) {
		s.first = time.Now()
	}
	if c.Usage != nil {
		s.usage = c.Usage
	}
	if c.Timings != nil {
		s.timings = c.Timings
	}
	if c.Finish != "" {
		s.finish = c.Finish
	}
	if speaks {
		dst = line(dst, s.call.says(text, c.Reasoning, nil, probs))
	}
	for _, part := range c.ToolCalls {
		s.calls.Take(part)
	}
	whole := s.told
	for whole < len(s.calls)-1 && dialect.IsObject(string(s.calls[whole].Arguments)) {
		whole++
	}
	return s.tell(dst, whole)
}

// tell sends the calls before one that were not sent yet.
func (s *stream) tell(dst []byte, before int) []byte {
	calls := newToolCalls(s.calls[s.told:before], s.sent, s.finish)
	s.told, s.sent = before, s.sent+len(calls)
	if len(calls) == 0 {
		return dst
	}
	return line(dst, s.call.says("", "", calls, nil))
}

// End implements [dialect.Stream].
func (s *stream) End(dst []byte) []byte {
	dst = s.tell(dst, len(s.calls))
	return line(dst, s.call.says("", "", nil, nil).ends(s.finish, s.call.metrics(s.first, s.usage, s.timings)))
}

// Error implements [dialect.Stream].
func (s *stream) Error(dst []byte, e *openai.Error) []byte {
	return append(append(dst, ErrorBody(e)...), '\n')
}

func line(dst []byte, a *answer) []byte {
	return append(append(dst, openai.Marshal(a)...), '\n')
}
