"""aiosmtpd from PyPI, with one trait for each address."""

import asyncio
import ssl

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session, SMTP

HOST_NAME = "mx.aiosmtpd.example"


class Handler:
    """Refuses recipients whose names begin with "unknown"."""

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        if address.startswith("unknown"):
            return f"550 5.1.1 <{address}> is not known here"
        envelope.rcpt_tos.append(address)
        return f"250 2.1.5 <{address}> ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        return "250 2.0.0 accepted for delivery"


class Suspicious(Handler):
    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        return "554 5.7.1 this looks like spam"


class Broken(Handler):
    async def handle_MAIL(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        raise RuntimeError("the disk is on fire")


def authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword) -> AuthResult:
    is_alice = (data.login, data.password) == (b"alice", b"wonder land")
    return AuthResult(success=is_alice, handled=False)


def main() -> None:
    asyncio.set_event_loop(asyncio.new_event_loop())
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain("/srv/tls/mail.pem", "/srv/tls/mail.key")
    common = {"server_hostname": HOST_NAME, "ident": "aiosmtpd", "ready_timeout": 20.0}
    auth = {"authenticator": authenticate, "auth_required": True, "auth_require_tls": False}
    controllers = [
        Controller(Handler(), "127.0.0.70", 25, enable_SMTPUTF8=True, **common),
        Controller(Handler(), "127.0.0.71", 465, ssl_context=tls, **common),
        Controller(Handler(), "127.0.0.72", 587, **auth, **common),
        Controller(Handler(), "127.0.0.73", 25, data_size_limit=1000, **common),
        Controller(Suspicious(), "127.0.0.74", 25, enable_SMTPUTF8=False, **common),
        Controller(Broken(), "127.0.0.75", 25, **common),
        Controller(Handler(), "127.0.0.76", 587, tls_context=tls, require_starttls=True, **common),
    ]
    for controller in controllers:
        controller.start()
    asyncio.get_event_loop().run_forever()


main()
