# shellcheck shell=sh
# What the scripts share. Sourced from the repository's root, by `. scripts/lib.sh`.
#
# It sets
#   root    the repository
#   cache   where downloads live between clones and runs: the user's cache
#           directory, or .run/cache where there is none to write to
# and gives every go command the same flags, so that all of them share one build cache.

set -eu
umask 022
export LC_ALL=C

root=$(pwd)

say() { printf '%s\n' "$*" >&2; }
fail() {
	say "${0##*/}: $*"
	exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

# sets_up_cache picks the cache directory. Go wants one as well, and gets this one
# where a missing or read-only HOME gives it none.
sets_up_cache() {
	base=${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}
	case $base in
	/*) ;;
	*) base= ;;
	esac
	if [ -z "$base" ] || ! mkdir -p "$base/assistant" 2>/dev/null || ! [ -w "$base/assistant" ]; then
		base=$root/.run/cache
		mkdir -p "$base/assistant" || fail "no directory to keep downloads in: set XDG_CACHE_HOME"
		export XDG_CACHE_HOME="$base"
	fi
	if [ -z "${HOME-}" ] || ! mkdir -p "$HOME" 2>/dev/null || ! [ -w "$HOME" ]; then
		export GOPATH="${GOPATH:-$base/go}"
		GOFLAGS="${GOFLAGS-} -modcacherw" # make clean must be able to remove it
	fi
	cache=$base/assistant
}

# lock NAME makes this process the only one that works on that part of the cache;
# the lock ends with the process. Where flock is missing, two runs at the same
# time are the user's own affair.
lock() {
	if has flock; then
		exec 9>"$cache/$1.lock"
		flock -n 9 || {
			say "waiting: another run is fetching the $1"
			flock 9
		}
	fi
}

# seal DIR records what is in DIR. The record is also the sign that DIR is
# complete: it is written last, and under its name at once.
seal() (
	cd "$1"
	rm -f SHA256SUMS
	find . -type f ! -name 'SHA256SUMS*' ! -name '*.pyc' -exec sha256sum {} + >SHA256SUMS.new
	mv SHA256SUMS.new SHA256SUMS
)

# sealed DIR: is DIR complete, and every file still what was recorded?
sealed() { [ -f "$1/SHA256SUMS" ] && (cd "$1" && sha256sum --quiet -c SHA256SUMS >/dev/null 2>&1); }

# python prints the path of the Python to use.
python() { python3 -c 'import sys; print(sys.executable)' 2>/dev/null || fail "python3 is missing: install it (apt-get install python3)"; }

# wants_python_3_11_or_3_12 WHAT fails where python3 is another one: WHAT has packages for these alone.
wants_python_3_11_or_3_12() {
	"$(python)" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' ||
		fail "$1 runs on Python 3.11 and 3.12, and python3 is $(python3 --version): put one of them first in PATH"
}

# fetch_wheels NAME BYTES DIR PACKAGE==VERSION… downloads Python packages into DIR,
# without installing them. BYTES is what they have together.
fetch_wheels() {
	name=$1 bytes=$2 into=$3
	shift 3
	mkdir -p "$into"
	TMPDIR=$into scripts/progress.py "$name" --bytes "$into" "$bytes" -- \
		scripts/pip.sh download -q --progress-bar off --no-deps --no-cache-dir --only-binary :all: -d "$into" "$@" >&2
}

# tool NAME prints the path of a program of tools/go.mod, after building it.
tool() { CGO_ENABLED=0 go tool -n -modfile=tools/go.mod "$1"; }

# rust_target TARGET makes sure that the Rust of this folder compiles for TARGET. Its
# rust-toolchain.toml asks for it already; a toolchain set by RUSTUP_TOOLCHAIN does not read that.
rust_target() {
	has cargo || fail "Rust is missing: install it (https://rustup.rs)"
	if ! [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ]; then
		has rustup || fail "Rust has no library for $1, and there is no rustup to get it: install Rust by rustup (https://rustup.rs)"
		rustup target add "$1" >&2
	fi
}

sets_up_cache
# CGO_ENABLED is not set here: the binary is built without, the race detector needs it.
GOFLAGS="${GOFLAGS-} -trimpath -buildvcs=false"
export GOFLAGS
