package caddymodule

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// beyondLoopback names an address of an HTTP server that others than this machine can reach; "" if there is none.
func (a *App) beyondLoopback() string {
	app, err := a.ctx.AppIfConfigured("http")
	if err != nil {
		return "" // no HTTP server: nothing is served
	}
	for _, server := range app.(*caddyhttp.App).Servers { //nolint:errcheck,forcetypeassert // the ID says so
		for _, listen := range server.Listen {
			if !loopback(listen) {
				return listen
			}
		}
	}
	return ""
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
	return local(addr.Host)
}

// local reports whether a host is this machine, whatever a name server says.
func local(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") { // RFC 6761, 6.3
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// fromHere reports whether a request comes from this machine itself: its peer does, no proxy has handed it on, and it is addressed to
// this machine. A page of somebody else's in a browser here can have its own name lead to 127.0.0.1 (DNS rebinding); but it is
// that name that the browser then asks for.
func fromHere(r *http.Request) bool {
	for name := range r.Header {
		if name == "Forwarded" || name == "Via" || strings.HasPrefix(name, "X-Forwarded-") || name == "X-Real-Ip" {
			return false
		}
	}
	if peer, _, err := net.SplitHostPort(r.RemoteAddr); err != nil { // a unix socket's peers have no address
		if r.RemoteAddr != "" && r.RemoteAddr != "@" && !strings.HasPrefix(r.RemoteAddr, "/") {
			return false
		}
	} else if !local(peer) {
		return false
	}
	return local(hostOf(r.Host))
}

// hostOf is the host of "host:port", "host" or "[::1]".
func hostOf(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}
