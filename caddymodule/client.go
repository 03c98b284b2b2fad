package caddymodule

import (
	"hash/maphash"
	"net"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"assistant/internal/keys"
)

// clientSeed makes clients' numbers this process's own: they are no use to anybody else.
var clientSeed = maphash.MakeSeed()

// clientOf tells who is one client where turns are taken: an API key, however it is sent or held, else the peer's address, which is what a
// trusted proxy says it is. Where no keys are asked for, a key is taken for what it says: who makes keys up gets more turns, but
// not more than the queues hold.
func clientOf(r *http.Request, holds *keys.Key) uint64 {
	if holds != nil {
		return maphash.String(clientSeed, holds.Name)
	}
	if key := apiKey(r.Header); key != "" {
		return maphash.String(clientSeed, key)
	}
	if ip, ok := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string); ok && ip != "" {
		return maphash.String(clientSeed, ip)
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	return maphash.String(clientSeed, host)
}

// apiKey is the key that a request carries; "" if it has none.
func apiKey(h http.Header) string {
	if auth := h.Get("Authorization"); auth != "" {
		if scheme, key, ok := strings.Cut(auth, " "); ok && strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(key)
		}
	}
	if key := h.Get("X-Api-Key"); key != "" {
		return key
	}
	return h.Get("Api-Key")
}
