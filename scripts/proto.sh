#!/bin/sh
# proto.sh [check]: formats the .proto files and generates the code for them. With check it changes nothing, and fails where the files are not
# as they ought to be, where the code is not theirs, or where they break clients of what was committed before.
cd "$(dirname "$0")/.."
. scripts/lib.sh

has go || fail "Go is missing: install Go 1.26 or newer (https://go.dev/dl)"
export CGO_ENABLED=0
buf=$(tool buf)
protos=internal/rpc/proto
generated=internal/rpc/assistantv1

if [ "${1-}" != check ]; then
	"$buf" format --write
	exec "$buf" generate
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$buf" lint
"$buf" format --diff --exit-code || fail "the .proto files are not formatted: run make proto"
"$buf" generate --output "$work"
diff -r "$work/$generated" "$generated" || fail "the code is not that of the .proto files: run make proto"

# What is held against: main, or on main itself the commit before.
git rev-parse --git-dir >/dev/null 2>&1 || exit 0 # a copy without a history
base=$(git merge-base HEAD main 2>/dev/null) || base=
[ -n "$base" ] && [ "$base" != "$(git rev-parse HEAD)" ] || base=$(git rev-parse --verify --quiet HEAD^) || base=
if [ -z "$base" ] || ! git cat-file -e "$base:$protos" 2>/dev/null; then
	say "no earlier .proto files to hold these against"
	exit 0
fi
git archive --prefix=before/ "$base" buf.yaml "$protos" | tar -x -C "$work"
"$buf" breaking --against "$work/before" || fail "clients of $(git log -1 --format=%h "$base") would break: add fields and calls instead"
