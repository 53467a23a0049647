"""Signatures: 500 odd messages, as Exim, dkimpy and opendkim see them behind the wire."""

from __future__ import annotations

import pathlib
import random
import re
import shutil
import subprocess

from .harness import SENDER, Mail, Scene, as_stored, check, copies, equal

KEYS = pathlib.Path("/srv/dkim")
DOMAIN = SENDER.rpartition("@")[2]
SELECTORS = {"rsa": "rsa-sha256", "ed": "ed25519-sha256"}
COUNT = 500
MEGABYTES = 25
# What opendkim of Debian 12 verifies; it is built without Ed25519.
SEEN = re.compile(rb"^X-DKIM-Seen: (\S+) (\S+) (\S+)", re.M)

ENDS = [b"\r\n", b"\n", b"\r"]
BODIES = [
    b"",
    b"\r\n",
    b"\r\n" * 7,
    b"text",
    b"text\r\n\r\n\r\n",
    b"one\ntwo\rthree\r\n\n\r\rfour\n.\nfive\r.\rsix\n",
    b".\r\n..\r\n.dot\r\n",
    "Grüße, κόσμε\r\n".encode() + bytes(range(128, 256)) + b"\r\n",
    b" \t leading and trailing \t \r\n\t\r\n \r\n",
    (b"x" * 998 + b"\r\n") * 3,
    b"z" * 5000 + b"\r\n",
    b"a  b\tc   d\r\n" * 40,
]
DATE = b"Date: Sun, 22 Nov 2026 10:00:00 +0000"
FIELDS = [
    b"Subject: plain",
    b"Subject:\tfolded\n\tover  \n   lines",
    b"subject:  twice, and in lower case",
    b"Subject:",
    b"To: <a@exim.example>,\r\n\t<b@exim.example>",
    b"Cc: c@exim.example",
    b"Reply-To: other@postfix.example",
    DATE,
    b"Message-ID: <1@test.example>",
    b"MIME-Version: 1.0",
    b"Content-Type: text/plain;\r\n charset=utf-8",
    b"Content-Transfer-Encoding: 8bit",
    b"Subject: " + "Grüße".encode(),
    b"X-Long: " + b"y" * 900,
    b"List-Id: <l.example>",
]


def odd_message(dice: random.Random, number: int) -> bytes:
    end = dice.choice(ENDS)
    fields = [b"From: Sender <" + SENDER.encode() + b">"]
    # Some are there several times; but of each other message once, and Date: opendkim takes nothing else.
    fields += [dice.choice(FIELDS) for _ in range(dice.randrange(9))]
    if number % 2:
        fields = list({field.partition(b":")[0].lower(): field for field in [*fields, DATE]}.values())
    dice.shuffle(fields)
    header = end.join(fields) + end
    if dice.random() < 0.1:
        return header
    body = b"".join(dice.choice(BODIES) for _ in range(dice.randrange(4)))
    return header + end + body + b"%d" % number * dice.randrange(2)


