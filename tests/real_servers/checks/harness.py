"""What every section uses: the daemon under test, its database, the receivers' mailboxes, the score."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import sqlite3
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

BINARY = "/srv/bin/cmail-dispatchd"
WORK = pathlib.Path("/srv/work")
MAILDIRS = {name: pathlib.Path("/srv/mail") / name for name in ("postfix", "exim", "opensmtpd")}
SINKS = {name: pathlib.Path("/srv/sink") / name for name in ("all", "plain")}
LOGS = pathlib.Path("/srv/log")
SENDER = "sender@postfix.example"
# Generous, since a debug build on a busy machine is slow; nothing waits longer than it must.
PATIENCE_S = 40.0
# The header fields that a receiving server puts before the message.
TRACE = re.compile(
    rb"(return-path|x-dkim-seen|received|delivered-to|x-original-to|envelope-to|x-mail-args|x-helo-args|x-client-\w+|x-rcpt-args|x-client-proto):", re.I
)


class Score:
    """Counts and prints the checks."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0

    def check(self, what: str, holds: bool, detail: object = "") -> bool:
        if holds:
            self.passed += 1
            print(f"ok     {what}", flush=True)
        else:
            self.failed += 1
            print(f"FAILED {what}" + (f": {detail}" if detail != "" else ""), flush=True)
        return holds

    def equal(self, what: str, found: object, expected: object) -> bool:
        return self.check(what, found == expected, f"found {found!r:.400}, expected {expected!r:.400}")


SCORE = Score()
check = SCORE.check
equal = SCORE.equal


@dataclass
class Mail:
    """One row of the outbox, as it was put there."""

    id: int
    to: str
    data: bytes


@dataclass
class Delivered:
    """One copy in a mailbox: the fields that the server added, and the message below them."""

    server: str
    trace: bytes
    message: bytes


