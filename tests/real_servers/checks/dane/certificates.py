"""The certificates that the receivers show, and the TLSA records that are about them."""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
import subprocess

DIRECTORY = pathlib.Path("/srv/tls/dane")
# The certificate that each receiver's address shows: those of Postfix by its master.cf, those of Exim by its name here.
EXIM = {f"127.0.0.{80 + n}": name for n, name in enumerate(["ee", "ta", "v1", "ee", "stranger", "p521", "domain"])}
LEAF = "basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n"
P256 = ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
P521 = ["EC", "-pkeyopt", "ec_paramgen_curve:P-521"]


def openssl(*words: str, stdin: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *words], cwd=DIRECTORY, input=stdin, capture_output=True, check=True).stdout


def make(hosts: list[str], domains: list[str]) -> None:
    """Makes all of them. An authority vouches for these names of hosts, and for these of domains."""
    DIRECTORY.mkdir()
    authority("ca")
    authority("other-ca")
    # What nobody but a TLSA record vouches for, for the name of no host.
    for name, kind in (("ee", P256), ("ed25519", ["ED25519"]), ("p521", P521)):
        self_signed(name, kind, "-addext", "subjectAltName=DNS:nobody.example")
    leaf("ta", "ca", hosts)
    leaf("expired", "ca", hosts, days=-1)
    leaf("stranger", "other-ca", hosts)
    leaf("domain", "ca", domains)
    leaf("common", "ca", [], common_name="mx.common-name.both.example")
    # The same as `ta`, but without the certificate of its authority.
    (DIRECTORY / "alone.pem").write_bytes(openssl("x509", "-in", "ta.pem"))
    os.link(DIRECTORY / "ta.key", DIRECTORY / "alone.key")
    # Without extensions it is one of version 1.
    key("v1", P256)
    request = openssl("req", "-new", "-key", "v1.key", "-subj", "/CN=Version 1")
    (DIRECTORY / "v1.pem").write_bytes(openssl("x509", "-req", "-signkey", "v1.key", "-days", "2", stdin=request))
    assert b"Version: 1 " in openssl("x509", "-in", "v1.pem", "-noout", "-text")
    for address, name in EXIM.items():
        for suffix in ("pem", "key"):
            os.link(DIRECTORY / f"{name}.{suffix}", DIRECTORY / f"{address}.{suffix}")
    for path in DIRECTORY.iterdir():
        path.chmod(0o644)


def key(name: str, kind: list[str]) -> None:
    openssl("genpkey", "-algorithm", *kind, "-out", f"{name}.key")


def self_signed(name: str, kind: list[str], *words: str) -> None:
    key(name, kind)
    openssl("req", "-x509", "-key", f"{name}.key", "-days", "2", "-subj", f"/CN={name}", "-out", f"{name}.pem", *words)


def authority(name: str) -> None:
    self_signed(name, P256, "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")


def leaf(name: str, issuer: str, names: list[str], days: int = 2, common_name: str = "") -> None:
    """A certificate from an authority, with that of the authority behind it, as DANE-TA wants it."""
    key(name, P256)
    alternatives = "subjectAltName=" + ",".join(f"DNS:{name}" for name in names) if names else ""
    (DIRECTORY / "extensions").write_text(LEAF + alternatives)
    request = openssl("req", "-new", "-key", f"{name}.key", "-subj", f"/CN={common_name or name}")
    own = openssl(
        *("x509", "-req", "-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key", "-CAcreateserial"),
        *("-days", str(days), "-extfile", "extensions"),
        stdin=request,
    )
    (DIRECTORY / f"{name}.pem").write_bytes(own + (DIRECTORY / f"{issuer}.pem").read_bytes())


def fill_in(records: str) -> str:
    """Replaces <NAME> in TLSA records by what their three numbers say of that certificate."""
    return re.sub(r"TLSA (\d) (\d) (\d) <(\S+)>", lambda match: f"TLSA {match[1]} {match[2]} {match[3]} {association(*match.groups())}", records)


def association(_usage: str, selector: str, matching: str, name: str) -> str:
    path = f"{name}.pem" if name != "mail" else "../mail.pem"
    if name == "short":
        return "00" * 16
    if name.startswith("wrong"):
        # No key of anybody.
        octets = name.encode() * 10
    elif selector == "0":
        octets = openssl("x509", "-in", path, "-outform", "DER")
    else:
        octets = openssl("pkey", "-pubin", "-outform", "DER", stdin=openssl("x509", "-in", path, "-noout", "-pubkey"))
    match matching:
        case "1":
            octets = hashlib.sha256(octets).digest()
        case "2":
            octets = hashlib.sha512(octets).digest()
    return octets.hex()
