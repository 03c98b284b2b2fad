package caddymodule

import (
	"net/netip"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// warnBeyondLoopback tells of HTTP servers that others than this machine can reach, unless keys are asked for.
func (a *App) warnBeyondLoopback() {
	if a.keys != nil {
		return
	}
	app, err := a.ctx.AppIfConfigured("http")
	if err != nil {
		return // no HTTP server: nothing is served
	}
	for name, server := range app.(*caddyhttp.App).Servers { //nolint:errcheck,forcetypeassert // the ID says so
		for _, listen := range server.Listen {
			if !loopback(listen) {
				a.log.Warn("listener beyond loopback: whoever reaches it can use every model; bind it to 127.0.0.1, or set keys, unless that is meant",
					"server", name, "listen", listen)
			}
		}
	}
}

// loopback reports whether a listener address can be reached from this machine only.
func loopback(listen string) bool {
	addr, err := caddy.ParseNetworkAddress(listen)
	if err != nil {
		return false
	}
	if addr.IsUnixNetwork() || addr.IsFdNetwork() {
		return true
	}
	if addr.Host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(addr.Host)
	return err == nil && ip.IsLoopback()
}
