"""What is recorded: with which server, and what is to be seen."""

from __future__ import annotations

from dataclasses import dataclass, field

SENDER = "sender@dispatch.example"
LATIN_1 = b"Subject: hello\r\n\r\nGr\xfc\xdfe\r\n"
PLAIN = b"Subject: hello\r\n\r\nA line.\r\n.and one with a dot\r\n"


@dataclass
class Scene:
    """One pass over some mail, whose record becomes the transcript of this name."""

    name: str
    # Why it is there, with the section of the RFC.
    why: str
    # Address, port and mode, perhaps with credentials; empty for a delivery by MX.
    remote: str
    # A line that shows that the record is what it is meant to be.
    shows: str
    recipients: list[str]
    data: list[bytes] = field(default_factory=lambda: [PLAIN])
    sender: str | None = SENDER
    directives: dict[str, str] = field(default_factory=dict)
    # Whether the pass is to be made twice, and the second one recorded.
    is_second: bool = False


ALICE = "alice:wonder land@"
LARGE = b"Subject: large\r\n\r\n" + b"0123456789012345678901234567890123456789012345678901234567\r\n" * 2000
DELIVERED = "= 1 deleted"


def to(domain: str, *names: str) -> list[str]:
    return [f"{name}@{domain}" for name in names or ("ottilie",)]


def postfix() -> list[Scene]:
    domain = "postfix.example"
    scenes = [
        Scene("postfix-plain-delivery", "RFC 5321: a delivery without TLS.", "127.0.0.17:25", DELIVERED, to(domain)),
        Scene("postfix-null-sender", "RFC 5321 section 4.5.5: a message with a null reverse-path.", "127.0.0.17:25", "C: MAIL FROM:<>", to(domain), sender=None),
        Scene("postfix-no-pipelining", "RFC 5321: a server that offers little.", "127.0.0.111:25", DELIVERED, to(domain)),
        Scene("postfix-starttls-delivery", "RFC 3207: a delivery after STARTTLS.", "127.0.0.10:25/starttls", DELIVERED, to(domain)),
        Scene("postfix-implicit-tls", "RFC 8314 section 3.3: TLS from the first octet on, with padding.", "127.0.0.10:465/tls", DELIVERED, to(domain), directives={"tls_padding": "6"}),
        Scene("postfix-8bit", "RFC 6152: 8-bit text.", "127.0.0.17:25", "BODY=8BITMIME", to(domain), [LATIN_1]),
        Scene("postfix-smtputf8", "RFC 6531: a recipient that is not ASCII.", "127.0.0.17:25", "SMTPUTF8", to(domain, "jörg")),
        Scene("postfix-large-message", "RFC 5321: a message that is streamed.", "127.0.0.17:25", DELIVERED, to(domain), [LARGE]),
        Scene("postfix-several-messages", "RFC 5321: several messages on one connection.", "127.0.0.112:25", "= 3 deleted", to(domain, "ottilie", "quentin", "leopold"), [PLAIN, LATIN_1, b"third\r\n"]),
        Scene("postfix-partial-failure", "RFC 5321 section 3.3: one of three recipients is unknown.", "127.0.0.17:25", "= 2 failed", to(domain, "ottilie", "unknown-quentin", "leopold")),
        Scene("postfix-all-unknown", "RFC 5321 section 3.3: no recipient is left.", "127.0.0.17:25", "= 2 failed", to(domain, "unknown-ottilie", "unknown-quentin")),
        Scene("postfix-relay-denied", "RFC 5321 section 7.7: not a relay.", "127.0.0.17:25", "= 1 failed", to("elsewhere.example")),
        Scene("postfix-too-many-recipients", "RFC 5321 section 4.5.3.1.10: 452 to the third recipient.", "127.0.0.108:25", "S: 452", to(domain, "ottilie", "quentin", "leopold", "wilhelmina", "ludowika")),
        Scene("postfix-too-many-errors", "RFC 5321 section 3.8: 421 in the middle of a transaction.", "127.0.0.110:25", "421 4.7.0", to(domain, "unknown-ottilie", "unknown-quentin", "unknown-leopold", "wilhelmina")),
        Scene("postfix-greylisted", "RFC 6647: the first attempt.", "127.0.0.16:25", "= 1 deferred", to(domain, "grey")),
        Scene("postfix-greylisted-no-more", "RFC 6647: the second attempt.", "127.0.0.16:25", DELIVERED, to(domain, "greyer"), directives={"retryinterval": "0"}, is_second=True),
        Scene("postfix-size-limit", "RFC 1870 section 6.1: the limit is known before anything is sent.", "127.0.0.15:25", "= 1 failed", to(domain), [LARGE]),
        Scene("postfix-too-large", "RFC 5321 section 4.5.3.1.9: the limit is not told before.", "127.0.0.109:25", "= 1 ", to(domain), [LARGE]),
        Scene("postfix-refused-greeting", "RFC 5321 section 3.1: 5yz at the greeting.", "127.0.0.101:25", "= 1 failed", to(domain)),
        Scene("postfix-busy-greeting", "RFC 5321 section 3.8: 4yz at the greeting.", "127.0.0.102:25", "= 1 deferred", to(domain)),
        Scene("postfix-refused-ehlo", "RFC 5321 section 4.1.4: EHLO and HELO are refused.", "127.0.0.103:25", "C: HELO", to(domain)),
        Scene("postfix-refused-mail", "RFC 5321 section 3.3: 5yz to MAIL.", "127.0.0.104:25", "in reply to MAIL FROM", to(domain, "ottilie", "quentin")),
        Scene("postfix-refused-data", "RFC 5321 section 3.3: 5yz to DATA.", "127.0.0.105:25", "= 2 failed", to(domain, "ottilie", "quentin")),
        Scene("postfix-refused-message", "RFC 5321 section 4.2.5: 5yz to the end of the data.", "127.0.0.106:25", "= 1 failed", to(domain)),
        Scene("postfix-deferred-message", "RFC 5321 section 4.2.5: 4yz to the end of the data.", "127.0.0.107:25", "= 1 deferred", to(domain)),
        Scene("postfix-starttls-missing", "RFC 3207: the remote asks for TLS that is not offered.", "127.0.0.17:25/starttls", "= 1 deferred", to(domain)),
        Scene("postfix-auth-refused", "RFC 4954 section 6: a wrong password is never fatal for the mail.", f"alice:wrong one@127.0.0.13:587/starttls", "S: 535", to("elsewhere.example")),
        Scene("postfix-auth-certificate", "No credentials without a valid certificate.", f"{ALICE}192.0.2.11:587/starttls", "certificate of the server is not valid", to("elsewhere.example")),
    ]
    scenes.append(Scene("postfix-auth-verified", "RFC 4954: AUTH with a host by name, whose certificate is in order.", f"{ALICE}far.postfix.example:587/starttls", "! tls\n", to(domain), directives={"tls_padding": "6"}))
    mechanisms = [("scram", "SCRAM-SHA-256", 11), ("cram-md5", "CRAM-MD5", 12), ("plain", "PLAIN", 13), ("login", "LOGIN", 14)]
    for name, mechanism, octet in mechanisms:
        scenes.append(Scene(f"postfix-auth-{name}", f"RFC 4954: {mechanism} inside TLS.", f"{ALICE}127.0.0.{octet}:587/starttls", f"C: AUTH {mechanism}", to(domain)))
    return scenes


