"""(c) Handoff remotes: specifications, credentials, and when credentials are not to be sent."""

import re

from .harness import LOGS, Scene, check, copies, equal
from .servers import opensmtpd_speaks_tls

ALICE = "alice:wonder land@"
# Name of the check: (remote, server, what its trace fields say).
DELIVERED: dict[str, tuple[str, str, bytes]] = {
    "a name, by portprio": ("mx.exim.example", "exim", b""),
    "a name from the hosts file": ("exim-by-hosts-file.example", "exim", b""),
    "an address and a port, plain text": ("127.0.0.20:25", "exim", b"with esmtp "),
    "an IPv6 address": ("[::1]:25", "postfix", b""),
    "STARTTLS": ("mx.postfix.example:25/starttls", "postfix", b"ESMTPS"),
    "STARTTLS in capitals": ("mx.postfix.example:25/STARTTLS", "postfix", b"ESMTPS"),
    "implicit TLS": ("mx.exim.example:465/tls", "exim", b"esmtps"),
    "implicit TLS at OpenSMTPD": ("mx.opensmtpd.example:465/tls", "opensmtpd", b"TLS"),
    "SCRAM-SHA-256 at Postfix": (ALICE + "127.0.0.11:587/starttls", "postfix", b"Authenticated sender: alice"),
    "CRAM-MD5 at Postfix": (ALICE + "127.0.0.12:587/starttls", "postfix", b"Authenticated sender: alice"),
    "PLAIN at Postfix": (ALICE + "127.0.0.13:587/starttls", "postfix", b"Authenticated sender: alice"),
    "LOGIN at Postfix": (ALICE + "127.0.0.14:587/starttls", "postfix", b"Authenticated sender: alice"),
    "LOGIN in plain text over loopback": (ALICE + "127.0.0.14:587", "postfix", b"Authenticated sender: alice"),
    "a password with signs of the specification": ("bob:a:b@c/d%@127.0.0.11:587/starttls", "postfix", b"Authenticated sender: bob"),
    "that password by CRAM-MD5 at Exim": ("bob:a:b@c/d%@127.0.0.21:587/starttls", "exim", b"auth bob by cram"),
    "CRAM-MD5 at Exim": (ALICE + "127.0.0.21:587/starttls", "exim", b"auth alice by cram"),
    "PLAIN at Exim": (ALICE + "127.0.0.22:587/starttls", "exim", b"auth alice by plain"),
    "LOGIN at Exim": (ALICE + "127.0.0.23:587/starttls", "exim", b"auth alice by login"),
    "PLAIN or LOGIN at OpenSMTPD, STARTTLS": (ALICE + "127.0.0.30:587/starttls", "opensmtpd", b"auth=yes"),
    "PLAIN or LOGIN at OpenSMTPD, implicit TLS": (ALICE + "127.0.0.30:465/tls", "opensmtpd", b"auth=yes"),
    "a certificate with the name, no loopback address": (ALICE + "far.postfix.example:587/starttls", "postfix", b"Authenticated sender: alice"),
    "a certificate with the address": (ALICE + "192.0.2.10:465/tls", "postfix", b"Authenticated sender: alice"),
}
# Name of the check: remote. All of them temporary failures, none delivered.
REFUSED = {
    "a wrong password": "alice:wrong@127.0.0.11:587/starttls",
    "a wrong password by PLAIN": "alice:wrong@127.0.0.13:587/starttls",
    "AUTH not offered": ALICE + "127.0.0.10:25/starttls",
    "a certificate for another name": ALICE + "liar.postfix.example:587/starttls",
    "a certificate without the address": ALICE + "192.0.2.11:587/starttls",
    "credentials in plain text to another host": ALICE + "open.postfix.example:25",
    "STARTTLS asked for credentials, not offered, no loopback": ALICE + "192.0.2.12:25/starttls",
    "a host that does not resolve": "no.such.host.example:25",
    "no port after the colon": "mx.exim.example:",
    "an unknown mode": "mx.exim.example:25/ssl",
    "an empty user": ":secret@mx.exim.example:25",
    "port 0": "mx.exim.example:0",
    "nothing listens": "127.0.0.90:25",
}


