package openai

// The values of finish_reason.
const (
	finishStop   = "stop"
	finishLength = "length"
	finishCalls  = "tool_calls"
)

// conclude writes the text that is still held, and settles how the answer ended.
func (s *streamRepair) conclude() {
	stopped := s.p.whole && s.trim()
	s.write(len(s.held))
	full := s.p.context > 0 && s.told && s.counts.Prompt+s.counts.Completion >= s.p.context
	switch {
	case s.calls && s.finish != finishLength:
		s.finish = finishCalls
	case stopped:
		s.finish = finishStop
	case full:
		s.finish = finishLength
	case s.finish == "":
		s.finish = finishStop
	}
}

// trim ends a text that came as a whole where it should have ended, and says whether that was at a stop sequence.
func (s *streamRepair) trim() (stopped bool) {
	p := s.p
	if p.maxTokens > 0 && s.told && s.counts.Completion >= p.maxTokens && !s.calls {
		s.held = s.held[:share(s.held, p.maxTokens, s.counts.Completion)]
		s.counts.Completion, s.finish = p.maxTokens, finishLength
	}
	at := stopIn(s.held, p.stops)
	if at >= 0 {
		s.held = s.held[:at]
	}
	return at >= 0
}

// share returns how much of a text is part out of all of its tokens. It is a guess, for engines that give a text as a
// whole: where the tokens end, nobody tells.
func share(text []byte, part, all int) int {
	n := len(text) * part / all
	for n > 0 && n < len(text) && text[n]&0xC0 == 0x80 {
		n--
	}
	return n
}
