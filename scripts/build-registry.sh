#!/bin/sh
# build-registry.sh: builds the registry of OCI artefacts that tests start, and prints its path. Its module is apart from the other tools',
# as it would change the versions of what they are made of.
cd "$(dirname "$0")/.."
. scripts/lib.sh

has go || fail "Go is missing: install Go 1.26 or newer (https://go.dev/dl)"
lock registry
CGO_ENABLED=0 go build -C tools/registry -o "$cache/registry" . # compiles what is not compiled yet
printf '%s\n' "$cache/registry"
