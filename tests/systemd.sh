#!/usr/bin/env bash
# The unit of example-configs under a real systemd: it becomes ready, says how it stands, takes another configuration, survives a
# wrong one, is restarted when it hangs, and stops; and its exposure stays low.
#
# A systemd of its own runs in namespaces: nothing of this machine is started, changed or stopped. That takes root, and control
# groups that can be written; where it is not possible the script says why and ends well. BINARY is the daemon; the operator's tool is
# beside it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

unit=example-configs/cmail-dispatchd.service
binary=$(realpath -m "${BINARY:-${CARGO_TARGET_DIR:-target}/debug/cmail-dispatchd}")
# The overall exposure of `systemd-analyze security`, in tenths.
exposure_limit=20

skip() {
    printf 'SKIPPED: %s\n' "$1"
    exit 0
}

check_exposure() {
    systemd-analyze security --help | grep -q -- --offline || skip "systemd-analyze is too old to judge a unit that is not loaded"
    systemd-analyze security --offline=true --no-pager --threshold="$exposure_limit" "$unit" | tail -1
}

# Inside the namespaces, as the first process of them.
boot() {
    mount --make-rprivate /
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs /etc/systemd/system
    mount -t tmpfs tmpfs /var/lib
    mount -t tmpfs tmpfs /var/log
    mkdir -p /run/systemd/system/cmail-dispatchd.service.d /run/try
    cp "$binary" /run/try/cmail-dispatchd
    cp "$(dirname "$binary")/cmail-admin-queue" /run/try/
    cp /etc/passwd /etc/group /run/try/
    echo 'cmail:x:64999:64999::/var/lib/cmail:/usr/sbin/nologin' >>/run/try/passwd
    echo 'cmail:x:64999:' >>/run/try/group
    mount --bind /run/try/passwd /etc/passwd
    mount --bind /run/try/group /etc/group
    sed -e 's|/usr/sbin/|/run/try/|g' -e 's|/etc/cmail/|/run/try/|g' \
        "$unit" >/run/systemd/system/cmail-dispatchd.service
    # Of the whole system there is nothing but this unit, and a test cannot wait for a minute.
    cat >/run/systemd/system/cmail-dispatchd.service.d/try.conf <<'EOF'
[Unit]
DefaultDependencies=no
After=
Wants=
[Service]
WatchdogSec=3
RestartSec=0
EOF
    cat >/run/systemd/system/try.target <<'EOF'
[Unit]
DefaultDependencies=no
Wants=try.service
EOF
    cat >/run/systemd/system/try.service <<EOF
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
TimeoutStartSec=120
ExecStart=/bin/bash -c 'exec /bin/bash "$PWD/tests/systemd.sh" inside >"$results/output" 2>&1'
ExecStopPost=/bin/systemctl exit
EOF
    export container=other
    exec "$systemd" --system --unit=try.target --log-target=console --log-level=warning --show-status=no
}

property() { systemctl show -P "$1" cmail-dispatchd; }

# Waits until a property is as it should be, by a pattern.
wait_for() {
    local name=$1 pattern=$2 value
    for _ in $(seq 300); do
        value=$(property "$name")
        # shellcheck disable=SC2053 # It is a pattern.
        [[ $value == $pattern ]] && return
        sleep 0.1
    done
    printf '%s is "%s", not %s\n' "$name" "$value" "$pattern"
    cat /var/log/cmail/log
    exit 1
}

wait_for_log() {
    for _ in $(seq 300); do
        grep -q "$1" /var/log/cmail/log && return
        sleep 0.1
    done
    printf 'the log does not say: %s\n' "$1"
    cat /var/log/cmail/log
    exit 1
}

configure() {
    cat >/run/try/dispatchd.conf <<EOF
database /var/lib/cmail/master.db3
logfile /var/log/cmail/log
verbosity 1
announce mail.example.org
resolver 127.0.0.1:9
retries $1
EOF
    chgrp cmail /run/try/dispatchd.conf
    chmod 640 /run/try/dispatchd.conf
}

