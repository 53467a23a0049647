"""(g) What senders want to be told (RFC 3461): Postfix and Exim get it, and send the reports."""

import re

from .harness import Scene, check, copies, equal, message

SERVERS = ("postfix", "exim")
TABLE = "SELECT 1 FROM sqlite_schema WHERE name = 'dispatch_envelope'"


def add(scene: Scene, to: str, sender: str, *wishes: str | None) -> int:
    """Inserts a mail and what its sender wants: notify, orcpt, ret, envid."""
    connection = scene.connection()
    with connection:
        cursor = connection.execute(
            "INSERT INTO outbox (mail_envelopefrom, mail_envelopeto, mail_data) VALUES (?, ?, CAST(? AS TEXT))",
            (sender, to, message(to)),
        )
        connection.execute("INSERT INTO dispatch_envelope (mail_id, notify, orcpt, ret, envid) VALUES (?, ?, ?, ?, ?)", (cursor.lastrowid, *wishes))
    connection.close()
    return cursor.lastrowid or 0


def run() -> None:
    scene = Scene("reports")
    check("the daemon makes the table", scene.run_until(lambda: bool(scene.query(TABLE))))
    for server in SERVERS:
        sender = f"wishing@{server}.example"
        original = f"rfc822;was+told@{server}.example"
        add(scene, f"told@{server}.example", sender, "success,failure", original, "hdrs", "order 17")
        add(scene, f"untold@{server}.example", f"quiet@{server}.example", "never", None, None, None)
    check("all of it is delivered", scene.run_until(scene.drained))
    for server in SERVERS:
        equal(f"{server}: the mails have arrived", [len(copies(f"{name}@{server}.example")) for name in ("told", "untold")], [1, 1])
        reports = [copy.message for copy in copies(f"wishing@{server}.example")]
        check(f"{server} reports the delivery, once", len(reports) == 1 and b"Action: delivered" in reports[0], reports)
        report = b"".join(reports)
        # Exim 4.96 gives values back as it has got them, in xtext.
        space, plus = (rb"\+20", rb"\+2B") if server == "exim" else (rb" ", rb"\+")
        envelope_id = rb"^Original-Envelope-Id: *order" + space + rb"17$"
        check(f"{server} has the id of the sender", bool(re.search(envelope_id, report, re.I | re.M)), report)
        recipient = rb"^Original-Recipient: *rfc822; *was" + plus + rb"told@" + server.encode() + rb"\.example$"
        check(f"{server} has the recipient of the sender", bool(re.search(recipient, report, re.I | re.M)), report)
        equal(f"{server} tells nobody who wants to know nothing", copies(f"quiet@{server}.example", 0), [])
    equal("the daemon has made no report of its own", scene.query("SELECT count(*) FROM dispatch_attempts WHERE result = 'relayed'"), [(0,)])
