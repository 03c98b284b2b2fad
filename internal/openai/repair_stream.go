package openai

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// contextFull is what llama-api-server sends as text when its context is full, always as a chunk of its own.
const contextFull = "<|WASMEDGE-GGML-CONTEXT-FULL|>"

// Counts are the tokens of an answer.
type Counts struct {
	Prompt, Completion int
	Guessed            bool // the prompt's are a guess: the engine was stopped before it told
}

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
	var buf bytes.Buffer
	counts, err := asked.Stream(&buf, r)
	if err != nil {
		return nil, counts, err
	}
	answer, err := Join(&buf, p.kind)
	return answer, counts, err
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

func (s *streamRepair) flush() error {
	if len(s.out) == 0 {
		return nil
	}
	_, err := s.w.Write(s.out)
	s.out = s.out[:0]
	return err
}

// event takes in a chunk.
func (s *streamRepair) event(data []byte) error {
	s.choices, s.fault = 0, false
	s.more = s.more[:0]
	scan := &s.scans[0]
	*scan = scanner{b: data}
	if scan.next() != '{' {
		if string(data) == "null" {
			return nil
		}
		return s.p.Error(0, data)
	}
	if err := scan.object(1, s.onChunk); err != nil {
		return s.p.Error(0, data)
	}
	if s.fault {
		return s.p.Error(0, data)
	}
	if s.choices == 0 {
		return nil
	}
	scan.i = s.choices
	return scan.each(s.onElement)
}

func (s *streamRepair) chunkField(key []byte, from, to int) error {
	value := s.scans[0].b[from:to]
	switch string(key) {
	case "choices":
		if value[0] == '[' {
			s.choices = from
		}
	case "usage":
		if prompt, ok := count(value, `"prompt_tokens"`); ok {
			s.counts.Prompt, s.told = prompt, true
			s.counts.Completion, _ = count(value, `"completion_tokens"`)
		}
	case "error":
		if string(value) != "null" {
			s.fault = true
		}
	case "id", "object", "created", "model", "system_fingerprint":
	default:
		s.more = append(append(appendQuoted(append(s.more, ','), key), ':'), value...)
	}
	return nil
}

// choice takes in an element of choices.
func (s *streamRepair) choice(from, to int) error {
	s.delta, s.text, s.reason, s.other = nil, nil, nil, false
	scan := &s.scans[1]
	*scan = scanner{b: s.scans[0].b[from:to]}
	if scan.next() != '{' {
		return nil
	}
	if err := scan.object(1, s.onChoice); err != nil || s.other {
		return err
	}
	s.content, s.toolCalls, s.moreDelta = s.text, nil, s.moreDelta[:0]
	if s.delta != nil {
		deep := &s.scans[2]
		*deep = scanner{b: s.delta}
		if err := deep.object(1, s.onDelta); err != nil {
			return err
		}
	}
	return s.apply()
}

func (s *streamRepair) choiceField(key []byte, from, to int) error {
	value := s.scans[1].b[from:to]
	switch string(key) {
	case "index":
		s.other = string(value) != "0"
	case "delta":
		if value[0] == '{' {
			s.delta = value
		}
	case "text":
		if value[0] == '"' {
			s.text = value
		}
	case "finish_reason":
		if value[0] == '"' && len(value) > 2 {
			s.reason = value[1 : len(value)-1]
		}
	}
	return nil
}

func (s *streamRepair) deltaField(key []byte, from, to int) error {
	value := s.scans[2].b[from:to]
	switch string(key) {
	case "role":
	case "content":
		if value[0] == '"' {
			s.content = value
		}
	case "tool_calls":
		if value[0] == '[' && string(value) != "[]" {
			s.toolCalls = value
		}
	default:
		if string(value) == "null" {
			return nil
		}
		if len(s.moreDelta) > 0 {
			s.moreDelta = append(s.moreDelta, ',')
		}
		s.moreDelta = append(append(appendQuoted(s.moreDelta, key), ':'), value...)
	}
	return nil
}

// apply writes what the choice at hand adds to the answer.
func (s *streamRepair) apply() error {
	s.start()
	if s.reason != nil {
		s.finish = finishReason(s.reason)
	}
	overflow := false
	if s.content != nil {
		text := s.content[1 : len(s.content)-1]
		overflow = s.p.repairs.Has(RepairOverflow) && string(text) == contextFull
		if overflow {
			s.finish = finishLength
		} else {
			s.held = appendUnquoted(s.held, text)
		}
	}
	if len(s.held) > maxAnswer {
		return fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	if len(s.moreDelta) > 0 {
		s.open()
		s.out = append(append(s.out, `"delta":{`...), s.moreDelta...)
		s.close("}", "")
	}
	if (s.content != nil || len(s.moreDelta) > 0) && !overflow {
		s.tokens++
	}
	if s.p.whole {
		s.callTools()
		return nil
	}
	if !s.told {
		s.counts.Completion = s.tokens
	}
	s.say()
	s.callTools()
	return nil
}

// finishReason returns a reason as the API spells it.
func finishReason(raw []byte) string {
	switch string(raw) {
	case finishStop:
		return finishStop
	case finishLength:
		return finishLength
	case finishCalls, "function_call":
		return finishCalls
	}
	return string(raw)
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

// each shows the elements of the array that opens at the next byte to visit.
func (s *scanner) each(visit func(from, to int) error) error {
	if s.next() != '[' {
		return s.bad("an array is missing")
	}
	s.i++
	if s.next() == ']' {
		s.i++
		return nil
	}
	for {
		s.space()
		from := s.i
		if err := s.value(2); err != nil {
			return err
		}
		if err := visit(from, s.i); err != nil {
			return err
		}
		switch s.next() {
		case ',':
			s.i++
		case ']':
			s.i++
			return nil
		default:
			return s.bad("a comma or closing bracket is missing")
		}
	}
}

// trimText shortens what an engine said to what fits into a message.
func trimText(text string) string {
	const longest = 1 << 10
	text = strings.TrimSpace(text)
	if len(text) > longest {
		return text[:longest] + "…"
	}
	return text
}
