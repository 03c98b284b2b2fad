#!/bin/sh
# get-wasmedge.sh: prints the folder that holds WasmEdge, as the program wasmedge, and
# what our WASI-NN plug-in is built of: libllama and the headers of both.
#
# WASMEDGE_DIR names such a folder; otherwise it is one fetched earlier, or Debian's
# packages, unpacked into the cache directory. Needs no root, and no network the second time.
cd "$(dirname "$0")/.."
. scripts/lib.sh

# usable DIR: does its program run, and is there what the plug-in is built of?
usable() {
	"$1/wasmedge" --version >/dev/null 2>&1 && [ -e "$1/libllama.so.0" ] && [ -r "$1/include/wasmedge/wasmedge.h" ] && [ -r "$1/include/llama.h" ]
}

if [ -n "${WASMEDGE_DIR-}" ]; then
	usable "$WASMEDGE_DIR" || fail "WASMEDGE_DIR names $WASMEDGE_DIR, where wasmedge, libllama.so.0 or include/ is missing or does not work"
	printf '%s\n' "$WASMEDGE_DIR"
	exit
fi

lock wasmedge
# The number is that of the recipe: raise it with a change that must reach old caches.
dir=$cache/wasmedge-debian-1

# A cache that was moved or shared with another system is sealed, but not usable.
if ! { sealed "$dir" && usable "$dir"; }; then
	rm -rf "$dir"
	begun=$(date +%s)
	# Not moved into place: the program holds the absolute path of its loader.
	if ! { scripts/wasmedge-debian.sh "$dir" && seal "$dir" && usable "$dir"; }; then
		rm -rf "$dir"
		fail "no WasmEdge could be had: Debian's packages cannot be reached, or do not run here. Set WASMEDGE_DIR to a folder made by scripts/wasmedge-debian.sh elsewhere"
	fi
	say "WasmEdge from debian in $(($(date +%s) - begun)) s"
fi
printf '%s\n' "$dir"
