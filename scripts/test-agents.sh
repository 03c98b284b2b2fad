#!/bin/sh
# test-agents.sh: programs that people run on their own machines, against the whole server on the real engine.
cd "$(dirname "$0")/.."
. scripts/lib.sh

has go || fail "Go is missing: install Go 1.26 or newer (https://go.dev/dl)"
wants_python_3_11_or_3_12 aider
ASSISTANT_TEST_LLAMA_SERVER=$(scripts/get-engine.sh)
ASSISTANT_TEST_MODELS=$(scripts/get-models.sh)
ASSISTANT_TEST_AGENTS=$(scripts/get-clients.sh tools/agents)
ASSISTANT_TEST_PYTHON_AIDER=$(scripts/get-python.sh tools/clients/aider.txt aider)
export ASSISTANT_TEST_LLAMA_SERVER ASSISTANT_TEST_MODELS ASSISTANT_TEST_AGENTS ASSISTANT_TEST_PYTHON_AIDER

CGO_ENABLED=0 exec go test -tags clients -count=1 -run '^TestAgents$' -v ./caddymodule/assistant "$@"
