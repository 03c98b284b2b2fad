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
	configure = 'C' // to the guest, first of all
	request   = 'Q'
	cancel    = 'X'

	ready  = 'R' // from the guest
	failed = 'F'
	head   = 'H'
	data   = 'D'
	end    = 'E'
)

// frame is one message. It is about a stream, which is one request and its answer; 0 is the guest as a whole.
type frame struct {
	kind    byte
	stream  uint32
	payload []byte
}

const (
	marker     = 0x00 // begins a frame; what else is on stdout is a line of log
	headerSize = 10   // marker, kind, stream, length of the payload: u32, little-endian
	maxPayload = 64 << 20
	maxLine    = 4 << 10 // of log, in bytes; the rest is another line
)

var errProtocol = errors.New("the guest sent what is no frame")

// writeFrame writes a frame in one call, so that it is not torn.
func writeFrame(w io.Writer, f frame) error {
	b := make([]byte, headerSize, headerSize+len(f.payload))
	b[0], b[1] = marker, f.kind
	binary.LittleEndian.PutUint32(b[2:], f.stream)
	binary.LittleEndian.PutUint32(b[6:], uint32(len(f.payload))) //nolint:gosec // bounded by the largest body there can be
	_, err := w.Write(append(b, f.payload...))
	return err
}

// readFrame reads the next frame and hands the lines of log before it to log. Its payload is the caller's.
func readFrame(r *bufio.Reader, log func(line string)) (frame, error) {
	if err := skipLog(r, log); err != nil {
		return frame{}, err
	}
	var h [headerSize]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return frame{}, err
	}
	f := frame{kind: h[1], stream: binary.LittleEndian.Uint32(h[2:])}
	n := binary.LittleEndian.Uint32(h[6:])
	if n > maxPayload {
		return frame{}, fmt.Errorf("%w: one of %d bytes", errProtocol, n)
	}
	f.payload = make([]byte, n)
	_, err := io.ReadFull(r, f.payload)
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