def exim() -> list[Scene]:
    domain = "exim.example"
    scenes = [
        Scene("exim-plain-delivery", "RFC 5321: a delivery without TLS.", "127.0.0.20:25", DELIVERED, to(domain)),
        Scene("exim-starttls-delivery", "RFC 3207: a delivery after STARTTLS, with padding.", "127.0.0.20:25/starttls", DELIVERED, to(domain), directives={"tls_padding": "6"}),
        Scene("exim-implicit-tls", "RFC 8314 section 3.3: TLS from the first octet on.", "127.0.0.20:465/tls", DELIVERED, to(domain)),
        Scene("exim-partial-failure", "RFC 5321 section 3.3: one of three recipients is unknown.", "127.0.0.20:25", "= 2 failed", to(domain, "ottilie", "unknown-quentin", "leopold")),
        Scene("exim-relay-denied", "RFC 5321 section 7.7: not a relay.", "127.0.0.20:25", "= 1 failed", to("elsewhere.example")),
        Scene("exim-several-messages", "RFC 5321: several messages on one connection.", "127.0.0.20:25", "= 2 deleted", to(domain, "ottilie", "quentin"), [PLAIN, LATIN_1]),
        Scene("exim-refused-greeting", "RFC 5321 section 3.1: 5yz at the greeting.", "127.0.0.24:25", "= 1 failed", to(domain)),
        Scene("exim-deferred-ehlo", "RFC 5321 section 3.2: 4yz to EHLO.", "127.0.0.25:25", "= 1 deferred", to(domain)),
        Scene("exim-refused-mail", "RFC 5321 section 3.3: 5yz to MAIL.", "127.0.0.26:25", "= 1 failed", to(domain)),
        Scene("exim-refused-data", "RFC 5321 section 3.3: 5yz to DATA.", "127.0.0.27:25", "= 1 failed", to(domain)),
        Scene("exim-deferred-message", "RFC 5321 section 4.2.5: 4yz to the end of the data.", "127.0.0.28:25", "= 1 deferred", to(domain)),
        Scene("exim-auth-refused", "RFC 4954 section 6: a wrong password is never fatal for the mail.", "alice:wrong one@127.0.0.21:587", "S: 535", to(domain)),
    ]
    scenes.append(Scene("exim-third-exchange", "RFC 5321 section 5.1: hosts in the order of their preferences, the first of which do not answer.", "", DELIVERED, to("fallback.both.example"), directives={"portprio": "25@starttls 25"}))
    for name, mechanism, octet in [("cram-md5", "CRAM-MD5", 21), ("plain", "PLAIN", 22), ("login", "LOGIN", 23)]:
        scenes.append(Scene(f"exim-auth-{name}", f"RFC 4954: {mechanism}.", f"{ALICE}127.0.0.{octet}:587", f"C: AUTH {mechanism}", to(domain)))
    return scenes


