package upstream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"
)

const (
	bufferSize = 4 << 10               // bytes read ahead from an engine
	maxScratch = 16 << 10              // bytes; larger scratch buffers are not kept
	sendGrace  = 10 * time.Millisecond // how long a finished response waits for its request to be seen as sent
)

// exchange is one request and its response on one connection. It is pooled with its buffers.
type exchange struct {
	pool *Pool
	c    *conn
	br   *bufio.Reader
	out  []byte // the request's head
	in   []byte // the response's head, as read
	head head

	stop    func() bool // ends the watch over the context
	sending chan sent   // gives the result of a request that is sent while the response is waited for
	sent    sent        // otherwise

	chunks  io.Reader // decodes a chunked body
	left    int64     // bytes of a sized body not yet read
	trailer bool      // the last chunk was read, the trailer was not
}

// sent is how far the sending of a request came.
type sent struct {
	n   int64 // bytes written; exact only until the end of the head
	err error
}

// ours gives the error if it was not the engine's.
func (s sent) ours() error {
	if e := (*sourceError)(nil); errors.As(s.err, &e) {
		return e
	}
	return nil
}

var exchanges = sync.Pool{New: func() any {
	return &exchange{br: bufio.NewReaderSize(nil, bufferSize)}
}}

// recycle ends the use of x.
func (x *exchange) recycle() {
	x.br.Reset(nil)
	clear(x.head.fields[:cap(x.head.fields)])
	clear(x.head.connection)
	*x = exchange{br: x.br, out: x.out[:0], in: x.in[:0], head: head{fields: x.head.fields[:0], connection: x.head.connection[:0]}}
	if cap(x.out) > maxScratch {
		x.out = nil
	}
	if cap(x.in) > maxScratch {
		x.in, x.head.fields = nil, nil
	}
	exchanges.Put(x)
}

// start sends a request and reads the head of its response.
func (p *Pool) start(ctx context.Context, r *Request, informational func(*head)) (*exchange, error) {
	x := exchanges.Get().(*exchange) //nolint:errcheck // nothing else is in the pool
	x.pool = p
	if err := x.run(ctx, r, informational); err != nil {
		x.recycle()
		return nil, err
	}
	return x, nil
}

func (x *exchange) run(ctx context.Context, r *Request, informational func(*head)) (err error) {
	f := r.framing()
	if x.out, err = x.pool.appendHead(x.out, r, f); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return canceled(ctx)
	}
	for c := x.pool.reuse(); ; c = nil {
		if c == nil {
			if c, err = x.pool.dial(ctx); err != nil {
				return err
			}
		}
		reused := c.reused
		again, err := x.try(ctx, c, r, f, informational)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return canceled(ctx)
		}
		if !reused || !again {
			return err
		}
	}
}

// try runs the request on c, which it closes when it fails. If it says again, the package comment allows another try
// should c have been reused.
func (x *exchange) try(ctx context.Context, c *conn, r *Request, f framing, informational func(*head)) (again bool, err error) {
	x.c = c
	x.br.Reset(c.Conn)
	if ctx.Done() != nil {
		x.stop = context.AfterFunc(ctx, c.abort)
	}
	x.send(r, f)
	var read bool
	if x.sent.err == nil || x.sent.n > 0 { // if not all was taken, the engine may have answered all the same
		if read, err = x.readHead(r.In.Method, informational); err == nil {
			return false, nil
		}
	}
	x.drop()
	if ours := x.sent.ours(); ours != nil {
		return false, ours
	}
	again = !read && (idempotent(r.In.Method) || x.sent.err != nil && x.sent.n == 0)
	return again, &HeadError{errors.Join(err, x.sent.err)}
}

func idempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// send writes the request, or has it written while the response is waited for if it is large.
func (x *exchange) send(r *Request, f framing) {
	x.sent = sent{}
	if r.inline(f) {
		if f.length <= joinedBody {
			whole := append(x.out, r.Body...) //nolint:gocritic // the head alone stays in x.out, for another try
			x.out = whole[:len(x.out)]
			n, err := x.c.Write(whole)
			x.sent = sent{int64(n), err}
			return
		}
		x.sent.n, x.sent.err = send(x.c.Conn, x.out, r, f)
		return
	}
	sending, c, head := make(chan sent, 1), x.c.Conn, x.out
	x.sending = sending
	go func() {
		n, err := send(c, head, r, f)
		s := sent{n, err}
		if s.ours() != nil {
			_ = c.Close() // or the engine would wait for the rest, and we for the engine
		}
		sending <- s
	}()
}

