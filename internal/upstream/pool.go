package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"syscall"
	"time"
)

const (
	dialTimeout = time.Second // a local connect takes microseconds; a full accept queue makes it hang
	maxIdle     = 256         // connections kept; an instance has fewer slots

	// idleTimeout is how long one is kept: less than the 5 s after which llama-server (cpp-httplib) and uvicorn close
	// theirs, so that a request does not meet the end of its connection half-way.
	idleTimeout = 4 * time.Second
	maxProbe    = 64 << 10 // bytes of a probe's answer read so that its connection can be reused
)

// Pool is the connections to one instance. It is safe for concurrent use.
type Pool struct {
	// Header is ours for the engine, such as the secret of its start. It is sent with every request instead of the
	// client's of the same names. Set it before the first request.
	Header http.Header

	network, address string
	oneEach          bool

	mu      sync.Mutex
	idle    []*conn // the longest idle first
	closed  bool
	sweeper *time.Timer // nil when idle is empty
}

// NewPool makes a pool of connections to an address such as ("tcp", "127.0.0.1:1234") or ("unix", "/run/engine.sock").
func NewPool(network, address string) *Pool { return &Pool{network: network, address: address} }

// OneRequestEach makes every connection carry one request only. Call it before the first request. It is for engines that
// end connections without a word: llama-server (build 11669) closed one in eight right after a stream.
func (p *Pool) OneRequestEach() { p.oneEach = true }

// Get asks for a path and returns the answer's status, for probes of readiness.
func (p *Pool) Get(ctx context.Context, path string) (int, error) { return get(ctx, p, path) }

// get is Get of either transport.
func get(ctx context.Context, t Transport, path string) (int, error) {
	u, err := url.ParseRequestURI(path)
	if err != nil {
		return 0, &RequestError{err}
	}
	resp, err := t.Do(ctx, &Request{In: &http.Request{Method: http.MethodGet, URL: u}})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if _, err := io.CopyN(io.Discard, resp.Body, maxProbe); err != nil && !errors.Is(err, io.EOF) {
		return 0, &BodyError{Err: err}
	}
	return resp.StatusCode, nil
}

// CloseIdle closes the connections that carry no request.
func (p *Pool) CloseIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropIdle(len(p.idle))
}

// Close closes idle connections now and busy ones when they come back.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.dropIdle(len(p.idle))
}

// dropIdle closes the n connections that are idle for longest. The caller holds p.mu.
func (p *Pool) dropIdle(n int) {
	for _, c := range p.idle[:n] {
		_ = c.Close()
	}
	rest := copy(p.idle, p.idle[n:])
	clear(p.idle[rest:])
	p.idle = p.idle[:rest]
	if rest == 0 && p.sweeper != nil {
		p.sweeper.Stop()
		p.sweeper = nil
	}
}

// sweep closes what was idle for too long.
func (p *Pool) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for n < len(p.idle) && time.Since(p.idle[n].idleSince) >= idleTimeout {
		n++
	}
	p.dropIdle(n)
	if p.sweeper != nil {
		p.sweeper.Reset(idleTimeout - time.Since(p.idle[0].idleSince))
	}
}

// reuse takes the connection that was used last, as it is the likeliest to be alive; nil if there is none.
func (p *Pool) reuse() *conn {
	for {
		c := p.pop()
		if c == nil || c.alive() {
			return c
		}
		_ = c.Close()
	}
}

func (p *Pool) pop() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.idle) - 1
	if last < 0 {
		return nil
	}
	c := p.idle[last]
	p.idle[last] = nil
	p.idle = p.idle[:last]
	return c
}

// giveBack takes a connection whose request has ended well.
func (p *Pool) giveBack(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.oneEach || len(p.idle) >= maxIdle {
		_ = c.Close()
		return
	}
	c.reused, c.idleSince = true, time.Now()
	p.idle = append(p.idle, c)
	if p.sweeper == nil {
		p.sweeper = time.AfterFunc(idleTimeout, p.sweep)
	}
}

// dial makes a new connection.
func (p *Pool) dial(ctx context.Context) (*conn, error) {
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return nil, &DialError{p.address, net.ErrClosed}
	}
	nc, err := dial(ctx, p.network, p.address)
	if err != nil {
		return nil, err
	}
	return newConn(nc), nil
}

// dial connects to an engine, for either transport.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout, KeepAlive: -1} // a local peer cannot vanish without its kernel telling
	nc, err := d.DialContext(ctx, network, address)
	for began := time.Now(); errors.Is(err, syscall.EAGAIN) && time.Since(began) < dialTimeout && ctx.Err() == nil; {
		time.Sleep(time.Millisecond) // a unix socket's full backlog answers at once, where TCP's waits
		nc, err = d.DialContext(ctx, network, address)
	}
	if err == nil {
		return nc, nil
	}
	if ctx.Err() != nil {
		return nil, canceled(ctx)
	}
	return nil, &DialError{address, err}
}

// host is what an engine at an address reads in the Host header.
func host(network, address string) string {
	if network == "unix" {
		return "localhost"
	}
	return address
}
