package upstream

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// trial is a test of one of the package's own transports over one network.
type trial struct {
	*testing.T
	way, network string
}

// ours runs a test with each transport, over each network.
func ours(t *testing.T, test func(t trial)) {
	t.Helper()
	for _, way := range []string{"lean", "std"} {
		for _, network := range []string{"tcp", "unix"} {
			t.Run(way+"/"+network, func(t *testing.T) { test(trial{t, way, network}) })
		}
	}
}

// client is the ResponseWriter of tests that need no server.
type client struct {
	header http.Header
	status []int
	body   strings.Builder
	write  func(b []byte) error // may be nil
}

func newWriter() *client { return &client{header: http.Header{}} }

func (c *client) Header() http.Header    { return c.header }
func (c *client) WriteHeader(status int) { c.status = append(c.status, status) }
func (c *client) Flush()                 {}
func (c *client) Write(b []byte) (int, error) {
	if c.write != nil {
		if err := c.write(b); err != nil {
			return 0, err
		}
	}
	return c.body.Write(b)
}

func incoming(method, target string, header http.Header) *http.Request {
	u, err := url.ParseRequestURI(target)
	if err != nil {
		panic(err)
	}
	return &http.Request{Method: method, URL: u, Header: header, ProtoMajor: 1, ProtoMinor: 1, Host: "models.example"}
}

func post(body string) *Request {
	return &Request{In: incoming("POST", "/v1/x", http.Header{}), Body: []byte(body)}
}

// TestTokenByToken: the engine writes a token only when the client has the one before.
func TestTokenByToken(t *testing.T) {
	heads := map[string]struct{ head, token, end string }{
		"chunked": {chunkedOK + "Content-Type: text/event-stream\r\n\r\n", "9\r\ndata: a\n\n\r\n", "0\r\n\r\n"},
		"plain":   {chunkedOK + "\r\n", "9\r\ndata: a\n\n\r\n", "0\r\n\r\n"},
		"to end":  {"HTTP/1.1 200 OK\r\n\r\n", "data: a\n\n", ""},
		"sized":   {"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nContent-Length: 450\r\n\r\n", "data: a\n\n", ""},
	}
	for name, h := range heads {
		for _, way := range ways {
			t.Run(name+"/"+way, func(t *testing.T) {
				next := make(chan struct{})
				e := startEngine(t, "tcp", func(c *engineConn) {
					if !c.next() {
						return
					}
					c.write(h.head)
					for range 50 {
						if _, ok := <-next; !ok {
							return
						}
						c.write(h.token)
					}
					c.write(h.end)
				})
				s := front(t, way, "tcp", e.address)
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				defer close(next)
				resp, err := newClient(t).Do(newRequest(t, "POST", s.URL+"/v1/x", "x").WithContext(ctx)) // comes with no token sent
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				br := bufio.NewReader(resp.Body)
				for i := range 50 {
					next <- struct{}{}
					b := make([]byte, len("data: a\n\n"))
					if _, err := io.ReadFull(br, b); err != nil || string(b) != "data: a\n\n" {
						t.Fatalf("token %d: %q, %v", i, b, err)
					}
				}
				if b, err := io.ReadAll(br); len(b) > 0 || err != nil {
					t.Errorf("after the last token: %q, %v", b, err)
				}
			})
		}
	}
}

// TestLastTokenBeforeTrailer: the last token does not wait for the trailer, of which any part may be late.
func TestLastTokenBeforeTrailer(t *testing.T) {
	const answer = "3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n"
	for cut := len("3\r\nabc"); cut < len(answer); cut++ {
		arrived := make(chan struct{})
		e := startEngine(t, "unix", func(c *engineConn) {
			c.next()
			c.write(chunkedOK + "\r\n" + answer[:cut])
			<-arrived
			c.write(answer[cut:])
		})
		p := NewPool("unix", e.address)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		w := newWriter()
		came := sync.OnceFunc(func() { close(arrived) })
		w.write = func([]byte) error { came(); return nil }
		_, err := p.Forward(ctx, w, post("x"), Hooks{})
		if err != nil || w.body.String() != "abc" || w.header.Get(http.TrailerPrefix+"X-T") != "1" {
			t.Errorf("cut at %d: %q, %v, %v", cut, w.body.String(), w.header, err)
		}
		came()
		cancel()
		p.Close()
	}
}

