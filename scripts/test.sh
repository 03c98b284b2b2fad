#!/bin/sh
# test.sh FLAGS… PACKAGES…: runs go test on them, after fetching what the tests need.
cd "$(dirname "$0")/.."
. scripts/lib.sh

has go || fail "Go is missing: install Go 1.26 or newer (https://go.dev/dl)"
has "${CC:-gcc}" || fail "the race detector needs a C compiler: install one (apt-get install gcc libc6-dev)"
has cargo || fail "the guest for WasmEdge is tested from its source, in Rust: install Rust (https://rustup.rs)"

# shellcheck disable=SC2016 # the shell of progress.py expands it
scripts/progress.py --beside engine=scripts/get-engine.sh models=scripts/get-models.sh clients=scripts/get-python.sh \
	wasi-nn='WASMEDGE_DIR=$(scripts/get-wasmedge.sh) && export WASMEDGE_DIR && scripts/build-wasi-nn.sh && scripts/build-wasi-nn.sh harness' \
	llama-core=scripts/build-llama-core-server.sh registry=scripts/build-registry.sh
ASSISTANT_TEST_LLAMA_SERVER=$(scripts/get-engine.sh)
ASSISTANT_TEST_MODELS=$(scripts/get-models.sh)
ASSISTANT_TEST_PYTHON=$(scripts/get-python.sh)
ASSISTANT_TEST_PYTHON_GRPC=$(scripts/get-python.sh tools/clients/grpc.txt grpc_tools.protoc)
ASSISTANT_TEST_BUF=$(tool buf)
WASMEDGE_DIR=$(scripts/get-wasmedge.sh)
export WASMEDGE_DIR # verified here: the builds need not do it again
ASSISTANT_TEST_WASMEDGE=$WASMEDGE_DIR/wasmedge
ASSISTANT_TEST_WASI_NN=$(scripts/build-wasi-nn.sh)
ASSISTANT_TEST_WASI_NN_HARNESS=$(scripts/build-wasi-nn.sh harness)
ASSISTANT_TEST_LLAMA_CORE_SERVER=$(scripts/build-llama-core-server.sh)
ASSISTANT_TEST_REGISTRY=$(scripts/build-registry.sh)
export ASSISTANT_TEST_LLAMA_CORE_SERVER ASSISTANT_TEST_LLAMA_SERVER ASSISTANT_TEST_MODELS ASSISTANT_TEST_PYTHON ASSISTANT_TEST_REGISTRY
export ASSISTANT_TEST_PYTHON_GRPC ASSISTANT_TEST_BUF
export ASSISTANT_TEST_WASMEDGE ASSISTANT_TEST_WASI_NN ASSISTANT_TEST_WASI_NN_HARNESS

gotestsum=$(tool gotestsum)
CGO_ENABLED=1 exec "$gotestsum" --format pkgname-and-test-fails --format-hide-empty-pkg -- "$@"
