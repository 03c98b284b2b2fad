#!/bin/sh
# lint.sh: every check that needs no running of tests.
cd "$(dirname "$0")/.."
. scripts/lib.sh

has go || fail "Go is missing: install Go 1.26 or newer (https://go.dev/dl)"
export CGO_ENABLED=0 # as in build.sh, whose compiled packages are used again
# Where caddy validate may write.
export XDG_DATA_HOME="$root/.run/lint" XDG_CONFIG_HOME="$root/.run/lint"

# step WHAT COMMAND… runs it, and shows what it said if it fails; the others still run.
failed=
step() {
	what=$1 begun=$(date +%s)
	shift
	if out=$("$@" 2>&1); then
		say "$what: ok ($(($(date +%s) - begun)) s)"
	else
		say "$what: FAILED
$out"
		failed="$failed, $what"
	fi
}

# portable lists the packages that do not reach Caddy; these must compile everywhere.
portable() {
	go list -f '{{$caddy := false}}{{range .Deps}}{{if eq . "github.com/caddyserver/caddy/v2"}}{{$caddy = true}}{{end}}{{end}}{{if not $caddy}}{{.ImportPath}}{{end}}' ./...
}

# guest COMMAND… runs cargo on our guest for WasmEdge.
guest() (
	cd engines/assistant-guest
	rust_target wasm32-wasip1
	CARGO_TARGET_DIR="$cache/guest-target" cargo "$@"
)

scripts/build.sh
step "go.mod is tidy" go mod tidy -diff
step "golangci-lint is built" tool golangci-lint
step "golangci-lint (gofumpt, vet, staticcheck and others)" "$(tool golangci-lint)" run ./...
step "buf is built" tool buf
step "the .proto files are clean, their code is up to date, and no client breaks" scripts/proto.sh check
packages=$(portable)
for os in darwin windows; do
	# shellcheck disable=SC2086 # a list of words
	step "vet for $os" env GOOS=$os go vet $packages
done
step "the guest is formatted" guest fmt --check
step "the guest's clippy" guest clippy --quiet --locked --target wasm32-wasip1 -- -D warnings
step "Caddyfile is formatted" ./caddy fmt --diff Caddyfile
step "Caddyfile is valid" env ASSISTANT_MODELS="$root/.run/lint/models" ASSISTANT_STATE="$root/.run/lint/state" ./caddy validate --config Caddyfile
[ -z "$failed" ] || fail "failed: ${failed#, }"
