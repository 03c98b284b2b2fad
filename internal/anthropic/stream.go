package anthropic

import (
	"fmt"
	"strings"

	"assistant/internal/dialect"
	"assistant/internal/openai"
)

// kind is that of a block in a stream.
type kind int

const (
	kindNone kind = iota
	kindThinking
	kindText
	kindTool
)

// stream makes the events of a message of a chat's chunks. It implements dialect.Stream.
//
// Blocks follow one another, at most one is open: SDKs add what comes to the last one. So calls that come at the same time take turns,
// and what is said after the first call waits for the end. The token counts come in a chunk behind the one with the finish_reason, so
// that message_delta waits for the end too. SDKs take all counts from it; those in message_start are 0.
type stream struct {
	call *call

	started bool
	open    kind      // of the block that is open
	index   int       // of that block, or the next
	blank   [3]string // by kind: white space that is held back, because a block of nothing else is not to be
	calls   dialect.Calls
	turn    int      // how many of them have been told, but for the one that is open
	sent    int      // bytes of that one's arguments
	later   []saying // said after the first call
	refused bool
	finish  string
	usage   *dialect.Usage
}

// saying is text or thinking that waits.
type saying struct {
	kind kind
	text string
}

func (s *stream) ContentType() string { return "text/event-stream" }

const ping = "event: ping\ndata: {\"type\": \"ping\"}\n\n"

// Wait sends a ping. The API itself does so only after message_start, but nobody minds it before: anthropic 2.14.0 (_streaming.py,
// Stream.__stream__) and @anthropic-ai/sdk 1.14.0 (core/streaming.mjs, fromSSEResponse) skip events of that name before they look at
// anything else, and their helpers (MessageStream) pass over whatever comes before message_start.
func (s *stream) Wait(dst []byte) []byte { return append(dst, ping...) }

func (s *stream) Chunk(dst []byte, c *dialect.Chunk) []byte {
	dst = s.start(dst)
	if c.Usage != nil {
		s.usage = c.Usage
	}
	if c.Finish != "" {
		s.finish = c.Finish
	}
	if s.call.silent {
		return dst
	}
	dst = s.say(dst, kindThinking, c.Reasoning)
	dst = s.say(dst, kindText, c.Text)
	if c.Refusal != "" {
		s.refused = true
		dst = s.say(dst, kindText, c.Refusal)
	}
	for _, part := range c.ToolCalls {
		s.calls.Take(part)
		dst = s.tell(dst, false)
	}
	return dst
}

// start tells that there is a message.
func (s *stream) start(dst []byte) []byte {
	if s.started {
		return dst
	}
	s.started = true
	dst = fmt.Appendf(dst, "event: message_start\ndata: {\"type\":\"message_start\",\"message\":%s}\n\n", openai.Marshal(s.call.newMessage()))
	return append(dst, ping...)
}

// say adds to the block of its kind, and opens one where none is.
func (s *stream) say(dst []byte, k kind, said string) []byte {
	switch {
	case said == "":
		return dst
	case len(s.calls) > 0:
		s.later = append(s.later, saying{k, said})
		return dst
	}
	return s.sayNow(dst, k, said)
}

func (s *stream) sayNow(dst []byte, k kind, said string) []byte {
	if s.open != k {
		said = s.blank[k] + said
		if strings.TrimSpace(said) == "" {
			s.blank[k] = said
			return dst
		}
		s.blank[k] = ""
		block := textBlock("")
		if k == kindThinking {
			block = thoughtBlock("")
		}
		dst = s.begin(s.end(dst), k, block)
	}
	if k == kindThinking {
		return s.delta(dst, "thinking_delta", "thinking", said)
	}
	return s.delta(dst, "text_delta", "text", said)
}

// tell sends what is new of the call whose turn it is, and goes on to the next when there is one and this one is complete; at the end
// to all of them. A call that never gets a name can't be run and is left out.
func (s *stream) tell(dst []byte, end bool) []byte {
	for s.turn < len(s.calls) {
		c := &s.calls[s.turn]
		complete := end || s.turn < len(s.calls)-1 && dialect.IsObject(string(c.Arguments))
		if c.Name != "" {
			dst = s.tellCall(dst, c, complete)
		}
		if !complete {
			return dst
		}
		dst = s.end(dst)
		s.turn, s.sent = s.turn+1, 0
	}
	return dst
}

// tellCall sends what is new of a call. Arguments that do not begin as an object does wait for their end, where one is made of them.
// One that is cut, as by max_tokens, is left so, as the API leaves it.
func (s *stream) tellCall(dst []byte, c *dialect.GrowingCall, complete bool) []byte {
	if s.open != kindTool {
		dst = s.begin(s.end(dst), kindTool, toolBlock(toolID(c.ID), c.Name, "{}"))
	}
	fresh := string(c.Arguments[s.sent:])
	if s.sent == 0 {
		if fresh = strings.TrimLeft(fresh, " \t\r\n"); !strings.HasPrefix(fresh, "{") {
			if !complete {
				return dst
			}
			fresh = dialect.ArgumentsObject(string(c.Arguments))
		}
	}
	if fresh == "" {
		return dst
	}
	s.sent = len(c.Arguments)
	return s.delta(dst, "input_json_delta", "partial_json", fresh)
}

// begin opens a block.
func (s *stream) begin(dst []byte, k kind, block answered) []byte {
	s.open = k
	return fmt.Appendf(dst, "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":%d,\"content_block\":%s}\n\n",
		s.index, openai.Marshal(block))
}

// delta adds to the open block.
func (s *stream) delta(dst []byte, kind, field, value string) []byte {
	return fmt.Appendf(dst,
		"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":%d,\"delta\":{\"type\":%q,%q:%s}}\n\n",
		s.index, kind, field, openai.Marshal(value))
}

// end closes the open block, if there is one. Thoughts are signed before, as the API's are, if only by nothing: clients that keep
// thoughts by their signature would leave out what has none.
func (s *stream) end(dst []byte) []byte {
	if s.open == kindNone {
		return dst
	}
	if s.open == kindThinking {
		dst = s.delta(dst, "signature_delta", "signature", "")
	}
	dst = fmt.Appendf(dst, "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":%d}\n\n", s.index)
	s.open = kindNone
	s.index++
	return dst
}

// End implements dialect.Stream.
func (s *stream) End(dst []byte) []byte {
	dst = s.start(dst)
	dst = s.tell(dst, true)
	for _, said := range s.later {
		dst = s.sayNow(dst, said.kind, said.text)
	}
	dst = s.end(dst)
	reason, counts := stopReason(s.finish, s.called(), s.refused), newUsage(s.usage)
	if s.call.silent {
		reason, counts.Output, counts.Details = "max_tokens", 0, nil
	}
	dst = fmt.Appendf(dst,
		"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":%q,\"stop_sequence\":null},\"usage\":%s}\n\n",
		reason, openai.Marshal(counts))
	return append(dst, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"...)
}

// called says whether the answer has a call.
func (s *stream) called() bool {
	for _, c := range s.calls {
		if c.Name != "" {
			return true
		}
	}
	return false
}

// Error implements dialect.Stream. SDKs raise it wherever it comes.
func (s *stream) Error(dst []byte, e *openai.Error) []byte {
	return fmt.Appendf(dst, "event: error\ndata: {\"type\":\"error\",\"error\":%s,\"request_id\":null}\n\n", openai.Marshal(toldError(e)))
}
