"""A signed name space of its own, and the resolvers that validate it, or do not."""

from __future__ import annotations

import pathlib
import re
import signal
import subprocess
from dataclasses import dataclass, field

from ..harness import LOGS, wait
from ..servers import listens
from . import certificates

DIRECTORY = pathlib.Path("/srv/dane")
AUTHORITATIVE = "127.0.0.56"
# What the resolvers are asked at.
UNBOUND = "127.0.0.55"
NAMED = "127.0.0.57"
DNSMASQ = "127.0.0.58"
DNSMASQ_WITHOUT_PROXY = "127.0.0.59"
START = """$TTL 60
@ SOA ns.example. root.example. 1 3600 600 86400 5
@ NS ns.example.
"""


@dataclass
class Zone:
    """A zone, delegated by the root. Those that are signed have a key of their own."""

    name: str
    records: str
    # "nsec", "opt-out" (NSEC3), or "unsigned".
    signing: str = "nsec"
    # Owner and type of what gets a wrong signature.
    spoiled: list[tuple[str, str]] = field(default_factory=list)

    @property
    def path(self) -> pathlib.Path:
        return DIRECTORY / (self.name.rstrip(".") or "root")

    def key(self) -> pathlib.Path:
        """The public key; it is made when it is asked for first."""
        if not self.keys():
            ldns("ldns-keygen", "-a", "ECDSAP256SHA256", "-k", "-r", "/dev/urandom", self.name)
        return self.keys()[0]

    def keys(self) -> list[pathlib.Path]:
        return list(DIRECTORY.glob(f"K{self.name}+*.key"))

    def write(self) -> str:
        """Writes the zone, signed, and returns the records that delegate it."""
        self.path.write_text(f"$ORIGIN {self.name}\n{START}{certificates.fill_in(self.records)}\n")
        delegation = f"{self.name} NS ns.example.\n"
        if self.signing == "unsigned":
            return delegation
        key = self.key()
        how = ["-n", "-p"] if self.signing == "opt-out" else []
        signed = self.path.with_name(f"{self.path.name}.signed")
        ldns("ldns-signzone", "-o", self.name, "-f", str(signed), *how, str(self.path), str(key.with_suffix("")))
        text = signed.read_text()
        for owner, kind in self.spoiled:
            # Another digit at the beginning of the signature.
            name = re.escape(self.name if owner == "@" else f"{owner}.{self.name}")
            text, count = re.subn(
                rf"^({name}\t\d+\tIN\tRRSIG\t{kind} .* )(\S)(\S{{20,}})$",
                lambda match: match[1] + ("B" if match[2] == "A" else "A") + match[3],
                text,
                flags=re.M,
            )
            assert count == 1, (owner, kind, count, text)
        self.path.write_text(text)
        return delegation + key.with_suffix(".ds").read_text()


def ldns(*words: str) -> None:
    subprocess.run(words, cwd=DIRECTORY, capture_output=True, check=True)


class NameServers:
    """NSD with all zones, and the resolvers that ask it."""

    def __init__(self, zones: list[Zone]) -> None:
        DIRECTORY.mkdir()
        delegations = "".join(zone.write() for zone in zones)
        root = Zone(".", f"ns.example. A {AUTHORITATIVE}\n{delegations}")
        root.write()
        anchor = root.key()
        names = [(zone.name, zone.path) for zone in [root, *zones]]
        self.nsd = self.start("nsd", nsd_conf(names), "nsd", "-d", "-c")
        self.start("unbound", unbound_conf(anchor), "unbound", "-d", "-c")
        self.start("named", named_conf(anchor.read_text()), "named", "-g", "-c")
        self.start("dnsmasq", dnsmasq_conf(DNSMASQ, "proxy-dnssec"), "dnsmasq", "-k", "-C")
        self.start("dnsmasq-without-proxy", dnsmasq_conf(DNSMASQ_WITHOUT_PROXY, ""), "dnsmasq", "-k", "-C")

    def silent(self) -> list[str]:
        """Waits until all of them answer, and returns those that do not."""
        everything = (AUTHORITATIVE, UNBOUND, NAMED, DNSMASQ, DNSMASQ_WITHOUT_PROXY)
        wait(lambda: all(listens(address, 53) for address in everything), 15)
        return [address for address in everything if not listens(address, 53)]

    def start(self, name: str, configuration: str, *command: str) -> subprocess.Popen[bytes]:
        path = DIRECTORY / f"{name}.conf"
        path.write_text(configuration)
        with (LOGS / f"dane-{name}.log").open("ab") as log:
            return subprocess.Popen([*command, str(path)], stdout=log, stderr=log)

    def replace(self, zone: Zone, owner: str) -> bool:
        """Changes the TLSA records of a name, and lets the resolver forget what it knows of the zone; whether they are published."""
        before = look_up(AUTHORITATIVE, owner, "TLSA")
        zone.write()
        self.nsd.send_signal(signal.SIGHUP)
        is_published = wait(lambda: records(look_up(AUTHORITATIVE, owner, "TLSA")) != records(before), 10)
        subprocess.run(["unbound-control", "-c", str(DIRECTORY / "unbound.conf"), "flush_zone", zone.name], capture_output=True, check=True)
        return is_published


