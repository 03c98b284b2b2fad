#!/bin/sh
# run.sh: builds the server, fetches an engine and two models, shows what they do from
# cold, and goes on serving. ONCE=1 ends there. ENGINE says which: llama-server (default),
# or wasmedge, whose WASI-NN plug-in is then built. All it writes is .run and the cache.
cd "$(dirname "$0")/.."
. scripts/lib.sh

export ASSISTANT_HTTPS_PORT="${ASSISTANT_HTTPS_PORT:-8443}"
export ASSISTANT_HTTP_PORT="${ASSISTANT_HTTP_PORT:-8080}"
export ASSISTANT_ADMIN_PORT="${ASSISTANT_ADMIN_PORT:-2019}"
export ASSISTANT_MODELS="$root/.run/models" ASSISTANT_STATE="$root/.run/state"
# Where Caddy is to keep its certificates and its last configuration.
data=$root/.run/data
export ASSISTANT_CA="$data/caddy/pki/authorities/local/root.crt"

has go || fail "Go is missing: install Go 1.26 or newer (https://go.dev/dl)"
python >/dev/null
scripts/demo.py ports ASSISTANT_HTTPS_PORT="$ASSISTANT_HTTPS_PORT" ASSISTANT_HTTP_PORT="$ASSISTANT_HTTP_PORT" ASSISTANT_ADMIN_PORT="$ASSISTANT_ADMIN_PORT"

engine=${ENGINE:-llama-server}
case $engine in
llama-server) get=scripts/get-engine.sh ;;
# shellcheck disable=SC2016 # the shell of progress.py expands it
wasmedge) get='WASMEDGE_DIR=$(scripts/get-wasmedge.sh) && export WASMEDGE_DIR && scripts/build-wasi-nn.sh' ;;
*) fail "ENGINE is $engine: say llama-server or wasmedge" ;;
esac
echo "Build and downloads"
scripts/progress.py --beside build=scripts/build.sh engine="$get" models=scripts/get-models.sh
if [ "$engine" = wasmedge ]; then
	WASMEDGE_DIR=$(scripts/get-wasmedge.sh)
	export WASMEDGE_DIR
	WASMEDGE_PLUGIN_PATH=$(dirname "$(scripts/build-wasi-nn.sh)")
	export WASMEDGE_PLUGIN_PATH
else
	LLAMA_SERVER=$(scripts/get-engine.sh)
	export LLAMA_SERVER
fi
models=$(scripts/get-models.sh)

# write_model FILE IDLE_TIMEOUT LINE… writes a model's TOML at once, as the server watches it.
write_model() {
	file=$ASSISTANT_MODELS/$1 idle=$2
	shift 2
	printf '%s\n' "$@" "idle_timeout = \"$idle\"" >"$file.new"
	mv "$file.new" "$file"
}
write_models() {
	write_model chat.toml "$1" 'name = "smollm2"' 'kind = "chat"' "engine = '$engine'" \
		"model_path = '$models/smollm2-135m-instruct.gguf'" 'ctx_size = 4096' 'concurrency = 2'
	write_model embed.toml "$1" 'name = "minilm"' 'kind = "embedding"' "engine = '$engine'" \
		"model_path = '$models/all-minilm-l6-v2.gguf'"
}
mkdir -p "$ASSISTANT_MODELS" "$ASSISTANT_STATE" "$data"
write_models 2s

export XDG_DATA_HOME="$data" XDG_CONFIG_HOME="$data"
log=$root/.run/caddy.log
./caddy validate --config Caddyfile >"$log" 2>&1 || {
	tail -n 20 "$log" >&2
	fail "the Caddyfile is not valid"
}
./caddy run --config Caddyfile >"$log" 2>&1 &
server=$!

# stop ends the server and with it the engines.
stop() {
	trap '' INT TERM
	kill -TERM "$server" 2>/dev/null || true
	wait "$server" || true
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

explain() {
	say "The end of $log:"
	tail -n 20 "$log" >&2
	exit 1
}
scripts/demo.py up $server || explain
scripts/demo.py story || explain

# A longer stay from now on; the running server sees the files change.
write_models 5m

cat <<NEXT

Ready. Engines stay for 5 minutes from now on: .run/models was rewritten, and the server saw it.

  curl --cacert .run/data/caddy/pki/authorities/local/root.crt https://localhost:$ASSISTANT_HTTPS_PORT/v1/chat/completions \\
    -d '{"model": "smollm2", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}'

  from openai import OpenAI
  client = OpenAI(base_url="http://127.0.0.1:$ASSISTANT_HTTP_PORT/v1", api_key="none")
  print(client.models.list())

  ./caddy assistant ps --address localhost:$ASSISTANT_ADMIN_PORT

A model is a TOML file in .run/models: add one, and it is served. The log is .run/caddy.log.
NEXT

if [ -n "${ONCE-}" ]; then
	exit
fi
echo "Serving until Ctrl-C."
wait "$server" || true
explain
