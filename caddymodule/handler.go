package caddymodule

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"assistant/internal/keys"
	"assistant/internal/openai"
	"assistant/modeldir"
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

	// The path metrics are served at; empty means not at all. They are always at the admin API's /assistant/metrics.
	Metrics string `json:"metrics,omitempty"`

	app *App
	rt  *runtime
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
	return nil
}

// Validate says what cannot be.
func (h *Handler) Validate() error {
	if h.Transport != transportLean && h.Transport != transportStd {
		return fmt.Errorf("transport %q: choose %s or %s", h.Transport, transportLean, transportStd)
	}
	if h.Metrics != "" && !strings.HasPrefix(h.Metrics, "/") {
		return fmt.Errorf("metrics %q: a path begins with /", h.Metrics)
	}
	if h.KeepAlive < 0 {
		return errors.New("keep_alive must not be negative")
	}
	return nil
}

// endpoint is a path of the API that a model answers.
type endpoint struct {
	kind  modeldir.Kind
	raw   bool        // it is not of text: nothing of it is looked at or repaired
	joins bool        // a plain answer can be put together from a stream
	join  openai.Kind // which one it is
}

var endpoints = map[string]endpoint{
	"/v1/chat/completions": {kind: modeldir.Chat, joins: true, join: openai.Chat},
	"/v1/completions":      {kind: modeldir.Chat, joins: true, join: openai.Completion},
	"/v1/embeddings":       {kind: modeldir.Embedding, join: openai.Embeddings},
	"/v1/audio/speech":     {kind: modeldir.Speech, raw: true},
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	path := r.URL.Path
	if ep, ok := endpoints[path]; ok {
		setRequestID(w, r)
		if r.Method != http.MethodPost {
			openai.MethodNotAllowed(http.MethodPost).WriteTo(w)
			return nil
		}
		key, ok := h.identify(w, r)
		if !ok {
			return nil
		}
		end, ok := begin(w, key)
		if !ok {
			return nil
		}
		defer end()
		return h.serveModel(w, r, ep, key)
	}
	var serve func(http.ResponseWriter, *http.Request)
	switch {
	case path == "/v1/models" || path == "/models":
		serve = h.forKey(h.serveModels)
	case strings.HasPrefix(path, "/v1/models/"):
		serve = h.forKey(h.serveModelCard)
	case path == "/health":
		serve = h.serveHealth
	case path == "/readyz":
		serve = h.serveReady
	case h.Metrics != "" && path == h.Metrics:
		serve = func(w http.ResponseWriter, _ *http.Request) { h.rt.serveMetrics(w) }
	default:
		return next.ServeHTTP(w, r)
	}
	setRequestID(w, r)
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		openai.MethodNotAllowed("GET, HEAD").WriteTo(w)
		return nil
	}
	serve(w, r)
	return nil
}

// forKey gives what serves the list of models the key that a request carries.
func (h *Handler) forKey(serve func(http.ResponseWriter, *http.Request, *keys.Key)) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		if key, ok := h.identify(w, r); ok {
			serve(w, r, key)
		}
	}
}

// requestIDHeader names a request in logs of both sides. OpenAI's SDKs show it as request_id.
const requestIDHeader = "X-Request-Id"

// setRequestID keeps the client's own id if it is one that can be printed, and makes one up otherwise.
func setRequestID(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get(requestIDHeader)
	if !printable(id) {
		id = newRequestID()
	}
	w.Header()[requestIDHeader] = []string{id}
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
func (h *Handler) serveHealth(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, []byte(`{"status":"ok"}`))
}

// serveReady says whether requests are taken: the models are known and the server is not going down.
func (h *Handler) serveReady(w http.ResponseWriter, _ *http.Request) {
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
