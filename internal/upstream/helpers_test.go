package upstream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // http.Transport has no other place for its complaints
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what must come; reaching it is a failure.
const patience = 10 * time.Second

func listen(tb testing.TB, network string) net.Listener {
	tb.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		dir, err := os.MkdirTemp("", "up") //nolint:usetesting // TempDir's names are too long for a socket
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { os.RemoveAll(dir) })
		address = filepath.Join(dir, "s")
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		tb.Fatal(err)
	}
	return ln
}

// engine is a scripted server. It records what it was asked.
type engine struct {
	address string

	mu     sync.Mutex
	saw    []request
	conns  int
	closed chan struct{} // gets one for each connection the engine has closed
}

type request struct {
	Method, Target, Host string
	Header               http.Header
	Body                 string
	Trailer              http.Header
	Chunked              bool
}

// engineConn is one connection to it.
type engineConn struct {
	net.Conn
	engine *engine
	br     *bufio.Reader
	n      int // how many came before it
}

type script func(c *engineConn)

func startEngine(tb testing.TB, network string, s script) *engine {
	tb.Helper()
	ln := listen(tb, network)
	e := &engine{address: ln.Addr().String(), closed: make(chan struct{}, 1000)}
	var running sync.WaitGroup
	open := map[net.Conn]bool{}
	tb.Cleanup(func() {
		ln.Close()
		e.mu.Lock()
		for c := range open {
			c.Close()
		}
		e.mu.Unlock()
		running.Wait()
	})
	running.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			e.mu.Lock()
			c := &engineConn{Conn: nc, engine: e, br: bufio.NewReader(nc), n: e.conns}
			e.conns++
			open[nc] = true
			e.mu.Unlock()
			running.Go(func() {
				s(c)
				nc.Close()
				select {
				case e.closed <- struct{}{}:
				default: // nobody waits for these
				}
			})
		}
	})
	return e
}

// next reads a request, and tells whether there was one.
func (c *engineConn) next() bool {
	r, err := http.ReadRequest(c.br)
	if err != nil {
		return false
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return false
	}
	c.engine.mu.Lock()
	defer c.engine.mu.Unlock()
	c.engine.saw = append(c.engine.saw, request{
		r.Method, r.RequestURI, r.Host, r.Header, digest(b), r.Trailer, len(r.TransferEncoding) > 0,
	})
	return true
}

// digest stands for a body: itself, unless it is large.
func digest(b []byte) string {
	if len(b) <= 1000 {
		return string(b)
	}
	return fmt.Sprintf("%d bytes, %x", len(b), sha256.Sum256(b))
}

// await fails a test when something does not come.
func await[T any](tb testing.TB, c <-chan T, what string) (v T) {
	tb.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		tb.Fatalf("no %s in %v", what, patience)
	}
	return v
}

// skipHead reads a request's head only.
func (c *engineConn) skipHead() {
	_, _ = textproto.NewReader(c.br).ReadLine()
	_, _ = textproto.NewReader(c.br).ReadMIMEHeader()
}

func (c *engineConn) write(s string) { io.WriteString(c, s) }

func (e *engine) requests() []request {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]request(nil), e.saw...)
}

func (e *engine) connections() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.conns
}

// answer gives the same raw answer to each request.
func answer(raw string) script {
	return func(c *engineConn) {
		for c.next() {
			c.write(raw)
		}
	}
}

// once answers one request and closes.
func once(raw string) script {
	return func(c *engineConn) {
		if c.next() {
			c.write(raw)
		}
	}
}

// sized is a 200 with a body.
func sized(body string) string {
	return "HTTP/1.1 200 OK\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
}

// ways are the transports compared.
var ways = []string{"lean", "std", "reverseproxy"}

// newTransport makes one of ours.
func newTransport(tb testing.TB, way, network, address string) Transport {
	tb.Helper()
	var t Transport = NewPool(network, address)
	if way == "std" {
		t = NewStd(network, address)
	}
	tb.Cleanup(t.Close)
	return t
}

