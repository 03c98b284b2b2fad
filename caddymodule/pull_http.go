package caddymodule

import (
	"net/http"
	"strings"

	"assistant/internal/dialect"
	"assistant/internal/hub"
	"assistant/internal/keys"
	"assistant/internal/ollama"
	"assistant/internal/openai"
	"assistant/modeldir"
)

// What clients of Ollama bring and remove models by. Those of llama.cpp's router and of LM Studio have their own.
func init() {
	for path, to := range map[string]route{
		"/api/pull":   post((*Handler).servePull),
		"/api/delete": {methods: map[string]serveFunc{http.MethodDelete: (*Handler).serveDelete}},
	} {
		to.errors = ollama.ErrorBody
		routes[path] = to
	}
}

// administer refuses who may not manage models: a key without the right to, and who needs none only because insecure is on.
func (h *Handler) administer(r *http.Request, key *keys.Key) error {
	if h.admin(r, key) {
		return nil
	}
	if key == nil {
		return openai.AdminOnly("")
	}
	return openai.AdminOnly(key.Name)
}

// admin reports whether the sender of a request may manage.
func (h *Handler) admin(r *http.Request, key *keys.Key) bool {
	return key == nil && h.own(r) || key != nil && key.Admin
}

// downloadModel begins to bring a model and does not wait for it: the list and the events tell.
func (h *Handler) downloadModel(w http.ResponseWriter, r *http.Request, key *keys.Key) {
	if _, ok := h.toDownload(w, r, key); ok {
		writeJSON(w, http.StatusOK, success)
	}
}

// toDownload begins to bring the model that a request names, which is called as it was asked for. It answers the request and reports false if that
// cannot be.
func (h *Handler) toDownload(w http.ResponseWriter, r *http.Request, key *keys.Key) (hub.Status, bool) {
	var s hub.Status
	name, err := namedIn(r, "model")
	if err == nil {
		s, err = h.startPull(r, key, name, name)
	}
	h.audit(w, r, key, "download", name, err)
	if err != nil {
		refuse(w, name, err)
	}
	return s, err == nil
}

// startPull begins to bring a model, for which a model file of that name is written, if the key may manage it.
func (h *Handler) startPull(r *http.Request, key *keys.Key, src, name string) (hub.Status, error) {
	if err := h.administer(r, key); err != nil {
		return hub.Status{}, err
	}
	if err := h.waitReady(r); err != nil {
		return hub.Status{}, err
	}
	if key != nil && !key.May(name) {
		return hub.Status{}, openai.ModelNotFound(name)
	}
	s, err := h.rt.pull(src, name)
	if err != nil {
		return s, openai.InvalidRequest("model", err.Error())
	}
	return s, nil
}

// deleteModel removes a model that was brought here: its file, and what no other model needs of the store.
func (h *Handler) deleteModel(w http.ResponseWriter, r *http.Request, key *keys.Key) {
	name := r.URL.Query().Get("model")
	err := h.remove(r, key, name)
	h.audit(w, r, key, "delete", name, err)
	if err != nil {
		refuse(w, name, err)
		return
	}
	writeJSON(w, http.StatusOK, success)
}

func (h *Handler) remove(r *http.Request, key *keys.Key, name string) error {
	if err := h.administer(r, key); err != nil {
		return err
	}
	if name == "" {
		return openai.InvalidRequest("model", `you must name a model: ?model=NAME`)
	}
	m, err := h.modelNamed(r, key, name)
	if err != nil {
		return err
	}
	if err := h.rt.removeModel(m); err != nil {
		return openai.InvalidRequest("model", err.Error())
	}
	return nil
}

