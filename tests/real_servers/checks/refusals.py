"""(d), (e) What servers refuse, and messages of which only some recipients are taken."""

from .harness import SENDER, Scene, check, copies, equal, message, wait


def run() -> None:
    unknown_users()
    greylisting()
    size_limit()
    partial()
    many_recipients()
    session_limit()


def unknown_users() -> None:
    scene = Scene("unknown", {"retries": "9"})
    servers = ("postfix", "exim", "opensmtpd")
    sent = {server: scene.add(f"unknown@{server}.example", sender=f"unknown-{server}@postfix.example") for server in servers}
    # Bounces go back to senders who are unknown, too: these have a null sender and just disappear.
    check("unknown users: outbox empty in the end", scene.run_until(scene.drained), scene.query("SELECT * FROM faillog"))
    log = scene.log.read_text(errors="replace")
    for server, mail in sent.items():
        said = [line for line in log.splitlines() if f"mail {mail.id} to <unknown@{server}.example> failed permanently: 550" in line]
        check(f"{server} refuses an unknown user with 550, once and for all", len(said) == 1, said)
        check(f"{server}: a bounce that fails itself disappears", not copies(f"unknown-{server}@postfix.example", 1, 0))


def greylisting() -> None:
    scene = Scene("greylist", {"retryinterval": "2"})
    mail = scene.add("grey@grey.postfix.example")
    scene.start()
    first = wait(lambda: bool(scene.failures(mail)) or mail.id not in scene.pending())
    rows = scene.failures(mail)
    text = rows[0][0] if rows else ""
    wanted = ("450 4.2.0", "Greylisted", "grey.example", "127.0.0.16", "25", "RCPT")
    check("greylisting: one temporary failure with the server's own words, host, address, port, command", first and all(part in text for part in wanted) and not rows[0][1], rows)
    gone = wait(scene.drained)
    status = scene.stop()
    check("greylisting: delivered at a later attempt", gone and status == 0 and len(copies(mail.to)) == 1, scene.failures(mail))


def size_limit() -> None:
    scene = Scene("size")
    small = scene.add("small@size.postfix.example", message("small@size.postfix.example", b"x\r\n" * 100))
    large = scene.add("large@size.postfix.example", message("large@size.postfix.example", b"0123456789\r\n" * 4000), sender="size-limit@postfix.example")
    check("size limit: settled", scene.run_until(scene.drained), scene.query("SELECT * FROM faillog"))
    equal("size limit: what fits is delivered", len(copies(small.to)), 1)
    bounce = copies("size-limit@postfix.example")
    check("size limit: what does not fit bounces as 5.3.4", len(bounce) == 1 and b"5.3.4" in bounce[0].message and not copies(large.to, 1, 0), bounce)


def partial() -> None:
    for server in ("postfix", "exim", "opensmtpd"):
        scene = Scene(f"partial-{server}", {"destination_concurrency": "1"})
        sender, data = f"partial-{server}@postfix.example", message(f"list@{server}.example", b"to several\r\n")
        names = [f"p1@{server}.example", f"unknown-p2@{server}.example", f"p3@{server}.example", f"missing-p4@{server}.example"]
        scene.fill((name, data, sender, None) for name in names)
        check(f"{server}, partial failure: settled", scene.run_until(scene.drained), scene.query("SELECT * FROM faillog"))
        arrived = [len(copies(name, 1, 8 if name.startswith("p") else 0)) for name in names]
        equal(f"{server}, partial failure: who is known gets it once, who is not does not", arrived, [1, 0, 1, 0])
        bounces = copies(sender)
        both = len(bounces) == 1 and all(name.encode() in bounces[0].message for name in (names[1], names[3]))
        check(f"{server}, partial failure: one bounce names both refused, and not the others as failed", both and b"Final-Recipient: rfc822;p1@" not in bounces[0].message.replace(b"; ", b";"), len(bounces))


def many_recipients() -> None:
    scene = Scene("recipients")
    data = message("everybody@exim.example", b"to many\r\n")
    mails = scene.fill((f"many{n}@exim.example", data, SENDER, None) for n in range(230))
    check("230 recipients: outbox empty", scene.run_until(scene.drained), scene.query("SELECT * FROM faillog LIMIT 3"))
    equal("230 recipients: one copy each", [mail.to for mail in mails if len(copies(mail.to)) != 1], [])
    transactions = {copy.trace.partition(b" id ")[2].split()[0] for mail in mails for copy in copies(mail.to)}
    check("230 recipients: a few transactions of at most 100", 3 <= len(transactions) <= 12, len(transactions))


def session_limit() -> None:
    # OpenSMTPD takes 100 messages in a session, and then says 452 to each MAIL.
    scene = Scene("session", {"destination_concurrency": "1", "portprio": "25"})
    names = [f"session{n}@opensmtpd.example" for n in range(250)]
    mails = scene.fill((name, message(name, b"one of many\r\n"), SENDER, None) for name in names)
    check("a limit of messages in a session: outbox empty", scene.run_until(scene.drained), scene.query("SELECT * FROM faillog LIMIT 3"))
    log = scene.log.read_text(errors="replace").splitlines()
    equal("a limit of messages in a session: no mail has failed", [line for line in log if " failed " in line], [])
    equal("a limit of messages in a session: as many connections as it takes", sum("connecting to mx.opensmtpd.example" in line for line in log), 3)
    equal("a limit of messages in a session: one copy each", [mail.to for mail in mails if len(copies(mail.to)) != 1], [])
