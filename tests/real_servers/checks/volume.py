"""(g), (h) Many mails, and a daemon that is killed while it delivers them."""

import random

from .harness import Scene, as_stored, check, copies, equal, mailboxes, message, wait

SERVERS = ("postfix", "exim", "opensmtpd", "sink")


def run() -> None:
    bulk()
    crash()
    two_at_once()


def bulk() -> None:
    """500 mails to 100 domains of four servers."""
    scene = Scene("bulk", {"tls_padding": "3"})
    wanted = [(f"b{n}@d{n % 100}.{SERVERS[n % 4]}.example", n) for n in range(500)]
    mails = scene.fill((to, message(to, b"mail %d\r\n" % n * (1 + n % 50)), "bulk@postfix.example", None) for to, n in wanted)
    done = scene.run_until(scene.drained, 90)
    check("500 mails: the outbox is empty", done, (len(scene.pending()), scene.query("SELECT fail_message FROM faillog LIMIT 3")))
    wait(lambda: all(mailboxes_have(mail.to) for mail in mails), 15)
    found = mailboxes()
    equal("500 mails: one copy each", [(mail.to, len(found[mail.to])) for mail in mails if len(found[mail.to]) != 1][:5], [])
    wrong = [mail.to for mail in mails if any(copy.message != as_stored(mail.data) for copy in found[mail.to])]
    equal("500 mails: each as it was stored", wrong[:5], [])


def mailboxes_have(to: str) -> bool:
    return bool(mailboxes()[to])


def crash() -> None:
    """Killed three times on the way; a second copy only of what was still in the outbox then."""
    scene = Scene("crash", {"concurrency": "20", "destination_concurrency": "4"})
    targets = [f"k{n}@e{n % 20}.{SERVERS[n % 4]}.example" for n in range(400)]
    mails = scene.fill((to, message(to, b"crash %d\r\n" % n), "crash@postfix.example", None) for n, to in enumerate(targets))
    undecided: dict[str, int] = {}
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    for _ in range(3):
        left = len(scene.pending())
        goal = left - chance.randrange(20, 80)
        scene.start()
        wait(lambda: len(scene.pending()) <= goal)
        scene.kill()
        still = scene.pending()
        for mail in mails:
            if mail.id in still:
                undecided[mail.to] = undecided.get(mail.to, 0) + 1
    check("kill -9: it was in the middle of the work", 0 < len(scene.pending()) < 400, (seed, len(scene.pending())))
    done = scene.run_until(scene.drained, 90)
    check("kill -9: the next daemon starts and empties the outbox", done, (seed, len(scene.pending()), scene.query("SELECT * FROM faillog LIMIT 3")))
    wait(lambda: all(mailboxes_have(mail.to) for mail in mails), 15)
    found = mailboxes()
    equal("kill -9: nothing is lost", [mail.to for mail in mails if not found[mail.to]][:5], [])
    excess = {mail.to: len(found[mail.to]) for mail in mails if len(found[mail.to]) > 1 + undecided.get(mail.to, 0)}
    equal("kill -9: second copies only of mail that was still in the outbox", excess, {})
    second = sum(len(found[mail.to]) - 1 for mail in mails if found[mail.to])
    # How many there may be is what tests/kill_soak.py checks, with enough mail for that.
    print(f"       ({second} second copies after three kills, seed {seed})")
    equal("kill -9: no failure is on record", scene.query("SELECT count(*) FROM faillog"), [(0,)])


def two_at_once() -> None:
    """A second daemon names the first and leaves; the first goes on."""
    scene = Scene("two", {"pidfile": "/srv/work/two/pid"})
    pid_file = scene.directory / "pid"
    scene.start()
    first = scene.process
    wait(lambda: pid_file.exists() and bool(pid_file.read_text()))
    equal("the pid file holds the pid", pid_file.read_text(), f"{first.pid}\n" if first else "")
    equal("a second process on the database exits with 1", scene.command("deliver", "exim.example").returncode, 1)
    check("and names the pid of the first", first is not None and str(first.pid) in scene.log.read_text(errors="replace"))
    mail = scene.add("two@exim.example")
    check("the first goes on", wait(scene.drained) and scene.stop() == 0)
    equal("the pid file is gone or empty after it", pid_file.read_text() if pid_file.exists() else "", "")
    equal("it delivered what came meanwhile", len(copies(mail.to)), 1)
    order()


def order() -> None:
    """SIGUSR2 tries at once what waits for its retryinterval."""
    scene = Scene("order", {"resolver": "127.0.0.53"})
    mail = scene.add("hup@grey.postfix.example")
    scene.start()
    wait(lambda: bool(scene.failures(mail)))
    waiting = mail.id in scene.pending()
    scene.try_now()
    check("SIGUSR2 tries again at once", waiting and wait(scene.drained), scene.failures(mail))
    equal("exit status after SIGTERM", scene.stop(), 0)
