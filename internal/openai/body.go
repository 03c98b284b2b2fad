package openai

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// ErrClientGone wraps the error of a connection that broke while the body was read. There is nobody to answer.
var ErrClientGone = errors.New("the client went away while it sent its request")

// DefaultMaxBody is the longest body, and the longest one kept in memory, unless somebody says otherwise.
const DefaultMaxBody = 32 << 20

// Limits bound what ReadBody takes.
type Limits struct {
	MaxBody   int64   // longest body, in bytes; beyond it is 413
	MaxMemory int64   // longest body that is kept in memory; a longer one goes to a file
	Budget    *Budget // memory of all bodies together; a body that finds it used up goes to a file
	SpoolDir  string  // where those files are made; "" = the system's temporary directory
}

// Body is a request's body, read whole. Its bytes can be had at once and read any number of times, which is what
// replays, scans and routing by content need. They stay valid until Close and the Close of every reader.
type Body struct {
	bytes   []byte
	buf     *buffer // what bytes lie in, if it is memory
	budget  *Budget // whose bytes buf takes
	unmap   func()  // gives bytes back, if they are a file
	holders atomic.Int32
	closed  atomic.Bool
}

// ReadBody reads r to its end, so that net/http notices a client that leaves while its request waits. contentLength
// is the length that the request states, -1 if none.
//
// Errors: *Error when the body is too long (without reading any of it if contentLength tells), shorter than stated,
// late (408) or can't be kept (503); ErrClientGone when the connection broke.
func ReadBody(r io.Reader, contentLength int64, lim Limits) (*Body, error) {
	if contentLength > lim.MaxBody {
		return nil, TooLarge(lim.MaxBody)
	}
	in := intake{r: r, lim: lim}
	body, err := in.read(contentLength)
	if err != nil {
		in.discard()
		return nil, err
	}
	return body, nil
}

// Len is the body's length in bytes.
func (b *Body) Len() int64 { return int64(len(b.bytes)) }

// Bytes returns the body. It must not be changed, nor used after Close. A body too long for memory is a mapped file
// where the system can do that.
func (b *Body) Bytes() []byte { return b.bytes }

// NewReader returns a reader over the body, from its start. The bytes stay valid until it is closed, even if the
// body is closed before: an HTTP transport may still be sending when its answer is over.
func (b *Body) NewReader() io.ReadSeekCloser {
	b.holders.Add(1)
	return &bodyReader{body: b}
}

// Close gives the memory or the file back, once no reader needs it. Closing twice is harmless.
func (b *Body) Close() error {
	if !b.closed.Swap(true) {
		b.drop()
	}
	return nil
}

func (b *Body) drop() {
	if b.holders.Add(-1) > 0 {
		return
	}
	b.bytes = nil
	if b.buf != nil {
		b.buf.giveBack(b.budget)
	} else {
		b.unmap()
	}
}

// bodyReader locks because a transport may close it in one goroutine while another reads.
type bodyReader struct {
	mu   sync.Mutex
	body *Body // nil = closed
	at   int64
}

func (r *bodyReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.body == nil {
		return 0, os.ErrClosed
	}
	if r.at >= r.body.Len() {
		return 0, io.EOF
	}
	n := copy(p, r.body.bytes[r.at:])
	r.at += int64(n)
	return n, nil
}

func (r *bodyReader) Seek(offset int64, whence int) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.body == nil {
		return 0, os.ErrClosed
	}
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.body.Len()
	default:
		return 0, fmt.Errorf("seek: whence %d is unknown", whence)
	}
	if offset < 0 {
		return 0, errors.New("seek: before the start")
	}
	r.at = offset
	return offset, nil
}

func (r *bodyReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.body != nil {
		r.body.drop()
		r.body = nil
	}
	return nil
}

// intake is a body on its way in: in a buffer at first, in a file from where memory ends.
type intake struct {
	r    io.Reader
	lim  Limits
	buf  *buffer // nil before the first byte and after the move to a file
	n    int64   // bytes taken in
	file *os.File
}