// readHead reads up to the head of the final response, and tells whether it read anything.
func (x *exchange) readHead(method string, informational func(*head)) (read bool, err error) {
	for limit := maxHead; ; {
		x.in, err = readBlock(x.br, x.in[:0], limit)
		read = read || len(x.in) > 0
		limit -= len(x.in)
		if err != nil {
			return read, err
		}
		if err := x.head.parse(string(x.in), method); err != nil {
			return read, err
		}
		switch {
		case x.head.status == http.StatusSwitchingProtocols:
			return read, errSwitched
		case x.head.status >= http.StatusOK:
			x.left = max(x.head.length, 0)
			if x.head.chunked {
				x.chunks = httputil.NewChunkedReader(x.br)
			}
			return read, nil
		case x.head.status != http.StatusContinue && informational != nil:
			informational(&x.head)
		}
	}
}

// read reads the body. With io.EOF the response is complete, its trailer is in x.head.fields, if it has one.
func (x *exchange) read(p []byte) (n int, err error) {
	switch {
	case x.head.bodiless:
		return 0, io.EOF
	case x.head.chunked:
		return x.readChunked(p)
	case x.head.length >= 0:
		return x.readSized(p)
	default:
		return x.br.Read(p)
	}
}

func (x *exchange) readSized(p []byte) (n int, err error) {
	if x.left == 0 {
		return 0, io.EOF
	}
	n, err = x.br.Read(p[:min(int64(len(p)), x.left)])
	x.left -= int64(n)
	switch {
	case x.left == 0:
		return n, io.EOF
	case err == io.EOF:
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

func (x *exchange) readChunked(p []byte) (n int, err error) {
	if !x.trailer {
		n, err = x.chunks.Read(p)
		if err != io.EOF {
			return n, err
		}
		x.trailer = true
		if n > 0 && x.br.Buffered() < len("\r\n") {
			return n, nil // what is there must not wait for the trailer
		}
	}
	if b, _ := x.br.Peek(2); n > 0 && string(b) != "\r\n" {
		return n, nil // nor for the whole of it
	}
	if err := x.readTrailer(); err != nil {
		return n, err
	}
	return n, io.EOF
}

// readTrailer leaves the fields of the trailer in x.head.fields.
func (x *exchange) readTrailer() (err error) {
	if x.in, err = readBlock(x.br, x.in[:0], maxHead); err != nil {
		if err == io.EOF { //nolint:errorlint // readBlock returns it as it is
			return io.ErrUnexpectedEOF
		}
		return err
	}
	if b := x.in; string(b) != "\r\n" && !bytes.HasSuffix(b, []byte("\r\n\r\n")) {
		return errTrailerEnd // what delimits chunks is not to be guessed at
	}
	x.head.fields, err = parseFields(x.head.fields[:0], string(x.in))
	return err
}

// buffered tells whether some of the body was read ahead.
func (x *exchange) buffered() bool { return x.br.Buffered() > 0 }

// drop closes the connection, and returns when nobody writes to it any more.
func (x *exchange) drop() {
	x.unwatch()
	if x.sending == nil {
		_ = x.c.Close()
		return
	}
	select {
	case x.sent = <-x.sending:
		_ = x.c.Close()
	default:
		_ = x.c.Close()
		if s := <-x.sending; s.ours() != nil { // any other error is but our closing
			x.sent = s
		}
	}
	x.sending = nil
}

// finish ends the exchange. The connection goes back to the pool if the response is complete and nothing speaks against it.
func (x *exchange) finish(complete bool) {
	if complete && !x.head.last && x.br.Buffered() == 0 && x.wasSent() && x.unwatch() {
		x.pool.giveBack(x.c)
	} else {
		x.drop()
	}
	x.recycle()
}

// unwatch ends the watch over the context, and tells whether the connection is still ours.
func (x *exchange) unwatch() bool {
	stopped := x.stop == nil || x.stop()
	x.stop = nil
	return stopped
}

// wasSent tells whether the whole request was sent.
func (x *exchange) wasSent() bool {
	if x.sending == nil {
		return x.sent.err == nil
	}
	t := time.NewTimer(sendGrace)
	defer t.Stop()
	select {
	case x.sent = <-x.sending:
		x.sending = nil
		return x.sent.err == nil
	case <-t.C:
		return false
	}
}
