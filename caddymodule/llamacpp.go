package caddymodule

import (
	"context"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"

	"assistant/activator"
	"assistant/internal/hub"
	"assistant/internal/keys"
	"assistant/internal/openai"
	"assistant/modeldir"
)

// What llama.cpp's server answers in its router mode, beside the API (https://github.com/ggml-org/llama.cpp, tools/server/README.md):
// Open WebUI lists, loads and unloads models by it.
func init() {
	models := get((*Handler).serveModelsAnew)
	models.methods[http.MethodPost], models.methods[http.MethodDelete] = (*Handler).downloadModel, (*Handler).deleteModel
	routes["/models"] = models
	routes["/models/load"] = post((*Handler).loadModel)
	routes["/models/unload"] = post((*Handler).unloadModel)
	routes["/models/sse"] = get((*Handler).serveModelEvents)
	routes["/props"] = get((*Handler).serveProps)
}

// serveModelsAnew lists the models; with ?reload=1 their files are read before.
func (h *Handler) serveModelsAnew(w http.ResponseWriter, r *http.Request, key *keys.Key) {
	if r.URL.RawQuery != "" && r.URL.Query().Get("reload") == "1" {
		h.rt.reread()
	}
	h.serveModels(w, r, key)
}

var success = []byte(`{"success":true}`)

// loadModel begins to start a model and does not wait for it: the list and the events tell.
func (h *Handler) loadModel(w http.ResponseWriter, r *http.Request, key *keys.Key) {
	m, ok := h.toManage(w, r, key, "load", "model")
	if !ok {
		return
	}
	h.audit(w, r, key, "load", m.Name, nil)
	go func() {
		if err := h.rt.load(context.Background(), m); err != nil {
			h.rt.log.Warn("could not load a model", "model", m.Name, "error", err)
		}
	}()
	writeJSON(w, http.StatusOK, success)
}

// unloadModel lets a model go. Answers that are on their way end first.
func (h *Handler) unloadModel(w http.ResponseWriter, r *http.Request, key *keys.Key) {
	name, err := namedIn(r, "model")
	if err == nil && h.cancelPull(w, r, key, name) {
		writeJSON(w, http.StatusOK, success)
		return
	}
	var m *modeldir.Model
	if err == nil {
		m, err = h.modelNamed(r, key, name)
	}
	h.audit(w, r, key, "unload", name, err)
	if err != nil {
		refuse(w, name, err)
		return
	}
	h.rt.act.Unload(m.Key, false)
	writeJSON(w, http.StatusOK, success)
}

// cancelPull cancels the download of what clients call so: that is how llama.cpp's are cancelled. It reports false if there is none that goes on.
func (h *Handler) cancelPull(w http.ResponseWriter, r *http.Request, key *keys.Key, name string) bool {
	c := h.rt.catalog.Load()
	for _, s := range h.rt.coming() {
		if s.Over() || downloadOf(c, s) != name || !h.admin(r, key) {
			continue
		}
		_, err := h.rt.hub.Load().Cancel(s.ID)
		h.audit(w, r, key, "cancel", name, err)
		return err == nil
	}
	return false
}

// serveModelEvents tells what becomes of models, in llama.cpp's words. The first events are how those in use stand.
func (h *Handler) serveModelEvents(w http.ResponseWriter, r *http.Request, key *keys.Key) {
	h.follow(w, r, key, func(e activator.Event) (out []byte) {
		switch e.Kind {
		case activator.EventSnapshot:
			for _, m := range e.InUse {
				out = append(out, modelStatus(m.Model, statusOf(m.State), m.Error)...)
			}
		case activator.EventCatalog:
			out = modelEvent(llamaEvent{Model: "*", Event: "models_reload"})
		case activator.EventStarting, activator.EventReady, activator.EventFailed, activator.EventStopped:
			out = modelStatus(e.Model, statusOf(string(e.Kind)), e.Error)
		default: // what it has no words for
		}
		return out
	}, func(s hub.Status) []byte { return downloadEvent(downloadOf(h.rt.catalog.Load(), s), s) })
}

// downloadEvent tells of a download in llama.cpp's words.
func downloadEvent(model string, s hub.Status) []byte {
	e := struct {
		Model string `json:"model"`
		Event string `json:"event"`
		Data  any    `json:"data,omitempty"`
	}{Model: model}
	switch s.State {
	case hub.Resolving, hub.Downloading, hub.Verifying:
		e.Event, e.Data = "download_progress", progressOf(s)
	case hub.Completed:
		e.Event = "download_finished"
	case hub.Failed, hub.Cancelled, hub.Paused:
		e.Event, e.Data = "download_failed", map[string]string{"error": first(s.Error, string(s.State))}
	}
	return fmt.Appendf(nil, "data: %s\n\n", openai.Marshal(e))
}

// llamaEvent is an event as llama.cpp's router has it.
type llamaEvent struct {
	Model string     `json:"model"`
	Event string     `json:"event"`
	Data  *llamaData `json:"data,omitempty"`
}

type llamaData struct {
	Status string `json:"status"`
	Failed bool   `json:"failed,omitempty"`
	Error  string `json:"error,omitempty"`
}

func modelEvent(e llamaEvent) []byte { return fmt.Appendf(nil, "data: %s\n\n", openai.Marshal(e)) }

func modelStatus(model, status, failure string) []byte {
	return modelEvent(llamaEvent{model, "model_status", &llamaData{status, failure != "", failure}})
}

// statusOf is llama.cpp's word for a state.
func statusOf(state string) string {
	switch state {
	case string(activator.EventStarting):
		return openai.StatusLoading
	case string(activator.EventReady), string(activator.EventDraining):
		return openai.StatusLoaded
	}
	return openai.StatusUnloaded
}

// serveProps tells what the router is; with ?model= what that model's engine says of itself.
func (h *Handler) serveProps(w http.ResponseWriter, r *http.Request, key *keys.Key) {
	if r.URL.RawQuery != "" && r.URL.Query().Get("model") != "" {
		x := &exchange{h: h, w: w, r: r, ep: endpoint{any: true, raw: true}, key: key}
		_ = x.serveQuery() // a client that is gone has no answer
		return
	}
	version, _ := caddy.Version()
	writeJSON(w, http.StatusOK, openai.Marshal(struct {
		Role         string `json:"role"`
		MaxInstances int    `json:"max_instances"`
		Autoload     bool   `json:"models_autoload"`
		Build        string `json:"build_info"`
	}{"router", h.app.MaxInstances, true, "assistant-" + version}))
}

// serveQuery has the model that the query names answer a request without a body.
func (x *exchange) serveQuery() error {
	x.open()
	defer x.close()
	if err := x.take(http.NoBody, 0, 0); err != nil {
		return x.fail(err)
	}
	x.req.Model = x.r.URL.Query().Get("model")
	if err := x.find(); err != nil {
		return x.fail(err)
	}
	if err := x.planRepairs(); err != nil {
		return x.fail(err)
	}
	return x.serveNow()
}
