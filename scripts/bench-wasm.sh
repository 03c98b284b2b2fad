#!/bin/sh
# bench-wasm.sh: our WASI-NN plug-in in WasmEdge beside llama-server, with one thread each.
# ROUNDS says how often (default 3); the best of each is shown, and the ratio.
cd "$(dirname "$0")/.."
. scripts/lib.sh

ASSISTANT_TEST_LLAMA_SERVER=$(scripts/get-engine.sh)
ASSISTANT_TEST_MODELS=$(scripts/get-models.sh)
WASMEDGE_DIR=$(scripts/get-wasmedge.sh)
export WASMEDGE_DIR
ASSISTANT_TEST_WASMEDGE=$WASMEDGE_DIR/wasmedge
ASSISTANT_TEST_WASI_NN=$(scripts/build-wasi-nn.sh)
export ASSISTANT_TEST_LLAMA_SERVER ASSISTANT_TEST_MODELS ASSISTANT_TEST_WASMEDGE ASSISTANT_TEST_WASI_NN

CGO_ENABLED=0 exec go test -run '^$' -bench '^BenchmarkBesideLlamaServer$' -benchtime "${ROUNDS:-3}x" ./engines/wasi-nn-ggml/e2e
