package hubtest

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Ollama speaks the protocol of Ollama's registry: manifests, and blobs, which are sent on to a CDN. There is no list of tags.
type Ollama struct {
	URL string
	CDN *CDN

	// Bearer is the token that requests must have; one is given to everybody at /token, as Docker Hub does. "" = none is needed.
	Bearer string
	// Fault may answer in the registry's place, and then tells so. It is set before the first request.
	Fault func(http.ResponseWriter, *http.Request) bool

	mu        sync.Mutex
	manifests map[string][]byte // by NAMESPACE/NAME:TAG
	requests  []Request
}

// Layer is a part of a model.
type Layer struct {
	Type    string // after application/vnd.ollama.image., such as "model"
	Content []byte
}

// NewOllama starts a registry and its CDN, which end with the test.
func NewOllama(t testing.TB) *Ollama {
	t.Helper()
	o := &Ollama{CDN: NewCDN(t), manifests: map[string][]byte{}}
	server := httptest.NewServer(http.HandlerFunc(o.serve))
	t.Cleanup(server.Close)
	o.URL = server.URL
	return o
}

type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int    `json:"size"`
}

// Add publishes a model under NAME:TAG or NAMESPACE/NAME:TAG, with config as its config's JSON.
func (o *Ollama) Add(name, config string, layers ...Layer) {
	if !strings.Contains(name, "/") {
		name = "library/" + name
	}
	manifest := struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}{SchemaVersion: 2, MediaType: "application/vnd.docker.distribution.manifest.v2+json"}
	put := func(media string, b []byte) descriptor { return descriptor{media, "sha256:" + o.CDN.Put(b), len(b)} }
	manifest.Config = put("application/vnd.docker.container.image.v1+json", []byte(config))
	for _, l := range layers {
		manifest.Layers = append(manifest.Layers, put("application/vnd.ollama.image."+l.Type, l.Content))
	}
	b, err := json.Marshal(manifest)
	if err != nil {
		panic(err) // it is made of texts and numbers
	}
	o.AddManifest(name, b)
}

// AddManifest publishes a manifest as it is, under NAMESPACE/NAME:TAG.
func (o *Ollama) AddManifest(name string, b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.manifests[name] = b
}

// Requests lists what was asked for so far.
func (o *Ollama) Requests() []Request {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.requests)
}

func (o *Ollama) serve(w http.ResponseWriter, req *http.Request) {
	o.mu.Lock()
	o.requests = append(o.requests, Request{req.Method, req.URL.Path, req.Header.Get("Range"), req.Header.Get("Authorization")})
	o.mu.Unlock()
	if o.Fault != nil && o.Fault(w, req) {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.Bearer != "" && req.URL.Path == "/token" {
		_ = json.NewEncoder(w).Encode(map[string]string{"token": o.Bearer}) // who left does not read it
		return
	}
	parts := strings.Split(strings.TrimPrefix(req.URL.Path, "/"), "/")
	if len(parts) != 5 || parts[0] != "v2" {
		http.NotFound(w, req)
		return
	}
	repo := parts[1] + "/" + parts[2]
	if o.Bearer != "" && req.Header.Get("Authorization") != "Bearer "+o.Bearer {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+o.URL+`/token",service="hubtest",scope="repository:`+repo+`:pull"`)
		ociError(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return
	}
	switch parts[3] {
	case "manifests":
		b, ok := o.manifests[repo+":"+parts[4]]
		if !ok {
			ociError(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8") // as Ollama's
		_, _ = w.Write(b)                                           // who left does not read it
	case "blobs":
		to := o.CDN.Sign(strings.TrimPrefix(parts[4], "sha256:"))
		http.Redirect(w, req, to, http.StatusTemporaryRedirect) //nolint:gosec // to the CDN alone
	default:
		http.NotFound(w, req)
	}
}

func ociError(w http.ResponseWriter, status int, code, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]string{"code": code, "message": text}}}) // as above
}
