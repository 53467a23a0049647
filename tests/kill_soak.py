#!/usr/bin/env python3
"""Kills the daemon again and again at random moments, and accounts for every mail.

    tests/kill_soak.py [--kills N] [--mode delete|wal|both] [--seed S] [--binary PATH]

Between a kill and the next start nothing opens the database, so that the program itself meets what it left behind: a hot
rollback journal, or a write-ahead log that was not copied back. What was committed at the moment of the kill is read from
a copy of the files. In the end:

- no start has failed,
- each mail has reached the sink, or its sender has got a bounce,
- whatever the sink had got whole at a kill and was still in the outbox was noted in `dispatch_flights`: at most
  `--flight-limit` messages of each connection (the daemon's `FLIGHT_LIMIT_MESSAGES`),
- the next start has named all of that mail, and each second copy is of a mail that was named.

Needs nothing but Python 3 and a built daemon; the sink listens on a free port of 127.0.0.1.
"""

import argparse
import collections
import os
import pathlib
import random
import re
import shutil
import signal
import socketserver
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

PATIENCE_S = 60
CONNECTIONS = 12
BATCH = 250

# The mails that a start names.
NAMED = re.compile(r"before it knew the answer: ([0-9, ]+?)(?: and [0-9]+ more)?;")


class Sink(socketserver.ThreadingTCPServer):
    """An SMTP server that offers PIPELINING, takes mail, and remembers whose mail it got whole and what it said."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Conversation)
        self.lock = threading.Condition()
        self.open = 0
        self.got = collections.Counter()  # mail whose final dot came
        self.taken = collections.Counter()  # mail of those that were answered with 250
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self):
        return self.server_address[1]

    def wait_until(self, condition, what):
        with self.lock:
            if not self.lock.wait_for(condition, PATIENCE_S):
                fail(f"{what}: not within {PATIENCE_S} s")

    def wait_until_quiet(self):
        """Until everything that a killed daemon has left in its sockets has been read."""
        self.wait_until(lambda: self.open == 0, "the sink's connections end")

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception() if hasattr(sys, "exception") else sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Conversation(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        with self.server.lock:
            self.server.open += 1

    def finish(self):
        try:
            super().finish()
        except OSError:
            pass
        with self.server.lock:
            self.server.open -= 1
            self.server.lock.notify_all()

    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")

    def handle(self):
        recipients = []
        self.say("220 sink.example")
        while line := self.rfile.readline():
            verb = line[:4].upper()
            if verb == b"EHLO":
                self.say("250-sink.example\r\n250 PIPELINING")
            elif verb == b"MAIL":
                recipients = []
                self.say("250 ok")
            elif verb == b"RCPT":
                address = line.split(b"<", 1)[1].split(b">", 1)[0].decode()
                if address.startswith("refused"):
                    self.say("550 5.1.1 no such user")
                else:
                    recipients.append(address)
                    self.say("250 ok")
            elif verb == b"DATA":
                if not recipients:
                    self.say("554 no recipients")
                    continue
                self.say("354 go on")
                if self.receive():
                    self.take(recipients)
                    recipients = []
            elif verb == b"QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 ok")

    def receive(self):
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            pass
        return bool(line)

    def take(self, recipients):
        with self.server.lock:
            self.server.got.update(recipients)
            self.server.lock.notify_all()
        self.say("250 taken")
        with self.server.lock:
            self.server.taken.update(recipients)


def fail(text):
    print(f"FAILED: {text}", flush=True)
    sys.exit(1)


class Soak:
    """One journal mode's database, sink and books."""

    def __init__(self, options, mode, chance):
        self.options, self.mode, self.chance = options, mode, chance
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix=f"kill-soak-{mode}-", dir=options.directory))
        self.sink = Sink()
        self.database = self.directory / "master.db"
        self.config = self.directory / "dispatchd.conf"
        self.config.write_text(
            f"database {self.database}\nannounce soak.example\nportprio {self.sink.port}\nresolver 127.0.0.1\n"
            f"interval 1\nverbosity 1\nuncertain retry\ndestination_concurrency {CONNECTIONS}\nconcurrency {CONNECTIONS}\n"
        )
        self.log = open(self.directory / "log", "wb")
        self.next = 0
        self.sent = []  # every address that must get something
        self.excuses = collections.Counter()  # how often a second copy of it is explained
        self.before = collections.Counter()  # what the sink had got when the daemon was started last
        self.kills = self.hot = 0
        self.to_be_named = set()  # mail that was noted at the last kill
        self.log_start = 0
        self.worst_got = self.worst_noted = 0
        subprocess.run([options.binary, self.config, "initdb"], check=True, stdout=subprocess.DEVNULL)
        with sqlite3.connect(self.database) as connection:
            connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.close()
        self.fill()

    def fill(self):
        """Another program puts mail in: some to be delivered, some to be refused, some that has failed already."""
        connection = sqlite3.connect(self.database, timeout=PATIENCE_S)
        connection.execute("PRAGMA foreign_keys = ON")
        with connection:
            for _ in range(BATCH):
                n, self.next = self.next, self.next + 1
                kind = ("good", "good", "good", "refused", "fatal")[n % 5]
                to, sender = f"{kind}{n}@[127.0.0.1]", f"sender{n}@[127.0.0.1]"
                data = f"Subject: {n}\r\n\r\n" + "x" * self.chance.randrange(20, 6000) + "\r\n"
                row = connection.execute(
                    "INSERT INTO outbox (mail_envelopefrom, mail_envelopeto, mail_data) VALUES (?, ?, ?)",
                    (sender, to, data),
                )
                if kind == "fatal":
                    connection.execute(
                        "INSERT INTO faillog (fail_mail, fail_message, fail_fatal) VALUES (?, '550 gone', 1)",
                        (row.lastrowid,),
                    )
                self.sent.append(to if kind == "good" else sender)
        connection.close()

    def start(self, *words):
        self.log.write(f"--- {' '.join(words) or 'daemon'}\n".encode())
        self.log.flush()
        self.log_start = self.log.tell()
        with self.sink.lock:
            self.before = self.sink.got.copy()
        return subprocess.Popen(
            [self.options.binary, self.config, "nodetach", "nodrop", *words], stdout=self.log, stderr=self.log
        )

    def has_hot_journal(self):
        journal = pathlib.Path(f"{self.database}-journal")
        try:
            with open(journal, "rb") as file:
                return any(file.read(28))
        except FileNotFoundError:
            return False

    def kill(self, process, what):
        if process.poll() not in (None, 0):
            fail(f"{what} ended with status {process.returncode}; see {self.directory}/log")
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.kills += 1
        self.sink.wait_until_quiet()
        self.hot += self.has_hot_journal()
        self.check_named()
        outbox, flights = self.committed()
        with self.sink.lock:
            got = [address for address in outbox.values() if self.sink.got[address] > self.before[address]]
        noted = {outbox[mail]: mail for mails in flights.values() for mail in mails if mail in outbox}
        self.excuses.update(address for address in got if address in noted)
        unnoted = [address for address in got if address not in noted]
        if unnoted:
            fail(f"the sink has got these, which are in the outbox and in no flight: {unnoted}; see {self.directory}")
        for connection, mails in flights.items():
            if len(mails) > self.options.flight_limit:
                fail(f"{len(mails)} mails of connection {connection} were noted when the daemon was killed")
        self.to_be_named = set(noted.values())
        self.worst_got, self.worst_noted = max(self.worst_got, len(got)), max(self.worst_noted, len(noted))

    def check_named(self):
        """If the daemon that ran came to look for what the one before it had left, it has named all of that."""
        if not self.has_delivered():
            # It was killed before it came to that, or has bounced only.
            return
        log = (self.directory / "log").read_bytes()[self.log_start:].decode()
        named = {int(mail) for line in NAMED.findall(log) for mail in line.split(", ")}
        if not self.to_be_named <= named:
            fail(f"{self.to_be_named - named} were noted at a kill, and not named at the next start; see {self.directory}")

    def has_delivered(self):
        with self.sink.lock:
            return self.sink.got.total() > self.before.total()

    def committed(self):
        """What is in the outbox, and the flights of each connection, from a copy, so that the files are left as the kill left them."""
        copy = self.directory / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for suffix in ("", "-journal", "-wal"):
            source = pathlib.Path(f"{self.database}{suffix}")
            if source.exists():
                shutil.copyfile(source, copy / source.name)
        connection = sqlite3.connect(copy / self.database.name)
        rows = dict(connection.execute("SELECT mail_id, mail_envelopeto FROM outbox"))
        flights = collections.defaultdict(set)
        if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'dispatch_flights'").fetchone():
            listed = connection.execute("SELECT connection_id, value FROM dispatch_flights, json_each(mails)")
            for flight, mail in listed:
                flights[flight].add(mail)
        if connection.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            fail(f"the database is damaged after a kill; see {self.directory}")
        connection.close()
        return rows, flights

    def one_kill(self):
        if self.chance.random() < 0.25:
            process = self.start("genbounces")
            time.sleep(self.chance.uniform(0.0, 0.06))
            return self.kill(process, "genbounces")
        process = self.start()
        if self.chance.random() < 0.2:
            # In the middle of the start.
            time.sleep(self.chance.uniform(0.0, 0.03))
            return self.kill(process, "the daemon")
        with self.sink.lock:
            goal = self.sink.got.total() + self.chance.randrange(1, 60)
        if self.next - self.sink.got.total() < BATCH:
            self.wait_until_started(process)
            self.fill()
        deadline = time.monotonic() + PATIENCE_S
        with self.sink.lock:
            while self.sink.got.total() < goal and process.poll() is None:
                self.sink.lock.wait(0.2)
                if time.monotonic() > deadline:
                    fail(f"the daemon delivers nothing; see {self.directory}/log")
        time.sleep(self.chance.uniform(0.0, 0.02))
        self.kill(process, "the daemon")

    def wait_until_started(self, process):
        """A database that was just recovered can be written by others: that is when the daemon works on it."""
        deadline = time.monotonic() + PATIENCE_S
        marker = b"as process %d" % process.pid
        while marker not in (self.directory / "log").read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                fail(f"the daemon did not start; see {self.directory}/log")
            time.sleep(0.005)

    def finish(self):
        """Lets a last daemon empty the outbox, and closes the books."""
        process = self.start()
        self.wait_until_started(process)
        connection = sqlite3.connect(self.database, timeout=PATIENCE_S)
        deadline = time.monotonic() + PATIENCE_S
        while connection.execute("SELECT count(*) FROM outbox").fetchone() != (0,):
            if process.poll() is not None or time.monotonic() > deadline:
                left = connection.execute("SELECT mail_envelopeto FROM outbox LIMIT 5").fetchall()
                fail(f"the outbox is not emptied: {left}; see {self.directory}/log")
            time.sleep(0.05)
        process.terminate()
        if process.wait(PATIENCE_S) != 0:
            fail(f"the daemon ends with status {process.returncode}; see {self.directory}/log")
        self.check_named()
        got = self.sink.got
        lost = [address for address in self.sent if not got[address]]
        if lost:
            fail(f"{len(lost)} mails are lost: {lost[:5]}; see {self.directory}")
        unexplained = {a: n for a, n in got.items() if n > 1 + self.excuses[a]}
        if unexplained:
            fail(f"second copies that no kill explains: {unexplained}; see {self.directory}")
        second = sum(n - 1 for n in got.values())
        print(
            f"{self.mode}: {self.kills} kills, {self.hot} left a hot journal; {len(self.sent)} mails, none lost, "
            f"{second} second copies, all noted at a kill and named at the next start (most noted at one kill: "
            f"{self.worst_noted}; of these got by the sink: {self.worst_got})",
            flush=True,
        )
        self.log.close()
        connection.close()
        shutil.rmtree(self.directory)


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=100, help="for each journal mode")
    parser.add_argument("--mode", choices=["delete", "wal", "both"], default="both")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--binary", default=os.environ.get("BINARY", target / "debug" / "cmail-dispatchd"))
    parser.add_argument("--directory", default=None, help="where the databases are; default: the system's for temporary files")
    parser.add_argument("--flight-limit", type=int, help="default: the constant of the source")
    options = parser.parse_args()
    if options.flight_limit is None:
        options.flight_limit = flight_limit(root)
    print(f"kill soak with seed {options.seed}", flush=True)
    for mode in ["delete", "wal"] if options.mode == "both" else [options.mode]:
        soak = Soak(options, mode, random.Random(f"{options.seed} {mode}"))
        for _ in range(options.kills):
            soak.one_kill()
        soak.finish()


def flight_limit(root):
    """The daemon's own bound, from its source, so that there is one definition of it."""
    source = (root / "core" / "src" / "flight.rs").read_text()
    found = re.search(r"const FLIGHT_LIMIT_MESSAGES: usize = ([0-9_]+);", source)
    return int(found.group(1).replace("_", "")) if found else sys.exit("the source has no FLIGHT_LIMIT_MESSAGES")


if __name__ == "__main__":
    main()
