package caddymodule

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2"

	"assistant/internal/hub"
)

// adminManager is what brings models, or the admin API's error.
func adminManager(rt *runtime) (*hub.Manager, error) {
	m, err := rt.downloads()
	if err != nil {
		return nil, caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: err}
	}
	return m, nil
}

var errNoSource = errors.New("name a source: ?source=hf:OWNER/REPO:QUANTISATION")

// adminPull brings a model and tells how far it is, a line of JSON at a time, until it is here. The download goes on when the client leaves.
func adminPull(rt *runtime, w http.ResponseWriter, r *http.Request) (model string, err error) {
	query := r.URL.Query()
	src := query.Get("source")
	if src == "" {
		return "", caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: errNoSource}
	}
	s, err := rt.pull(src, query.Get("name"))
	if err != nil {
		return src, caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: err}
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines := json.NewEncoder(w)
	to := http.NewResponseController(w)
	for s := range rt.hub.Load().Watch(r.Context(), s.ID) {
		if err := errors.Join(lines.Encode(s), to.Flush()); err != nil {
			return src, err
		}
	}
	return src, nil
}

// PlanResult is the answer of GET /assistant/plan: what a source stands for.
type PlanResult struct {
	Source       string           `json:"source"` // with the quantisation and tag that were chosen
	Name         string           `json:"name"`
	Size         int64            `json:"size"` // bytes; -1 = not told
	Quantization string           `json:"quantization,omitempty"`
	Licence      string           `json:"licence,omitempty"`
	Revision     string           `json:"revision,omitempty"`
	Files        []PlanResultFile `json:"files"`
}

// PlanResultFile is one file of it.
type PlanResultFile struct {
	Name   string `json:"name"`
	Role   string `json:"role"`
	Size   int64  `json:"size"` // bytes; -1 = not told
	SHA256 string `json:"sha256,omitempty"`
}

func adminPlan(rt *runtime, w http.ResponseWriter, r *http.Request) error {
	src := r.URL.Query().Get("source")
	if src == "" {
		return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: errNoSource}
	}
	m, err := adminManager(rt)
	if err != nil {
		return err
	}
	p, err := m.Plan(r.Context(), src)
	if err != nil {
		return caddy.APIError{HTTPStatus: http.StatusBadGateway, Err: err}
	}
	result := PlanResult{Source: p.Source, Name: p.Name, Size: p.Size, Quantization: p.Quantization, Licence: p.Licence, Revision: p.Revision}
	for _, f := range p.Files {
		result.Files = append(result.Files, PlanResultFile{f.Name, string(f.Role), f.Size, f.SHA256})
	}
	return answer(w, result)
}

// DownloadsResult is the answer of GET /assistant/downloads.
type DownloadsResult struct {
	Downloads []hub.Status `json:"downloads"`
}

func adminDownloads(rt *runtime, w http.ResponseWriter, _ *http.Request) error {
	m := rt.hub.Load()
	if m == nil {
		return answer(w, DownloadsResult{Downloads: []hub.Status{}})
	}
	return answer(w, DownloadsResult{Downloads: m.List()})
}

// adminDownload does something to the download with the id in the query.
func adminDownload(do func(*hub.Manager, string) (hub.Status, error)) func(*runtime, http.ResponseWriter, *http.Request) (string, error) {
	return func(rt *runtime, w http.ResponseWriter, r *http.Request) (string, error) {
		id := r.URL.Query().Get("id")
		m, err := adminManager(rt)
		if err != nil {
			return id, err
		}
		s, err := do(m, id)
		switch {
		case errors.Is(err, hub.ErrNotFound):
			return id, caddy.APIError{HTTPStatus: http.StatusNotFound, Err: err}
		case err != nil:
			return id, caddy.APIError{HTTPStatus: http.StatusConflict, Err: err}
		}
		return s.Source, answer(w, s)
	}
}

// adminPrune removes from the store what no model needs.
func adminPrune(rt *runtime, w http.ResponseWriter, _ *http.Request) (string, error) {
	if _, err := adminManager(rt); err != nil {
		return "", err
	}
	got, err := rt.collect()
	if err != nil {
		return "", caddy.APIError{HTTPStatus: http.StatusConflict, Err: err}
	}
	return "", answer(w, got)
}
