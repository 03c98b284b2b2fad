#!/bin/sh
# get-clients.sh [DIR]: prints the folder that holds the node_modules of DIR, by default tools/clients, after fetching them.
cd "$(dirname "$0")/.."
. scripts/lib.sh

{ has node && has npm; } || fail "Node.js is missing, which some of the clients are for: install Node.js 20 or newer (https://nodejs.org)"
packages=${1-tools/clients}
wanted=$(cat "$packages/package.json" "$packages/package-lock.json" | sha256sum | cut -c 1-12)
lock clients
dir=$cache/clients-node-$wanted

if ! sealed "$dir"; then
	rm -rf "$dir"
	mkdir -p "$dir"
	cp "$packages/package.json" "$packages/package-lock.json" "$dir/"
	# The lock file has the checksum of each package. Scripts of packages are not run.
	scripts/progress.py "JavaScript clients" --bytes "$dir" 0 -- npm ci --prefix "$dir" --silent --no-audit --no-fund --ignore-scripts >&2 ||
		fail "npm could not fetch the clients"
	seal "$dir"
fi
printf '%s\n' "$dir"
