package caddymodule

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"assistant/internal/rpc"
)

func init() {
	caddy.RegisterModule(RPC{})
	httpcaddyfile.RegisterHandlerDirective("assistant_rpc", parseRPC)
	httpcaddyfile.RegisterDirectiveOrder("assistant_rpc", httpcaddyfile.After, "metrics") // before the directive assistant
}

// RPC serves the services of assistant.v1, by gRPC, gRPC-Web and Connect, and passes every other path to the next handler. gRPC wants HTTP/2:
// by TLS, or where protocols of the server name h2c.
type RPC struct {
	// Origins of web pages that may call, as cors_origins of the handler assistant has them. Default: those of this machine only.
	CORSOrigins []string `json:"cors_origins,omitempty"`

	http Handler // what is the same as for HTTP: keys, origins, and chats
	rpc  *rpc.Handler
}

// CaddyModule returns the Caddy module information.
func (RPC) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.assistant_rpc", New: func() caddy.Module { return new(RPC) }}
}

// Provision finds the app, a default one if the configuration has none.
func (h *RPC) Provision(ctx caddy.Context) error {
	h.http.CORSOrigins = h.CORSOrigins
	if err := h.http.Provision(ctx); err != nil {
		return err
	}
	app, rt := h.http.app, h.http.rt
	h.rpc = rpc.New(rpc.Services{
		Access: rpcAccess{&h.http}, Models: rpcModels{rt}, Instances: rpcInstances{rt}, Downloads: rpcDownloads{rt}, Chat: chatHandler{&h.http},
		Ready: rt.ready, Serving: app.serving, MaxMessage: int(app.MaxBody),
	})
	return nil
}

// exposedRPC are the headers that pages read gRPC's status from.
const exposedRPC = ", Grpc-Status, Grpc-Message, Grpc-Status-Details-Bin"

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *RPC) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if !h.rpc.Serves(r) {
		return next.ServeHTTP(w, r)
	}
	setRequestID(w, r)
	if h.http.cors(w, r, func() string { return http.MethodPost + ", " + http.MethodGet }) {
		return nil
	}
	if header := w.Header()["Access-Control-Expose-Headers"]; len(header) > 0 {
		w.Header().Set("Access-Control-Expose-Headers", header[0]+exposedRPC)
	}
	h.rpc.ServeHTTP(w, r)
	return nil
}

// parseRPC reads the directive:
//
//	assistant_rpc [<matcher>] {
//		cors_origins <origin>... # of pages that may call, besides this machine's; * = all
//	}
func parseRPC(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(RPC)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return handler, nil
}

// UnmarshalCaddyfile reads the directive, see [parseRPC].
func (h *RPC) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return eachOption(d, func(option string, args []string) error {
		if option != "cors_origins" {
			return d.Errf("the directive assistant_rpc has no option %q", option)
		}
		if len(args) == 0 {
			return d.ArgErr()
		}
		h.CORSOrigins = args
		if err := (&Handler{CORSOrigins: args}).readOrigins(); err != nil {
			return d.WrapErr(err)
		}
		return nil
	})
}

// rpcAccess is who may do what, as for HTTP.
type rpcAccess struct{ h *Handler }

// Identify implements rpc.Access. Who needs no key as he is on this machine may manage; who needs none as insecure is on may not.
func (a rpcAccess) Identify(r *http.Request) (*rpc.Caller, error) {
	if err := a.h.waitReady(r); err != nil {
		return nil, err
	}
	key, err := a.h.whose(r)
	if err != nil {
		return nil, err
	}
	return &rpc.Caller{Key: key, Admin: a.h.admin(r, key), Request: r}, nil
}

// Audit implements rpc.Access.
func (a rpcAccess) Audit(c *rpc.Caller, action, subject string, err error) {
	var name string
	if c.Key != nil {
		name = c.Key.Name
	}
	a.h.app.note(c.Request, c.Request.Header.Get(requestIDHeader), name, action, subject, err)
}

// chatHandler answers chats of a call's, as requests to the HTTP API.
type chatHandler struct{ h *Handler }

// ServeHTTP implements http.Handler.
func (c chatHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	setRequestID(w, r)
	_ = c.h.serveEndpoint(w, r, endpoints[r.URL.Path]) // what Caddy is to know of, the caller knows: he has left
}

// Interface guards
var (
	_ caddy.Provisioner           = (*RPC)(nil)
	_ caddyhttp.MiddlewareHandler = (*RPC)(nil)
	_ caddyfile.Unmarshaler       = (*RPC)(nil)
)
