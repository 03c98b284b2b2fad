# Everything here sets itself up: Go, make and python3 are enough (make test also wants a C and a C++ compiler).
# Downloads are kept in the user's cache directory, under assistant/.

.DEFAULT_GOAL := help
.PHONY: help build run test test-clients test-agents test-open-webui test-downloads test-fast lint fmt proto fuzz fuzz-api bench bench-peers bench-contexts bench-wasm soak clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

build: ## build ./caddy
	@scripts/build.sh

run: ## fetch a real engine and two models, ask them from cold, then serve (ONCE=1: end there; ENGINE=wasmedge)
	@ONCE=$(ONCE) ENGINE=$(ENGINE) scripts/run.sh

test: ## all tests with the race detector, on the real engine too
	@scripts/test.sh -race ./...

test-clients: ## the published clients (Python, Node.js, Go) on the fake, llama-server and the guest: prints a matrix
	@scripts/test-clients.sh

test-agents: ## Claude Code, opencode, Continue and aider themselves on the real engine (wants Node.js and Python 3.11 or 3.12)
	@scripts/test-agents.sh

test-open-webui: ## Open WebUI's own server on the real engine: list, load, chat, unload (wants Python 3.11 or 3.12)
	@scripts/test-open-webui.sh

test-downloads: ## a download killed 100 times, then its throughput beside curl's
	@. scripts/lib.sh && CGO_ENABLED=0 go test ./internal/hub/transfer -run Killed -kills 100 -count=1 -v && \
		CGO_ENABLED=0 go test ./internal/hub/transfer -run '^$$' -bench Fetch -benchtime 5x

test-fast: ## the tests that need no real engine, without the race detector
	@. scripts/lib.sh && CGO_ENABLED=0 go test -short ./...

lint: ## format, vet, golangci-lint, .proto files, tidy go.mod, valid Caddyfile, other systems
	@scripts/lint.sh

fmt: build ## format Go code and the Caddyfile
	@. scripts/lib.sh && $$(tool golangci-lint) fmt && ./caddy fmt --overwrite Caddyfile

proto: ## generate the code of the .proto files
	@scripts/proto.sh

fuzz-api: ## schemathesis against /openapi.json, for CASES (default 20000) from SEED (default 1) on
	@CASES=$(CASES) SEED=$(SEED) scripts/fuzz-api.sh

fuzz: ## run each fuzzer for FUZZTIME (default 1m)
	@scripts/fuzz.sh

bench: build ## compare with plain Caddy and no proxy at all, then Go's own benchmarks
	@. scripts/lib.sh && export CGO_ENABLED=0 && go run ./bench && go test -run '^$$' -bench . -benchmem ./...

bench-peers: build ## compare with rivals, whose binaries LLAMA_SWAP=… and LLAMA_SERVER=… name (default: the tests' engine)
	@. scripts/lib.sh && { LLAMA_SERVER=$$(scripts/get-engine.sh) || LLAMA_SERVER=; } && export LLAMA_SERVER CGO_ENABLED=0 && go run ./bench -peers -rounds 3

bench-contexts: ## resume a 6,000-token conversation after its engine was stopped, restored and computed anew
	@scripts/bench-contexts.sh

soak: ## for SOAK (default 30m): simulated events without end, then chaos against a whole router
	@scripts/soak.sh

bench-wasm: ## our guest in WasmEdge beside llama-server: start, memory, tokens a second (WASM=llama-api-server.wasm: that too)
	@WASM=$(WASM) scripts/bench-wasm.sh

clean: ## remove what was built and .run; the cache stays
	rm -rf caddy .run
