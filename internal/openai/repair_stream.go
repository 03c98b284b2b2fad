package openai

import (
	"bytes"
	"errors"
	"io"
)

// Stream reads the engine's stream of a chat and writes the one that the API promises, one Write for each of the
// engine's events. It returns as soon as the answer is complete, which may be before the engine's end, after max_tokens
// or a stop sequence: closing r then tells the engine to stop.
//
// Errors: *Error if the engine told one, ErrStreamCut if its stream ended early, or those of r and w. What was written
// then lacks its end.
func (p *Plan) Stream(w io.Writer, r io.Reader) (Counts, error) {
	s := newStreamRepair(p, w)
	err := s.run(NewEventReader(r))
	return s.counts, err
}

// Whole reads the engine's stream of a chat and returns the plain answer. See Stream.
func (p *Plan) Whole(r io.Reader) ([]byte, Counts, error) {
	asked := *p
	asked.usage = true
	joined := joiner{answer{kind: p.kind}}
	counts, err := asked.Stream(&joined, r)
	if err != nil {
		return nil, counts, err
	}
	return joined.json(), counts, nil
}

// joiner puts a plain answer together from the whole events that are written to it.
type joiner struct{ answer }

func (j *joiner) Write(events []byte) (int, error) {
	for event := range bytes.SplitSeq(events, []byte("\n\n")) {
		data := bytes.TrimPrefix(event, []byte("data: "))
		if len(data) == 0 || string(data) == "[DONE]" {
			continue
		}
		if err := j.add(data); err != nil {
			return 0, err
		}
	}
	return len(events), nil
}

// streamRepair writes one answer.
type streamRepair struct {
	p      *Plan
	w      io.Writer
	out    []byte // what the next Write writes
	head   []byte // how each chunk begins, up to what is in the choice
	counts Counts
	told   bool   // the engine told its counts
	tokens int    // chunks with text
	held   []byte // text that is not written yet
	finish string
	calls  bool // a tool is called
	role   bool // the first chunk is written
	enough bool // max_tokens or a stop sequence is reached

	// The chunk at hand, by levels. The visitors are kept so that a chunk costs no allocation.
	scans                      [3]scanner
	onChunk, onChoice, onDelta visitor
	onElement                  func(from, to int) error
	choices                    int  // where they are
	fault                      bool // the chunk is an error
	delta, text                []byte
	content, toolCalls, reason []byte
	more, moreDelta            []byte // fields that are passed on as they are
	other                      bool   // the choice is not the first
}

type visitor = func(key []byte, from, to int) error

func newStreamRepair(p *Plan, w io.Writer) *streamRepair {
	s := &streamRepair{p: p, w: w, out: make([]byte, 0, 1<<10), head: p.head()}
	s.onChunk, s.onChoice, s.onDelta, s.onElement = s.chunkField, s.choiceField, s.deltaField, s.choice
	return s
}

// run reads events until the answer is complete.
func (s *streamRepair) run(events *EventReader) error {
	for {
		data, err := events.Next()
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return ErrStreamCut
		case err != nil:
			return err
		case string(data) == "[DONE]":
			if err := s.end(); err != nil {
				return err
			}
			_, _ = events.Next() // read to the end, so that the connection can be used again
			return nil
		}
		if err := s.event(data); err != nil {
			return err
		}
		if s.enough {
			return s.cut(events)
		}
		if err := s.flush(); err != nil {
			return err
		}
	}
}

// cut ends the answer before the engine does. An engine that was about to end anyway tells its counts in its next
// event, for which one token's time is not too long to wait, if somebody wants to know.
func (s *streamRepair) cut(events *EventReader) error {
	s.finishChunk()
	if err := s.flush(); err != nil {
		return err
	}
	if s.p.usage && !s.told && s.finish == finishLength {
		if data, err := events.Next(); err == nil {
			s.lookForCounts(data)
		}
	}
	s.usageChunk()
	s.out = append(s.out, "data: [DONE]\n\n"...)
	return s.flush()
}

// lookForCounts takes nothing but the counts from an event.
func (s *streamRepair) lookForCounts(data []byte) {
	if prompt, _, ok := findUsage(data); ok {
		s.counts.Prompt, s.told = prompt, true
	}
}

// end ends the answer at the engine's own end.
func (s *streamRepair) end() error {
	s.start()
	s.conclude()
	s.finishChunk()
	s.usageChunk()
	s.out = append(s.out, "data: [DONE]\n\n"...)
	return s.flush()
}

func (s *streamRepair) flush() error {
	if len(s.out) == 0 {
		return nil
	}
	_, err := s.w.Write(s.out)
	s.out = s.out[:0]
	return err
}

// say writes the text that can be said, and sees whether there is enough.
func (s *streamRepair) say() {
	p := s.p
	if at := stopIn(s.held, p.stops); at >= 0 {
		s.held = s.held[:at]
		s.write(at)
		s.finish, s.enough = finishStop, true
		return
	}
	if p.maxTokens > 0 && s.tokens >= p.maxTokens {
		s.write(len(s.held))
		s.finish, s.enough = finishLength, true
		return
	}
	s.write(len(s.held) - max(stopBegun(s.held, p.stops), partialRune(s.held)))
}

// callTools passes the calls of a chunk on, after all text.
func (s *streamRepair) callTools() {
	if s.toolCalls == nil {
		return
	}
	s.write(len(s.held))
	s.calls = true
	s.open()
	s.out = append(append(s.out, `"delta":{"tool_calls":`...), s.toolCalls...)
	s.close("}", "")
}
