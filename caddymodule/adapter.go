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
// It is one HTTP server on http_addr with the assistant handler. The app reads the same file itself for the rest.
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
	handler := caddyconfig.JSONModuleObject(new(Handler), "handler", "assistant", &warnings)
	config := caddy.Config{AppsRaw: caddy.ModuleMap{
		"assistant": caddyconfig.JSON(&App{Config: path}, &warnings),
		"http": caddyconfig.JSON(&caddyhttp.App{
			GracePeriod: gracePeriod,
			Servers: map[string]*caddyhttp.Server{"assistant": {
				Listen: []string{addr},
				Routes: caddyhttp.RouteList{{HandlersRaw: []json.RawMessage{handler}}},
				// Without host names there are no certificates to get; said outright, it stays so.
				AutoHTTPS: &caddyhttp.AutoHTTPSConfig{Disabled: true},
			}},
		}, &warnings),
	}}
	out, err := json.Marshal(config)
	return out, warnings, err
}

// Interface guard
var _ caddyconfig.Adapter = Adapter{}
