package upstream

import (
	"context"
	"io"
	"net/http"
)

// Do sends the request and returns the response's head. Its body must be read to the end or closed.
func (p *Pool) Do(ctx context.Context, r *Request) (*Response, error) {
	return p.do(ctx, r, http.Header{}, nil)
}

// do is Do with the header put into h, and informational told of each 1xx but 100.
func (p *Pool) do(ctx context.Context, r *Request, h http.Header, informational func(int, func(http.Header))) (*Response, error) {
	var inform func(*head)
	if informational != nil {
		inform = func(hd *head) { informational(hd.status, hd.header) }
	}
	x, err := p.start(ctx, r, inform)
	if err != nil {
		return nil, err
	}
	trailer, err := x.head.trailerNames()
	if err != nil {
		x.finish(false)
		return nil, &HeadError{err}
	}
	x.head.header(h)
	l := &leanResponse{Response: Response{StatusCode: x.head.status, Header: h, ContentLength: x.head.length, Trailer: trailer}}
	if x.head.bodiless {
		l.ContentLength = 0
	}
	l.Body = &l.body
	l.body = body{x: x, resp: &l.Response}
	return &l.Response, nil
}

// leanResponse is a response and its body, in one piece of memory.
type leanResponse struct {
	Response
	body body
}

// body is the body of a response. It gives the connection back as soon as it was read to its end.
type body struct {
	x    *exchange // nil after the end
	resp *Response
	err  error // of reads after the end
}

func (b *body) Read(p []byte) (int, error) {
	if b.x == nil {
		return 0, b.err
	}
	n, err := b.x.read(p)
	if err != nil {
		b.end(err)
	}
	return n, err
}

// Close ends the response. Unless it was read to its end its connection is closed, which tells the engine to stop.
func (b *body) Close() error {
	if b.x != nil {
		b.end(http.ErrBodyReadAfterClose)
	}
	return nil
}

func (b *body) end(err error) {
	complete := err == io.EOF //nolint:errorlint // read returns it as it is
	if complete && b.x.trailer {
		b.resp.addTrailer(b.x.head.fields)
	}
	b.x.finish(complete)
	b.x, b.err = nil, err
}

// buffered tells whether the next read finds something that was read ahead.
func (b *body) buffered() bool { return b.x != nil && b.x.buffered() }

// addTrailer takes from a trailer what a client is to see.
func (r *Response) addTrailer(fields []field) {
	for _, f := range fields {
		if notInTrailer(f.name) || withheldFromClient(f.name) {
			continue
		}
		if r.Trailer == nil {
			r.Trailer = http.Header{}
		}
		r.Trailer[f.name] = append(r.Trailer[f.name], f.value)
	}
}
