#!/bin/sh
# get-engine.sh: prints the path of a llama-server that works here.
#
# In this order: the one LLAMA_SERVER names; one on PATH; one fetched earlier; Debian's,
# unpacked into the cache directory; the one inside a Python package. Needs no root.
cd "$(dirname "$0")/.."
. scripts/lib.sh

if [ -n "${LLAMA_SERVER-}" ]; then
	[ -x "$LLAMA_SERVER" ] || fail "LLAMA_SERVER names $LLAMA_SERVER, which is not a program"
	printf '%s\n' "$LLAMA_SERVER"
	exit
fi
if has llama-server; then
	command -v llama-server
	exit
fi

lock engine
# The number is that of the recipe: raise it with a change that must reach old caches.
debian=$cache/engine-debian-1
pypi=$cache/engine-pypi-1

# usable DIR: DIR is as it was made, and its server runs. A cache that was moved or
# shared with another system fails the second.
usable() { sealed "$1" && "$1/llama-server" --version >/dev/null 2>&1; }

for dir in "$debian" "$pypi"; do
	if usable "$dir"; then
		printf '%s\n' "$dir/llama-server"
		exit
	fi
done

for route in debian pypi; do
	dir=$(eval "printf %s \"\$$route\"")
	rm -rf "$dir"
	begun=$(date +%s)
	# Not moved into place: the programs hold the absolute path of their loader.
	if scripts/engine-$route.sh "$dir" && seal "$dir" && usable "$dir"; then
		say "llama-server from $route in $(($(date +%s) - begun)) s"
		printf '%s\n' "$dir/llama-server"
		exit
	fi
	rm -rf "$dir"
done
fail "no llama-server could be had. Install llama.cpp (https://github.com/ggml-org/llama.cpp) so that llama-server is on PATH, or set LLAMA_SERVER to its path"
