package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/caddyserver/caddy/v2"

	"assistant/activator"
	"assistant/internal/hub"
	"assistant/internal/remote"
	"assistant/lifecycle"
	"assistant/modeldir"
)

func init() { caddy.RegisterModule(Admin{}) }

// Admin is the part of the admin API under /assistant/. It looks the runtime up at each request: Caddy provisions it with
// configurations that may yet be rejected.
type Admin struct{}

// CaddyModule returns the Caddy module information.
func (Admin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.assistant", New: func() caddy.Module { return new(Admin) }}
}

// Routes implements caddy.AdminRouter.
func (a Admin) Routes() []caddy.AdminRoute {
	route := func(path, method string, handle adminFunc) caddy.AdminRoute {
		return caddy.AdminRoute{Pattern: "/assistant/" + path, Handler: adminHandler{method, handle}}
	}
	return []caddy.AdminRoute{
		route("ps", http.MethodGet, adminPs),
		route("models", http.MethodGet, adminModels),
		route("load", http.MethodPost, audited("load", adminLoad)),
		route("unload", http.MethodPost, audited("unload", adminUnload)),
		route("logs", http.MethodGet, adminLogs),
		route("pull", http.MethodPost, audited("pull", adminPull)),
		route("remotes", http.MethodGet, adminRemotes),
		route("plan", http.MethodGet, adminPlan),
		route("downloads", http.MethodGet, adminDownloads),
		route("downloads/pause", http.MethodPost, audited("pause", adminDownload((*hub.Manager).Pause))),
		route("downloads/resume", http.MethodPost, audited("resume", adminDownload((*hub.Manager).Resume))),
		route("downloads/cancel", http.MethodPost, audited("cancel", adminDownload((*hub.Manager).Cancel))),
		route("prune", http.MethodPost, audited("prune", adminPrune)),
		route("doctor", http.MethodGet, adminDoctor),
		route("reap", http.MethodPost, audited("reap", adminReap)),
		route("model-config", http.MethodGet, adminModelConfig),
		route("metrics", http.MethodGet, adminMetrics),
	}
}

type adminFunc func(*runtime, http.ResponseWriter, *http.Request) error

type adminHandler struct {
	method string
	handle adminFunc
}

// ServeHTTP implements caddy.AdminHandler.
func (h adminHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	if r.Method != h.method {
		w.Header().Set("Allow", h.method)
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: fmt.Errorf("method %s: use %s", r.Method, h.method)}
	}
	return withRuntime(func(rt *runtime) error { return h.handle(rt, w, r) })
}

// withRuntime calls f with the runtime, held for the time of the call. Without one the app is not in the configuration.
func withRuntime(f func(*runtime) error) error {
	if _, running := runtimes.References(runtimeKey); !running {
		return caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: errors.New("the assistant app is not in the configuration in force")}
	}
	rt, _, err := runtimes.LoadOrNew(runtimeKey, newRuntime)
	if err != nil {
		return err
	}
	defer func() { _, _ = runtimes.Delete(runtimeKey) }()
	return f(rt.(*runtime)) //nolint:errcheck,forcetypeassert // newRuntime makes them
}

func answer(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}

// PsResult is the answer of GET /assistant/ps.
type PsResult struct {
	Instances []activator.InstanceStatus `json:"instances"`
}

func adminPs(rt *runtime, w http.ResponseWriter, _ *http.Request) error {
	return answer(w, PsResult{Instances: rt.act.Instances()})
}

// ModelsResult is the answer of GET /assistant/models.
type ModelsResult struct {
	Models []ModelRow `json:"models"`
}

// ModelRow is a model, or a file that is none yet, as operators see it.
type ModelRow struct {
	Name    string   `json:"name"`
	Aliases []string `json:"aliases,omitempty"`
	Kind    string   `json:"kind,omitempty"`
	Engine  string   `json:"engine,omitempty"`
	Status  string   `json:"status"`
	Running int      `json:"instances,omitempty"`
	Queued  int      `json:"queued,omitempty"`
	File    string   `json:"file,omitempty"`
	Error   string   `json:"error,omitempty"`
}

