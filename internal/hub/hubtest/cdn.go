// Package hubtest is what models are brought from, for tests: a hub as Hugging Face's, a registry as Ollama's, and a real registry for OCI
// artefacts. They listen on this machine alone.
package hubtest

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Sum is the SHA-256 of b in hexadecimal.
func Sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// GGUF is the header of a model without tensors, and size bytes after it that are not the same for two names.
func GGUF(name string, size int) []byte {
	b := []byte("GGUF\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00") // version 3, no tensors, no keys
	filling := sha256.Sum256([]byte(name))
	return append(b, bytes.Repeat(filling[:], size/len(filling)+1)[:size]...)
}

// Request is one that was answered.
type Request struct {
	Method, Path, Range, Authorization string
}

// CDN keeps content under addresses that are signed and expire, as the stores behind Hugging Face and Ollama do. Requests with an
// Authorization are refused, as S3 does: it is not for the CDN.
type CDN struct {
	URL string // its origin, of another port than what sends there

	// Fault may answer in the CDN's place, and then tells so.
	Fault func(http.ResponseWriter, *http.Request) bool
	// Life is how long an address that is given out holds; 0 = an hour.
	Life time.Duration

	mu       sync.Mutex
	key      [16]byte
	epoch    int
	content  map[string][]byte // by SHA-256
	requests []Request
}

// NewCDN starts a CDN, which ends with the test.
func NewCDN(t testing.TB) *CDN {
	t.Helper()
	c := &CDN{content: map[string][]byte{}}
	if _, err := rand.Read(c.key[:]); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(c.serve))
	t.Cleanup(server.Close)
	c.URL = server.URL
	return c
}

// Put keeps content, and returns its SHA-256.
func (c *CDN) Put(b []byte) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Sum(b)
	c.content[s] = b
	return s
}

// Spoil puts other content under the address of what has the SHA-256: what arrives is not what was promised.
func (c *CDN) Spoil(sha string, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.content[sha] = b
}

// Expire ends all addresses that were given out.
func (c *CDN) Expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
}

// Requests lists what was asked for so far.
func (c *CDN) Requests() []Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Request(nil), c.requests...)
}

// Sign gives an address of what has the SHA-256.
func (c *CDN) Sign(sha string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	life := c.Life
	if life == 0 {
		life = time.Hour
	}
	expires := strconv.FormatInt(time.Now().Add(life).UnixNano(), 10)
	return c.URL + "/" + sha + "?" + url.Values{"Expires": {expires}, "Signature": {c.signature(sha, expires)}}.Encode()
}

func (c *CDN) signature(sha, expires string) string {
	h := hmac.New(sha256.New, c.key[:])
	fmt.Fprintf(h, "%s %s %d", sha, expires, c.epoch)
	return hex.EncodeToString(h.Sum(nil))
}

func (c *CDN) serve(w http.ResponseWriter, req *http.Request) {
	sha := req.URL.Path[1:]
	query := req.URL.Query()
	c.mu.Lock()
	c.requests = append(c.requests, Request{req.Method, req.URL.Path, req.Header.Get("Range"), req.Header.Get("Authorization")})
	content, there := c.content[sha]
	signed := hmac.Equal([]byte(query.Get("Signature")), []byte(c.signature(sha, query.Get("Expires"))))
	fault := c.Fault
	c.mu.Unlock()
	until, err := strconv.ParseInt(query.Get("Expires"), 10, 64)
	switch {
	case fault != nil && fault(w, req):
	case req.Header.Get("Authorization") != "":
		http.Error(w, "only one auth mechanism allowed", http.StatusBadRequest)
	case !signed || err != nil || time.Now().UnixNano() > until:
		http.Error(w, "request has expired", http.StatusForbidden)
	case !there:
		http.NotFound(w, req)
	default:
		w.Header().Set("ETag", `"`+sha+`"`)
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(content))
	}
}

// SetFault is Fault, for while requests come.
func (c *CDN) SetFault(f func(http.ResponseWriter, *http.Request) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Fault = f
}
