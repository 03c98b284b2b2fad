#!/bin/sh
# build-guest.sh [--check|--test]: builds our guest for WasmEdge, engines/assistant-guest, and puts
# it beside its source, from where it is embedded in the server. It is in git, so that nobody
# needs Rust to build the server; --check fails if what is built differs from it, --test runs
# the guest's own tests.
cd "$(dirname "$0")/.."
. scripts/lib.sh

guest=$root/engines/assistant-guest
wasm=assistant-guest.wasm
built=${CARGO_TARGET_DIR:-$cache/guest-target}
lock guest
cd "$guest"
if [ "${1-}" = --test ]; then
	CARGO_TARGET_DIR=$built exec cargo test --quiet --locked >&2
fi
target=wasm32-wasip1
rust_target $target
sysroot=$(rustc --print sysroot)
cargo fetch --quiet --locked --target $target >&2 || fail "the crates of engines/assistant-guest/Cargo.lock cannot be had"
# No path of this machine may be in it. The folder of crates has the registry's address in its name.
RUSTFLAGS="--remap-path-prefix=$guest=/guest --remap-path-prefix=$sysroot=/rust"
for crates in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
	RUSTFLAGS="$RUSTFLAGS --remap-path-prefix=$crates=/crates"
done
export RUSTFLAGS
CARGO_TARGET_DIR="$built" cargo build --quiet --release --frozen --target $target >&2 || fail "the guest could not be built"
new=$built/$target/release/$wasm
case ${1-} in
--check)
	cmp -s "$new" "$wasm" || fail "engines/assistant-guest/$wasm is not what its source gives: run scripts/build-guest.sh and commit it"
	say "the guest is what its source gives"
	;;
'') cp "$new" "$wasm" ;;
*) fail "say --check, --test or nothing, not $1" ;;
esac
