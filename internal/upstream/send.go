package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"strconv"
	"strings"
)

const (
	joinedBody = 4 << 10  // bytes; a body up to this is copied behind the head, for one plain write
	inlineBody = 64 << 10 // bytes; a body up to this fits an empty socket's buffer, so that writing it does not wait for the engine
)

// framing is how a request's body is sent.
type framing struct {
	length  int64 // bytes, when not chunked
	chunked bool
}

func (r *Request) framing() framing {
	length := r.Length
	if r.BodyReader == nil {
		length = int64(len(r.Body))
	}
	if length < 0 || hasTrailer(r.In) {
		return framing{chunked: true}
	}
	return framing{length: length}
}

// inline tells whether the body is written before the response is looked for.
func (r *Request) inline(f framing) bool {
	return r.BodyReader == nil && !f.chunked && f.length <= inlineBody
}

// open gives the body from its start. Its reader's errors are told from those of writing to the engine.
func (r *Request) open() (io.ReadCloser, error) {
	if r.BodyReader == nil {
		return io.NopCloser(bytes.NewReader(r.Body)), nil
	}
	rc, err := r.BodyReader()
	if err != nil {
		return nil, &sourceError{err}
	}
	if _, file := rc.(*os.File); file { // goes to a socket without passing through our memory, as long as it is plain
		return rc, nil
	}
	return source{rc}, nil
}

// appendHead appends the head of a request to b.
func (p *Pool) appendHead(b []byte, r *Request, f framing) ([]byte, error) {
	if upgrades(r.In) {
		return b, ErrUpgrade
	}
	t, err := target(r.In)
	if err != nil {
		return b, &RequestError{err}
	}
	b = append(b, r.In.Method...)
	b = append(b, ' ')
	b = append(b, t...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, host(p.network, p.address)...)
	b = append(b, "\r\n"...)

	connection := r.In.Header["Connection"]
	err = passHeader(r.In.Header, connection, func(name, value string) {
		if _, ours := p.Header[name]; !ours {
			b = appendField(b, name, value)
		}
	})
	if err != nil {
		return b, &RequestError{err}
	}
	for name, values := range p.Header {
		for _, v := range values {
			b = appendField(b, name, v)
		}
	}
	if hasToken(r.In.Header["Te"], "trailers") {
		b = append(b, "Te: trailers\r\n"...)
	}
	switch {
	case f.chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		if b, err = appendTrailerNames(b, r.In); err != nil {
			return b, &RequestError{err}
		}
	case f.length > 0 || wantsLength(r.In.Method):
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, f.length, 10)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...), nil
}

// wantsLength tells whether a method's request has a length even when its body is empty (RFC 9110 section 8.6).
func wantsLength(method string) bool {
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// requestTrailer is the part of a client's trailer that an engine is to see.
func requestTrailer(r *http.Request) (http.Header, error) {
	t := http.Header{}
	err := passHeader(r.Trailer, nil, func(name, value string) {
		if !notInTrailer(name) {
			t[name] = append(t[name], value)
		}
	})
	return t, err
}

func appendTrailerNames(b []byte, r *http.Request) ([]byte, error) {
	trailer, err := requestTrailer(r)
	if err != nil || len(trailer) == 0 {
		return b, err
	}
	names := make([]string, 0, len(trailer))
	for name := range trailer {
		names = append(names, name)
	}
	return appendField(b, "Trailer", strings.Join(names, ", ")), nil
}

// sourceError says that a request's body could not be read: our fault, not the engine's.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return "upstream: read request body: " + e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// source marks the errors of a body's reader.
type source struct{ io.ReadCloser }

func (s source) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = &sourceError{err}
	}
	return n, err
}

// send writes a head and the body behind it, and returns how many bytes were written.
func send(w io.Writer, head []byte, r *Request, f framing) (int64, error) {
	if r.BodyReader == nil && !f.chunked {
		bufs := net.Buffers{head, r.Body}
		return bufs.WriteTo(w)
	}
	n, err := w.Write(head)
	if err != nil {
		return int64(n), err
	}
	src, err := r.open()
	if err != nil {
		return int64(n), err
	}
	defer src.Close()
	if f.chunked {
		return int64(n), sendChunks(w, src, r.In)
	}
	return int64(n), sendSized(w, src, f.length)
}

func sendSized(w io.Writer, src io.Reader, length int64) error {
	n, err := io.Copy(w, io.LimitReader(src, length))
	if err != nil {
		return err
	}
	if n != length {
		return &sourceError{fmt.Errorf("%d bytes instead of %d", n, length)}
	}
	return nil
}

func sendChunks(w io.Writer, src io.Reader, in *http.Request) error {
	bw := bufio.NewWriterSize(w, bufferSize)
	cw := httputil.NewChunkedWriter(bw)
	if _, err := io.Copy(cw, src); err != nil {
		return err
	}
	if err := cw.Close(); err != nil {
		return err
	}
	trailer, err := requestTrailer(in)
	if err != nil {
		return errors.Join(err, bw.Flush()) // refused already when the head was made
	}
	var b []byte
	for name, values := range trailer {
		for _, v := range values {
			b = appendField(b, name, v)
		}
	}
	if _, err := bw.Write(append(b, "\r\n"...)); err != nil {
		return err
	}
	return bw.Flush()
}