def opensmtpd() -> list[Scene]:
    domain = "opensmtpd.example"
    return [
        Scene("opensmtpd-plain-delivery", "RFC 5321: a delivery without TLS.", "127.0.0.30:25", DELIVERED, to(domain)),
        Scene("opensmtpd-partial-failure", "RFC 5321 section 3.3: one of three recipients is unknown.", "127.0.0.30:25", "= 2 failed", to(domain, "ottilie", "unknown-quentin", "leopold")),
        Scene("opensmtpd-relay-denied", "RFC 5321 section 7.7: not a relay.", "127.0.0.30:25", "= 1 failed", to("elsewhere.example")),
        Scene("opensmtpd-starttls", "RFC 3207: this server fails every handshake where it is linked to OpenSSL 3.", "127.0.0.30:25/starttls", "! tls", to(domain)),
        Scene("opensmtpd-8bit", "RFC 6152: 8-bit text.", "127.0.0.30:25", "BODY=8BITMIME", to(domain), [LATIN_1]),
    ]


def dovecot() -> list[Scene]:
    domain = "postfix.example"
    return [
        Scene("dovecot-auth-scram", "RFC 7677: SCRAM-SHA-256 with a submission service.", f"{ALICE}127.0.0.50:587", "C: AUTH SCRAM-SHA-256", to(domain)),
        Scene("dovecot-starttls-auth", "RFC 6409: submission after STARTTLS.", f"{ALICE}127.0.0.50:587/starttls", "! tls", to(domain)),
        Scene("dovecot-auth-required", "RFC 6409 section 4.3: a submission service takes no mail without AUTH.", "127.0.0.50:587", "in reply to MAIL FROM", to(domain)),
        Scene("dovecot-auth-refused", "RFC 4954 section 6: a wrong password is never fatal for the mail.", "alice:wrong one@127.0.0.50:587", "= 1 deferred", to(domain)),
        Scene("dovecot-partial-failure", "RFC 5321 section 3.3: a recipient that the server behind does not know.", f"{ALICE}127.0.0.50:587", "= 2 failed", to(domain, "ottilie", "unknown-quentin")),
        Scene("dovecot-size-limit", "RFC 1870 section 6.1: the limit is known before anything is sent.", f"{ALICE}127.0.0.50:587", "= 1 failed", to(domain), [LARGE]),
    ]


def chasquid() -> list[Scene]:
    domain = "chasquid.example"
    return [
        Scene("chasquid-plain-delivery", "RFC 5321: a delivery without TLS.", "127.0.0.60:25", DELIVERED, to(domain, "alice")),
        Scene("chasquid-starttls-delivery", "RFC 3207: a delivery after STARTTLS.", "127.0.0.60:25/starttls", DELIVERED, to(domain, "alice")),
        Scene("chasquid-unknown-recipient", "RFC 5321 section 3.3: a recipient is unknown.", "127.0.0.60:25", "= 2 failed", to(domain, "alice", "unknown-quentin")),
        Scene("chasquid-relay-denied", "RFC 5321 section 7.7: not a relay.", "127.0.0.60:25", "503 5.7.1", to("elsewhere.example")),
        Scene("chasquid-implicit-tls-auth", "RFC 8314 section 3.3: submission over TLS.", "alice@chasquid.example:wonder land@127.0.0.60:465/tls", DELIVERED, to(domain, "alice"), sender="alice@chasquid.example"),
    ]


