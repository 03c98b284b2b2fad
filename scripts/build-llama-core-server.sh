#!/bin/sh
# build-llama-core-server.sh: builds engines/llama-core-server, the tests' stand-in for
# llama-api-server.wasm, and prints its path. It is built once for its sources, into the
# cache directory: three minutes of CPU time.
cd "$(dirname "$0")/.."
. scripts/lib.sh

has cargo || fail "Rust is missing: install it (https://rustup.rs)"
sources=engines/llama-core-server
key=$(cat scripts/build-llama-core-server.sh "$sources"/Cargo.* "$sources"/rust-toolchain.toml "$sources"/src/*.rs | sha256sum | cut -c 1-16)
built=$cache/llama-core-server-$key
name=llama-core-server.wasm

lock llama-core
if ! [ -f "$built/$name" ]; then
	begun=$(date +%s)
	target=wasm32-wasip1
	(
		cd "$sources"
		rust_target $target
		# Without the first the sockets of WasmEdge are not used.
		RUSTFLAGS="--cfg wasmedge --cfg tokio_unstable" CARGO_TARGET_DIR="$cache/llama-core-target" cargo build --quiet --release --locked --target $target >&2
	) || fail "the stand-in for llama-api-server could not be built"
	mkdir -p "$built"
	mv "$cache/llama-core-target/$target/release/$name" "$built/$name"
	rm -rf "$cache/llama-core-target"
	say "llama-core-server built in $(($(date +%s) - begun)) s"
	find "$cache" -maxdepth 1 -name 'llama-core-server-*' -mtime +30 -exec rm -rf {} +
fi
printf '%s\n' "$built/$name"
