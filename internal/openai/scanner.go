package openai

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
)

// maxDepth is how deep arrays and objects may nest: encoding/json's own bound.
const maxDepth = 10_000

// scanner walks JSON text without decoding it.
type scanner struct {
	b []byte
	i int // the next byte to look at

	// assistant says whether the latest element of an array at depth 2 was an object with "role":"assistant": when
	// that array is "messages", the last message is the assistant's. It is noted in passing because a message may be
	// megabytes of image, not to be walked twice.
	assistant bool
}

// syntaxError says what is wrong with JSON text, and where.
type syntaxError struct {
	what string
	at   int
}

func (e *syntaxError) Error() string { return fmt.Sprintf("%s at byte %d", e.what, e.at) }

func (s *scanner) bad(what string) error { return &syntaxError{what, s.i} }

// space skips white space.
func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\n', '\r', '\t':
			s.i++
		default:
			return
		}
	}
}

// next skips white space and returns the byte that follows, 0 at the end of the text.
func (s *scanner) next() byte {
	s.space()
	if s.i == len(s.b) {
		return 0
	}
	return s.b[s.i]
}

// value skips the value that opens at the next byte, which is not white space.
func (s *scanner) value(depth int) error {
	switch c := s.next(); {
	case c == '"':
		_, err := s.str()
		return err
	case c == '{':
		return s.object(depth, nil)
	case c == '[':
		return s.array(depth)
	case c == '-' || '0' <= c && c <= '9':
		return s.number()
	case c == 't':
		return s.literal("true")
	case c == 'f':
		return s.literal("false")
	case c == 'n':
		return s.literal("null")
	}
	return s.bad("a value is missing")
}

// object skips the object that opens at the next byte and shows its fields to visit, if that isn't nil: the name
// without its quotes, unescaped, and the offsets of the value. key is valid until visit returns.
func (s *scanner) object(depth int, visit func(key []byte, from, to int) error) error {
	if depth > maxDepth {
		return s.bad("too many nested values")
	}
	s.i++
	if s.next() == '}' {
		s.i++
		return nil
	}
	for {
		if s.next() != '"' {
			return s.bad("a field's name is missing")
		}
		from := s.i
		escaped, err := s.str()
		if err != nil {
			return err
		}
		key := s.b[from+1 : s.i-1]
		if s.next() != ':' {
			return s.bad("a colon is missing")
		}
		s.i++
		s.space()
		start := s.i
		if err := s.value(depth + 1); err != nil {
			return err
		}
		if visit != nil || depth == 3 {
			if escaped {
				key = unescape(key)
			}
			if depth == 3 && string(key) == "role" {
				s.assistant = stringIs(s.b[start:s.i], "assistant")
			}
			if visit != nil {
				if err := visit(key, start, s.i); err != nil {
					return err
				}
			}
		}
		if more, err := s.more('}', "a comma or closing brace is missing"); !more {
			return err
		}
	}
}

// array skips the array that opens at the next byte.
func (s *scanner) array(depth int) error {
	if depth > maxDepth {
		return s.bad("too many nested values")
	}
	s.i++
	if s.next() == ']' {
		s.i++
		return nil
	}
	for {
		if depth == 2 {
			s.assistant = false
		}
		if err := s.value(depth + 1); err != nil {
			return err
		}
		if more, err := s.more(']', "a comma or closing bracket is missing"); !more {
			return err
		}
	}
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
		if more, err := s.more(']', "a comma or closing bracket is missing"); !more {
			return err
		}
	}
}

// more passes the comma that another part follows (true), or what closes the object or array.
func (s *scanner) more(closing byte, missing string) (bool, error) {
	switch s.next() {
	case ',':
		s.i++
		return true, nil
	case closing:
		s.i++
		return false, nil
	}
	return false, s.bad(missing)
}

// EachField shows the fields of a JSON object to visit, each name without its quotes and unescaped, each value as it was written. A name
// is valid until visit returns. An error is of the JSON, or visit's.
func EachField(object []byte, visit func(key, value []byte) error) error {
	s := scanner{b: object}
	if s.next() != '{' {
		return errors.New("a chunk lacks an object")
	}
	return s.object(1, func(key []byte, from, to int) error {
		return visit(key, object[from:to])
	})
}

