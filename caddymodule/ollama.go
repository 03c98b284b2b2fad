package caddymodule

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"assistant/internal/dialect"
	"assistant/internal/keys"
	"assistant/internal/ollama"
	"assistant/internal/openai"
	"assistant/modeldir"
)

// ollamaVersion is the version of Ollama whose API this is like: clients refuse those that are too old for them.
const ollamaVersion = "0.13.0"

// Ollama's API: https://github.com/ollama/ollama/blob/main/docs/api.md.
func init() {
	for path, read := range map[string]func([]byte) (*ollama.Call, error){
		"/api/chat": ollama.Chat, "/api/generate": ollama.Generate, "/api/embed": ollama.Embed, "/api/embeddings": ollama.Embeddings,
	} {
		endpoints[path] = endpoint{api: &api{errors: ollama.ErrorBody, read: func(_ *exchange, body []byte) (dialect.Call, error) { return read(body) }}}
	}
	for path, to := range map[string]route{
		"/api/tags": get((*Handler).serveTags), "/api/ps": get((*Handler).servePS), "/api/version": get((*Handler).serveVersion),
		"/api/show": post((*Handler).serveShow),
	} {
		to.errors = ollama.ErrorBody
		routes[path] = to
	}
}

// managing is a request of Ollama's to load or unload a model; nil if it asks the model something, or is of another API.
func (x *exchange) managing() *ollama.Call {
	call, ok := x.call.(*ollama.Call)
	if !ok || call.Action() == ollama.Ask {
		return nil
	}
	return call
}

// manage loads or unloads the model.
func (x *exchange) manage(call *ollama.Call) error {
	var err error
	action := "load"
	if call.Action() == ollama.Unload {
		action = "unload"
		x.h.rt.act.Unload(x.model.Key, false)
	} else {
		err = x.h.rt.load(x.r.Context(), x.model)
	}
	x.h.audit(x.w, x.r, x.key, action, x.model.Name, err)
	if err != nil {
		return err
	}
	writeJSON(x.client.Unwrap(), http.StatusOK, call.Immediate())
	return nil
}

// textModels are those for chats and for embeddings, as far as the key may use them: Ollama and LM Studio know no others.
func (v view) textModels(key *keys.Key) (models []*modeldir.Model) {
	for _, m := range v.served() {
		if (m.Kind == modeldir.Chat || m.Kind == modeldir.Embedding) && may(key, m) {
			models = append(models, m)
		}
	}
	return models
}

func (h *Handler) serveTags(w http.ResponseWriter, _ *http.Request, key *keys.Key) {
	v := h.rt.view()
	var models []ollama.Model
	for _, m := range v.textModels(key) {
		models = append(models, v.ollamaModel(m))
	}
	writeJSON(w, http.StatusOK, ollama.Tags(models))
}

func (h *Handler) serveVersion(w http.ResponseWriter, _ *http.Request, _ *keys.Key) {
	writeJSON(w, http.StatusOK, ollama.Version(ollamaVersion))
}

func (h *Handler) serveShow(w http.ResponseWriter, r *http.Request, key *keys.Key) {
	body, err := askedBody(r)
	if err != nil {
		refuse(w, "", err)
		return
	}
	name, verbose, err := ollama.ReadShow(body)
	if err != nil {
		refuse(w, "", err)
		return
	}
	m, err := h.modelNamed(r, key, name)
	if err != nil {
		m, err = h.modelNamed(r, key, name+ollamaTag)
	}
	if err != nil {
		openai.ModelNotFound(name).WriteTo(w)
		return
	}
	writeJSON(w, http.StatusOK, ollama.Show(h.rt.view().ollamaModel(m), verbose))
}

// ollamaTag is what its clients put behind a name that has no tag of its own.
const ollamaTag = ":latest"

// servePS lists the models that are loaded, or being loaded.
func (h *Handler) servePS(w http.ResponseWriter, _ *http.Request, key *keys.Key) {
	v := h.rt.view()
	var running []ollama.Running
	for _, m := range v.textModels(key) {
		r := ollama.Running{Model: v.ollamaModel(m)}
		r.ContextLength = r.Model.ContextLength
		found := false
		for _, in := range h.rt.act.Instances() {
			if in.Key != m.Key || m.Name != v.catalog.Model(m.Key).Name {
				continue
			}
			found = true
			for _, bytes := range in.Devices {
				r.SizeVRAM += bytes
			}
			if until := h.expires(m, in.IdleMS); until.After(r.ExpiresAt) {
				r.ExpiresAt = until
			}
		}
		if found {
			running = append(running, r)
		}
	}
	writeJSON(w, http.StatusOK, ollama.PS(running))
}

// never is when a model stops that has no idle timeout.
const never = 100 * 365 * 24 * time.Hour

// expires is when an instance stops if nobody uses it.
func (h *Handler) expires(m *modeldir.Model, idleMS float64) time.Time {
	after := time.Duration(*h.app.IdleTimeout)
	if m.IdleTimeout != nil {
		after = *m.IdleTimeout
	}
	if after == 0 {
		after = never
	}
	return time.Now().Add(after - time.Duration(idleMS*float64(time.Millisecond)))
}

// ollamaModel is what is known of a model.
func (v view) ollamaModel(m *modeldir.Model) ollama.Model {
	f := v.facts(m)
	sum := sha256.Sum256(fmt.Append(nil, m.Name, f.stamp))
	known := ollama.Model{
		Name: m.Name, Modified: f.modified, Size: f.size, Digest: hex.EncodeToString(sum[:]), Format: "gguf",
		Family: f.arch, ParameterSize: sizeLabel(f.parameters), Quantization: f.quantization,
		ContextLength: v.card(m).ContextLength, Template: f.template,
	}
	if f.arch != "" {
		known.Families = []string{f.arch}
	}
	if m.Shape != nil {
		for _, name := range slices.Sorted(maps.Keys(m.Shape.Defaults)) {
			known.Parameters = append(known.Parameters, name+" "+m.Shape.Defaults[name])
		}
	}
	known.Capabilities = []string{"embedding"}
	if m.Kind == modeldir.Chat {
		known.Capabilities = f.capabilities()
	}
	return known
}

// capabilities are what a model for chats can do, in Ollama's words. Whether it thinks is told by its template, which has a place for that.
func (f *facts) capabilities() []string {
	can := []string{"completion"}
	for _, c := range []struct {
		name string
		has  bool
	}{
		{"tools", f.tools()},
		{"vision", f.vision},
		{"audio", f.audio},
		{"thinking", strings.Contains(f.template, "<think>") || strings.Contains(f.template, "enable_thinking")},
	} {
		if c.has {
			can = append(can, c.name)
		}
	}
	return can
}