func (in *intake) read(length int64) (*Body, error) {
	known := length >= 0
	if !in.grow(max(length, 0)) {
		if err := in.spool(); err != nil {
			return nil, err
		}
	}
	for ended := false; in.file == nil && !ended; {
		if in.n == int64(len(in.buf.b)) || in.n > in.lim.MaxMemory {
			if !in.grow(max(in.n, min(2*in.n, in.lim.MaxMemory))) {
				if err := in.spool(); err != nil {
					return nil, err
				}
			}
			continue
		}
		n, err := in.r.Read(in.buf.b[in.n:])
		in.n += int64(n)
		if ended = errors.Is(err, io.EOF); err != nil && !ended {
			return nil, in.fault(err)
		}
	}
	if in.file != nil {
		if err := in.fill(); err != nil {
			return nil, err
		}
	}
	switch {
	case in.n > in.lim.MaxBody:
		return nil, TooLarge(in.lim.MaxBody)
	case known && in.n < length:
		return nil, in.fault(io.ErrUnexpectedEOF)
	case known && in.n > length:
		return nil, InvalidRequest("", "the request body is longer than its Content-Length")
	}
	return in.body()
}

// grow makes room for at least n bytes and one more, which is where the end of the body is found. It is false when
// they must not be in memory.
func (in *intake) grow(n int64) bool {
	if n > in.lim.MaxMemory {
		return false
	}
	next, ok := takeBuffer(n+1, in.lim.Budget)
	if !ok {
		return false
	}
	if in.buf != nil {
		copy(next.b, in.buf.b[:in.n])
		in.buf.giveBack(in.lim.Budget)
	}
	in.buf = next
	return true
}

// spool moves what is in memory to a file.
func (in *intake) spool() error {
	file, err := createSpool(in.lim.SpoolDir)
	if err != nil {
		return cannotKeep(err)
	}
	in.file = file
	if in.buf == nil {
		return nil
	}
	_, err = file.Write(in.buf.b[:in.n])
	in.buf.giveBack(in.lim.Budget)
	in.buf = nil
	if err != nil {
		return cannotKeep(err)
	}
	return nil
}

// fill takes the rest of the body into the file, one byte beyond the limit at most.
func (in *intake) fill() error {
	tell := &writeErr{w: in.file}
	n, err := io.Copy(tell, io.LimitReader(in.r, in.lim.MaxBody+1-in.n))
	in.n += n
	switch {
	case tell.err != nil:
		return cannotKeep(tell.err)
	case err != nil:
		return in.fault(err)
	}
	return nil
}

// writeErr remembers a failed write, which io.Copy can't tell from a failed read.
type writeErr struct {
	w   io.Writer
	err error
}

func (w *writeErr) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	w.err = err
	return n, err
}

// body makes the Body, which then owns the buffer or the file.
func (in *intake) body() (*Body, error) {
	b := &Body{}
	b.holders.Store(1)
	if in.file == nil {
		b.bytes, b.buf, b.budget = in.buf.b[:in.n], in.buf, in.lim.Budget
		return b, nil
	}
	var err error
	if b.bytes, b.unmap, err = openSpool(in.file, in.n); err != nil {
		return nil, cannotKeep(err)
	}
	return b, nil
}

func (in *intake) discard() {
	if in.buf != nil {
		in.buf.giveBack(in.lim.Budget)
	}
	if in.file != nil {
		closeSpool(in.file)
	}
}

// fault says whose error a failed read is.
func (in *intake) fault(err error) error {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return TooLarge(tooLarge.Limit)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return InvalidRequest("", "the request body ended early")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &Error{
			Status: http.StatusRequestTimeout, Type: TypeInvalidRequest, Code: "request_timeout",
			Message: "the request body took too long to arrive",
		}
	}
	return fmt.Errorf("%w: %w", ErrClientGone, err)
}

func cannotKeep(err error) error {
	return &Error{
		Status: http.StatusServiceUnavailable, Type: TypeServer, Code: "storage_full", RetryAfter: time.Second,
		Message: "no room to keep the request body: " + err.Error(),
	}
}
