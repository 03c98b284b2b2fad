package openai

import (
	"bytes"
	"slices"
	"time"
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

	events int
}

// Reset makes the tap ready for another answer. It keeps its memory.
func (t *UsageTap) Reset() {
	t.head, t.n, t.events = t.head[:0], 0, 0
}

// Write takes note of a piece of the answer. It never fails.
func (t *UsageTap) Write(p []byte) (int, error) {
	if room := usageHead - len(t.head); room > 0 {
		t.head = append(t.head, p[:min(room, len(p))]...)
	}
	t.events += bytes.Count(p, []byte("data:"))
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

// Events is about how many events a stream had, which engines send one a token.
func (t *UsageTap) Events() int { return t.events }

// Tokens returns the counts that the answer stated, ok if it did. llama-server states them in its "timings" when a stream was not asked
// for usage.
func (t *UsageTap) Tokens() (prompt, completion int, ok bool) {
	if prompt, completion, ok = findUsage(t.end()); ok {
		return prompt, completion, true
	}
	if prompt, completion, ok = findUsage(t.head); ok {
		return prompt, completion, true
	}
	timings := t.timings()
	completion, ok = count(timings, `"predicted_n"`)
	computed, hasPrompt := count(timings, `"prompt_n"`)
	cached, _ := count(timings, `"cache_n"`)
	return cached + computed, completion, ok && hasPrompt
}

// timings returns the end of the answer from its last "timings" on; nil if it has none.
func (t *UsageTap) timings() []byte {
	end := t.end()
	if at := bytes.LastIndex(end, []byte(`"timings"`)); at >= 0 {
		return end[at:]
	}
	return nil
}

// Reuse is what an engine did about a request's prompt.
type Reuse struct {
	Cached   int           // tokens that it had computed before
	Computed int           // tokens that it computed for this request
	Took     time.Duration // to compute them; 0 if it does not say
}

// Reuse returns what the answer said about its prompt, ok if it did. llama-server says it in its "timings", which are
// exact; other engines that say it do so by the cached tokens among the usage.
func (t *UsageTap) Reuse() (r Reuse, ok bool) {
	if timings := t.timings(); timings != nil {
		cached, hasCached := count(timings, `"cache_n"`)
		computed, hasComputed := count(timings, `"prompt_n"`)
		if hasCached && hasComputed {
			return Reuse{Cached: cached, Computed: computed, Took: milliseconds(timings, `"prompt_ms"`)}, true
		}
	}
	end := t.end()
	at := bytes.LastIndex(end, []byte(`"prompt_tokens_details"`))
	if at < 0 {
		return Reuse{}, false
	}
	cached, hasCached := count(end[at:], `"cached_tokens"`)
	prompt, _, hasPrompt := findUsage(end)
	if !hasCached || !hasPrompt || cached > prompt {
		return Reuse{}, false
	}
	return Reuse{Cached: cached, Computed: prompt - cached}, true
}

// end returns the last usageTail bytes of the answer in their order. It turns the ring round in place, so that it
// begins with the oldest byte.
func (t *UsageTap) end() []byte {
	if t.n <= usageTail {
		return t.tail[:t.n]
	}
	at := t.n % usageTail
	slices.Reverse(t.tail[:at])
	slices.Reverse(t.tail[at:])
	slices.Reverse(t.tail[:])
	t.n = usageTail
	return t.tail[:]
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

// count finds a whole number by its field's name.
func count(b []byte, name string) (int, bool) {
	n, _, ok := digits(after(b, name))
	return n, ok
}

// milliseconds finds a duration by its field's name; 0 if there is none. Less than a microsecond is cut off.
func milliseconds(b []byte, name string) time.Duration {
	whole, rest, ok := digits(after(b, name))
	if !ok {
		return 0
	}
	took := time.Duration(whole) * time.Millisecond
	if len(rest) > 0 && rest[0] == '.' {
		part, unit := rest[1:], 100*time.Microsecond
		for i := 0; i < min(3, len(part)) && '0' <= part[i] && part[i] <= '9'; i++ {
			took += time.Duration(part[i]-'0') * unit
			unit /= 10
		}
	}
	return took
}

// after returns what follows a field's name and its colon; nil without that field.
func after(b []byte, name string) []byte {
	at := bytes.Index(b, []byte(name))
	if at < 0 {
		return nil
	}
	return bytes.TrimLeft(b[at+len(name):], ": \n\t\r")
}

// maxCount is more than any count of tokens or milliseconds, and far from an overflow.
const maxCount = 1 << 40

// digits reads a number without a sign, and returns what follows it.
func digits(b []byte) (n int, rest []byte, ok bool) {
	i := 0
	for ; i < len(b) && '0' <= b[i] && b[i] <= '9'; i++ {
		if n = 10*n + int(b[i]-'0'); n > maxCount {
			return 0, nil, false
		}
	}
	return n, b[i:], i > 0
}
