package caddymodule

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"
)

func init() {
	caddy.RegisterModule(KeyAuth{})
	httpcaddyfile.RegisterHandlerDirective("assistant_auth", parseAuth)
	httpcaddyfile.RegisterDirectiveOrder("assistant_auth", httpcaddyfile.After, "basic_auth")
}

// KeyAuth lets requests pass that carry an API key of the assistant app, whichever handler serves them. The user's id is the key's name,
// and its metadata are owner and team. What bounds the key is not looked at.
type KeyAuth struct{ app *App }

// CaddyModule returns the Caddy module information.
func (KeyAuth) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.authentication.providers.assistant", New: func() caddy.Module { return new(KeyAuth) }}
}

// Provision finds the app.
func (k *KeyAuth) Provision(ctx caddy.Context) error {
	app, err := ctx.App("assistant")
	if err != nil {
		return err
	}
	k.app = app.(*App) //nolint:errcheck,forcetypeassert // the ID says so
	return nil
}

// Authenticate implements caddyauth.Authenticator. Without keys nobody passes, not even requests of this machine.
func (k *KeyAuth) Authenticate(w http.ResponseWriter, r *http.Request) (caddyauth.User, bool, error) {
	key, err := k.app.verify(apiKey(r.Header))
	if err != nil {
		w.Header().Set("Www-Authenticate", "Bearer")
		return caddyauth.User{}, false, nil //nolint:nilerr // whoever is not let in is no error
	}
	return caddyauth.User{ID: key.Name, Metadata: map[string]string{"owner": key.Owner, "team": key.Team}}, true, nil
}

// parseAuth reads the directive:
//
//	assistant_auth [<matcher>]    # requests need an API key of the assistant app
func parseAuth(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	h.Next()
	if h.NextArg() || h.NextBlock(0) {
		return nil, h.ArgErr()
	}
	return caddyauth.Authentication{ProvidersRaw: caddy.ModuleMap{"assistant": caddyconfig.JSON(KeyAuth{}, nil)}}, nil
}

// Interface guards
var (
	_ caddy.Provisioner       = (*KeyAuth)(nil)
	_ caddyauth.Authenticator = (*KeyAuth)(nil)
)
