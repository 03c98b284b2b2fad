# shellcheck shell=sh
# debian.sh: Debian's packages in a folder of their own. Sourced after lib.sh by the
# scripts that fill a folder, with $dir set to it.
#
# The host's own apt configuration says where Debian's packages are, and Debian's
# keyring vouches for them; the host's lists and status of packages are not touched.
# The folder cannot be moved afterwards.

# shellcheck disable=SC2154 # dir is the sourcing script's
work=$dir/.work
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
libraries=$work/root/usr/lib/x86_64-linux-gnu
loader=$dir/ld-linux-x86-64.so.2

# What the packages name and a server of models has no use for: tools that set a system
# up, what llama.cpp would download models with.
unneeded='^(debconf|wget|openssl-provider-legacy|libc-gconv-modules-extra|gcc-.*-base|libgnutls|libhogweed|libnettle|libp11-kit|libpsl|libidn2|libunistring|libtasn1|libffi|libgmp|libpcre2|libuuid)'

# sets_up_apt makes apt work in a world of its own, but with the host's proxies and
# certificates. The host's hooks would clean the host's caches.
sets_up_apt() {
	{ has apt-get && has dpkg-deb; } || fail "there is no apt-get here"
	[ "$(dpkg --print-architecture)" = amd64 ] || fail "only amd64 is supported"
	[ -r "$keyring" ] || fail "$keyring is missing"

	mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/sources" "$work/debs"
	: >"$work/status"
	cat >"$work/apt.conf" <<-CONF
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
	cat >>"$work/apt.conf" <<-CONF
		Dir::Etc::sourcelist "/dev/null";
		Dir::Etc::sourceparts "$work/sources";
		Dir::Etc::preferences "/dev/null";
		Dir::Etc::preferencesparts "/dev/null";
	CONF
}

apt() { apt-get -c "$work/apt.conf" "$@"; }

# fetches_lists SUITE fetches that suite's list of packages.
fetches_lists() {
	cat >"$work/sources/debian.sources" <<-SOURCES
		Types: deb
		URIs: $mirror
		Suites: $1
		Components: main
		Targets: Packages
		Signed-By: $keyring
	SOURCES
	scripts/progress.py "list of packages" --bytes "$work/lists" 0 -- apt-get -c "$work/apt.conf" -qq update
}

# unpacks NAME PROGRAMS… [-- HEADERS…] downloads the packages PROGRAMS with what they
# need, and the packages HEADERS without, and unpacks all into $work/root.
unpacks() {
	name=$1
	shift
	programs=
	while [ $# -gt 0 ] && [ "$1" != -- ]; do
		programs="$programs $1"
		shift
	done
	[ $# -eq 0 ] || shift
	headers=$*

	sets_up_apt
	packages=
	for suite in testing sid; do
		fetches_lists $suite || continue
		# shellcheck disable=SC2086 # lists of words, here and below
		packages=$(apt -s install --no-install-recommends -y $programs patchelf 2>/dev/null |
			awk -v unneeded="$unneeded" '/^Inst/ && $2 !~ unneeded {print $2}')
		# shellcheck disable=SC2086
		if [ -n "$packages" ] && apt download --print-uris $packages $headers >"$work/uris" 2>/dev/null; then
			break
		fi
		packages=
	done
	[ -n "$packages" ] || fail "Debian has no$programs now, or cannot be reached"

	total=$(awk '{n += $3} END {print n + 0}' "$work/uris")
	# shellcheck disable=SC2086
	(
		cd "$work/debs" || exit
		"$root/scripts/progress.py" "$name" --bytes "$work/debs" "$total" -- \
			apt-get -c "$work/apt.conf" -qq download $packages $headers
	)
	for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/root"; done
}

# copies_libraries puts the libraries into $dir under the names they are asked for by,
# and llama.cpp's own plug-ins, one for each kind of processor.
copies_libraries() {
	find "$libraries" -maxdepth 1 -name '*.so*' ! -name '*.so.*.*' -exec cp -L {} "$dir/" \;
	cp -L "$libraries"/ggml/backends*/*.so "$dir/"
}

# Their own loader and libraries instead of the host's, which may be years older. After
# that they are ordinary programs, that find each other and can start themselves again.
patchelf() { "$loader" --library-path "$dir" "$work/root/usr/bin/patchelf" "$@"; }
sets_loader() { for program; do patchelf --set-interpreter "$loader" "$program"; done; }
# shellcheck disable=SC2016 # the loader expands it
sets_library_path() { patchelf --force-rpath --set-rpath '$ORIGIN' "$@"; }

# finishes PACKAGE… keeps the licences of these packages and the names of all, and
# removes what is not needed any more.
finishes() {
	mkdir "$dir/doc"
	for package; do cp "$work/root/usr/share/doc/$package/copyright" "$dir/doc/$package.copyright"; done
	(cd "$work/debs" && ls) >"$dir/doc/packages.txt"
	rm -rf "$work"
}
