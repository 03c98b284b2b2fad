#!/bin/sh
# bench-wasm.sh FLAGS…: measures our guest in WasmEdge beside llama-server. Its flags are bench/wasm's own; WASM names a
# llama-api-server.wasm to be measured as well.
cd "$(dirname "$0")/.."
. scripts/lib.sh

has go || fail "Go is missing: install Go 1.26 or newer (https://go.dev/dl)"
LLAMA_SERVER=$(scripts/get-engine.sh)
models=$(scripts/get-models.sh)
WASMEDGE_DIR=$(scripts/get-wasmedge.sh)
export LLAMA_SERVER WASMEDGE_DIR CGO_ENABLED=0
WASMEDGE_PLUGIN_PATH=$(dirname "$(scripts/build-wasi-nn.sh)")
export WASMEDGE_PLUGIN_PATH
exec go run ./bench/wasm -model "$models/smollm2-135m-instruct.gguf" -wasm "${WASM-}" "$@"
