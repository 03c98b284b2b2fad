package openai

import "fmt"

// contextFull is what llama-api-server sends as text when its context is full, always as a chunk of its own.
const contextFull = "<|WASMEDGE-GGML-CONTEXT-FULL|>"

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
