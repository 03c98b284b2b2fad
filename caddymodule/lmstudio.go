package caddymodule

import (
	"fmt"
	"net/http"
	"time"

	"assistant/internal/keys"
	"assistant/internal/openai"
	"assistant/modeldir"
)

// LM Studio's management of models (https://lmstudio.ai/docs/developer/rest): Open WebUI and others list, load and unload by it.
func init() {
	routes["/api/v1/models"] = get((*Handler).listForLMStudio)
	routes["/api/v1/models/load"] = post((*Handler).loadForLMStudio)
	routes["/api/v1/models/unload"] = post((*Handler).unloadForLMStudio)
}

// lmModel is a model as LM Studio lists it.
type lmModel struct {
	Type         string          `json:"type"` // llm or embedding
	Publisher    string          `json:"publisher"`
	Key          string          `json:"key"`
	DisplayName  string          `json:"display_name"`
	Loaded       []lmInstance    `json:"loaded_instances"`
	Architecture string          `json:"architecture,omitempty"`
	Quantization *lmQuantization `json:"quantization,omitempty"`
	Size         int64           `json:"size_bytes"`
	Parameters   string          `json:"params_string,omitempty"`
	MaxContext   int             `json:"max_context_length"`
	Format       string          `json:"format"`
	Capabilities lmCapabilities  `json:"capabilities"`
}

type lmQuantization struct {
	Name string `json:"name"`
}

// lmInstance is what it calls a model that is loaded. All instances of ours are one, under the model's name.
type lmInstance struct {
	ID     string   `json:"id"`
	Config lmConfig `json:"config"`
}

type lmConfig struct {
	ContextLength int `json:"context_length"`
}

type lmCapabilities struct {
	Vision bool `json:"vision"`
	Tools  bool `json:"trained_for_tool_use"`
}

func lmType(kind modeldir.Kind) string {
	if kind == modeldir.Embedding {
		return "embedding"
	}
	return "llm"
}

// listForLMStudio lists the models for chats and for embeddings: others it does not know.
func (h *Handler) listForLMStudio(w http.ResponseWriter, _ *http.Request, key *keys.Key) {
	view := h.rt.view()
	models := []lmModel{}
	for _, m := range view.textModels(key) {
		card := view.card(m)
		loaded := []lmInstance{}
		if card.Status.Value == openai.StatusLoaded {
			loaded = append(loaded, lmInstance{m.Name, lmConfig{card.ContextLength}})
		}
		known := view.facts(m)
		listed := lmModel{
			Type: lmType(m.Kind), Publisher: owner, Key: m.Name, DisplayName: card.Name, Loaded: loaded,
			Architecture: known.arch, Size: known.size, Parameters: sizeLabel(known.parameters), MaxContext: card.ContextLength, Format: "gguf",
			Capabilities: lmCapabilities{Vision: known.vision, Tools: known.tools()},
		}
		if known.quantization != "" {
			listed.Quantization = &lmQuantization{known.quantization}
		}
		models = append(models, listed)
	}
	writeJSON(w, http.StatusOK, openai.Marshal(struct {
		Models []lmModel `json:"models"`
	}{models}))
}

// sizeLabel is a number of parameters as people say it, such as 135M or 1.2B; "" for none.
func sizeLabel(parameters int64) string {
	switch n := float64(parameters); {
	case parameters == 0:
		return ""
	case n >= 1e10:
		return fmt.Sprintf("%.0fB", n/1e9)
	case n >= 1e9:
		return fmt.Sprintf("%.1fB", n/1e9)
	default:
		return fmt.Sprintf("%.0fM", n/1e6)
	}
}

// loadForLMStudio starts a model and answers when it is ready. How it is started is its file's affair, whatever else the request says.
func (h *Handler) loadForLMStudio(w http.ResponseWriter, r *http.Request, key *keys.Key) {
	m, ok := h.toManage(w, r, key, "load", "model")
	if !ok {
		return
	}
	began := time.Now()
	err := h.rt.load(r.Context(), m)
	h.audit(w, r, key, "load", m.Name, err)
	if err != nil {
		if r.Context().Err() == nil {
			refuse(w, m.Name, err)
		}
		return
	}
	writeJSON(w, http.StatusOK, openai.Marshal(struct {
		Type     string  `json:"type"`
		Instance string  `json:"instance_id"`
		Seconds  float64 `json:"load_time_seconds"`
		Status   string  `json:"status"`
	}{lmType(m.Kind), m.Name, time.Since(began).Seconds(), "loaded"}))
}

// unloadForLMStudio lets a model go. Answers that are on their way end first.
func (h *Handler) unloadForLMStudio(w http.ResponseWriter, r *http.Request, key *keys.Key) {
	m, ok := h.toManage(w, r, key, "unload", "instance_id", "model")
	if !ok {
		return
	}
	h.audit(w, r, key, "unload", m.Name, nil)
	h.rt.act.Unload(m.Key, false)
	writeJSON(w, http.StatusOK, openai.Marshal(struct {
		Instance string `json:"instance_id"`
	}{m.Name}))
}