def look_up(server: str, name: str, kind: str) -> str:
    """What drill prints of an answer, asked for with the flag AD."""
    return subprocess.run(["drill", "-o", "AD", f"@{server}", name, kind], capture_output=True, text=True, timeout=20, check=True).stdout


def records(answer: str) -> list[str]:
    return re.findall(r"^\S+\t\d+\tIN\tTLSA\t.*", answer, re.M)


def is_secure(server: str, name: str, kind: str) -> bool:
    """Whether a resolver says that DNSSEC vouches for its answer."""
    flags = re.search(r"^;; flags: ([a-z ]*)", look_up(server, name, kind), re.M)
    return flags is not None and "ad" in flags[1].split()


def asked() -> list[str]:
    """The names whose TLSA records unbound was asked for so far."""
    return re.findall(r"info: \S+ (\S+)\. TLSA IN", (LOGS / "dane-unbound.log").read_text())


def nsd_conf(zones: list[tuple[str, pathlib.Path]]) -> str:
    listed = "".join(f'zone:\n\tname: "{name}"\n\tzonefile: "{path}"\n' for name, path in zones)
    return f"""server:
	ip-address: {AUTHORITATIVE}
	server-count: 1
	username: nsd
	zonelistfile: "/run/nsd/dane-zone.list"
	database: ""
	pidfile: "/run/nsd/dane-nsd.pid"
	xfrdfile: "/run/nsd/dane-xfrd.state"
remote-control:
	control-enable: no
{listed}"""


def unbound_conf(anchor: pathlib.Path) -> str:
    return f"""server:
	interface: {UNBOUND}
	access-control: 127.0.0.0/8 allow
	directory: "/etc/unbound"
	chroot: ""
	username: "unbound"
	pidfile: ""
	use-syslog: no
	do-daemonize: no
	module-config: "validator iterator"
	trust-anchor-file: "{anchor}"
	do-not-query-localhost: no
	log-queries: yes
	num-threads: 1
remote-control:
	control-enable: yes
	control-interface: "/run/dane-unbound.socket"
	control-use-cert: no
stub-zone:
	name: "."
	stub-addr: {AUTHORITATIVE}
	stub-prime: no
"""


def named_conf(anchor: str) -> str:
    flags, protocol, algorithm, key = re.findall(r"DNSKEY\s+(\d+) (\d+) (\d+) (\S+)", anchor)[0]
    hints = DIRECTORY / "hints"
    hints.write_text(f". 3600 NS ns.example.\nns.example. 3600 A {AUTHORITATIVE}\n")
    return f"""options {{
	directory "{DIRECTORY}";
	listen-on {{ {NAMED}; }};
	listen-on-v6 {{ none; }};
	pid-file none;
	session-keyfile none;
	recursion yes;
	dnssec-validation yes;
	empty-zones-enable no;
}};
controls {{ }};
trust-anchors {{ "." static-key {flags} {protocol} {algorithm} "{key}"; }};
zone "." {{ type hint; file "{hints}"; }};
"""


def dnsmasq_conf(address: str, proxy: str) -> str:
    return f"""listen-address={address}
bind-interfaces
no-resolv
no-hosts
server={UNBOUND}
user=root
log-facility=-
pid-file=
{proxy}
"""
