package caddymodule

import (
	"log/slog"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap/exp/zapslog"

	"assistant/internal/keys"
)

// auditName is the name of the log of management calls, by which Caddy's logging includes or excludes it.
const auditName = "assistant.audit"

// auditor is what Caddy's logging takes for the module that logs.
type auditor struct{}

// CaddyModule implements caddy.Module.
func (auditor) CaddyModule() caddy.ModuleInfo { return caddy.ModuleInfo{ID: auditName} }

func auditLog(ctx caddy.Context) *slog.Logger {
	const never = slog.Level(127)
	return slog.New(zapslog.NewHandler(ctx.Logger(auditor{}).Core(), zapslog.WithName(auditName), zapslog.AddStacktraceAt(never)))
}

// audit notes a management call: what was done to which model, by which key (nil = none was needed), and with what outcome. Calls that
// were refused or failed, with err, are noted too.
func (h *Handler) audit(w http.ResponseWriter, r *http.Request, key *keys.Key, action, model string, err error) {
	var name string
	if key != nil {
		name = key.Name
	}
	h.app.note(r, w.Header().Get(requestIDHeader), name, action, model, err)
}

// note writes a line of the audit log.
func (a *App) note(r *http.Request, id, key, action, model string, err error) {
	outcome := "ok"
	if err != nil {
		outcome = err.Error()
	}
	remote, ok := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	if !ok || remote == "" {
		remote = r.RemoteAddr
	}
	a.auditLog.Info("management call", "action", action, "model", model, "key", key, "remote", remote, "request_id", id, "outcome", outcome)
}

// audited makes a call of the admin API one that is noted. Caddy guards that API itself, so there is no key.
func audited(action string, handle func(*runtime, http.ResponseWriter, *http.Request) (model string, err error)) adminFunc {
	return func(rt *runtime, w http.ResponseWriter, r *http.Request) error {
		model, err := handle(rt, w, r)
		if app := rt.inForce(); app != nil {
			app.note(r, r.Header.Get(requestIDHeader), "", action, model, err)
		}
		return err
	}
}
