#!/bin/sh
# build-wasi-nn.sh [plugin|harness]: builds our WASI-NN plug-in for WasmEdge, or the test
# of its core with the sanitizers in it, and prints its path. It is built once for these
# sources and this WasmEdge, into the cache directory, and needs g++ only.
cd "$(dirname "$0")/.."
. scripts/lib.sh

what=${1-plugin}
sources=engines/wasi-nn-ggml
compiler=${CXX:-g++}
has "$compiler" || fail "the WASI-NN plug-in needs a C++ compiler, and there is no $compiler: install one (apt-get install g++), or set CXX"
wasmedge=$(scripts/get-wasmedge.sh)

# The libraries are Debian's; their C library may be newer than this machine's, so the
# linker must not look for all of theirs in it.
set -- -std=c++17 -fPIC -fvisibility=hidden -Wall -Wextra -Wconversion -Werror -isystem "$wasmedge/include" \
	"$sources/core.cpp" "$sources/options.cpp" "$sources/text.cpp" \
	-L"$wasmedge" -l:libllama.so.0 -l:libggml.so.0 -l:libggml-base.so.0 -ldl \
	-Wl,--allow-shlib-undefined -Wl,-rpath,"$wasmedge"
case $what in
plugin)
	name=libwasmedgePluginWasiNN.so
	set -- -O1 -shared "$@" "$sources/plugin.cpp"
	;;
harness)
	name=harness
	# Its own loader is too old for the libraries. The sanitizers are linked into it, as that
	# loader does not know where this machine's compiler keeps theirs.
	set -- -O0 -g1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -static-libasan -static-libubsan \
		"$@" "$sources/harness.cpp" -Wl,--dynamic-linker,"$wasmedge/ld-linux-x86-64.so.2"
	;;
*) fail "say plugin or harness, not $what" ;;
esac

key=$({
	printf '%s\n' "$compiler" "$@" # the folder of WasmEdge among them
	"$compiler" --version
	cat scripts/build-wasi-nn.sh "$sources"/*.h "$sources"/*.cpp "$wasmedge/include/wasmedge/version.h" "$wasmedge/include/llama.h" "$wasmedge/libllama.so.0"
} | sha256sum | cut -c 1-16)
built=$cache/wasi-nn-$what-$key

lock wasi-nn
if ! [ -f "$built/$name" ]; then
	rm -rf "$built.new"
	mkdir -p "$built.new"
	begun=$(date +%s)
	"$compiler" "$@" -o "$built.new/$name" >&2 || fail "$compiler could not build the WASI-NN $what"
	mv "$built.new" "$built"
	say "WASI-NN $what built in $(($(date +%s) - begun)) s"
	# Those of other sources, long not made.
	find "$cache" -maxdepth 1 -name 'wasi-nn-*-*' -mtime +30 -exec rm -rf {} +
fi
printf '%s\n' "$built/$name"
