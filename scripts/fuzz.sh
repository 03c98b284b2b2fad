#!/bin/sh
# fuzz.sh: runs each fuzzer there is for FUZZTIME (default 1m).
cd "$(dirname "$0")/.."
. scripts/lib.sh

export CGO_ENABLED=0 # as in build.sh, whose compiled packages are used again

# The packages whose tests have a fuzzer; asking all would build all.
packages=$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -r -n 1 dirname | sort -u)
count=0
for package in $packages; do
	for fuzzer in $(go test -list '^Fuzz' "$package" | grep '^Fuzz'); do
		say "$package $fuzzer"
		go test -run '^$' -fuzz "^$fuzzer\$" -fuzzminimizetime 10x -fuzztime "${FUZZTIME:-1m}" "$package"
		count=$((count + 1))
	done
done
say "$count fuzzers ran clean"
[ "$count" -gt 0 ] || fail "there is no fuzzer"