func adminModels(rt *runtime, w http.ResponseWriter, _ *http.Request) error {
	v := rt.view()
	rows := []ModelRow{}
	known := map[string]bool{}
	for _, m := range v.catalog.Models() {
		known[m.Name] = true
		status := v.status(m)
		rows = append(rows, ModelRow{
			Name: m.Key, Aliases: m.Aliases, Kind: string(m.Kind), Engine: m.Engine, File: m.File,
			Status: status.Value, Error: status.Error, Queued: v.statuses[m.Key].Queued, Running: v.statuses[m.Key].Instances,
		})
	}
	for _, f := range v.catalog.Faults() {
		if !known[f.Name] {
			rows = append(rows, ModelRow{Name: f.Name, File: f.File, Status: "failed", Error: f.Err.Error()})
		}
	}
	return answer(w, ModelsResult{Models: rows})
}

// modelRequest is what load, unload and logs are told, as a JSON body or in the query.
type modelRequest struct {
	Model string `json:"model"`
	Force bool   `json:"force"`
}

func readModelRequest(rt *runtime, r *http.Request) (modelRequest, *modeldir.Model, error) {
	req := modelRequest{Model: r.URL.Query().Get("model"), Force: r.URL.Query().Get("force") == "true"}
	if r.Method == http.MethodPost && req.Model == "" {
		const longest = 64 << 10
		err := json.NewDecoder(io.LimitReader(r.Body, longest)).Decode(&req)
		if err != nil && !errors.Is(err, io.EOF) {
			return req, nil, caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: fmt.Errorf(`the body is to be {"model": "…"}: %w`, err)}
		}
	}
	if req.Model == "" {
		return req, nil, caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: errors.New("name a model: ?model=… or {\"model\": \"…\"}")}
	}
	m, ok := rt.catalog.Load().Resolve(req.Model, modeldir.Chat)
	if !ok {
		return req, nil, caddy.APIError{HTTPStatus: http.StatusNotFound, Err: fmt.Errorf("the model %q does not exist", req.Model)}
	}
	return req, m, nil
}

func adminLoad(rt *runtime, w http.ResponseWriter, r *http.Request) (model string, err error) {
	req, m, err := readModelRequest(rt, r)
	if err != nil {
		return req.Model, err
	}
	if err := rt.load(r.Context(), m); err != nil {
		status := http.StatusBadGateway
		var fault *activator.Error
		if errors.As(err, &fault) && fault.Fault != activator.FaultStart {
			status = http.StatusServiceUnavailable
		}
		return m.Name, caddy.APIError{HTTPStatus: status, Err: err}
	}
	return m.Name, answer(w, map[string]any{"success": true, "model": m.Name})
}

func adminUnload(rt *runtime, w http.ResponseWriter, r *http.Request) (model string, err error) {
	req, m, err := readModelRequest(rt, r)
	if err != nil {
		return req.Model, err
	}
	rt.act.Unload(m.Key, req.Force)
	return m.Name, answer(w, map[string]any{"success": true, "model": m.Name})
}

func adminLogs(rt *runtime, w http.ResponseWriter, r *http.Request) error {
	_, m, err := readModelRequest(rt, r)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	for _, out := range rt.act.Outputs(m.Key) {
		if _, err := io.WriteString(w, out.Output.String()); err != nil {
			return err
		}
	}
	return nil
}

// RemotesResult is the answer of GET /assistant/remotes.
type RemotesResult struct {
	Remotes []remote.Status `json:"remotes"`
}

func adminRemotes(rt *runtime, w http.ResponseWriter, _ *http.Request) error {
	result := RemotesResult{Remotes: []remote.Status{}}
	if set := rt.remotes.Load(); set != nil {
		result.Remotes = set.Statuses()
	}
	return answer(w, result)
}

func adminDoctor(rt *runtime, w http.ResponseWriter, _ *http.Request) error {
	return answer(w, examine(rt.catalog.Load()))
}

// ReapResult is the answer of POST /assistant/reap.
type ReapResult struct {
	Reaped []lifecycle.Reaped `json:"reaped"`
}

func adminReap(rt *runtime, w http.ResponseWriter, r *http.Request) (model string, err error) {
	app := rt.inForce()
	if app == nil {
		return "", caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: errNotInForce}
	}
	reaped, err := lifecycle.Reap(r.Context(), app.StateDir)
	if err != nil {
		return "", err
	}
	return "", answer(w, ReapResult{Reaped: append([]lifecycle.Reaped{}, reaped...)})
}

func adminModelConfig(_ *runtime, w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/toml")
	_, err := w.Write(modeldir.DefaultModelTOML())
	return err
}

func adminMetrics(rt *runtime, w http.ResponseWriter, _ *http.Request) error {
	rt.serveMetrics(w)
	return nil
}

// Interface guard
var _ caddy.AdminRouter = Admin{}
