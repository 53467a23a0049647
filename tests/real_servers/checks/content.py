"""(a) Delivery by MX in the three ways of securing a connection, octet by octet."""

from .harness import Scene, as_stored, check, copies, equal, message
from .servers import opensmtpd_speaks_tls

SERVERS = ("postfix", "exim", "opensmtpd")
MODES = {"plain": "25", "starttls": "25@starttls", "tls": "465@tls"}

BODIES = {
    "plain text": b"First line\r\nSecond line\r\n",
    "dots": b".\r\n..\r\n.dot\r\n...\r\nin the . middle.\r\n.\r\n",
    "no final newline": b"no newline at the end",
    "a final dot without newline": b"text\r\n.",
    "bare line ends": b"one\ntwo\rthree\r\n\n\r\rfour\n.\nfive\r.\rsix\n",
    "8-bit": "Grüße, κόσμε\r\n".encode() + bytes(range(128, 256)) + b"\r\n",
    "lines of 998 octets": (b"x" * 998 + b"\r\n") * 5 + b"." * 998 + b"\r\n",
    "empty lines": b"\r\n\r\n\r\ntext\r\n\r\n\r\n",
    "From and escape signs": b"From me to you\r\n>From me\r\n\x01\x7f\t \r\n",
    "empty body": b"",
    "a megabyte": b"".join(b"%07d .\r\n.%s\r\n" % (n, b"y" * (n % 70)) for n in range(24000)),
}
# What some servers change or refuse of themselves.
LONG = b"z" * 9000 + b"\r\n" + b"." * 3000 + b"\r\nend\r\n"
NUL = b"before\x00after\r\n\x00\r\n.\x00\r\n"


def run() -> None:
    for mode, ports in MODES.items():
        scene = Scene(f"content-{mode}", {"portprio": ports})
        sent = []
        servers = [server for server in SERVERS if mode == "plain" or server != "opensmtpd" or opensmtpd_speaks_tls()]
        for server in servers:
            for number, (what, body) in enumerate(BODIES.items()):
                to = f"c{number}-{mode}@{server}.example"
                sent.append((server, what, scene.add(to, message(to, body))))
            if server != "opensmtpd":
                to = f"long-{mode}@{server}.example"
                sent.append((server, "lines of 9000 octets", scene.add(to, message(to, LONG))))
        to = f"nul-{mode}@sink.example"
        nul = scene.add(to, message(to, NUL)) if mode == "plain" else None
        done = scene.run_until(lambda: scene.settled([mail for _, _, mail in sent]) if nul is None else scene.drained())
        check(f"{mode}: the outbox is empty", done and not scene.pending(), scene.query("SELECT fail_message FROM faillog LIMIT 3"))
        for server in servers:
            wrong = [what for at, what, mail in sent if at == server and [c.message for c in copies(mail.to)] != [as_stored(mail.data)]]
            equal(f"{mode}, {server}: each message has arrived once, octet by octet", wrong, [])
            how = copies(f"c0-{mode}@{server}.example")
            secured = bool(how) and any(sign in how[0].trace for sign in (b"ESMTPS", b"esmtps", b"TLS"))
            equal(f"{mode}, {server}: TLS was used as asked", secured, mode != "plain")
        if nul is not None:
            equal("plain, smtp-sink: NUL passes", [c.message for c in copies(nul.to)], [as_stored(nul.data)])
    defaults()


def defaults() -> None:
    """Without portprio: STARTTLS where offered, plain text on the same connection where not."""
    scene = Scene("content-default")
    offered = scene.add("default@postfix.example")
    refused = scene.add("default@notls.postfix.example")
    sevenbit = scene.add("default@sevenbit.example", message("default@sevenbit.example", "Grüße\r\n.\r\n".encode()))
    opensmtpd = scene.add("default@opensmtpd.example")
    noehlo = scene.add("default@noehlo.example")
    padded = Scene("content-padded", {"tls_padding": "50"})
    padding = [padded.add(f"padded{n}@{server}.example") for server in SERVERS for n in range(3)]
    check("the default ports deliver everything", scene.run_until(scene.drained), scene.query("SELECT * FROM faillog"))
    check("default ports: STARTTLS where it is offered", b"ESMTPS" in copies(offered.to)[0].trace if copies(offered.to) else False)
    equal("default ports: plain text where it is not", len(copies(refused.to)), 1)
    equal("default ports: plain text where the handshake fails, or TLS", len(copies(opensmtpd.to)), 1)
    equal("8-bit goes out where 8BITMIME is not offered", [c.message for c in copies(sevenbit.to)], [as_stored(sevenbit.data)])
    equal("HELO where EHLO is refused", len(copies(noehlo.to)), 1)
    check("padding of up to 50 commands after TLS disturbs no server", padded.run_until(padded.drained), padded.query("SELECT * FROM faillog"))
    equal("padded mail arrives once", [len(copies(mail.to)) for mail in padding], [1] * len(padding))
