#!/bin/sh
# xcaddy.sh [--with PLUGIN[@VERSION]]…: builds ./caddy by xcaddy, with further plug-ins of
# Caddy's beside this project's module. Without plug-ins `make build` gives the same.
#
#     ./xcaddy.sh --with github.com/caddy-dns/cloudflare
cd "$(dirname "$0")"
. scripts/lib.sh

caddy=$(go list -m -f '{{.Version}}' github.com/caddyserver/caddy/v2)
if ! has xcaddy; then
	xcaddy() { CGO_ENABLED=0 go tool -modfile=tools/go.mod xcaddy "$@"; }
fi
export CGO_ENABLED=0
xcaddy build "$caddy" --output caddy --replace assistant="$PWD" --with assistant/caddymodule "$@"