def run() -> None:
    keys = [f"{DOMAIN} {selector} {KEYS / selector}.pem" for selector in SELECTORS]
    scene = Scene("dkim", {"dkim_key": keys, "dkim_sign": "from", "portprio": "25"})
    dice = random.Random(1)
    texts = [odd_message(dice, number) for number in range(COUNT)]
    large = b"From: " + SENDER.encode() + b"\nSubject: large\n\n" + b"0123456789abcdef\n" * (MEGABYTES * 1024 * 1024 // 17)
    mails = scene.fill((f"d{number}@exim.example", text, SENDER, None) for number, text in enumerate([*texts, large]))
    sinks = scene.fill((f"d{number}@sink.example", text, SENDER, None) for number, text in enumerate(texts))
    left_alone = [
        scene.add("none1@exim.example", b"no header\r\n"),
        scene.add("none2@exim.example", b"\r\nbody only\r\n"),
        scene.add("none5@exim.example", b"From: %s\r\nSubject : blank\r\n\r\nx\r\n" % SENDER.encode()),
        scene.add("none6@exim.example", b"From: %s\r\nSubject: blank\r\n \r\n continued\r\n\r\nx\r\n" % SENDER.encode()),
        scene.add("none3@exim.example", b"From: a@elsewhere.example\r\n\r\nx\r\n"),
        scene.add("none4@exim.example", b"From: %s\r\nDKIM-Signature: v=1; d=%s\r\n\r\nx\r\n" % (SENDER.encode(), DOMAIN.encode())),
    ]
    done = scene.run_until(scene.drained, 240)
    check("the outbox is empty", done and not scene.pending(), scene.query("SELECT fail_message FROM faillog LIMIT 3"))
    exim(mails)
    unsigned = [mail.to for mail in left_alone if any(b"d=" + DOMAIN.encode() + b"; s=" in copy.message for copy in copies(mail.to))]
    equal("mail without one author, of another domain, or signed already is left alone", unsigned, [])
    others([(mail, copies(mail.to)) for mail in sinks])


def exim(mails: list[Mail]) -> None:
    wrong = []
    for mail in mails:
        # Exim 4.96 computes no digest of a body where the header section ends without an empty line; the others do.
        if b"\n\n" not in as_stored(mail.data):
            continue
        found = copies(mail.to)
        seen = set(SEEN.findall(found[0].trace)) if found else set()
        wanted = {(DOMAIN.encode(), name.encode(), b"pass") for name in SELECTORS.values()}
        if not wanted <= seen:
            wrong.append((mail.to, seen, mail.data[:200]))
    equal(f"Exim verifies both signatures of {len(mails)} messages, one of them of {MEGABYTES} MiB", wrong[:3], [])


def others(received: list[tuple[Mail, list]]) -> None:
    # smtp-sink writes LF for each line end.
    texts = [copy.message.replace(b"\n", b"\r\n") for _, found in received for copy in found[:1]]
    equal("each message came to the sink", len(texts), len(received))
    dkimpy(texts)
    opendkim(texts[1::2])


def dkimpy(texts: list[bytes]) -> None:
    try:
        import dkim
    except ImportError:
        print("skipped: dkimpy is missing; when the packages were fetched it could not be installed from PyPI. To try again, remove the CACHE directory", flush=True)
        return
    records = {path.name: path.read_bytes() for path in KEYS.glob("*.txt")}

    def look_up(name: bytes, **_: object) -> bytes | None:
        return records.get(name.split(b".")[0].decode() + ".txt")

    def verify(text: bytes, index: int) -> bool:
        try:
            return dkim.DKIM(text).verify(index, dnsfunc=look_up)
        except dkim.DKIMException as error:
            print(f"       {error}: {text[:300]!r}")
            return False

    wrong = [text[:300] for text in texts if not all(verify(text, index) for index in range(len(SELECTORS)))]
    equal(f"dkimpy verifies both signatures of {len(texts)} messages", wrong[:3], [])
    changed = [text.replace(b"sender@", b"sendel@") for text in texts[:50]]
    equal("and none of a message of which one octet was changed", [text for text in changed if verify(text, 0)], [])


def opendkim(texts: list[bytes]) -> None:
    if not shutil.which("opendkim-testmsg"):
        print("skipped: there is no opendkim-testmsg", flush=True)
        return
    wrong = []
    for text in texts:
        # It judges all signatures together, and knows only RSA.
        only_rsa = re.sub(rb"DKIM-Signature: v=1; a=ed25519-sha256;.*?\r\n(?=\S)", b"", text, count=1, flags=re.S)
        # It makes CRLF of LF.
        only_rsa = only_rsa.replace(b"\r\n", b"\n")
        done = subprocess.run(["opendkim-testmsg"], input=only_rsa, capture_output=True, check=False)
        if done.returncode:
            wrong.append((done.stderr, only_rsa[:300]))
    equal(f"opendkim verifies {len(texts)} messages", wrong[:3], [])

