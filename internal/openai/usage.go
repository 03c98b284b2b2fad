package openai

import (
	"bytes"
	"strconv"
)

// How much of an answer UsageTap keeps, in bytes. Chat and text answers state their usage in the end, behind which
// come timings; embeddings state it in the beginning, before the vectors.
const (
	usageHead = 512
	usageTail = 4 << 10
)

// UsageTap watches an answer pass by, plain or streamed, and finds the token counts in it afterwards. It copies and
// never parses while the answer runs. The zero value is ready; it is not safe for concurrent use.
type UsageTap struct {
	head []byte
	tail [usageTail]byte
	n    int // bytes seen, of which the last usageTail are in tail, at their number modulo usageTail
}

// Reset makes the tap ready for another answer. It keeps its memory.
func (t *UsageTap) Reset() {
	t.head, t.n = t.head[:0], 0
}

// Write takes note of a piece of the answer. It never fails.
func (t *UsageTap) Write(p []byte) (int, error) {
	if room := usageHead - len(t.head); room > 0 {
		t.head = append(t.head, p[:min(room, len(p))]...)
	}
	n := len(p)
	if skip := len(p) - usageTail; skip > 0 {
		t.n += skip
		p = p[skip:]
	}
	for len(p) > 0 {
		c := copy(t.tail[t.n%usageTail:], p)
		t.n += c
		p = p[c:]
	}
	return n, nil
}

// Tokens returns the counts that the answer stated, ok if it did.
func (t *UsageTap) Tokens() (prompt, completion int, ok bool) {
	end := t.tail[:min(t.n, usageTail)]
	if t.n > usageTail {
		at := t.n % usageTail
		end = append(append(make([]byte, 0, usageTail), t.tail[at:]...), t.tail[:at]...)
	}
	if prompt, completion, ok = findUsage(end); ok {
		return prompt, completion, true
	}
	return findUsage(t.head)
}

// findUsage looks for the last usage object. Text that a model wrote can't be taken for one: quotes in it are
// escaped.
func findUsage(b []byte) (prompt, completion int, ok bool) {
	for {
		at := bytes.LastIndex(b, []byte(`"usage"`))
		if at < 0 {
			return 0, 0, false
		}
		usage := b[at+len(`"usage"`):]
		if prompt, ok = count(usage, `"prompt_tokens"`); !ok {
			prompt, ok = count(usage, `"input_tokens"`) // as /v1/responses and /v1/messages spell it
		}
		if completion, _ = count(usage, `"completion_tokens"`); completion == 0 {
			completion, _ = count(usage, `"output_tokens"`)
		}
		if ok {
			return prompt, completion, true
		}
		b = b[:at] // "usage":null
	}
}

// count finds a number by its field's name.
func count(b []byte, name string) (int, bool) {
	at := bytes.Index(b, []byte(name))
	if at < 0 {
		return 0, false
	}
	b = bytes.TrimLeft(b[at+len(name):], ": \n\t\r")
	digits := 0
	for digits < len(b) && '0' <= b[digits] && b[digits] <= '9' {
		digits++
	}
	n, err := strconv.Atoi(string(b[:digits]))
	return n, err == nil
}
