package upstream

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// copySize is how many bytes of a response are moved at once: with bufferSize, all the memory a stream has here.
const copySize = 16 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copySize]byte) }}

// doer is what forward needs of a transport.
type doer interface {
	do(ctx context.Context, r *Request, h http.Header, informational func(status int, header func(http.Header))) (*Response, error)
}

// Forward sends the request and copies the response to w.
func (p *Pool) Forward(ctx context.Context, w http.ResponseWriter, r *Request, h Hooks) (Result, error) {
	return forward(ctx, p, w, r, h)
}

// forward is Forward of either transport.
func forward(ctx context.Context, d doer, w http.ResponseWriter, r *Request, h Hooks) (res Result, err error) {
	header := w.Header()
	inform := func(status int, add func(http.Header)) {
		if r.In.ProtoAtLeast(1, 1) { // RFC 9110 section 15.2
			writeInformational(w, status, add)
		}
	}
	resp, err := d.do(ctx, r, header, inform)
	if err != nil {
		return res, err
	}
	defer resp.Body.Close()

	if len(resp.Trailer) > 0 {
		header["Trailer"] = []string{strings.Join(slices.Sorted(maps.Keys(resp.Trailer)), ", ")}
	}
	if h.Head != nil {
		h.Head(resp.StatusCode, header)
	}
	w.WriteHeader(resp.StatusCode)
	res.StatusCode, res.Started = resp.StatusCode, true
	if err := copyBody(w, resp, h.Tap, &res.Bytes); err != nil {
		if ctx.Err() != nil {
			err = canceled(ctx)
		}
		return res, err
	}
	if len(resp.Trailer) > 0 {
		return res, writeTrailer(w, resp.Trailer)
	}
	return res, nil
}

// writeInformational sends a 1xx, and leaves w's header as it was.
func writeInformational(w http.ResponseWriter, status int, add func(http.Header)) {
	h := w.Header()
	ours := maps.Clone(h)
	clear(h)
	add(h)
	w.WriteHeader(status)
	clear(h)
	maps.Copy(h, ours)
}

// writeTrailer sends what came after the body. The flush makes the server chunk the body, however short it is.
func writeTrailer(w http.ResponseWriter, trailer http.Header) error {
	if err := flush(w); err != nil {
		return err
	}
	h := w.Header()
	for name, values := range trailer {
		if len(values) > 0 {
			h[http.TrailerPrefix+name] = values
		}
	}
	return nil
}

// copyBody copies a body to w and counts its bytes in n. A stream is flushed whenever the engine might not go on at once.
func copyBody(w http.ResponseWriter, resp *Response, tap func([]byte), n *int64) error {
	buf := copyBuffers.Get().(*[copySize]byte) //nolint:errcheck // nothing else is in the pool
	defer copyBuffers.Put(buf)
	streams := streams(resp)
	if streams && !readAhead(resp.Body) {
		if err := flush(w); err != nil {
			return err
		}
	}
	for {
		got, err := resp.Body.Read(buf[:])
		if got > 0 {
			if tap != nil {
				tap(buf[:got])
			}
			if _, err := w.Write(buf[:got]); err != nil {
				return &ClientError{err}
			}
			*n += int64(got)
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return &BodyError{Written: *n > 0, Err: err}
		case got > 0 && streams:
			if err := flush(w); err != nil {
				return err
			}
		}
	}
}

// readAhead tells whether some of a body is known to be here, so that the head can go out with it.
func readAhead(body io.Reader) bool {
	b, ok := body.(interface{ buffered() bool })
	return ok && b.buffered()
}

// streams tells whether the parts of a body are to reach the client as they come.
func streams(r *Response) bool {
	if r.ContentLength < 0 {
		return true
	}
	const sse = "text/event-stream"
	t := r.Header.Get("Content-Type")
	return len(t) >= len(sse) && strings.EqualFold(t[:len(sse)], sse)
}

// flush sends what w holds back. One that cannot flush holds nothing back, or has its reasons.
func flush(w http.ResponseWriter) error {
	err := http.NewResponseController(w).Flush()
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return &ClientError{err}
	}
	return nil
}
