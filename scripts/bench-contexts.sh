#!/bin/sh
# bench-contexts.sh FLAGS…: measures what keeping contexts is worth, on the real engine. Its flags are bench/contexts' own.
cd "$(dirname "$0")/.."
. scripts/lib.sh

has go || fail "Go is missing: install Go 1.26 or newer (https://go.dev/dl)"
LLAMA_SERVER=$(scripts/get-engine.sh)
export LLAMA_SERVER CGO_ENABLED=0
exec go run ./bench/contexts -model "$(scripts/get-models.sh)/smollm2-135m-instruct.gguf" "$@"
