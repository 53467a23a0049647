"""(f) Bounces, as the sender's mailbox has them."""

import email
import email.message
import email.policy

from .harness import Scene, check, copies, equal, message

WHO = "bounced@postfix.example"


def run() -> None:
    scene = Scene("bounces", {"bounce_copy": "copy@exim.example", "bounce_from": "daemon@dispatch.example"})
    secret = scene.add("other@exim.example", message("other@exim.example", b"not for other eyes\r\n"))
    mail = scene.add("unknown-b@exim.example", message("unknown-b@exim.example", b"the original body\r\n.\r\n"), sender=WHO)
    done = scene.run_until(scene.drained)
    check("a bounce is made and delivered", done, scene.query("SELECT mail_id, mail_envelopeto, fail_message FROM outbox LEFT JOIN faillog ON fail_mail = mail_id"))
    equal("mail of somebody else is delivered meanwhile", len(copies(secret.to)), 1)
    arrived, copied = copies(WHO), copies("copy@exim.example")
    if not check("it is once in the sender's mailbox and once in that of bounce_copy", (len(arrived), len(copied)) == (1, 1), (len(arrived), len(copied))):
        return
    check("its reverse-path is null", b"Return-Path: <>" in arrived[0].trace, arrived[0].trace)
    report(email.message_from_bytes(arrived[0].message, policy=email.policy.default), mail.data)
    check("nothing of another message is in it", b"not for other eyes" not in arrived[0].message)
    headers_only()
    generate_only()


def report(bounce: email.message.Message, original: bytes) -> None:
    """RFC 3464, RFC 6522, RFC 3834."""
    equal("bounce: multipart/report; report-type=delivery-status", (bounce.get_content_type(), bounce.get_param("report-type")), ("multipart/report", "delivery-status"))
    missing = [name for name in ("From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "In-Reply-To", "References") if not bounce[name]]
    equal("bounce: no header field is missing", missing, [])
    equal("bounce: From is bounce_from, Auto-Submitted", ("daemon@dispatch.example" in str(bounce["From"]), str(bounce["Auto-Submitted"])), (True, "auto-replied"))
    ident = email.message_from_bytes(original)["Message-ID"]
    equal("bounce: In-Reply-To and References name the original", (str(bounce["In-Reply-To"]), str(bounce["References"])), (ident, ident))
    defects = [(part.get_content_type(), part.defects) for part in bounce.walk() if part.defects]
    equal("bounce: no MIME defects", defects, [])
    parts = list(bounce.iter_parts()) if isinstance(bounce, email.message.EmailMessage) else []
    kinds = [part.get_content_type() for part in parts]
    if not check("bounce: text, delivery-status, the whole original", kinds == ["text/plain", "message/delivery-status", "message/rfc822"], kinds):
        return
    groups = parts[1].get_payload()
    per_message, per_recipient = groups[0], groups[1]
    check("bounce: Reporting-MTA and Arrival-Date", per_message["Reporting-MTA"] == "dns; mail.dispatch.example" and bool(per_message["Arrival-Date"]), per_message.items())
    wanted = {"Final-Recipient": "unknown-b@exim.example", "Action": "failed", "Status": "5.", "Remote-MTA": "mx.exim.example", "Diagnostic-Code": "smtp; 550", "Last-Attempt-Date": "20"}
    wrong = {name: per_recipient[name] for name, part in wanted.items() if part not in str(per_recipient[name])}
    equal("bounce: all fields of the recipient", wrong, {})
    returned = parts[2].get_payload()[0]
    equal("bounce: the original is whole", (str(returned["To"]).strip("<>"), returned.get_payload().splitlines()), ("unknown-b@exim.example", ["the original body", "."]))


def headers_only() -> None:
    scene = Scene("bounce-headers", {"bounce_return_limit": "1000"})
    scene.add("unknown-l@exim.example", message("unknown-l@exim.example", b"body line\r\n" * 500), sender="headers@postfix.example")
    scene.add("", message("nobody", b"x"), sender="empty-recipient@postfix.example")
    check("large original: settled", scene.run_until(scene.drained), scene.query("SELECT * FROM faillog"))
    arrived = copies("headers@postfix.example")
    kinds = [part.get_content_type() for part in email.message_from_bytes(arrived[0].message).get_payload()] if arrived else []
    equal("bounce of a large original: headers only", kinds[-1:], ["text/rfc822-headers"])
    check("bounce of a large original: no body", bool(arrived) and b"body line" not in arrived[0].message)
    equal("an empty recipient address bounces", len(copies("empty-recipient@postfix.example")), 1)


def generate_only() -> None:
    scene = Scene("genbounces", {"retries": "1"})
    mail = scene.add("x@busy.both.example", sender="threshold@postfix.example")
    null = scene.add("x@null.example", sender=None)
    scene.command("deliver", "busy.both.example")
    scene.command("deliver", "null.example")
    equal("one-shot deliver makes no bounces", scene.pending() >= {mail.id}, True)
    status = scene.command("genbounces").returncode
    rows = scene.query("SELECT mail_envelopefrom, mail_envelopeto, mail_remote FROM outbox")
    equal("genbounces: the mail is replaced by its bounce, that of a null sender deleted", (status, rows), (0, [(None, "threshold@postfix.example", None)]))
    check("genbounces: nothing is sent", not copies("threshold@postfix.example", 1, 0) and null.id not in scene.pending())
