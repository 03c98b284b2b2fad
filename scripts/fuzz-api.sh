#!/bin/sh
# fuzz-api.sh: schemathesis holds the answers of the whole server, on the fake engine, against /openapi.json: $CASES cases from $SEED on.
cd "$(dirname "$0")/.."
. scripts/lib.sh

has go || fail "Go is missing: install Go 1.26 or newer (https://go.dev/dl)"
ASSISTANT_TEST_LLAMA_SERVER=$(scripts/get-engine.sh)
ASSISTANT_TEST_MODELS=$(scripts/get-models.sh)
ASSISTANT_TEST_PYTHON_SCHEMATHESIS=$(scripts/get-python.sh tools/clients/schemathesis.txt schemathesis)
ASSISTANT_TEST_CASES=${CASES:-20000}
ASSISTANT_TEST_SEED=${SEED:-1}
export ASSISTANT_TEST_LLAMA_SERVER ASSISTANT_TEST_MODELS ASSISTANT_TEST_PYTHON_SCHEMATHESIS ASSISTANT_TEST_CASES ASSISTANT_TEST_SEED

CGO_ENABLED=0 exec go test -tags clients -count=1 -timeout 60m -run '^TestOpenAPI$' -v ./caddymodule/assistant "$@"