def aiosmtpd() -> list[Scene]:
    domain = "aiosmtpd.example"
    return [
        Scene("aiosmtpd-plain-delivery", "RFC 5321: a delivery without TLS.", "127.0.0.70:25", DELIVERED, to(domain)),
        Scene("aiosmtpd-smtputf8", "RFC 6531: a recipient that is not ASCII.", "127.0.0.70:25", "SMTPUTF8", to(domain, "jörg")),
        Scene("aiosmtpd-implicit-tls", "RFC 8314 section 3.3: TLS from the first octet on.", "127.0.0.71:465/tls", DELIVERED, to(domain)),
        Scene("aiosmtpd-starttls-delivery", "RFC 3207: a delivery after STARTTLS.", "127.0.0.76:587/starttls", DELIVERED, to(domain)),
        Scene("aiosmtpd-starttls-required", "RFC 3207 section 4: 530 where the client does not begin TLS.", "127.0.0.76:587", "S: 530", to(domain)),
        Scene("aiosmtpd-auth", "RFC 4954: AUTH with a server of few lines.", f"{ALICE}127.0.0.72:587", "S: 235", to(domain)),
        Scene("aiosmtpd-auth-required", "RFC 4954 section 6: 530 to MAIL.", "127.0.0.72:587", "S: 530", to(domain)),
        Scene("aiosmtpd-size-limit", "RFC 1870 section 6.1: the limit is known before anything is sent.", "127.0.0.73:25", "= 1 failed", to(domain), [LARGE]),
        Scene("aiosmtpd-refused-message", "RFC 5321 section 4.2.5: 5yz to the end of the data.", "127.0.0.74:25", "= 1 failed", to(domain)),
        Scene("aiosmtpd-utf8-not-offered", "RFC 6531 section 3.4: a recipient that the server cannot have.", "127.0.0.74:25", "= 1 failed", to(domain, "jörg")),
        Scene("aiosmtpd-broken", "RFC 5321 section 4.2: a server in trouble of its own.", "127.0.0.75:25", "= 1 ", to(domain)),
        Scene("aiosmtpd-partial-failure", "RFC 5321 section 3.3: one of three recipients is unknown.", "127.0.0.70:25", "= 2 failed", to(domain, "ottilie", "unknown-quentin", "leopold")),
    ]


def smtp_server() -> list[Scene]:
    domain = "smtp-server.example"
    return [
        Scene("smtp-server-plain-delivery", "RFC 5321: a delivery without TLS.", "127.0.0.80:25", DELIVERED, to(domain)),
        Scene("smtp-server-implicit-tls", "RFC 8314 section 3.3: TLS from the first octet on, with padding.", "127.0.0.80:465/tls", DELIVERED, to(domain), directives={"tls_padding": "6"}),
        Scene("smtp-server-auth-cram-md5", "RFC 2195: CRAM-MD5.", f"{ALICE}127.0.0.80:587", "C: AUTH CRAM-MD5", to(domain)),
        Scene("smtp-server-auth-login", "LOGIN with a server that asks in its own words.", f"{ALICE}127.0.0.81:587/starttls", "C: AUTH LOGIN", to(domain)),
        Scene("smtp-server-busy", "RFC 5321 section 3.8: 421 at the greeting.", "127.0.0.82:25", "S: 421", to(domain)),
        Scene("smtp-server-deferred-mail", "RFC 5321 section 3.3: 4yz to MAIL.", "127.0.0.83:25", "= 1 deferred", to(domain)),
        Scene("smtp-server-too-large", "RFC 5321 section 4.5.3.1.9: the limit is not told before.", "127.0.0.84:25", "S: 552", to(domain), [LARGE]),
        Scene("smtp-server-partial-failure", "RFC 5321 section 3.3: one of two recipients is unknown.", "127.0.0.80:25", "= 2 failed", to(domain, "ottilie", "unknown-quentin")),
    ]


SCENES = [*postfix(), *exim(), *opensmtpd(), *dovecot(), *chasquid(), *aiosmtpd(), *smtp_server()]