// front is a server that forwards everything to an engine in one of the ways. It is what a handler would be: it reads
// the whole body first, answers 502 when nothing was sent yet, and aborts otherwise.
func front(tb testing.TB, way, network, address string) *httptest.Server {
	tb.Helper()
	var h http.Handler
	if way == "reverseproxy" {
		rp := newReverseProxy(tb, network, address)
		rp.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
		h = readsBody(rp)
	} else {
		t := newTransport(tb, way, network, address)
		h = http.HandlerFunc(func(w http.ResponseWriter, in *http.Request) {
			b, err := io.ReadAll(in.Body)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			r := &Request{In: in, Body: b}
			if in.Header.Get("X-Spool") != "" {
				r = spooled(tb, in, b)
			}
			res, err := t.Forward(in.Context(), w, r, Hooks{})
			switch {
			case err == nil:
			case res.Started:
				panic(http.ErrAbortHandler)
			default:
				clear(w.Header())
				w.WriteHeader(http.StatusBadGateway)
			}
		})
	}
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	tb.Cleanup(s.Close)
	return s
}

// readsBody hands on requests whose bodies were read. The standard library's pair of server and transport fails where an
// answer begins before the transport has seen the end of the body: the server closes the body then, and the transport takes
// that for a failure of the request and closes the engine's connection in the middle of the answer.
func readsBody(to http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, in *http.Request) {
		b, err := io.ReadAll(in.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		in.Body = io.NopCloser(bytes.NewReader(b))
		to.ServeHTTP(w, in)
	})
}

// spooled is a request whose body is in an unlinked file.
func spooled(tb testing.TB, in *http.Request, body []byte) *Request {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "spool")
	if err := os.WriteFile(path, body, 0o600); err != nil {
		tb.Error(err)
	}
	return &Request{In: in, Length: int64(len(body)), BodyReader: func() (io.ReadCloser, error) { return os.Open(path) }}
}

// seen is what a client saw.
type seen struct {
	Status        int
	Header        http.Header
	Length        int
	Body          string // or its digest
	Trailer       http.Header
	Failed        bool
	Informational []string
}

// ask sends a request to a front and collects what comes back.
func ask(tb testing.TB, client *http.Client, r *http.Request) seen {
	tb.Helper()
	var s seen
	var mu sync.Mutex
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	r = r.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			mu.Lock()
			defer mu.Unlock()
			if code != http.StatusContinue {
				s.Informational = append(s.Informational, strconv.Itoa(code)+" "+strings.Join(h["Link"], ","))
			}
			return nil
		},
	}))
	resp, err := client.Do(r)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			tb.Error("no answer in", patience)
		}
		s.Failed = true
		return s
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if errors.Is(err, context.DeadlineExceeded) {
		tb.Error("no end of the answer in", patience)
	}
	s.Length, s.Status, s.Header, s.Body, s.Failed = len(b), resp.StatusCode, resp.Header, digest(b), err != nil
	if err == nil && len(resp.Trailer) > 0 {
		s.Trailer = resp.Trailer
	}
	return s
}

// newClient is a client without any magic.
func newClient(tb testing.TB) *http.Client {
	tb.Helper()
	tr := &http.Transport{DisableCompression: true, ExpectContinueTimeout: patience}
	tb.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport:     tr,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func newRequest(tb testing.TB, method, url string, body string) *http.Request {
	tb.Helper()
	r, err := http.NewRequestWithContext(tb.Context(), method, url, nil)
	if err != nil {
		tb.Fatal(err)
	}
	if body != "" {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader([]byte(body))), int64(len(body))
	}
	return r
}

// newReverseProxy is the standard library's proxy, tuned as one would for an engine.
func newReverseProxy(tb testing.TB, network, address string) *httputil.ReverseProxy {
	tb.Helper()
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, address)
		},
		DisableCompression:     true,
		MaxIdleConnsPerHost:    256,
		MaxResponseHeaderBytes: maxHead,
	}
	tb.Cleanup(tr.CloseIdleConnections)
	to := &url.URL{Scheme: "http", Host: host(network, address)}
	return &httputil.ReverseProxy{
		Transport:  tr,
		Rewrite:    func(r *httputil.ProxyRequest) { r.SetURL(to) },
		BufferPool: copyPool{},
		ErrorLog:   log.New(io.Discard, "", 0),
	}
}

type copyPool struct{}

func (copyPool) Get() []byte  { return copyBuffers.Get().(*[copySize]byte)[:] }
func (copyPool) Put(b []byte) { copyBuffers.Put((*[copySize]byte)(b)) }