# What the daemon logs is found by its fields.
find_in_journal() {
    if ! systemctl start systemd-journald.socket systemd-journald.service; then
        echo "SKIPPED: no systemd-journald runs here"
        return
    fi
    printf 'logformat journal\n' >>/run/try/dispatchd.conf
    systemctl start cmail-dispatchd
    wait_for ActiveState active
    printf 'Subject: x\n\nx\n' | setpriv --reuid=cmail --regid=cmail --clear-groups \
        /run/try/cmail-admin-queue --config /run/try/dispatchd.conf submit -f '<>' 'a@[127.0.0.1]'
    local found
    for _ in $(seq 300); do
        found=$(journalctl --quiet --no-pager -o json CMAIL_MAIL=1 CMAIL_EVENT=deferred | head -n 1)
        [ -z "$found" ] || break
        sleep 0.1
    done
    printf '%s' "$found" | grep -q '"CMAIL_RECIPIENT":"a@\[127.0.0.1\]"' || {
        echo "the journal does not have the verdict: $found"
        journalctl --no-pager | tail -n 20
        exit 1
    }
    systemctl stop cmail-dispatchd
    echo "found in the journal by the number of the mail"
}

# As a service of that systemd.
inside() {
    install -d -o cmail -g cmail -m 750 /var/lib/cmail
    configure 5
    setpriv --reuid=cmail --regid=cmail --clear-groups /run/try/cmail-dispatchd /run/try/dispatchd.conf initdb
    systemctl start cmail-dispatchd
    wait_for ActiveState active
    wait_for StatusText '0 mails wait, 0 connections, 0 hosts in trouble'
    echo "ready, and says: $(property StatusText)"
    configure 7
    systemctl reload cmail-dispatchd
    wait_for_log 'retries is 7 now, it was 5'
    configure many
    if systemctl reload cmail-dispatchd; then
        echo "the reload of a wrong configuration does not fail"
        exit 1
    fi
    wait_for_log 'the one from before stays in force'
    wait_for ActiveState active
    echo "reloaded, and kept the configuration from before a wrong one, whose reload fails"
    # While it works the watchdog is content.
    local heard now count=0
    heard=$(property WatchdogTimestampMonotonic)
    for _ in $(seq 300); do
        now=$(property WatchdogTimestampMonotonic)
        [ "$now" = "$heard" ] || count=$((count + 1))
        heard=$now
        [ "$count" -lt 4 ] || break
        sleep 0.1
    done
    [ "$count" -eq 4 ]
    [ "$(property NRestarts)" = 0 ]
    configure 7
    kill -STOP "$(property MainPID)"
    wait_for NRestarts 1
    wait_for ActiveState active
    echo "restarted by the watchdog when it hung"
    systemctl stop cmail-dispatchd
    [ "$(property Result)" = success ]
    echo "stopped"
    find_in_journal
    echo DONE
}

run() {
    command -v systemd-analyze >/dev/null || skip "there is no systemd here"
    check_exposure
    systemd=/lib/systemd/systemd
    [ -x "$systemd" ] || skip "there is no $systemd"
    [ "$(id -u)" -eq 0 ] || skip "only root can start a systemd in namespaces"
    results=$(mktemp -d)
    trap 'rm -rf "$results"' EXIT
    export systemd results binary
    local status=0
    timeout 180 unshare --mount --pid --fork --kill-child --uts --ipc --cgroup --mount-proc \
        bash tests/systemd.sh boot >"$results/console" 2>&1 </dev/null || status=$?
    if [ ! -e "$results/output" ]; then
        skip "no systemd can be started in namespaces here (status $status): $(tail -n 3 "$results/console" | tr '\n' ' ')"
    fi
    cat "$results/output"
    grep -qx DONE "$results/output" || { cat "$results/console"; exit 1; }
}

case ${1:-run} in
    boot) boot ;;
    inside) inside ;;
    *) run ;;
esac
