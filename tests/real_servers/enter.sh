# Sourced by ../real_servers.sh and ../record.sh: gets the servers, and goes into namespaces of its own with them.
#
# Set before: script (the name for messages), here, cache, packages, entry (the script to run inside).
helpers=$here/real_servers
tools="python3 openssl iproute2 util-linux"

# ARGUMENTS…: those of the script inside. Sets status, and leaves in $scratch/kept what is to be kept.
enter() {
	[ "$(id -u)" = 0 ] || skip "it needs root, for namespaces and port 25" 0
	for tool in apt-get dpkg dpkg-deb unshare; do
		command -v $tool >/dev/null || skip "there is no $tool here, and the servers come from Debian packages" 1
	done
	install_tools
	[ "$(cat "$cache/complete" 2>/dev/null)" = "$(contents)" ] || unpack
	binary=${BINARY:-$(build cmail-dispatchd cmail-dispatchd)}
	[ -x "$binary" ] || { echo "$script: $binary is not an executable file" >&2; exit 1; }

	scratch=$(mktemp -d /var/tmp/cmail-real.XXXXXX)
	trap 'rm -rf "$scratch"' EXIT
	# What is run is a copy, since the namespace covers directories the originals may lie in.
	mkdir "$scratch/bin" "$scratch/kept"
	cp "$binary" "$scratch/bin/cmail-dispatchd"
	cp -r "$helpers" "$scratch/helpers"
	[ ! -d "$cache/python" ] || cp -r "$cache/python" "$scratch/python"
	chmod 755 "$scratch"
	status=0
	unshare --net --mount --pid --fork --kill-child --mount-proc \
		bash "$scratch/helpers/$entry" "$scratch" "$cache/root" "$@" || status=$?
}

skip() {
	echo "$script: skipped: $1"
	exit "$2"
}

# Ordinary tools may be missing on a small system; these exclude nothing and start nothing.
install_tools() {
	command -v python3 >/dev/null && command -v openssl >/dev/null && command -v ip >/dev/null && return
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $tools
}

# What belongs into the cache. A cache that was filled for another list is filled anew.
contents() {
	echo "$packages"
	declare -f unpack_more || true
}

# Maintainer scripts, the part of a package that would start its daemon, are never run. Libraries
# that the host lacks come along as packages; one package at a time, because they exclude each other.
unpack() {
	echo "$script: fetching $packages"
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
	if declare -F unpack_more >/dev/null; then
		unpack_more
	fi
	contents >"$cache/complete"
}

# PACKAGE BINARY: builds it, and says where it is.
build() {
	cargo build --quiet --locked --manifest-path "$here/../Cargo.toml" -p "$1" --bin "$2" >&2
	echo "${CARGO_TARGET_DIR:-$here/../target}/debug/$2"
}
