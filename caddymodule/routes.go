package caddymodule

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"assistant/internal/dialect"
	"assistant/internal/keys"
	"assistant/internal/openai"
	"assistant/modeldir"
)

// endpoint is a path that a model answers.
type endpoint struct {
	kind  modeldir.Kind
	any   bool        // models of every kind answer it
	path  string      // what the engine is asked instead; "" = the same
	form  bool        // the request is a multipart form
	raw   bool        // what goes over it is passed on as it is
	joins bool        // a plain answer can be put together from a stream
	join  openai.Kind // which one it is
	api   *api        // of which it is, if not OpenAI's
}

// allow is the methods that an endpoint is asked by.
func (endpoint) allow() string { return http.MethodPost }

// api is another API than OpenAI's, of which one endpoint is served by way of one of OpenAI's.
type api struct {
	errors    dialect.ErrorBody
	read      func(x *exchange, body []byte) (dialect.Call, error)
	requestID string // the header that its SDKs read the request's id from, beside ours; "" = they read ours
}

// endpoints are those of models, by path. All are asked by POST. Those of other APIs are added by the files of these.
var endpoints = map[string]endpoint{
	"/v1/chat/completions": {kind: modeldir.Chat, joins: true, join: openai.Chat},
	"/v1/completions":      {kind: modeldir.Chat, joins: true, join: openai.Completion},
	"/v1/embeddings":       {kind: modeldir.Embedding, join: openai.Embeddings},
	"/v1/audio/speech":     {kind: modeldir.Speech, raw: true},

	"/v1/audio/transcriptions": {kind: modeldir.Transcription, raw: true, form: true},
	"/v1/audio/translations":   {kind: modeldir.Transcription, raw: true, form: true},
	"/v1/images/generations":   {kind: modeldir.Image, raw: true},
	"/v1/moderations":          {kind: modeldir.Moderation, raw: true},

	// Jina's and Cohere's: one request, one answer (https://docs.cohere.com/v2/reference/rerank).
	"/v1/rerank":    {kind: modeldir.Rerank, raw: true},
	"/rerank":       {kind: modeldir.Rerank, raw: true},
	"/v1/reranking": {kind: modeldir.Rerank, raw: true},
	"/v2/rerank":    {kind: modeldir.Rerank, raw: true, path: "/v1/rerank"},

	// llama-server's own.
	"/tokenize":   {any: true, raw: true},
	"/detokenize": {any: true, raw: true},
	"/infill":     {kind: modeldir.Chat, raw: true},
}

// route is a path that we answer ourselves, by method. One that ends with a slash is for all that begins with it.
type route struct {
	open    bool // no key is asked for
	errors  dialect.ErrorBody
	methods map[string]serveFunc
}

// allow is the methods of a route, as headers list them.
func (to route) allow() string { return strings.Join(slices.Sorted(maps.Keys(to.methods)), ", ") }

type serveFunc func(*Handler, http.ResponseWriter, *http.Request, *keys.Key)

// get is a route that is only read.
func get(serve serveFunc) route {
	return route{methods: map[string]serveFunc{http.MethodGet: serve, http.MethodHead: serve}}
}

// post is a route that does something.
func post(serve serveFunc) route {
	return route{methods: map[string]serveFunc{http.MethodPost: serve}}
}

// routes are filled in by the files that serve them.
var routes = map[string]route{}

func init() {
	routes["/v1/models"] = get((*Handler).serveModels)
	routes["/v1/models/"] = get((*Handler).serveModelCard)
	for path, serve := range map[string]serveFunc{"/health": (*Handler).serveHealth, "/readyz": (*Handler).serveReady} {
		r := get(serve)
		r.open = true
		routes[path] = r
	}
}

// anyID stands in the path of a route for the third part of one, such as a response's id.
const anyID = "{id}"

// findRoute finds the route of a path: that very one, but for an id in it, or the longest that it begins with.
func findRoute(path string) (route, bool) {
	if r, ok := routes[path]; ok {
		return r, true
	}
	const id = 3
	if parts := strings.Split(path, "/"); len(parts) > id && parts[id] != "" {
		parts[id] = anyID
		if r, ok := routes[strings.Join(parts, "/")]; ok {
			return r, true
		}
	}
	for at := len(path); ; {
		if at = strings.LastIndexByte(path[:at], '/'); at <= 0 {
			return route{}, false
		}
		if r, ok := routes[path[:at+1]]; ok {
			return r, true
		}
	}
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if ep, ok := endpoints[r.URL.Path]; ok {
		setRequestID(w, r)
		if h.cors(w, r, ep.allow) {
			return nil
		}
		return h.serveEndpoint(w, r, ep)
	}
	if h.Metrics != "" && r.URL.Path == h.Metrics {
		h.rt.serveMetrics(w)
		return nil
	}
	if to, ok := findRoute(r.URL.Path); ok {
		setRequestID(w, r)
		if !h.cors(w, r, to.allow) {
			h.serveRoute(w, r, to)
		}
		return nil
	}
	return passOn(w, r, next)
}

// passOn leaves a request to the site's other handlers. What none of them answers is not here, and told so: Caddy would say 200 to it, with
// nothing, which clients that look for an endpoint take for one. The address itself stays a 200, for who looks whether somebody is there.
func passOn(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if r.URL.Path == "/" || r.Header.Get("Upgrade") != "" { // a connection that was taken over has no status to go by
		return next.ServeHTTP(w, r)
	}
	rec := caddyhttp.NewResponseRecorder(w, nil, nil)
	if err := next.ServeHTTP(rec, r); err != nil || rec.Status() != 0 {
		return err
	}
	setRequestID(w, r)
	openai.PathNotFound(r.Method, r.URL.Path).WriteTo(w)
	return nil
}

// serveEndpoint answers a request to a model, as the API has it that the endpoint is of.
func (h *Handler) serveEndpoint(w http.ResponseWriter, r *http.Request, ep endpoint) error {
	if ep.api == nil {
		return h.admit(&exchange{h: h, w: w, r: r, ep: ep})
	}
	if name := ep.api.requestID; name != "" {
		w.Header()[name] = w.Header()[requestIDHeader]
	}
	client := dialect.NewWriter(w, ep.api.errors)
	err := h.admit(&exchange{h: h, w: client, r: r, ep: ep, client: client})
	client.Close()
	return err
}

// admit lets requests in that may be asked.
func (h *Handler) admit(x *exchange) error {
	if x.r.Method != http.MethodPost {
		deny(x.w, x.r, openai.MethodNotAllowed(x.ep.allow()))
		return nil
	}
	var ok bool
	if x.key, ok = h.identify(x.w, x.r); !ok {
		return nil
	}
	if x.end, ok = x.h.begin(x.w, x.r, x.key); !ok {
		return nil
	}
	return x.serve()
}

// serveRoute answers a request that needs no model.
func (h *Handler) serveRoute(w http.ResponseWriter, r *http.Request, to route) {
	if to.errors != nil {
		client := dialect.NewWriter(w, to.errors)
		defer client.Close()
		w = client
	}
	serve := to.methods[r.Method]
	if serve == nil {
		deny(w, r, openai.MethodNotAllowed(to.allow()))
		return
	}
	var key *keys.Key
	if !to.open {
		var ok bool
		if key, ok = h.identify(w, r); !ok {
			return
		}
	}
	serve(h, w, r, key)
}