// EachElement shows the elements of a JSON array to visit, each as it was written. An error is of the JSON, or visit's.
func EachElement(array []byte, visit func(value []byte) error) error {
	s := scanner{b: array}
	return s.each(func(from, to int) error { return visit(array[from:to]) })
}

// number skips the number that opens at the next byte.
func (s *scanner) number() error {
	if s.b[s.i] == '-' {
		s.i++
	}
	if s.i < len(s.b) && s.b[s.i] == '0' {
		s.i++
	} else if !s.digits() {
		return s.bad("a digit is missing")
	}
	if s.i < len(s.b) && s.b[s.i] == '.' {
		s.i++
		if !s.digits() {
			return s.bad("a digit is missing")
		}
	}
	if s.i < len(s.b) && s.b[s.i]|0x20 == 'e' {
		s.i++
		if s.i < len(s.b) && (s.b[s.i] == '+' || s.b[s.i] == '-') {
			s.i++
		}
		if !s.digits() {
			return s.bad("a digit is missing")
		}
	}
	return nil
}

// digits skips decimal digits and says whether there was one.
func (s *scanner) digits() bool {
	from := s.i
	for s.i < len(s.b) && '0' <= s.b[s.i] && s.b[s.i] <= '9' {
		s.i++
	}
	return s.i > from
}

func (s *scanner) literal(word string) error {
	if !bytes.HasPrefix(s.b[s.i:], []byte(word)) {
		return s.bad("a value is missing")
	}
	s.i += len(word)
	return nil
}

// str skips the string whose opening quote is the next byte and says whether it holds escapes.
func (s *scanner) str() (escaped bool, err error) {
	s.i++
	for {
		s.i = plain(s.b, s.i)
		if s.i == len(s.b) {
			return false, s.bad("a string does not end")
		}
		switch s.b[s.i] {
		case '"':
			s.i++
			return escaped, nil
		case '\\':
			escaped = true
			if err := s.escape(); err != nil {
				return false, err
			}
		default:
			return false, s.bad("a string holds a control character")
		}
	}
}

// escape skips a backslash and what belongs to it.
func (s *scanner) escape() error {
	s.i++
	if s.i == len(s.b) {
		return s.bad("a string does not end")
	}
	switch s.b[s.i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.i++
		return nil
	case 'u':
		s.i++
		for range 4 {
			if s.i == len(s.b) || !isHex(s.b[s.i]) {
				return s.bad("a string holds a broken escape")
			}
			s.i++
		}
		return nil
	}
	return s.bad("a string holds a broken escape")
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

// plain returns the offset at or after i of the first quote, backslash or control character, or len(b). Images come
// as strings of megabytes, so it looks at 32 bytes at a time.
func plain(b []byte, i int) int {
	for ; i+32 <= len(b); i += 32 {
		c := b[i : i+32 : i+32]
		if special(c)|special(c[8:])|special(c[16:])|special(c[24:]) != 0 {
			break
		}
	}
	for ; i+8 <= len(b); i += 8 {
		if found := special(b[i:]); found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c == '"' || c == '\\' || c < ' ' {
			break
		}
	}
	return i
}

// special sets the high bit of each of the first eight bytes of b that is a quote, a backslash or a control
// character. Only the first that it sets is sure: bytes behind that may be set as well.
//
// To subtract n from a byte below n borrows, which sets the high bit, and bytes from 0x80 on are masked out. A quote
// with bit 1 flipped is a space and a control character stays one, so that one subtraction finds both.
func special(b []byte) uint64 {
	const (
		ones  = 0x0101010101010101
		highs = ones * 0x80
	)
	w := binary.LittleEndian.Uint64(b)
	return (((w ^ ones*2) - ones*(' '+1)) | ((w ^ ones*'\\') - ones)) &^ w & highs
}

// unescape decodes the inside of a scanned JSON string.
func unescape(raw []byte) []byte {
	quoted := make([]byte, 0, len(raw)+2)
	quoted = append(append(append(quoted, '"'), raw...), '"')
	var s string
	_ = json.Unmarshal(quoted, &s) // it was scanned: it can't fail
	return []byte(s)
}

// stringIs says whether a scanned value is the string want, however it is escaped.
func stringIs(value []byte, want string) bool {
	if value[0] != '"' {
		return false
	}
	raw := value[1 : len(value)-1]
	if bytes.IndexByte(raw, '\\') >= 0 {
		raw = unescape(raw)
	}
	return string(raw) == want
}
