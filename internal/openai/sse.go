package openai

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// MaxEvent bounds an event's data, in bytes: a chunk that holds a whole tool call with a file in it fits.
const MaxEvent = 16 << 20

// ErrEventTooLarge says that an event is longer than 16 MiB.
var ErrEventTooLarge = errors.New("server-sent event is too large")

// EventReader reads the data of server-sent events. Comments and other fields (event, id, retry) are passed over, as
// are events without data.
type EventReader struct {
	r    *bufio.Reader
	data []byte
}

// NewEventReader reads events from r.
func NewEventReader(r io.Reader) *EventReader {
	return &EventReader{r: bufio.NewReader(r)}
}

// Next returns the next event's data, which is valid until the next call. At the end of the stream it returns
// io.EOF, or io.ErrUnexpectedEOF if that is in the middle of an event.
func (e *EventReader) Next() ([]byte, error) {
	e.data = e.data[:0]
	lines := 0 // of data in this event
	for {
		line, whole, err := e.line()
		if err != nil {
			if errors.Is(err, io.EOF) && (lines > 0 || len(line) > 0) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if len(line) == 0 {
			if len(e.data) > 0 {
				return e.data, nil
			}
			lines = 0
			continue
		}
		value, ok := bytes.CutPrefix(line, []byte("data"))
		if !ok || len(value) > 0 && value[0] != ':' {
			if err := e.skip(whole); err != nil {
				return nil, err
			}
			continue
		}
		if len(value) > 0 {
			value = bytes.TrimPrefix(value[1:], []byte(" "))
		}
		if lines++; lines > 1 {
			e.data = append(e.data, '\n')
		}
		e.data = append(e.data, value...)
		if err := e.rest(whole); err != nil {
			return nil, err
		}
	}
}

// line returns a line without its end, or the start of one that is longer than the reader's buffer.
func (e *EventReader) line() (line []byte, whole bool, err error) {
	line, err = e.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return line, false, nil
	}
	if err != nil {
		return line, false, err
	}
	return trimEnd(line), true, nil
}

// rest adds what is left of a data line.
func (e *EventReader) rest(whole bool) error {
	for !whole {
		line, err := e.r.ReadSlice('\n')
		e.data = append(e.data, line...)
		switch {
		case err == nil:
			e.data, whole = trimEnd(e.data), true
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		case !errors.Is(err, bufio.ErrBufferFull):
			return err
		}
		if len(e.data) > MaxEvent {
			return ErrEventTooLarge
		}
	}
	if len(e.data) > MaxEvent {
		return ErrEventTooLarge
	}
	return nil
}

// skip passes over what is left of a line.
func (e *EventReader) skip(whole bool) error {
	for !whole {
		_, err := e.r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		whole = err == nil
	}
	return nil
}

func trimEnd(line []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
}
