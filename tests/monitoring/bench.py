"""A daemon with mail, and a server that takes, defers or refuses it by the name of the recipient."""

import os
import shutil
import socket
import socketserver
import sqlite3
import subprocess
import tempfile
import threading
import time
import urllib.request

PATIENCE_S = 60


def wait(what, condition):
    """Returns what the condition returns once it is true."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"in vain: {what}")


class Conversation(socketserver.StreamRequestHandler):
    """A small SMTP server."""

    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")

    def handle(self):
        self.say("220 mx.example.org ESMTP")
        while line := self.rfile.readline().decode(errors="replace").strip():
            verb = line.split(" ")[0].upper()
            if verb == "RCPT" and "later" in line:
                self.say("450 4.2.0 <b>the mailbox</b> is busy, try again <script>alert(1)</script>")
            elif verb == "RCPT" and "nobody" in line:
                self.say("550 5.1.1 there is no such mailbox here")
            elif verb == "DATA":
                self.say("354 go ahead")
                while self.rfile.readline() not in (b".\r\n", b""):
                    pass
                time.sleep(0.02)
                self.say("250 2.0.0 Ok: queued as 4XyZ12")
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 ok")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class Bench:
    """The daemon, its database, and the server."""

    def __init__(self, binary):
        self.binary = binary
        self.directory = tempfile.mkdtemp(prefix="cmail-monitoring-")
        self.server = Server(("0.0.0.0", 0), Conversation)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = "127.0.0.1:%d" % free.getsockname()[1]
        self.database = os.path.join(self.directory, "master.db3")
        self.config = os.path.join(self.directory, "dispatchd.conf")
        with open(self.config, "w", encoding="utf-8") as config:
            config.write(
                f"database {self.database}\nannounce client.example\nmetrics {self.address}\nverbosity 1\ninterval 1\n"
                "resolver 127.0.0.1:9\nretries 1000\nretryinterval 3600\n"
                f"metrics_destinations 127.0.0.1:{self.server.server_address[1]}\n"
            )
        subprocess.run([binary, self.config, "initdb"], check=True, stdout=subprocess.DEVNULL)
        self.daemon = None

    def start(self):
        log = open(os.path.join(self.directory, "log"), "ab")
        self.daemon = subprocess.Popen([self.binary, self.config, "nodetach"], stderr=log)
        log.close()
        wait("the daemon is ready", lambda: self.get("/ready") == "ready\n")

    def stop(self):
        self.daemon.terminate()
        assert self.daemon.wait(PATIENCE_S) == 0

    def get(self, path, accepted="*/*"):
        """Returns what the daemon answers, or nothing if it does not."""
        request = urllib.request.Request(f"http://{self.address}{path}", headers={"Accept": accepted})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.read().decode()
        except OSError:
            return None

    def submit(self, mails):
        """Puts mail into the outbox: recipient, number of the relay's address, and age in seconds."""
        port = self.server.server_address[1]
        now = int(time.time())
        connection = sqlite3.connect(self.database, timeout=PATIENCE_S)
        with connection:
            connection.executemany(
                "INSERT INTO outbox (mail_remote, mail_envelopefrom, mail_envelopeto, mail_submission, mail_data)"
                " VALUES (?, 'sender@example.net', ?, ?, ?)",
                [
                    (f"127.0.0.{relay}:{port if relay < 9 else 1}", to, now - age_s, f"Subject: {to}\n\nhello {to}\n")
                    for to, relay, age_s in sorted(mails, key=lambda mail: -mail[2])
                ],
            )
        connection.close()

    def make_busy(self):
        """Submits mail that meets every fate."""
        self.submit([(f"later{number}@example.org", 1, 400000 - 2500 * number) for number in range(150)])
        self.submit([(f"later{number}@example.com", 2, 3600 + 60 * number) for number in range(60)])
        self.submit([(f"a{number}@example.org", 1, 0) for number in range(400)])
        self.submit([(f"nobody{number}@example.net", 3, 30) for number in range(12)])
        self.submit([(f"b{number}@closed.example", 9, 100) for number in range(9)])

    def close(self):
        if self.daemon and self.daemon.poll() is None:
            self.daemon.kill()
            self.daemon.wait()
        self.server.shutdown()
        shutil.rmtree(self.directory)