def address(what: str, server: str) -> str:
    return re.sub(r"\W+", "-", what.lower()) + f"@{server}.example"


def run() -> None:
    scene = Scene("handoff")
    delivered = {what: row for what, row in DELIVERED.items() if row[1] != "opensmtpd" or opensmtpd_speaks_tls()}
    good = {what: scene.add(address(what, server), remote=remote) for what, (remote, server, _) in delivered.items()}
    bad = {what: scene.add(address("refused " + what, "postfix"), remote=remote) for what, remote in REFUSED.items()}
    done = scene.run_until(lambda: scene.settled([*good.values(), *bad.values()]))
    check("everything is settled and the exit status is 0", done)
    for what, (_, server, sign) in delivered.items():
        arrived = copies(good[what].to) if good[what].id not in scene.pending() else []
        held = [copy.server for copy in arrived] == [server] and sign in arrived[0].trace
        check(f"handoff, {what}", held, scene.failures(good[what]) or [copy.trace for copy in arrived])
    for what, mail in bad.items():
        rows = scene.failures(mail)
        held = len(rows) == 1 and not rows[0][1] and mail.id in scene.pending() and not copies(mail.to, 1, 0)
        check(f"handoff refused for the time being: {what}", held and "wonder" not in rows[0][0], rows)
    mechanisms()
    secrets(scene)
    insecure()
    one_shot()


def mechanisms() -> None:
    """Postfix writes down how each client has logged in."""
    log = (LOGS / "postfix.log").read_text(errors="replace")
    for mechanism in ("SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"):
        check(f"Postfix has logged {mechanism}", f"sasl_method={mechanism}, sasl_username=alice" in log)
    everything = "Postfix saw only mechanisms in the order of the contract where it offers all"
    methods = re.findall(r"sasl_method=(\S+),", "\n".join(line for line in log.splitlines() if "[192.0.2.10]" in line))
    check(everything, set(methods) <= {"SCRAM-SHA-256"} and bool(methods), methods)


def secrets(scene: Scene) -> None:
    text = scene.log.read_text(errors="replace")
    check("no password is in the daemon's log", "wonder land" not in text and "a:b@c/d%" not in text)


def insecure() -> None:
    """auth_insecure yes lifts the demand for a certificate, never that for AUTH."""
    scene = Scene("handoff-insecure", {"auth_insecure": "yes", "verbosity": "4"})
    mail = scene.add("insecure@postfix.example", remote=REFUSED["a certificate for another name"])
    plain = scene.add("insecure-plain@postfix.example", remote=REFUSED["credentials in plain text to another host"])
    none = scene.add("insecure-none@postfix.example", remote=REFUSED["AUTH not offered"])
    check("auth_insecure: settled", scene.run_until(lambda: scene.settled([mail, plain, none])))
    equal("auth_insecure: any certificate will do", len(copies(mail.to)), 1)
    equal("auth_insecure: plain text will do", len(copies(plain.to)), 1)
    check("auth_insecure: still no mail without AUTH", none.id in scene.pending(), scene.failures(none))
    secrets(scene)


def one_shot() -> None:
    scene = Scene("handoff-once")
    remote = ALICE + "127.0.0.22:587/starttls"
    mail = scene.add("once@exim.example", remote=remote)
    other = scene.add("once-other@exim.example", remote="127.0.0.20:25")
    by_mx = scene.add("once-mx@exim.example")
    status = scene.command("handoff", remote).returncode
    equal("handoff REMOTE: exit status 0, only that remote's mail gone", (status, scene.pending()), (0, {other.id, by_mx.id}))
    status = scene.command("deliver", "exim.example").returncode
    equal("deliver DOMAIN: exit status 0, only mail by MX gone", (status, scene.pending()), (0, {other.id}))
    equal("each has arrived once", [len(copies(each.to)) for each in (mail, by_mx)], [1, 1])
