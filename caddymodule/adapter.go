package caddymodule

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"assistant/modeldir"
)

func init() { caddyconfig.RegisterAdapter("assistant", Adapter{}) }

// Adapter makes a Caddy configuration of the user's config.toml:
//
//	caddy run --config /etc/assistant/config.toml --adapter assistant
//
// It is an HTTP server on http_addr with the handler assistant, and one on grpc_addr, if that is given, with the handler assistant_rpc. They may be
// the same. The app reads the same file itself for the rest.
type Adapter struct{}

// defaultHTTPAddr is where a config.toml without http_addr is served.
const defaultHTTPAddr = "127.0.0.1:8080"

// gracePeriod is how long a stop or reload waits for running answers; Caddy's own default is for ever.
const gracePeriod = caddy.Duration(30 * time.Second)

// Adapt implements caddyconfig.Adapter.
func (Adapter) Adapt(body []byte, options map[string]any) ([]byte, []caddyconfig.Warning, error) {
	name, _ := options["filename"].(string)
	if name == "" {
		return nil, nil, errors.New("the assistant adapter needs the file itself, which the server goes on reading: use --config FILE")
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return nil, nil, err
	}
	cfg, _, err := modeldir.ParseConfig(path, body) // its warnings are the app's to tell, once, when it reads the file
	if err != nil {
		return nil, nil, err
	}
	addr := first(cfg.HTTPAddr, defaultHTTPAddr)
	var warnings []caddyconfig.Warning
	http := caddyconfig.JSONModuleObject(new(Handler), "handler", "assistant", &warnings)
	grpc := caddyconfig.JSONModuleObject(new(RPC), "handler", "assistant_rpc", &warnings)
	servers := map[string]*caddyhttp.Server{}
	switch cfg.GRPCAddr {
	case "":
		servers["assistant"] = server(addr, nil, http)
	case addr:
		servers["assistant"] = server(addr, withH2C, grpc, http)
	default:
		servers["assistant"] = server(addr, nil, http)
		servers["assistant_rpc"] = server(cfg.GRPCAddr, withH2C, grpc)
	}
	config := caddy.Config{AppsRaw: caddy.ModuleMap{
		"assistant": caddyconfig.JSON(&App{Config: path}, &warnings),
		"http":      caddyconfig.JSON(&caddyhttp.App{GracePeriod: gracePeriod, Servers: servers}, &warnings),
	}}
	out, err := json.Marshal(config)
	return out, warnings, err
}

// withH2C is what gRPC needs where there is no TLS.
var withH2C = []string{"h1", "h2c"}

// server is one without TLS. protocols = nil are Caddy's defaults.
func server(addr string, protocols []string, handlers ...json.RawMessage) *caddyhttp.Server {
	return &caddyhttp.Server{
		Listen:    []string{addr},
		Protocols: protocols,
		Routes:    caddyhttp.RouteList{{HandlersRaw: handlers}},
		// Without host names there are no certificates to get; said outright, it stays so.
		AutoHTTPS: &caddyhttp.AutoHTTPSConfig{Disabled: true},
	}
}

// Interface guard
var _ caddyconfig.Adapter = Adapter{}
