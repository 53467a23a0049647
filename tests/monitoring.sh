#!/usr/bin/env bash
# What monitoring sees of a daemon at work, by the tools that administrators use: promtool and Prometheus, the parser of OpenMetrics,
# and Chromium, which looks at the page. As root it installs what is missing from Debian's packages. Where that is not possible the
# script says why and ends well. BINARY is the daemon; with PICTURE it also takes pictures of the page.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

binary=$(realpath -m "${BINARY:-${CARGO_TARGET_DIR:-target}/debug/cmail-dispatchd}")
# The one that Debian's packages are for.
python=/usr/bin/python3

has_all() {
    command -v promtool >/dev/null && command -v prometheus >/dev/null && command -v chromium >/dev/null \
        && "$python" -c 'import prometheus_client' 2>/dev/null
}

if ! has_all && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus chromium python3 \
        python3-prometheus-client >/dev/null || true
fi
if ! has_all; then
    echo 'SKIPPED: prometheus, chromium and python3-prometheus-client are not there, and cannot be installed'
    exit 0
fi
export PYTHONDONTWRITEBYTECODE=1
"$python" tests/monitoring/check.py "$binary" ${PICTURE:+"$PICTURE"}
