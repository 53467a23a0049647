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
script=real_servers
cache=${CACHE:-/var/tmp/cmail-real-servers}
packages="postfix exim4-daemon-heavy opensmtpd dovecot-core unbound nsd opendkim-tools ldnsutils bind9 dnsmasq-base"
entry=namespace.sh
. "$here/real_servers/enter.sh"

# What verifies signatures comes from PyPI; where it cannot be had, the section says so.
unpack_more() {
	python3 -m venv "$cache/venv" && "$cache/venv/bin/pip" install -q --target "$cache/python" "dkimpy==1.1.*" pynacl ||
		echo "$script: dkimpy cannot be installed from PyPI, for the reason above"
}

enter "$@"
if [ -n "${KEEP:-}" ]; then
	mkdir -p "$KEEP"
	cp -r "$scratch/kept/." "$KEEP"
fi
exit $status
