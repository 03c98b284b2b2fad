package transfer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// server has a file, and faults.
type server struct {
	*httptest.Server
	mu     sync.Mutex
	data   []byte
	etag   string
	plain  bool                                                     // it gives no parts
	fault  func(n int, w http.ResponseWriter, r *http.Request) bool // may answer the nth request, from 1, and then tells so
	mangle func(n int, w io.Writer) io.Writer                       // of the body of the nth
	asked  int
	sent   atomic.Int64 // bytes of bodies
}

// content is so many bytes that look like nothing else.
func content(seed uint64, size int) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = r.Read(b)
	return b
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func serve(tb testing.TB, data []byte) *server {
	tb.Helper()
	s := &server{data: data, etag: `"1"`}
	s.Server = httptest.NewServer(http.HandlerFunc(s.answer))
	tb.Cleanup(s.Close)
	return s
}

func (s *server) answer(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked++
	n, data, etag := s.asked, s.data, s.etag
	s.mu.Unlock()
	if s.fault != nil && s.fault(n, w, r) {
		return
	}
	var out io.Writer = counted{w, &s.sent}
	if s.mangle != nil {
		out = s.mangle(n, out)
	}
	if etag != "" {
		w.Header().Set("ETag", etag)
	}
	if s.plain {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = out.Write(data)
		return
	}
	http.ServeContent(writing{w, out}, r, "", time.Time{}, bytes.NewReader(data))
}

type counted struct {
	io.Writer
	n *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// writing is a response whose body goes another way.
type writing struct {
	http.ResponseWriter
	to io.Writer
}

func (w writing) Write(p []byte) (int, error) { return w.to.Write(p) }

// cut lets so many bytes through and then breaks the connection.
type cut struct {
	w    io.Writer
	left int
}

func (c *cut) Write(p []byte) (int, error) {
	if len(p) > c.left {
		_, _ = c.w.Write(p[:c.left])
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.w.Write(p)
}

// file is what is to be brought, from these servers in turn.
func file(want []byte, from ...*server) File {
	return File{Size: int64(len(want)), SHA256: sumOf(want), Locate: func(context.Context) ([]Location, error) {
		var list []Location
		for i, s := range from {
			list = append(list, Location{URL: fmt.Sprintf("%s/file?signature=secret%d", s.URL, i), Header: http.Header{"Authorization": {"Bearer token"}}})
		}
		return list, nil
	}}
}
