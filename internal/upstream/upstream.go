// Package upstream moves bytes between a client's [http.ResponseWriter] and an engine instance: a local HTTP/1.1 server
// on TCP loopback or a unix socket.
//
// [Pool] is the lean way: pooled raw connections, no goroutine between the client and the engine except to send a
// request body of more than 64 KiB. [Std] does the same over [http.Transport]. Both owe the engine and the client what
// RFC 9110 asks of a proxy; what they withhold from either on purpose is listed in headers.go.
//
// # When a request is sent a second time
//
// A kept-alive connection can die unused, its engine having closed it just before the request came. So that this is
// rare, an idle connection is asked whether it is still open, and silent, before it is reused. When it dies nevertheless, the request
// is repeated once, on a new connection, if
//   - not one byte of it could be written, whatever its method; or
//   - it was written, the connection ended without one byte of a response, and its method is GET, HEAD, OPTIONS or TRACE.
//
// A POST of which a byte was written is never sent again: an engine that crashes over a prompt looks the same as one
// that closed an idle connection, and the second try would crash its successor. Its caller gets a [HeadError].
package upstream

import (
	"context"
	"io"
	"net/http"
)

// Transport carries requests to one instance. It is safe for concurrent use.
type Transport interface {
	// Do sends the request and returns the response's head. Its body must be read to the end or closed.
	// Informational responses (1xx) are passed over.
	Do(ctx context.Context, r *Request) (*Response, error)

	// Forward is Do, and then the copy of the response to w. After an error the caller still owns w if
	// Result.Started is false; otherwise the response is broken, and he either ends the stream in the words of its
	// protocol or panics with [http.ErrAbortHandler].
	Forward(ctx context.Context, w http.ResponseWriter, r *Request, h Hooks) (Result, error)

	// Get asks for a path, reads no more than 64 KiB of the answer, and returns its status.
	Get(ctx context.Context, path string) (int, error)

	// CloseIdle closes the connections that carry no request.
	CloseIdle()

	// Close closes idle connections now and busy ones at the end of their requests. Later requests get a [DialError].
	Close()
}

var (
	_ Transport = (*Pool)(nil)
	_ Transport = (*Std)(nil)
)

// Request is a client's request whose body was already read.
type Request struct {
	// In gives method, URL, header and trailer. Its body and its host are not used.
	In *http.Request

	// Body is the whole body when it is in memory and BodyReader is nil. It must not change before Forward returns or
	// the response's body is closed.
	Body []byte

	// BodyReader opens the body from its start when it is not in memory; it may be called twice.
	BodyReader func() (io.ReadCloser, error)

	// Length is how many bytes BodyReader's reader gives; below 0, when nobody knows, they are sent in chunks.
	Length int64
}

// Response is an engine's answer.
type Response struct {
	StatusCode int
	Header     http.Header

	// ContentLength is the length of the body in bytes, -1 when it is not known in advance.
	ContentLength int64

	// Body is never nil. It must not be used by two goroutines at once. One that has no length and is not chunked ends
	// with its connection: whether it is whole, only its content can tell.
	Body io.ReadCloser

	// Trailer has the announced names, with nil values, and all values once Body gave io.EOF.
	Trailer http.Header
}

// Hooks are the caller's looks into a response; each may be nil.
type Hooks struct {
	// Head may change what the client is about to get as header. It is not called for 1xx.
	Head func(status int, header http.Header)

	// Tap sees each piece of the body before the client gets it. It must not keep the slice.
	Tap func(piece []byte)
}

// Result is how far a response came.
type Result struct {
	StatusCode int
	Started    bool  // the head was given to the client's writer
	Bytes      int64 // of the body, given to the client's writer
}
