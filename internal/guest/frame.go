package guest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Kinds of frames.
const (
	Configure = 'C' // to the guest, first of all
	Request   = 'Q'
	Cancel    = 'X'

	Ready  = 'R' // from the guest
	Failed = 'F'
	Head   = 'H'
	Data   = 'D'
	End    = 'E'
)

// Frame is one message. It is about a stream, which is one request and its answer; 0 is the guest as a whole.
type Frame struct {
	Kind    byte
	Stream  uint32
	Payload []byte
}

const (
	marker     = 0x00 // begins a frame; what else is on stdout is a line of log
	headerSize = 10   // marker, kind, stream, length of the payload: u32, little-endian
	maxPayload = 64 << 20
	maxLine    = 4 << 10 // of log, in bytes; the rest is another line
)

var errProtocol = errors.New("the guest sent what is no frame")

// Write writes a frame in one call, so that it is not torn.
func Write(w io.Writer, f Frame) error {
	b := make([]byte, headerSize, headerSize+len(f.Payload))
	b[0], b[1] = marker, f.Kind
	binary.LittleEndian.PutUint32(b[2:], f.Stream)
	binary.LittleEndian.PutUint32(b[6:], uint32(len(f.Payload))) //nolint:gosec // bounded by the largest body there can be
	_, err := w.Write(append(b, f.Payload...))
	return err
}

// Read reads the next frame and hands the lines of log before it to log. Its payload is the caller's.
func Read(r *bufio.Reader, log func(line string)) (Frame, error) {
	if err := skipLog(r, log); err != nil {
		return Frame{}, err
	}
	var h [headerSize]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return Frame{}, err
	}
	f := Frame{Kind: h[1], Stream: binary.LittleEndian.Uint32(h[2:])}
	n := binary.LittleEndian.Uint32(h[6:])
	if n > maxPayload {
		return Frame{}, fmt.Errorf("%w: one of %d bytes", errProtocol, n)
	}
	f.Payload = make([]byte, n)
	_, err := io.ReadFull(r, f.Payload)
	return f, err
}

// skipLog reads to where the next frame begins.
func skipLog(r *bufio.Reader, log func(line string)) error {
	var line []byte
	flush := func() {
		if len(line) > 0 {
			log(string(line))
			line = line[:0]
		}
	}
	defer flush()
	for {
		b, err := r.ReadByte()
		switch {
		case err != nil:
			return err
		case b == marker:
			return r.UnreadByte()
		case b == '\n' || len(line) == maxLine:
			flush()
		}
		if b != '\n' {
			line = append(line, b)
		}
	}
}
