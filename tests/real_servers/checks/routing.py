"""(b) DNS: preference, fallback, null MX, CNAME, addresses without MX, IPv6."""

from .harness import Scene, check, copies, equal, received_by

# Recipient: the server that has to have it.
DELIVERED = {
    "prefer@prefer.both.example": "postfix",
    "case@PREFER.Both.EXAMPLE": "postfix",
    "fallback@fallback.both.example": "exim",
    "cname@cname.both.example": "postfix",
    "mxcname@mxcname.both.example": "exim",
    "aonly@aonly.postfix.example": "postfix",
    "aaaa@aaaa.postfix.example": "postfix",
    "v6@v6.opensmtpd.example": "opensmtpd",
    "dual@dual.opensmtpd.example": "opensmtpd",
    "big@big.both.example": "exim",
    "local@local.both.example": "postfix",
    "literal@[127.0.0.20]": "exim",
    "dies@dies.both.example": "exim",
    "closing@closing.both.example": "exim",
}
# Recipient: what the failure says, and whether it is fatal.
FAILED = {
    "x@null.example": ("", True),
    "x@no.such.domain.example": ("Failed to resolve recipient domain", True),
    "x@neither.example": ("", True),
    "x@nohost.example": ("Failed to reach any MX", False),
    "x@silent.example": ("Failed to resolve recipient domain", False),
    "x@gone.both.example": ("Failed to reach any MX", False),
    "x@backup.both.example": ("Failed to reach any MX", False),
    "x@busy.both.example": ("450", False),
    "x@refuses.both.example": ("500", True),
    "x@uncertain.both.example": ("delivery uncertain", False),
    "bad address@postfix.example": ("", True),
}


def run() -> None:
    scene = Scene("routing", {"portprio": "25"})
    sent = [scene.add(to) for to in DELIVERED]
    idn = scene.add("idn@bücher.both.example")
    # With a null sender nothing bounces, so the row of a fatal failure disappears: a log is what is left.
    failing = {to: scene.add(to) for to in FAILED}
    everything = [*sent, idn, *failing.values()]
    check("everything is settled and the exit status is 0", scene.run_until(lambda: all_settled(scene, everything)))
    for to, server in DELIVERED.items():
        equal(f"{to} goes to {server}", received_by(to), [server])
    equal("an internationalised domain is looked up as A-label", received_by("idn@xn--bcher-kva.both.example"), ["exim"])
    bounces = "\n".join(row[0] for row in scene.query("SELECT mail_data FROM outbox WHERE mail_envelopefrom IS NULL"))
    bounces += "\n".join(copy.message.decode("utf-8", "replace") for copy in copies("sender@postfix.example"))
    for to, (text, fatal) in FAILED.items():
        rows = scene.failures(failing[to])
        if fatal:
            gone = failing[to].id not in scene.pending()
            check(f"{to} fails for good and bounces", gone and to.split("@")[1] in bounces and text in bounces, rows)
        else:
            ok = len(rows) == 1 and text in rows[0][0] and not rows[0][1]
            check(f"{to} fails for the time being: {text}", ok, rows)
    equal("delivery uncertain: not sent elsewhere in the same pass", copies("x@uncertain.both.example", 1, 0.2), [])
    equal("a backup MX does not send to hosts behind itself", copies("x@backup.both.example", 1, 0.2), [])


def all_settled(scene: Scene, mails: list) -> bool:
    """Fatal ones are gone once they are bounced; the others have a row."""
    fatal = {row[0] for row in scene.query("SELECT fail_mail FROM faillog WHERE fail_fatal")}
    return scene.settled(mails) and not fatal
