"""Waits until every server of the namespace listens."""

import functools
import socket
import ssl

from .harness import wait

LISTENING = [
    *[(f"127.0.0.{n}", 25) for n in (10, 15, 16, 17, 20, 30, 40, 41, 42, 43, 44, 45, 46, 47)],
    *[(f"127.0.0.{n}", 587) for n in (11, 12, 13, 14, 20, 21, 22, 23, 30)],
    *[(f"127.0.0.{n}", 465) for n in (10, 20, 30)],
    *[(f"192.0.2.{n}", port) for n, port in ((10, 465), (10, 587), (11, 587), (12, 25))],
    ("::1", 25),
    ("2001:db8::30", 25),
    ("127.0.0.53", 53),
    ("127.0.0.54", 53),
]


def listens(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0


def missing() -> list[tuple[str, int]]:
    return [place for place in LISTENING if not listens(*place)]


def ready() -> bool:
    return wait(lambda: not missing(), 15)


@functools.cache
def opensmtpd_speaks_tls() -> bool:
    """OpenSMTPD 6.8 of Debian 12 fails every handshake, with any client, since Debian links it to
    OpenSSL 3 (its private key lives in another process, by an interface that OpenSSL 3 dropped).
    So this asks OpenSSL itself, and does not count against the daemon what no client can do."""
    context = ssl.create_default_context(cafile="/srv/tls/ca.pem")
    try:
        with socket.create_connection(("127.0.0.30", 465), 5) as plain:
            with context.wrap_socket(plain, server_hostname="mx.opensmtpd.example"):
                return True
    except OSError:
        print("note: this OpenSMTPD fails TLS handshakes with OpenSSL's client, too: its TLS is not tested", flush=True)
        return False
