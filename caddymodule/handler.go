package caddymodule

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"assistant/internal/keys"
	"assistant/internal/openai"
)

func init() { caddy.RegisterModule(Handler{}) }

// Handler serves the OpenAI-compatible API of the models of the assistant app, and passes every other path to the next
// handler.
type Handler struct {
	// How bytes move between clients and engines: "lean" (our own, the default) or "std" (the standard library's).
	Transport string `json:"transport,omitempty"`

	// If positive, a client that asked for a stream gets an SSE comment this often while it waits for an engine. That
	// commits the status 200, so a failed start is told in the stream. Default: 0, off.
	KeepAlive caddy.Duration `json:"keep_alive,omitempty"`

	// How long a request waits for a model that is being downloaded, before it is told how far that is and when to come back (503). 0 = not at
	// all. Default: 1m.
	DownloadWait *caddy.Duration `json:"download_wait,omitempty"`

	// The path metrics are served at; empty means not at all. They are always at the admin API's /assistant/metrics.
	Metrics string `json:"metrics,omitempty"`

	// Origins of web pages that may use the API, such as https://chat.example.com or https://*.example.com; * is all. Pages of this
	// machine (localhost and loopback addresses, any port) may always. Default: none besides.
	CORSOrigins []string `json:"cors_origins,omitempty"`

	app     *App
	rt      *runtime
	origins []*regexp.Regexp
}

// Names of transports.
const (
	transportLean = "lean"
	transportStd  = "std"
)

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.assistant", New: func() caddy.Module { return new(Handler) }}
}

// Provision finds the app, a default one if the configuration has none.
func (h *Handler) Provision(ctx caddy.Context) error {
	app, err := ctx.App("assistant")
	if err != nil {
		return err
	}
	h.app = app.(*App) //nolint:errcheck,forcetypeassert // the ID says so
	h.rt = h.app.rt    // the handler may outlive the app: requests of an old configuration go on
	h.Transport = first(h.Transport, transportLean)
	return h.readOrigins()
}

// Validate says what cannot be.
func (h *Handler) Validate() error {
	if h.Transport != transportLean && h.Transport != transportStd {
		return fmt.Errorf("transport %q: choose %s or %s", h.Transport, transportLean, transportStd)
	}
	if h.Metrics != "" && !strings.HasPrefix(h.Metrics, "/") {
		return fmt.Errorf("metrics %q: a path begins with /", h.Metrics)
	}
	if h.DownloadWait != nil && *h.DownloadWait < 0 {
		return errors.New("download_wait must not be negative")
	}
	if h.KeepAlive < 0 {
		return errors.New("keep_alive must not be negative")
	}
	return nil
}

// requestIDHeader names a request in logs of both sides. OpenAI's SDKs show it as request_id.
const requestIDHeader = "X-Request-Id"

// clientIDHeader is where OpenAI's own API takes an id from (https://platform.openai.com/docs/api-reference/debugging-requests).
const clientIDHeader = "X-Client-Request-Id"

// setRequestID keeps the client's own id if it is one that can be printed, and makes one up otherwise. The engine is told it too.
func setRequestID(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get(requestIDHeader)
	if !printable(id) {
		id = r.Header.Get(clientIDHeader)
	}
	if !printable(id) {
		id = newRequestID()
	}
	header := []string{id}
	w.Header()[requestIDHeader], r.Header[requestIDHeader] = header, header
	if extra := accessLogFields(r); extra != nil {
		extra.Set(zap.String("request_id", id))
	}
}

// newRequestID makes up an id. It is a name, not a secret.
func newRequestID() string {
	const prefix = "req_"
	var b [12]byte
	binary.NativeEndian.PutUint64(b[:], rand.Uint64())
	binary.NativeEndian.PutUint32(b[8:], rand.Uint32())
	var id [len(prefix) + 2*len(b)]byte
	copy(id[:], prefix)
	hex.Encode(id[len(prefix):], b[:])
	return string(id[:])
}

func printable(id string) bool {
	const longest = 128
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return id != "" && len(id) <= longest
}

// serveHealth says that the server is up. It tells nothing of engines: none need be.
func (h *Handler) serveHealth(w http.ResponseWriter, _ *http.Request, _ *keys.Key) {
	writeJSON(w, http.StatusOK, []byte(`{"status":"ok"}`))
}

// serveReady says whether requests are taken: the models are known and the server is not going down.
func (h *Handler) serveReady(w http.ResponseWriter, _ *http.Request, _ *keys.Key) {
	select {
	case <-h.rt.ready:
		if !caddy.Exiting() {
			writeJSON(w, http.StatusOK, []byte(`{"status":"ready"}`))
			return
		}
	default:
	}
	writeJSON(w, http.StatusServiceUnavailable, []byte(`{"status":"not ready"}`))
}

func writeJSON(w http.ResponseWriter, status int, body []byte) {
	w.Header()["Content-Type"] = []string{"application/json"}
	w.WriteHeader(status)
	_, _ = w.Write(body)
	_, _ = io.WriteString(w, "\n")
}

// waitReady waits for the first configuration to be in force: Caddy starts apps in no order, so a request may come before.
func (h *Handler) waitReady(r *http.Request) error {
	select {
	case <-h.rt.ready:
		return nil
	default:
	}
	const limit = 10 * time.Second
	select {
	case <-h.rt.ready:
		return nil
	case <-time.After(limit):
		return openai.ShuttingDown()
	case <-r.Context().Done():
		return r.Context().Err()
	}
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
