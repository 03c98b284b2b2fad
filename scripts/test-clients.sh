#!/bin/sh
# test-clients.sh: the published clients of OpenAI's API against the whole server, on each engine. Prints a matrix. Then schemathesis, for
# 2,000 cases.
cd "$(dirname "$0")/.."
. scripts/lib.sh

has go || fail "Go is missing: install Go 1.26 or newer (https://go.dev/dl)"
ASSISTANT_TEST_LLAMA_SERVER=$(scripts/get-engine.sh)
ASSISTANT_TEST_MODELS=$(scripts/get-models.sh)
WASMEDGE_DIR=$(scripts/get-wasmedge.sh)
export WASMEDGE_DIR
ASSISTANT_TEST_WASMEDGE=$WASMEDGE_DIR/wasmedge
ASSISTANT_TEST_WASI_NN=$(scripts/build-wasi-nn.sh)
ASSISTANT_TEST_PYTHON=$(scripts/get-python.sh)
ASSISTANT_TEST_PYTHON_OLD=$(scripts/get-python.sh tools/clients/openai-1.txt)
ASSISTANT_TEST_PYTHON_LANGCHAIN=$(scripts/get-python.sh tools/clients/langchain.txt)
ASSISTANT_TEST_PYTHON_OTHERS=$(scripts/get-python.sh tools/clients/others.txt)
ASSISTANT_TEST_PYTHON_LLAMA_INDEX=$(scripts/get-python.sh tools/clients/llama-index.txt)
ASSISTANT_TEST_PYTHON_SCHEMATHESIS=$(scripts/get-python.sh tools/clients/schemathesis.txt schemathesis)
ASSISTANT_TEST_NODE_CLIENTS=$(scripts/get-clients.sh)
export ASSISTANT_TEST_LLAMA_SERVER ASSISTANT_TEST_MODELS ASSISTANT_TEST_WASMEDGE ASSISTANT_TEST_WASI_NN
export ASSISTANT_TEST_PYTHON ASSISTANT_TEST_PYTHON_OLD ASSISTANT_TEST_PYTHON_LANGCHAIN ASSISTANT_TEST_PYTHON_OTHERS ASSISTANT_TEST_PYTHON_LLAMA_INDEX
export ASSISTANT_TEST_NODE_CLIENTS ASSISTANT_TEST_PYTHON_SCHEMATHESIS
unset WASMEDGE_DIR

CGO_ENABLED=0 exec go test -tags clients -count=1 -run '^Test(Clients|OpenAPI)$' -v ./caddymodule/assistant "$@"
