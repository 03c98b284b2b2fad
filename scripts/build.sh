#!/bin/sh
# build.sh: builds ./caddy, which is Caddy with this project's module in it.
cd "$(dirname "$0")/.."
. scripts/lib.sh

has go || fail "Go is missing: install Go 1.26 or newer (https://go.dev/dl)"
export CGO_ENABLED=0
package=./caddymodule/assistant
version=$(git describe --always --dirty --tags 2>/dev/null || echo unknown)

set -- go build -v -ldflags "-s -w -X main.version=$version" -o caddy $package
if has python3; then
	# How much there is to do is asked at the first build only: the question takes a second.
	total=0
	if ! [ -e caddy ]; then
		todo=$(mktemp)
		trap 'rm -f "$todo"' EXIT
		scripts/progress.py modules --packages 0 -- go list -deps -f '{{if .Stale}}{{.ImportPath}}{{end}}' $package >"$todo"
		total=$(grep -c . "$todo" || true)
	fi
	set -- scripts/progress.py caddy --packages "$total" -- "$@"
fi
"$@"
