package upstream

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// FuzzResponse: whatever an engine answers, Forward ends, and no byte of it turns up in the answer to the next request;
// and what the standard library's reverse proxy takes for a complete answer is one for us, with the same body.
func FuzzResponse(f *testing.F) {
	for _, raw := range []string{
		sized("ok"), chunkedOK + "\r\n3\r\nabc\r\n0\r\n\r\n", chunkedOK + "Trailer: X-A\r\n\r\n3\r\nabc\r\n0\r\nX-A: 1\r\n\r\n",
		"HTTP/1.1 200 OK\r\n\r\nto the end", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + sized("ok"), "HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX-A: 1\r\n  2\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
		sized("ok") + sized("poison"), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nConnection: x-a, close\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nok", chunkedOK + "\r\nfffffffffffffffff\r\n",
		"HTTP/1.1 101 Switching\r\n\r\n", "HTTP/1.1 200\r\n\r\n", "", "\r\n\r\n",
	} {
		f.Add([]byte(raw), true)
		f.Add([]byte(raw), false)
	}
	var raw atomic.Pointer[[]byte]
	var closes atomic.Bool
	// Each connection gives raw to a request for /raw and a known answer to others.
	e := startEngine(f, "unix", func(c *engineConn) {
		for {
			r, err := http.ReadRequest(c.br)
			if err != nil {
				return
			}
			if r.URL.Path != "/raw" {
				c.write(sized("known"))
				continue
			}
			c.Write(*raw.Load())
			if closes.Load() {
				return
			}
		}
	})
	p := NewPool("unix", e.address)
	rp := newReverseProxy(f, "unix", e.address)
	f.Cleanup(p.Close)

	f.Fuzz(func(t *testing.T, answer []byte, end bool) {
		raw.Store(&answer)
		closes.Store(end)
		patience := time.Second
		if !end {
			patience = 5 * time.Millisecond // an answer without an end comes to none
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		w := newFuzzWriter()
		in := incoming("GET", "/raw", http.Header{})
		res, err := p.Forward(ctx, w, &Request{In: in}, Hooks{})
		if end && errors.Is(err, context.DeadlineExceeded) {
			t.Fatal("hangs")
		}
		if int64(w.body.Len()) != res.Bytes {
			t.Errorf("%d bytes counted, %d written", res.Bytes, w.body.Len())
		}
		checkNext(t, p)
		if end {
			compareWithReverseProxy(t, ctx, rp, answer, w, err)
		}
	})
}

// checkNext asks for the known answer.
func checkNext(t *testing.T, p *Pool) {
	t.Helper()
	w := newFuzzWriter()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := p.Forward(ctx, w, &Request{In: incoming("GET", "/known", http.Header{})}, Hooks{}); err != nil || w.body.String() != "known" {
		t.Fatalf("next request: %q, %v", w.body.String(), err)
	}
}

// stricter matches what we refuse on purpose and http.Transport does not: names with a space in them, versions of HTTP
// that are none, and trailers whose end is a bare line feed.
var stricter = regexp.MustCompile(`(?m)^[^:\r\n]* [^:\r\n]*:|^HTTP/[^1]|0\r\n(?s:.*\n)?\n`)

func compareWithReverseProxy(t *testing.T, ctx context.Context, rp http.Handler, raw []byte, got *fuzzWriter, err error) {
	t.Helper()
	want := newFuzzWriter()
	in := incoming("GET", "/raw", http.Header{}).WithContext(context.WithValue(ctx, http.ServerContextKey, &http.Server{}))
	complete := func() (ok bool) {
		defer func() { ok = recover() == nil }() // ErrAbortHandler, or a status the writer refuses
		rp.ServeHTTP(want, in)
		return true
	}()
	if ctx.Err() != nil {
		return
	}
	if complete && want.status == http.StatusOK && (err != nil || got.body.String() != want.body.String()) && !stricter.Match(raw) {
		t.Errorf("we: %v %q, reverse proxy: %q", err, got.body.String(), want.body.String())
	}
	if err == nil && (!complete || got.status != want.status || !bytes.Equal(got.body.Bytes(), want.body.Bytes())) {
		t.Errorf("we: %d %q, reverse proxy: complete %v, %d %q", got.status, got.body.String(), complete, want.status, want.body.String())
	}
}

// fuzzWriter refuses what a server's writer would.
type fuzzWriter struct {
	mu     sync.Mutex // the reverse proxy flushes beside
	header http.Header
	status int
	body   bytes.Buffer
}

func newFuzzWriter() *fuzzWriter { return &fuzzWriter{header: http.Header{}} }

func (w *fuzzWriter) Header() http.Header { return w.header }

func (w *fuzzWriter) WriteHeader(status int) {
	if status < 100 || status > 999 {
		panic(status)
	}
	if status >= http.StatusOK && w.status == 0 {
		w.status = status
	}
}

func (w *fuzzWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.body.Write(b)
}

func (w *fuzzWriter) Flush() {}