// servePull brings a model for Ollama's clients, and tells how far it is until it is here. The download goes on when the client leaves.
func (h *Handler) servePull(w http.ResponseWriter, r *http.Request, key *keys.Key) {
	asked, err := askedPull(r)
	var s hub.Status
	if err == nil {
		s, err = h.startPull(r, key, asked.Source(), strings.TrimSuffix(asked.Name, ollamaTag))
	}
	h.audit(w, r, key, "pull", asked.Name, err)
	if err != nil {
		refuse(w, asked.Name, err)
		return
	}
	if !asked.Stream {
		h.pullWhole(w, r, s)
		return
	}
	if client, ok := w.(*dialect.Writer); ok {
		w = client.Unwrap() // what holds back plain answers until they are whole
	}
	h.pullStream(w, r, s)
}

// askedPull reads which model a request of Ollama's is about.
func askedPull(r *http.Request) (ollama.Pull, error) {
	body, err := askedBody(r)
	if err != nil {
		return ollama.Pull{}, err
	}
	return ollama.ReadPull(body)
}

func (h *Handler) pullWhole(w http.ResponseWriter, r *http.Request, s hub.Status) {
	s, err := h.rt.hub.Load().Wait(r.Context(), s.ID)
	switch {
	case err != nil: // the client is gone
	case s.State == hub.Completed:
		writeJSON(w, http.StatusOK, openai.Marshal(ollama.Pulling{Status: ollama.Success}))
	default:
		refuse(w, s.Source, openai.DownloadFailed(s.Source, first(s.Error, string(s.State)), 0))
	}
}

func (h *Handler) pullStream(w http.ResponseWriter, r *http.Request, s hub.Status) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	to := http.NewResponseController(w)
	for s := range h.rt.hub.Load().Watch(r.Context(), s.ID) {
		for _, line := range pulling(s) {
			if _, err := w.Write(line.Line()); err != nil {
				return
			}
		}
		if to.Flush() != nil {
			return
		}
	}
}

// pulling is what Ollama's clients are told of a download.
func pulling(s hub.Status) []ollama.Pulling {
	var lines []ollama.Pulling
	switch s.State {
	case hub.Resolving:
		return []ollama.Pulling{{Status: ollama.PullingManifest}}
	case hub.Downloading, hub.Verifying, hub.Completed:
		for _, f := range s.Files {
			if f.Done > 0 {
				lines = append(lines, ollama.PullingFile(f.Name, f.SHA256, f.Done, f.Total))
			}
		}
		if s.State == hub.Completed {
			lines = append(lines, ollama.Pulling{Status: ollama.Verifying}, ollama.Pulling{Status: ollama.WritingManifest}, ollama.Pulling{Status: ollama.Success})
		}
		return lines
	case hub.Paused, hub.Failed, hub.Cancelled:
	}
	return []ollama.Pulling{{Error: first(s.Error, "the download is "+string(s.State))}}
}

// serveDelete removes a model for Ollama's clients.
func (h *Handler) serveDelete(w http.ResponseWriter, r *http.Request, key *keys.Key) {
	asked, err := askedPull(r)
	if err == nil {
		err = h.remove(r, key, strings.TrimSuffix(asked.Name, ollamaTag))
	}
	h.audit(w, r, key, "delete", asked.Name, err)
	if err != nil {
		refuse(w, asked.Name, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// mayHear reports whether a key is told of a download: that of a model it may use, or any, if it may manage.
func (rt *runtime) mayHear(key *keys.Key, s hub.Status) bool {
	if key == nil || key.Admin {
		return true
	}
	for _, m := range rt.catalog.Load().Models() {
		if publishedAt(m, s.Source, s.Resolved) && may(key, m) {
			return true
		}
	}
	return false
}

// downloadOf is what clients call what a download brings: the model that names its source, else the source.
func downloadOf(c *modeldir.Catalog, s hub.Status) string {
	for _, m := range c.Models() {
		if publishedAt(m, s.Source, s.Resolved) {
			return m.Name
		}
	}
	if len(s.As) > 0 && s.As[0] != suggested {
		return s.As[0]
	}
	return s.Source
}
