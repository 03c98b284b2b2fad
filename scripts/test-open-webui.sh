#!/bin/sh
# test-open-webui.sh: Open WebUI's own server against the whole server, on the real engine.
cd "$(dirname "$0")/.."
. scripts/lib.sh

has go || fail "Go is missing: install Go 1.26 or newer (https://go.dev/dl)"
wants_python_3_11_or_3_12 "Open WebUI"
ASSISTANT_TEST_LLAMA_SERVER=$(scripts/get-engine.sh)
ASSISTANT_TEST_MODELS=$(scripts/get-models.sh)
ASSISTANT_TEST_PYTHON_OPEN_WEBUI=$(scripts/get-python.sh tools/clients/open-webui.txt open_webui)
export ASSISTANT_TEST_LLAMA_SERVER ASSISTANT_TEST_MODELS ASSISTANT_TEST_PYTHON_OPEN_WEBUI

CGO_ENABLED=0 exec go test -tags clients -count=1 -run '^TestOpenWebUI$' -v ./caddymodule/assistant "$@"
