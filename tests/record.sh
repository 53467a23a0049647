#!/bin/bash
# Records conversations of cmail-dispatchd with real servers as transcripts, which the tests replay.
#
#   tests/record.sh [NAME…]       (names: see tests/real_servers/recording/scenes.py; default: all)
#
#   BINARY=PATH       the daemon that records; default: cargo build, debug profile
#   SIMULATOR=PATH    the simulator that replays; default: the same
#   CACHE=DIR         where the unpacked packages stay between runs
#   OUT=DIR           where the transcripts go; default: tests/transcripts
#   KEEP=DIR          copy logs and databases there at the end
#
# Servers: Postfix, Exim, OpenSMTPD, the submission service of Dovecot, and chasquid as Debian ships them, aiosmtpd
# from PyPI and smtp-server from npm. They run as in real_servers.sh: beside the system, in namespaces of their own.
# A transcript is written only if it replays as it was recorded.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
script=record
cache=${CACHE:-/var/tmp/cmail-record-servers}
packages="postfix exim4-daemon-heavy opensmtpd dovecot-core dovecot-submissiond chasquid unbound nsd"
entry=record.sh
. "$here/real_servers/enter.sh"

# What is no package of Debian. The versions are fixed, so that the same is recorded again.
unpack_more() {
	python3 -m pip install --quiet --root-user-action=ignore --target "$cache/root/python" aiosmtpd==1.4.6
	npm install --silent --no-fund --no-audit --prefix "$cache/root/node" smtp-server@3
}

for tool in node npm; do
	command -v $tool >/dev/null || skip "there is no $tool here, and one server comes from npm" 1
done
export SIMULATOR=${SIMULATOR:-$(build cmail-delivery-sim cmail-delivery-sim)}
enter "$@"
out=${OUT:-$here/transcripts}
mkdir -p "$out"
if [ -d "$scratch/kept/transcripts" ]; then
	cp "$scratch"/kept/transcripts/*.smtp "$out"
	rm -r "$scratch/kept/transcripts"
fi
if [ -n "${KEEP:-}" ]; then
	mkdir -p "$KEEP"
	cp -r "$scratch/kept/." "$KEEP"
fi
exit $status
