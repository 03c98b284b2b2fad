package upstream

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
)

// Std carries requests to one instance, or to a remote server, over [http.Transport].
type Std struct {
	// Header is as in [Pool].
	Header http.Header

	transport *http.Transport
	scheme    string // http or https
	host      string
	prefix    string // of paths; "" = none

	mu     sync.Mutex
	closed bool
}

// NewStd makes a transport to an address as [NewPool] takes it.
func NewStd(network, address string) *Std {
	s := &Std{scheme: "http", host: host(network, address)}
	s.transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			if s.isClosed() {
				return nil, &DialError{address, net.ErrClosed}
			}
			return dial(ctx, network, address)
		},
		DisableCompression:     true, // or it would ask for gzip, and hold tokens back
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHead,
	}
	return s
}

// OneRequestEach makes every connection carry one request only, as [Pool.OneRequestEach] does.
func (s *Std) OneRequestEach() { s.transport.DisableKeepAlives = true }

func (s *Std) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Get asks for a path and returns the answer's status, for probes of readiness.
func (s *Std) Get(ctx context.Context, path string) (int, error) { return get(ctx, s, path) }

// CloseIdle closes the connections that carry no request.
func (s *Std) CloseIdle() { s.transport.CloseIdleConnections() }

// Close closes idle connections now and busy ones when they come back.
func (s *Std) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.transport.CloseIdleConnections()
}

// Do sends the request and returns the response's head.
func (s *Std) Do(ctx context.Context, r *Request) (*Response, error) {
	return s.do(ctx, r, http.Header{}, nil)
}

// Forward sends the request and copies the response to w.
func (s *Std) Forward(ctx context.Context, w http.ResponseWriter, r *Request, h Hooks) (Result, error) {
	return forward(ctx, s, w, r, h)
}

func (s *Std) do(ctx context.Context, r *Request, h http.Header, informational func(int, func(http.Header))) (*Response, error) {
	out, opened, err := s.request(r)
	if err != nil {
		return nil, err
	}
	if informational != nil {
		var done func()
		ctx, done = traceInformational(ctx, informational)
		defer done()
	}
	resp, err := s.transport.RoundTrip(out.WithContext(ctx))
	if err != nil {
		opened.Wait()
		return nil, classify(ctx, err)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		_ = resp.Body.Close()
		opened.Wait()
		return nil, &HeadError{errSwitched}
	}
	addHeader(h, resp.Header)
	std := &Response{StatusCode: resp.StatusCode, Header: h, ContentLength: resp.ContentLength}
	if out.Method == http.MethodHead {
		std.ContentLength = 0
	}
	std.announce(resp.Trailer)
	std.Body = &stdBody{resp, std, opened}
	return std, nil
}

// request makes the request that goes out. opened counts its bodies that the transport has not closed yet, which it may
// do after it has returned.
func (s *Std) request(r *Request) (out *http.Request, opened *sync.WaitGroup, err error) {
	if upgrades(r.In) {
		return nil, nil, ErrUpgrade
	}
	if _, err := target(r.In); err != nil {
		return nil, nil, &RequestError{err}
	}
	u := *r.In.URL
	u.Scheme, u.Host, u.User = s.scheme, s.host, nil
	if s.prefix != "" {
		u.Path, u.RawPath = s.prefix+u.Path, ""
	}
	out = &http.Request{Method: r.In.Method, URL: &u, Header: http.Header{"User-Agent": nil}}
	if err := s.header(out.Header, r.In); err != nil {
		return nil, nil, &RequestError{err}
	}
	opened = new(sync.WaitGroup)
	return out, opened, r.setBody(out, opened)
}

func (s *Std) header(h http.Header, in *http.Request) error {
	err := passHeader(in.Header, in.Header["Connection"], func(name, value string) {
		if name == "Idempotency-Key" || name == "X-Idempotency-Key" {
			// http.Transport takes these, by their canonical names, as leave to send a POST twice.
			name = "i" + name[1:]
		}
		h[name] = append(h[name], value)
	})
	maps.Copy(h, s.Header)
	if hasToken(in.Header["Te"], "trailers") {
		h["Te"] = []string{"trailers"}
	}
	return err
}

func (r *Request) setBody(out *http.Request, opened *sync.WaitGroup) (err error) {
	f := r.framing()
	if f.length == 0 && !f.chunked {
		return nil
	}
	out.ContentLength = f.length
	if f.chunked {
		out.ContentLength = -1
		if out.Trailer, err = requestTrailer(r.In); err != nil {
			return &RequestError{err}
		}
	}
	out.GetBody = func() (io.ReadCloser, error) {
		src, err := r.open()
		if err != nil {
			return nil, err
		}
		opened.Add(1)
		return &stdSource{ReadCloser: src, closed: sync.OnceFunc(opened.Done)}, nil
	}
	out.Body, err = out.GetBody()
	return err
}

// stdSource is the body of a request to http.Transport.
type stdSource struct {
	io.ReadCloser
	closed func()
}

func (s *stdSource) Close() error {
	defer s.closed()
	return s.ReadCloser.Close()
}

// traceInformational has informational told of each 1xx but 100 until done is called.
func traceInformational(ctx context.Context, informational func(int, func(http.Header))) (_ context.Context, done func()) {
	var mu sync.Mutex // the trace runs in the transport's goroutine
	over := false
	trace := &httptrace.ClientTrace{Got1xxResponse: func(status int, header textproto.MIMEHeader) error {
		mu.Lock()
		defer mu.Unlock()
		if !over && status != http.StatusContinue {
			informational(status, func(h http.Header) { addHeader(h, http.Header(header)) })
		}
		return nil
	}}
	return httptrace.WithClientTrace(ctx, trace), func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
	}
}

// classify gives a transport's error the types of this package.
func classify(ctx context.Context, err error) error {
	var dialed *DialError
	var ours *sourceError
	switch {
	case ctx.Err() != nil:
		return canceled(ctx)
	case errors.As(err, &dialed):
		return dialed
	case errors.As(err, &ours):
		return ours
	}
	return &HeadError{err}
}

// addHeader adds to dst what of an engine's header a client is to see.
func addHeader(dst, src http.Header) {
	for name, values := range src {
		if !validName(name) || withheldFromClient(name) || hasToken(src["Connection"], name) {
			continue
		}
		dst[name] = append(dst[name], values...)
	}
}

// announce takes the names of a trailer.
func (r *Response) announce(trailer http.Header) {
	for name := range trailer {
		if notInTrailer(name) || withheldFromClient(name) {
			continue
		}
		if r.Trailer == nil {
			r.Trailer = http.Header{}
		}
		r.Trailer[name] = nil
	}
}

// stdBody is the body of a response of http.Transport.
type stdBody struct {
	from   *http.Response
	to     *Response
	opened *sync.WaitGroup
}

func (b *stdBody) Read(p []byte) (int, error) {
	n, err := b.from.Body.Read(p)
	if err == io.EOF {
		for name, values := range b.from.Trailer {
			for _, v := range values {
				b.to.addTrailer([]field{{name, v}})
			}
		}
		b.from.Trailer = nil
	}
	return n, err
}

// Close returns when the request's body is not read any more.
func (b *stdBody) Close() error {
	err := b.from.Body.Close()
	b.opened.Wait()
	return err
}
