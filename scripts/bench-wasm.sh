#!/bin/sh
# bench-wasm.sh: our WASI-NN plug-in in WasmEdge beside llama-server, with one thread each.
# ROUNDS says how often (default 3); the best of each is shown, and its ratio.
cd "$(dirname "$0")/.."
. scripts/lib.sh

ASSISTANT_TEST_LLAMA_SERVER=$(scripts/get-engine.sh)
ASSISTANT_TEST_MODELS=$(scripts/get-models.sh)
ASSISTANT_TEST_WASMEDGE=$(scripts/get-wasmedge.sh)/wasmedge
ASSISTANT_TEST_WASI_NN=$(scripts/build-wasi-nn.sh)
export ASSISTANT_TEST_LLAMA_SERVER ASSISTANT_TEST_MODELS ASSISTANT_TEST_WASMEDGE ASSISTANT_TEST_WASI_NN

export CGO_ENABLED=0 ASSISTANT_BENCH=1
exec go test -count=1 -run '^TestBesideLlamaServer$' -v ./engines/wasi-nn-ggml/e2e -rounds "${ROUNDS:-3}"
