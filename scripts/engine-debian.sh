#!/bin/sh
# engine-debian.sh DIR: Debian's llama.cpp with every library it needs, in one folder.
#
# The host's own apt configuration says where Debian's packages are, and Debian's
# keyring vouches for them; the host's lists and status of packages are not touched.
# The folder cannot be moved afterwards.
. scripts/lib.sh

dir=$1
work=$dir/.work
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

{ has apt-get && has dpkg-deb; } || fail "there is no apt-get here"
[ "$(dpkg --print-architecture)" = amd64 ] || fail "only amd64 is supported"
[ -r "$keyring" ] || fail "$keyring is missing"

mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/sources" "$work/debs"
: >"$work/status"

# In a world of its own, but with the host's proxies and certificates. The host's hooks
# would clean the host's caches.
cat >"$work/apt.conf" <<CONF
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Architecture "amd64";
APT::Sandbox::User "$(id -un)";
Debug::NoLocking "true";
Dir::Cache "$work";
Dir::State "$work";
Dir::State::lists "$work/lists";
Dir::State::status "$work/status";
CONF
mirror=$(apt-get -c "$work/apt.conf" update --print-uris 2>/dev/null | sed -n "s#^'\(.*/debian\)/dists/.*#\1#p" | head -n 1)
[ -n "$mirror" ] || fail "apt's sources name no Debian mirror"
cat >>"$work/apt.conf" <<CONF
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$work/sources";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
CONF
set -- apt-get -c "$work/apt.conf"

# fetches_lists SUITE APT… fetches that suite's list of packages.
fetches_lists() {
	cat >"$work/sources/debian.sources" <<-SOURCES
		Types: deb
		URIs: $mirror
		Suites: $1
		Components: main
		Targets: Packages
		Signed-By: $keyring
	SOURCES
	shift
	scripts/progress.py "list of packages" --bytes "$work/lists" 0 -- "$@" -qq update
}

# What the packages name and a server of models has no use for: tools that set a system
# up, what llama.cpp would download models with.
unneeded='^(debconf|wget|openssl-provider-legacy|libc-gconv-modules-extra|gcc-.*-base|libgnutls|libhogweed|libnettle|libp11-kit|libpsl|libidn2|libunistring|libtasn1|libffi|libgmp|libpcre2|libuuid)'
packages=
for suite in testing sid; do
	fetches_lists $suite "$@" || continue
	packages=$("$@" -s install --no-install-recommends -y llama.cpp-tools patchelf 2>/dev/null |
		awk -v unneeded="$unneeded" '/^Inst/ && $2 !~ unneeded {print $2}')
	[ -z "$packages" ] || break
done
[ -n "$packages" ] || fail "Debian has no llama.cpp-tools now, or cannot be reached"

# shellcheck disable=SC2086 # a list of words
(
	total=$("$@" download --print-uris $packages | awk '{n += $3} END {print n + 0}')
	cd "$work/debs"
	"$root/scripts/progress.py" "llama.cpp" --bytes "$work/debs" "$total" -- "$@" -qq download $packages
)
for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/root"; done

# One flat folder: the programs, the libraries under the names they are asked for by,
# and llama.cpp's own plug-ins, one for each kind of processor.
libraries=$work/root/usr/lib/x86_64-linux-gnu
cp "$work"/root/usr/bin/llama-* "$dir/"
find "$libraries" -maxdepth 1 -name '*.so*' ! -name '*.so.*.*' -exec cp -L {} "$dir/" \;
cp -L "$libraries"/llama/*.so "$libraries"/ggml/backends*/*.so "$dir/"

# Their own loader and libraries instead of the host's, which may be years older. After
# that they are ordinary programs, that find each other and can start themselves again.
loader=$dir/ld-linux-x86-64.so.2
patchelf() { "$loader" --library-path "$dir" "$work/root/usr/bin/patchelf" "$@"; }
for program in "$dir"/llama-*; do patchelf --set-interpreter "$loader" "$program"; done
# shellcheck disable=SC2016 # the loader expands it
patchelf --force-rpath --set-rpath '$ORIGIN' "$dir"/llama-* "$dir"/libllama*.so* "$dir"/libggml*.so* "$dir"/libmtmd*.so*

mkdir "$dir/doc"
for package in llama.cpp-tools libggml0 libllama0; do
	cp "$work/root/usr/share/doc/$package/copyright" "$dir/doc/$package.copyright"
done
(cd "$work/debs" && ls) >"$dir/doc/packages.txt"
rm -rf "$work"