// TestSlowReader: an engine is held back by a client that does not read, and nothing is lost.
func TestSlowReader(t *testing.T) {
	const size = 64 << 20
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			var written atomic.Int64
			e := startEngine(t, "tcp", func(c *engineConn) {
				if !c.next() {
					return
				}
				c.write(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size))
				for b := []byte(oneMB); written.Load() < size; {
					n, err := c.Write(b)
					if err != nil {
						return
					}
					written.Add(int64(n))
				}
			})
			resp, err := newClient(t).Do(newRequest(t, "GET", front(t, way, "tcp", e.address).URL, ""))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			// Nobody reads until the engine has stood still for a while.
			for last := int64(-1); written.Load() != last; time.Sleep(100 * time.Millisecond) {
				last = written.Load()
			}
			if got := written.Load(); got > size*3/4 {
				t.Errorf("engine could write %d bytes to a client that reads nothing", got)
			}
			if n, err := io.Copy(io.Discard, resp.Body); n != size || err != nil {
				t.Errorf("read %d bytes, %v; want %d", n, err, size)
			}
		})
	}
}

// TestCancel: a client that leaves closes the engine's connection at once, whatever is under way.
func TestCancel(t *testing.T) {
	stages := []struct {
		name   string
		body   string
		script func(c *engineConn, reached chan<- struct{})
	}{
		{"waiting for head", "x", func(c *engineConn, reached chan<- struct{}) {
			c.next()
			reached <- struct{}{}
		}},
		{"amid head", "x", func(c *engineConn, reached chan<- struct{}) {
			c.next()
			c.write("HTTP/1.1 200 OK\r\nX-A:")
			reached <- struct{}{}
		}},
		{"amid sized body", "x", func(c *engineConn, reached chan<- struct{}) {
			c.next()
			c.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
			reached <- struct{}{}
		}},
		{"amid chunked body", "x", func(c *engineConn, reached chan<- struct{}) {
			c.next()
			c.write(chunkedOK + "\r\n3\r\nabc\r\n")
			reached <- struct{}{}
		}},
		{"sending", twentyMB, func(c *engineConn, reached chan<- struct{}) {
			c.skipHead()
			reached <- struct{}{}
		}},
		{"sending, amid body", twentyMB, func(c *engineConn, reached chan<- struct{}) {
			c.skipHead()
			c.write(chunkedOK + "\r\n3\r\nabc\r\n")
			reached <- struct{}{}
		}},
	}
	for _, stage := range stages {
		t.Run(stage.name, func(t *testing.T) {
			ours(t, func(t trial) {
				reached := make(chan struct{}, 1)
				e := startEngine(t, t.network, func(c *engineConn) {
					stage.script(c, reached)
					io.Copy(io.Discard, c.br) // ends when the other side closes
				})
				tr := newTransport(t, t.way, t.network, e.address)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				done := make(chan error, 1)
				go func() {
					_, err := tr.Forward(ctx, newWriter(), post(stage.body), Hooks{})
					done <- err
				}()
				await(t, reached, "request")
				cancel()
				start := time.Now()
				if err := await(t, done, "end of Forward"); !errors.Is(err, context.Canceled) {
					t.Errorf("error %v, want context.Canceled", err)
				}
				await(t, e.closed, "end of the connection")
				if took := time.Since(start); took > time.Second {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

func TestCanceledBefore(t *testing.T) {
	ours(t, func(t trial) {
		e := startEngine(t, t.network, answer(sized("ok")))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := newTransport(t, t.way, t.network, e.address).Forward(ctx, newWriter(), post("x"), Hooks{})
		if !errors.Is(err, context.Canceled) || e.connections() != 0 {
			t.Errorf("error %v, %d connections; want context.Canceled, none", err, e.connections())
		}
	})
}

func TestErrors(t *testing.T) {
	isHead := func(err error) bool { e := (*HeadError)(nil); return errors.As(err, &e) }
	isBody := func(written bool) func(error) bool {
		return func(err error) bool { e := (*BodyError)(nil); return errors.As(err, &e) && e.Written == written }
	}
	isOurs := func(err error) bool { return errors.Is(err, errSpool) && !isHead(err) }
	failing := func(r io.Reader) *Request {
		return &Request{In: incoming("POST", "/", nil), Length: 1 << 20, BodyReader: func() (io.ReadCloser, error) { return io.NopCloser(r), nil }}
	}
	waits := func(c *engineConn) { io.Copy(io.Discard, c.br) }
	cases := []struct {
		name    string
		engine  script
		request *Request
		client  *client
		want    func(error) bool
		started bool
	}{
		{"engine closes", once(""), post("x"), newWriter(), isHead, false},
		{"engine closes, large body", func(c *engineConn) { c.skipHead() }, post(twentyMB), newWriter(), isHead, false},
		{"garbage", once("garbage\r\n\r\n"), post("x"), newWriter(), isHead, false},
		{"space in header name", once("HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"), post("x"), newWriter(), nil, false},
		{"broken off at once", once("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"), post("x"), newWriter(), isBody(false), true},
		{"broken off", once(chunkedOK + "\r\n3\r\nabc\r\n"), post("x"), newWriter(), isBody(true), true},
		{"client gone", answer(sized("abc")), post("x"), &client{header: http.Header{}, write: func([]byte) error { return net.ErrClosed }}, func(err error) bool {
			e := (*ClientError)(nil)
			return errors.As(err, &e) && errors.Is(err, net.ErrClosed)
		}, true},
		{"spool fails", waits, failing(io.MultiReader(strings.NewReader(oneMB[:1000]), failingReader{})), newWriter(), isOurs, false},
		{"spool does not open", waits, &Request{In: incoming("POST", "/", nil), Length: 5, BodyReader: func() (io.ReadCloser, error) { return nil, errSpool }}, newWriter(), isOurs, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ours(t, func(t trial) {
				if c.want == nil && t.way == "std" {
					return // http.Transport takes it for an unknown header, and drops it on the t.way out
				}
				want := c.want
				if want == nil {
					want = isHead
				}
				e := startEngine(t, t.network, c.engine)
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				res, err := newTransport(t, t.way, t.network, e.address).Forward(ctx, c.client, c.request, Hooks{})
				if err == nil || !want(err) || res.Started != c.started {
					t.Errorf("error %T %v, started %v; want another, %v", err, err, res.Started, c.started)
				}
			})
		})
	}
}

var errSpool = errors.New("spool broken")

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errSpool }

// TestShortSpool: a body that is shorter than was said must not reach the engine as a whole one.
func TestShortSpool(t *testing.T) {
	ours(t, func(t trial) {
		e := startEngine(t, t.network, answer(sized("ok")))
		r := &Request{In: incoming("POST", "/", nil), Length: 10, BodyReader: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader("short")), nil
		}}
		_, err := newTransport(t, t.way, t.network, e.address).Forward(t.Context(), newWriter(), r, Hooks{})
		if err == nil || len(e.requests()) > 0 {
			t.Errorf("error %v, engine got %v", err, e.requests())
		}
	})
}

func TestDialError(t *testing.T) {
	ours(t, func(t trial) {
		ln := listen(t, t.network)
		ln.Close()
		res, err := newTransport(t, t.way, t.network, ln.Addr().String()).Forward(t.Context(), newWriter(), post("x"), Hooks{})
		if e := (*DialError)(nil); !errors.As(err, &e) || res.Started {
			t.Errorf("error %T %v, started %v; want a DialError, false", err, err, res.Started)
		}
	})
}

func TestUpgrade(t *testing.T) {
	requests := map[string]*http.Request{
		"websocket": incoming("GET", "/", http.Header{"Connection": {"keep-alive, Upgrade"}, "Upgrade": {"websocket"}}),
		"connect":   incoming("CONNECT", "/", nil),
	}
	for name, r := range requests {
		t.Run(name, func(t *testing.T) {
			ours(t, func(t trial) {
				e := startEngine(t, t.network, answer(sized("ok")))
				_, err := newTransport(t, t.way, t.network, e.address).Forward(t.Context(), newWriter(), &Request{In: r}, Hooks{})
				if !errors.Is(err, ErrUpgrade) || e.connections() != 0 {
					t.Errorf("error %v, %d connections; want ErrUpgrade, none", err, e.connections())
				}
			})
		})
	}
}

// TestInjection: nothing in a client's request can end a line, or the request.
func TestInjection(t *testing.T) {
	in := func(change func(r *http.Request)) *http.Request {
		r := incoming("POST", "/v1/x", http.Header{})
		change(r)
		return r
	}
	cases := map[string]*http.Request{
		"line feed in value":       in(func(r *http.Request) { r.Header.Set("X-A", "1\nX-Evil: 1") }),
		"return in value":          in(func(r *http.Request) { r.Header.Set("X-A", "1\r\n\r\nGET / HTTP/1.1") }),
		"nul in value":             in(func(r *http.Request) { r.Header.Set("X-A", "a\x00b") }),
		"line feed in name":        in(func(r *http.Request) { r.Header["X-A: 1\r\nX-Evil"] = []string{"1"} }),
		"space in name":            in(func(r *http.Request) { r.Header["Transfer-Encoding "] = []string{"chunked"} }),
		"empty name":               in(func(r *http.Request) { r.Header[""] = []string{"x"} }),
		"space in method":          in(func(r *http.Request) { r.Method = "GET / HTTP/1.1\r\nX:" }),
		"empty method":             in(func(r *http.Request) { r.Method = "" }),
		"space in query":           in(func(r *http.Request) { r.URL.RawQuery = "a=b HTTP/1.1" }),
		"line feed in query":       in(func(r *http.Request) { r.URL.RawQuery = "a\r\nX-Evil: 1" }),
		"opaque target":            in(func(r *http.Request) { r.URL = &url.URL{Scheme: "x", Opaque: "y"} }),
		"star with a method":       in(func(r *http.Request) { r.URL = &url.URL{Path: "*"} }),
		"line feed in trailer":     in(func(r *http.Request) { r.Trailer = http.Header{"X-A": {"1\r\n\r\nGET / HTTP/1.1"}} }),
		"space in name of trailer": in(func(r *http.Request) { r.Trailer = http.Header{"X A": {"1"}} }),
	}
	for name, r := range cases {
		t.Run(name, func(t *testing.T) {
			ours(t, func(t trial) {
				e := startEngine(t, t.network, answer(sized("ok")))
				_, err := newTransport(t, t.way, t.network, e.address).Forward(t.Context(), newWriter(), &Request{In: r, Body: []byte("x")}, Hooks{})
				if re := (*RequestError)(nil); !errors.As(err, &re) || e.connections() != 0 {
					t.Errorf("error %T %v, %d connections; want a RequestError, none", err, err, e.connections())
				}
			})
		})
	}
}

// TestWithheld: what must not pass, in either direction, and what replaces it.
func TestWithheld(t *testing.T) {
	ours(t, func(t trial) {
		e := startEngine(t, t.network, answer("HTTP/1.1 200 OK\r\nServer: engine\r\nDate: then\r\nVia: 1.1 engine\r\nX-Powered-By: engine\r\n"+
			"Access-Control-Allow-Origin: *\r\nX-RateLimit-Limit-Requests: 1\r\n"+
			"X-Kept: 1\r\nTransfer-Encoding: chunked\r\nTrailer: Server, X-T\r\n\r\n0\r\nServer: engine\r\nX-T: 1\r\nContent-Length: 7\r\nConnection: close\r\n\r\n"))
		header := http.Header{
			"Authorization": {"Bearer client"}, "authorization": {"Bearer lower"}, "X-Api-Key": {"k"}, "Api-Key": {"k"}, "Cookie": {"session=1"},
			"Proxy-Authorization": {"Basic x"}, "Forwarded": {"for=1"}, "X-Forwarded-For": {"1"}, "X-Forwarded-Host": {"h"},
			"X-Forwarded-Proto": {"https"}, "X-Real-Ip": {"1"}, "Via": {"1.1 x"}, "Origin": {"https://x"}, "Referer": {"https://x"},
			"Access-Control-Request-Method": {"POST"}, "Expect": {"100-continue"}, "Host": {"evil"}, "Content-Length": {"99"},
			"Transfer-Encoding": {"chunked"}, "Te": {"trailers"}, "Connection": {"close, x-named"}, "X-Named": {"1"}, "X-Kept": {"1", "2"},
		}
		tr := newTransport(t, t.way, t.network, e.address)
		secret := http.Header{"Authorization": {"Bearer engine"}, "X-Ours": {"1"}}
		switch tr := tr.(type) {
		case *Pool:
			tr.Header = secret
		case *Std:
			tr.Header = secret
		}
		in := incoming("POST", "/v1/x", header)
		in.Trailer = http.Header{"X-T": {"1"}, "Authorization": {"Bearer client"}, "Content-Length": {"9"}, "X-Announced": nil}
		w := newWriter()
		w.header.Set("Server", "ours")
		if _, err := tr.Forward(t.Context(), w, &Request{In: in, Body: []byte("abc")}, Hooks{}); err != nil {
			t.Fatal(err)
		}
		wantHost := e.address
		if t.network == "unix" {
			wantHost = "localhost"
		}
		want := []request{{
			Method: "POST", Target: "/v1/x", Host: wantHost, Body: "abc", Chunked: true,
			Header:  http.Header{"Authorization": {"Bearer engine"}, "X-Ours": {"1"}, "Te": {"trailers"}, "X-Kept": {"1", "2"}},
			Trailer: http.Header{"X-T": {"1"}},
		}}
		if diff := cmp.Diff(want, e.requests()); diff != "" {
			t.Errorf("engine (-want):\n%s", diff)
		}
		wantHeader := http.Header{"Server": {"ours"}, "X-Kept": {"1"}, "Trailer": {"X-T"}, "Trailer:X-T": {"1"}}
		if diff := cmp.Diff(wantHeader, w.header); diff != "" {
			t.Errorf("client (-want):\n%s", diff)
		}
	})
}

// TestNotSentTwice: an engine that takes a request and dies gets no second POST, even on a connection that was used before.
func TestNotSentTwice(t *testing.T) {
	for method, want := range map[string]int{"POST": 1, "DELETE": 1, "PUT": 1, "GET": 2} {
		for name, key := range map[string]string{"plain": "", "with idempotency key": "k"} {
			t.Run(method+" "+name, func(t *testing.T) {
				ours(t, func(t trial) {
					e := startEngine(t, t.network, func(c *engineConn) {
						if c.next() && c.n == 0 {
							c.write(sized("ok"))
							c.next()
						}
					})
					tr := newTransport(t, t.way, t.network, e.address)
					if _, err := tr.Forward(t.Context(), newWriter(), post("first"), Hooks{}); err != nil {
						t.Fatal(err)
					}
					in := incoming(method, "/", http.Header{})
					if key != "" {
						in.Header.Set("Idempotency-Key", key)
					}
					res, err := tr.Forward(t.Context(), newWriter(), &Request{In: in, Body: []byte("second")}, Hooks{})
					if he := (*HeadError)(nil); !errors.As(err, &he) || res.Started {
						t.Errorf("error %T %v, want a HeadError", err, err)
					}
					if got := len(e.requests()) - 1; got != want {
						t.Errorf("engine got the request %d times, want %d", got, want)
					}
				})
			})
		}
	}
}

// TestSentAgain: what is sent a second time is what was sent the first time, and the connection is good afterwards.
func TestSentAgain(t *testing.T) {
	for _, body := range []string{"", "small", oneMB[:inlineBody], oneMB} {
		t.Run(fmt.Sprint(len(body)), func(t *testing.T) {
			ours(t, func(t trial) {
				e := startEngine(t, t.network, func(c *engineConn) {
					for c.next() {
						if c.n == 0 && len(c.engine.requests()) == 2 {
							return
						}
						c.write(sized("ok"))
					}
				})
				tr := newTransport(t, t.way, t.network, e.address)
				for range 3 {
					r := &Request{In: incoming("GET", "/", http.Header{}), Body: []byte(body)}
					if _, err := tr.Forward(t.Context(), newWriter(), r, Hooks{}); err != nil {
						t.Fatal(err)
					}
				}
				got := e.requests()
				for _, r := range got {
					if r.Method != http.MethodGet || r.Body != digest([]byte(body)) {
						t.Errorf("engine got %s %q", r.Method, r.Body)
					}
				}
				if len(got) != 4 || e.connections() != 2 {
					t.Errorf("%d requests on %d connections, want 4 on 2", len(got), e.connections())
				}
			})
		})
	}
}

// TestDiedUnused: whatever became of an idle connection, a request does not fail for it. ([Std] cannot promise that: its
// transport may hear of the end while it writes.)
func TestDiedUnused(t *testing.T) {
	for name, end := range map[string]func(c *engineConn){
		"closed": func(*engineConn) {},
		"reset": func(c *engineConn) {
			if tcp, ok := c.Conn.(*net.TCPConn); ok {
				tcp.SetLinger(0)
			}
		},
		"spoke unasked": func(c *engineConn) { c.write("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n") },
	} {
		for _, body := range []string{"", "small", oneMB} {
			for _, network := range []string{"tcp", "unix"} {
				t.Run(fmt.Sprint(name, "/", len(body), "/", network), func(t *testing.T) {
					e := startEngine(t, network, func(c *engineConn) {
						if c.next() {
							c.write(sized("ok"))
							end(c)
						}
					})
					p := NewPool(network, e.address)
					defer p.Close()
					for range 5 {
						w := newWriter()
						if _, err := p.Forward(t.Context(), w, post(body), Hooks{}); err != nil || w.body.String() != "ok" {
							t.Fatalf("%q, %v", w.body.String(), err)
						}
						await(t, e.closed, "end of the connection")
						for deadline := time.Now().Add(patience); len(p.idle) > 0 && p.idle[0].alive(); { // until the news is here
							if time.Now().After(deadline) {
								t.Fatal("a closed connection looks alive")
							}
							runtime.Gosched()
						}
					}
				})
			}
		}
	}
}

// TestEarlyAnswerAndReset: an engine that answers, does not read the rest and closes, is still heard. (Over TCP its reset
// can overtake the answer, so there is no telling; a unix socket keeps what was written.)
func TestEarlyAnswerAndReset(t *testing.T) {
	for _, body := range []string{oneMB[:inlineBody], twentyMB} {
		t.Run(fmt.Sprint(len(body)), func(t *testing.T) {
			e := startEngine(t, "unix", func(c *engineConn) {
				c.skipHead()
				c.write("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
			})
			w := newWriter()
			_, err := newTransport(t, "lean", "unix", e.address).Forward(t.Context(), w, post(body), Hooks{})
			if err != nil || len(w.status) != 1 || w.status[0] != 413 || w.body.String() != "big" {
				t.Errorf("status %v, body %q, %v", w.status, w.body.String(), err)
			}
		})
	}
}

// TestInformationalKeepsHeader: the caller's own header fields survive a 1xx, and are not part of it.
func TestInformationalKeepsHeader(t *testing.T) {
	ours(t, func(t trial) {
		e := startEngine(t, t.network, answer("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nServer: engine\r\nConnection: x\r\n\r\n"+sized("ok")))
		tr := newTransport(t, t.way, t.network, e.address)
		w := newWriter()
		w.header.Set("X-Request-Id", "1")
		var head http.Header
		if _, err := tr.Forward(t.Context(), w, post("x"), Hooks{Head: func(_ int, h http.Header) { head = h.Clone() }}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]int{103, 200}, w.status); diff != "" {
			t.Errorf("status (-want):\n%s", diff)
		}
		if diff := cmp.Diff(http.Header{"X-Request-Id": {"1"}, "Content-Length": {"2"}}, head); diff != "" {
			t.Errorf("header (-want):\n%s", diff)
		}
		old := newWriter()
		r := post("x")
		r.In.ProtoMajor, r.In.ProtoMinor = 1, 0
		if _, err := tr.Forward(t.Context(), old, r, Hooks{}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]int{200}, old.status); diff != "" {
			t.Errorf("status for HTTP/1.0 (-want):\n%s", diff)
		}
	})
}

func TestHooks(t *testing.T) {
	ours(t, func(t trial) {
		e := startEngine(t, t.network, answer(chunkedOK+"\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"))
		var tapped strings.Builder
		w := newWriter()
		res, err := newTransport(t, t.way, t.network, e.address).Forward(t.Context(), w, post("x"), Hooks{
			Head: func(status int, h http.Header) { h.Set("X-Status", fmt.Sprint(status)) },
			Tap:  func(b []byte) { tapped.Write(b) },
		})
		if want := (Result{StatusCode: 200, Started: true, Bytes: 6}); err != nil || res != want {
			t.Errorf("result %+v, %v; want %+v", res, err, want)
		}
		if tapped.String() != "abcdef" || w.header.Get("X-Status") != "200" {
			t.Errorf("tapped %q, header %v", tapped.String(), w.header)
		}
	})
}

func TestDo(t *testing.T) {
	ours(t, func(t trial) {
		e := startEngine(t, t.network, answer(chunkedOK+"Server: x\r\nTrailer: X-T\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n"))
		tr := newTransport(t, t.way, t.network, e.address)
		resp, err := tr.Do(t.Context(), post("x"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(http.Header{"X-T": nil}, resp.Trailer); diff != "" {
			t.Errorf("announced (-want):\n%s", diff)
		}
		b, err := io.ReadAll(resp.Body)
		if string(b) != "abc" || err != nil || len(resp.Header) > 0 {
			t.Errorf("body %q, %v, header %v", b, err, resp.Header)
		}
		if diff := cmp.Diff(http.Header{"X-T": {"1"}}, resp.Trailer); diff != "" {
			t.Errorf("trailer (-want):\n%s", diff)
		}
		if _, err := resp.Body.Read(b); err != io.EOF {
			t.Errorf("read after the end: %v", err)
		}
		resp.Body.Close()

		unread, err := tr.Do(t.Context(), post("x"))
		if err != nil {
			t.Fatal(err)
		}
		unread.Body.Close()
		if _, err := unread.Body.Read(b); err == nil || err == io.EOF {
			t.Errorf("read after Close: %v", err)
		}
		unread.Body.Close()
		await(t, e.closed, "end of the connection")
	})
}

func TestGet(t *testing.T) {
	ours(t, func(t trial) {
		e := startEngine(t, t.network, answer("HTTP/1.1 503 Loading\r\nContent-Length: 2\r\n\r\nno"))
		tr := newTransport(t, t.way, t.network, e.address)
		for range 3 {
			if status, err := tr.Get(t.Context(), "/health?x=1"); status != 503 || err != nil {
				t.Errorf("status %d, %v", status, err)
			}
		}
		if got := e.connections(); got != 1 {
			t.Errorf("%d connections, want 1", got)
		}
		if got := e.requests()[0]; got.Method != http.MethodGet || got.Target != "/health?x=1" {
			t.Errorf("engine got %+v", got)
		}
		if _, err := tr.Get(t.Context(), "no path"); err == nil {
			t.Error("no error for what is no path")
		}
		endless := startEngine(t, t.network, func(c *engineConn) {
			c.next()
			c.write("HTTP/1.1 200 OK\r\n\r\n")
			for {
				if _, err := io.WriteString(c, oneMB); err != nil {
					return
				}
			}
		})
		if status, err := newTransport(t, t.way, t.network, endless.address).Get(t.Context(), "/"); status != 200 || err != nil {
			t.Errorf("endless: status %d, %v", status, err)
		}
		await(t, endless.closed, "end of the endless answer")
	})
}

func TestClose(t *testing.T) {
	ours(t, func(t trial) {
		e := startEngine(t, t.network, answer(sized("ok")))
		tr := newTransport(t, t.way, t.network, e.address)
		get := func() error { _, err := tr.Get(t.Context(), "/"); return err }
		if err := get(); err != nil {
			t.Fatal(err)
		}
		tr.CloseIdle()
		await(t, e.closed, "end of the idle connection")
		if err := get(); err != nil {
			t.Errorf("after CloseIdle: %v", err)
		}
		resp, err := tr.Do(t.Context(), post("x"))
		if err != nil {
			t.Fatal(err)
		}
		tr.Close()
		if b, err := io.ReadAll(resp.Body); string(b) != "ok" || err != nil {
			t.Errorf("busy while closed: %q, %v", b, err)
		}
		resp.Body.Close()
		await(t, e.closed, "end of the busy connection")
		if de := (*DialError)(nil); !errors.As(get(), &de) {
			t.Errorf("after Close: %v, want a DialError", err)
		}
	})
}

// TestSweep: connections that are idle for too long go, younger ones stay.
func TestSweep(t *testing.T) {
	e := startEngine(t, "tcp", answer(sized("ok")))
	p := NewPool("tcp", e.address)
	defer p.Close()
	var open []*Response
	for range 3 {
		resp, err := p.Do(t.Context(), post("x"))
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, resp)
	}
	for _, resp := range open {
		io.Copy(io.Discard, resp.Body)
	}
	p.mu.Lock()
	p.idle[0].idleSince = time.Now().Add(-2 * idleTimeout)
	p.idle[1].idleSince = time.Now().Add(-idleTimeout)
	p.mu.Unlock()
	p.sweep()
	if len(p.idle) != 1 || p.sweeper == nil {
		t.Errorf("%d idle, sweeper %v; want 1 and one", len(p.idle), p.sweeper)
	}
	p.idle[0].idleSince = time.Now().Add(-idleTimeout)
	p.sweep()
	if len(p.idle) != 0 || p.sweeper != nil {
		t.Errorf("%d idle, sweeper %v; want none", len(p.idle), p.sweeper)
	}
	for range 3 {
		await(t, e.closed, "end of a connection")
	}
}

// TestNoCrosstalk: many clients at once, some of which leave, on connections some of which die, and each gets its own answer.
func TestNoCrosstalk(t *testing.T) {
	ours(t, func(t trial) {
		e := startEngine(t, t.network, func(c *engineConn) {
			for i := 0; ; i++ {
				r, err := http.ReadRequest(c.br)
				if err != nil {
					return
				}
				b, err := io.ReadAll(r.Body)
				if err != nil {
					return
				}
				if (i+c.n)%7 == 0 {
					fmt.Fprintf(c, "%s\r\n%x\r\n%s\r\n0\r\n\r\n", chunkedOK, len(b), b)
				} else {
					c.write(sized(string(b)))
				}
				if (i+c.n)%31 == 30 {
					return // without having said so
				}
			}
		})
		tr := newTransport(t, t.way, t.network, e.address)
		var all sync.WaitGroup
		var served atomic.Int64
		for g := range 16 {
			all.Go(func() {
				for i := range 40 {
					want := fmt.Sprintf("%d-%d-%s", g, i, oneMB[:(g*i*97)%100000])
					ctx, cancel := context.WithCancel(t.Context())
					w := newWriter()
					leaves := (g+i)%11 == 0
					if leaves {
						go cancel()
					}
					_, err := tr.Forward(ctx, w, post(want), Hooks{})
					cancel()
					switch {
					case err == nil && w.body.String() != want:
						t.Errorf("got %.20q… of %d bytes, want %.20q… of %d", w.body.String(), w.body.Len(), want, len(want))
					case err == nil:
						served.Add(1)
					}
				}
			})
		}
		all.Wait()
		if got := served.Load(); got < 16*40*3/4 {
			t.Errorf("%d served of %d", got, 16*40)
		}
	})
}

// TestStreamCost: a stream that waits for its next token costs no goroutine but the caller's, and little memory.
func TestStreamCost(t *testing.T) {
	const streams = 100
	hold := make(chan struct{})
	var engines sync.WaitGroup
	engines.Add(streams)
	e := startEngine(t, "unix", func(c *engineConn) {
		c.br = nil
		var b [1024]byte
		c.Read(b[:])
		c.write(chunkedOK + "\r\n3\r\nabc\r\n")
		engines.Done()
		<-hold
		c.write("0\r\n\r\n")
	})
	p := NewPool("unix", e.address)
	defer p.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before, memory := runtime.NumGoroutine(), inUse()
	var clients, waiting sync.WaitGroup
	waiting.Add(streams)
	for range streams {
		clients.Go(func() {
			w := newWriter()
			if _, err := p.Forward(ctx, w, post("x"), Hooks{Tap: func([]byte) { waiting.Done() }}); err != nil {
				t.Error(err)
			}
		})
	}
	engines.Wait()
	waiting.Wait()
	goroutines, each := runtime.NumGoroutine()-before, (inUse()-memory)/streams
	close(hold)
	clients.Wait()
	if goroutines > 2*streams+streams/10 { // the engine's and the caller's, and whatever the runtime is about
		t.Errorf("%d goroutines for %d streams, want %d", goroutines, streams, 2*streams)
	}
	if each > 64<<10 { // the engine's side included
		t.Errorf("%d bytes a stream", each)
	}
	t.Logf("%d bytes a stream, both sides", each)
}

func inUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// TestJSONThroughDo is what a joiner of streams does: decode from the body and close.
func TestJSONThroughDo(t *testing.T) {
	ours(t, func(t trial) {
		e := startEngine(t, t.network, answer(sized(`{"a":1}`)))
		resp, err := newTransport(t, t.way, t.network, e.address).Do(t.Context(), post("x"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var v struct{ A int }
		if err := json.NewDecoder(resp.Body).Decode(&v); err != nil || v.A != 1 {
			t.Errorf("%+v, %v", v, err)
		}
	})
}