@dataclass
class Scene:
    """A database, a configuration and the daemon that works on them."""

    name: str
    directives: dict[str, str | list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directory = WORK / self.name
        self.directory.mkdir()
        os.chmod(self.directory, 0o777)
        self.database_path = self.directory / "master.db"
        self.config = self.directory / "dispatchd.conf"
        self.log = self.directory / "dispatchd.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.write_config()
        self.command("initdb", check=True)

    def write_config(self, **changes: str | list[str]) -> None:
        self.directives.update(changes)
        values: dict[str, str | list[str]] = {
            "verbosity": "3",
            "user": "dispatch",
            "database": str(self.database_path),
            "announce": "mail.dispatch.example",
            "resolver": "127.0.0.53",
            "interval": "1",
            "retryinterval": "3600",
            "tls_trustfile": "/srv/tls/ca.pem",
        }
        values.update(self.directives)
        lines = []
        for name, value in values.items():
            lines += [f"{name} {each}" for each in ([value] if isinstance(value, str) else value)]
        self.config.write_text("\n".join(lines) + "\n")

    def command(self, *words: str, check: bool = False, timeout: float = 60) -> subprocess.CompletedProcess[bytes]:
        """Runs the daemon with these words to its end; what it says goes to the log of the scene."""
        with self.log.open("ab") as log:
            return subprocess.run([BINARY, str(self.config), *words], stdout=log, stderr=log, check=check, timeout=timeout)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([BINARY, str(self.config), "nodetach"], stdout=log, stderr=log)

    def kill(self) -> None:
        """SIGKILL: what a crash looks like."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self) -> int | None:
        """SIGTERM, and the exit status; None when it did not end in time."""
        if self.process is None:
            return None
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()
            return None
        self.process = None
        return status

    def try_now(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGUSR2)

    def connection(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.database_path, timeout=30)
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def query(self, sql: str, *parameters: object) -> list[tuple]:
        connection = self.connection()
        connection.text_factory = lambda octets: octets.decode("utf-8", "replace")
        try:
            return connection.execute(sql, parameters).fetchall()
        finally:
            connection.close()

    def fill(self, mails: Iterable[tuple[str, bytes, str | None, str | None]]) -> list[Mail]:
        """Inserts rows (recipient, data, sender, remote), all in one transaction."""
        rows = []
        connection = self.connection()
        with connection:
            for to, data, sender, remote in mails:
                # mail_data is a TEXT column; the cast keeps the octets as they are.
                cursor = connection.execute(
                    "INSERT INTO outbox (mail_remote, mail_envelopefrom, mail_envelopeto, mail_data)"
                    " VALUES (?, ?, ?, CAST(? AS TEXT))",
                    (remote, sender, to, data),
                )
                rows.append(Mail(cursor.lastrowid or 0, to, data))
        connection.close()
        return rows

    def add(self, to: str, data: bytes | None = None, sender: str | None = SENDER, remote: str | None = None) -> Mail:
        return self.fill([(to, data if data is not None else message(to), sender, remote)])[0]

    def pending(self) -> set[int]:
        return {row[0] for row in self.query("SELECT mail_id FROM outbox")}

    def failures(self, mail: Mail) -> list[tuple[str, int]]:
        return self.query("SELECT fail_message, fail_fatal FROM faillog WHERE fail_mail = ? ORDER BY rowid", mail.id)

    def settled(self, mails: Iterable[Mail]) -> bool:
        """Whether each of these is delivered, bounced or has a failure on record."""
        failed = {row[0] for row in self.query("SELECT DISTINCT fail_mail FROM faillog")}
        return not ({mail.id for mail in mails} & self.pending()) - failed

    def drained(self) -> bool:
        return not self.pending()

    def run_until(self, done: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
        """Starts the daemon, waits, stops it; whether the condition came true and the exit was clean."""
        self.start()
        process = self.process
        came = wait(lambda: done() or process is None or process.poll() is not None, patience_s) and done()
        return self.stop() == 0 and came


def wait(done: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
    deadline = time.monotonic() + patience_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def message(to: str, body: bytes = b"Hello\r\n") -> bytes:
    head = f"From: <{SENDER}>\r\nTo: <{to}>\r\nSubject: test\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\n"
    return head.encode() + f"Message-ID: <{abs(hash((to, body)))}@test.example>\r\n\r\n".encode() + body


def as_stored(data: bytes) -> bytes:
    """What a mailbox with LF line ends holds of this row, by section 5 of the contract."""
    lines = re.sub(rb"\r\n|\r|\n", b"\n", data)
    return lines if lines.endswith(b"\n") or not lines else lines + b"\n"


def split(raw: bytes, server: str) -> Delivered:
    """Takes the leading trace fields, with their folded lines, off a message."""
    rest = raw
    while TRACE.match(rest):
        _, _, rest = rest.partition(b"\n")
        while rest[:1] in (b" ", b"\t"):
            _, _, rest = rest.partition(b"\n")
    return Delivered(server, raw[: len(raw) - len(rest)], rest)


# Files do not change once they are in a mailbox, so each is read once.
_read: dict[pathlib.Path, list[tuple[str, Delivered]]] = {}


def mailboxes() -> dict[str, list[Delivered]]:
    """All copies received so far, by recipient."""
    for server, directory in MAILDIRS.items():
        for path in [*directory.glob("new/*"), *directory.glob("*/new/*")]:
            if path not in _read:
                _read[path] = [parse(path.read_bytes(), server)]
    for sink, directory in SINKS.items():
        for path in directory.iterdir():
            if path in _read or not path.stat().st_size:
                continue
            # smtp-sink ends each message in its file with an empty line of its own.
            copy = split(path.read_bytes().removesuffix(b"\n"), f"sink-{sink}")
            recipients = re.findall(rb"^X-Rcpt-Args: <([^>]*)>", copy.trace, re.M)
            _read[path] = [(to.decode(), copy) for to in recipients]
    found: dict[str, list[Delivered]] = defaultdict(list)
    for copies in _read.values():
        for to, copy in copies:
            found[to].append(copy)
    return found


def parse(raw: bytes, server: str) -> tuple[str, Delivered]:
    copy = split(raw, server)
    for name in (rb"x-original-to", rb"envelope-to", rb"delivered-to"):
        if match := re.search(rb"^" + name + rb": *<?([^\s>]*)", copy.trace, re.I | re.M):
            return match[1].decode(), copy
    return "", copy


def copies(to: str, at_least: int = 1, patience_s: float = 8.0) -> list[Delivered]:
    """The copies for a recipient; waits a little, since servers file mail after they took it."""
    wait(lambda: len(mailboxes()[to]) >= at_least, patience_s)
    return mailboxes()[to]


def received_by(to: str) -> list[str]:
    return [copy.server for copy in copies(to)]
