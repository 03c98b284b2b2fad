#!/bin/sh
# test.sh: the test of the plug-in's core, with the address and undefined-behaviour sanitizers.
cd "$(dirname "$0")/../.."
. scripts/lib.sh

harness=$(scripts/build-wasi-nn.sh harness)
models=$(scripts/get-models.sh)
ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1 UBSAN_OPTIONS=print_stacktrace=1 \
	exec "$harness" "$models/smollm2-135m-instruct.gguf" "$models/all-minilm-l6-v2.gguf" "$models/tiny.gguf"
