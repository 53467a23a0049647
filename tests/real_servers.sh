#!/bin/bash
# Delivers mail with cmail-dispatchd to Postfix, Exim and OpenSMTPD as Debian ships them, and looks
# into their mailboxes afterwards.
#
#   tests/real_servers.sh [SECTION…]      (sections: see tests/real_servers/checks/__main__.py)
#
#   BINARY=PATH     the daemon to test; default: cargo build, debug profile
#   CACHE=DIR       where the unpacked packages stay between runs
#   KEEP=DIR        copy logs, mailboxes and databases there at the end
#
# The packages are downloaded and unpacked beside the system, never installed: mail servers of Debian
# exclude each other, and nothing of the host is to change. A private mount namespace lays them over
# /usr, a private network namespace has nothing but a loopback interface, and a private process
# namespace ends everything that was started when the script ends.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
helpers=$here/real_servers
cache=${CACHE:-/var/tmp/cmail-real-servers}
packages="postfix exim4-daemon-heavy opensmtpd dovecot-core unbound nsd"
tools="python3 openssl iproute2 util-linux"

main() {
	[ "$(id -u)" = 0 ] || skip "it needs root, for namespaces and port 25" 0
	for tool in apt-get dpkg dpkg-deb unshare; do
		command -v $tool >/dev/null || skip "there is no $tool here, and the servers come from Debian packages" 1
	done
	install_tools
	[ -e "$cache/complete" ] || unpack
	binary=${BINARY:-$(build)}
	[ -x "$binary" ] || { echo "real_servers: $binary is not an executable file" >&2; exit 1; }

	scratch=$(mktemp -d /var/tmp/cmail-real.XXXXXX)
	trap 'rm -rf "$scratch"' EXIT
	# The checks run on copies, since the namespace covers directories the originals may lie in.
	mkdir "$scratch/bin" "$scratch/kept"
	cp "$binary" "$scratch/bin/cmail-dispatchd"
	cp -r "$helpers" "$scratch/helpers"
	chmod 755 "$scratch"
	status=0
	unshare --net --mount --pid --fork --kill-child --mount-proc \
		bash "$scratch/helpers/namespace.sh" "$scratch" "$cache/root" "$@" || status=$?
	if [ -n "${KEEP:-}" ]; then
		mkdir -p "$KEEP"
		cp -r "$scratch/kept/." "$KEEP"
	fi
	exit $status
}

skip() {
	echo "real_servers: skipped: $1"
	exit "$2"
}

# Ordinary tools may be missing on a small system; these exclude nothing and start nothing.
install_tools() {
	command -v python3 >/dev/null && command -v openssl >/dev/null && command -v ip >/dev/null && return
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $tools
}

# Maintainer scripts, the part of a package that would start its daemon, are never run. Libraries
# that the host lacks come along as packages; one package at a time, because they exclude each other.
unpack() {
	echo "real_servers: fetching $packages"
	rm -rf "$cache"
	mkdir -p "$cache/debs/partial" "$cache/root"
	apt-get update -qq
	for package in $packages; do
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --download-only --reinstall \
			--no-install-recommends -o Dir::Cache::archives="$cache/debs" "$package" >/dev/null
	done
	for deb in "$cache"/debs/*.deb; do
		dpkg -x "$deb" "$cache/root"
		dpkg-deb -W --showformat='${Package} ${Version}\n' "$deb" >>"$cache/root/packages"
	done
	touch "$cache/complete"
}

build() {
	cargo build --quiet --locked --manifest-path "$here/../Cargo.toml" --bin cmail-dispatchd >&2
	echo "${CARGO_TARGET_DIR:-$here/../target}/debug/cmail-dispatchd"
}

main "$@"
