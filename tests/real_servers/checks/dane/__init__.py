"""DANE: zones signed and unsigned behind resolvers that validate or do not, and receivers with all kinds of certificates."""

from __future__ import annotations

import re
import shutil

from ..harness import Mail, Scene, check, copies, equal, wait
from . import certificates, name_servers, oracle
from .cases import (
    ALT,
    CASES,
    CHANGING,
    DOMAINS,
    EXIM_EE,
    EXIM_TA,
    HOSTS_CERTIFIED,
    HOSTS_FAILED,
    NO_MATCH,
    NO_RECORDS,
    OTHERS,
    PORTS,
    POSTFIX_EE,
    POSTFIX_PLAIN,
    SECURITY,
    Case,
    host,
)
from .name_servers import DNSMASQ, DNSMASQ_WITHOUT_PROXY, NAMED, UNBOUND, NameServers, Zone

TOOLS = ["ldns-keygen", "ldns-signzone", "drill", "posttls-finger", "unbound-control", "named", "dnsmasq"]
PORTPRIO = "25@starttls 25"
RELAY_FAILED = "Failed to connect or negotiate with handoff remote: "
DOES_NOT_VALIDATE = "name server {}:53 does not validate by DNSSEC, or does not say so: nothing that it answers counts as secure, so DANE has no effect"
# Its name is in the hosts file, with the address of Exim; what DNS has instead is a host at which nothing listens.
LISTED_HOST = Zone("exim-by-hosts-file.example.", "@ A 127.0.0.90\n_25._tcp TLSA 3 1 1 <mail>")


def run() -> None:
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        print(f"skipped: there is no {', '.join(missing)}", flush=True)
        return
    certificates.make(HOSTS_CERTIFIED, DOMAINS)
    servers = NameServers([zone(case) for case in [*CASES, *OTHERS]] + [LISTED_HOST])
    if not equal("name servers that do not answer", servers.silent(), []):
        return
    wrong = [row for row in SECURITY if name_servers.is_secure(UNBOUND, f"{row[0]}.both.example", row[1]) != row[2]]
    equal("unbound vouches for the lookups that the cases want secure, and for no others", wrong, [])
    destinations()
    relays_and_literals()
    changed_records(servers)
    for name, address in (("named", NAMED), ("dnsmasq that passes the flag on", DNSMASQ)):
        other_resolver(name, address)
    not_validating()


def zone(case: Case) -> Zone:
    # Names with dots are those of hosts in other zones.
    records = re.sub(r"((?:MX \d+|CNAME) [\w-]+(?:\.[\w-]+)+)$", r"\1.both.example.", case.records, flags=re.M)
    return Zone(case.zone, records, case.signing, case.spoiled)


def scene_of(name: str, resolver: str, policies: list[str], **more: str | list[str]) -> Scene:
    return Scene(name, {"resolver": resolver, "portprio": PORTPRIO, "tls_policy": policies, **more})


def destinations() -> None:
    ports = [f"{case.domain} ports 25@starttls,{ALT}@starttls" for case in PORTS]
    scene = scene_of("dane", UNBOUND, [f"{case.domain} {case.level}" for case in CASES], destination=ports)
    mails = {case.name: scene.add(f"dane@{case.domain}") for case in CASES}
    check("DANE: all mail is settled and the exit status is 0", scene.run_until(lambda: scene.settled(mails.values())))
    # Before anybody else asks.
    asked = set(name_servers.asked())
    found = outcomes(scene)
    log = scene.log.read_text()
    for case in CASES:
        mail = mails[case.name]
        equal(f"DANE, {case.name}: {'delivered, ' * (case.verdict != 'refused')}{case.verdict}", found.get(mail.id), (case.verdict, case.text))
        if case.verdict == "refused":
            fatal = mail.id not in scene.pending()
            check(f"DANE, {case.name}: nothing arrives, and the mail {'bounces' if case.is_fatal else 'waits'}", not copies(mail.to, 1, 0) and fatal == case.is_fatal)
        else:
            shown = "in plain text" if case.verdict == "plain" else rf"over TLSv1\.[23], .*, {case.verdict}"
            line = rf"<{re.escape(mail.to)}> delivered to {re.escape(case.text)} \[[0-9.]+\]:\d+ {shown}: 250 "
            check(f"DANE, {case.name}: it arrives once, and the log says so", len(copies(mail.to)) == 1 and re.search(line, log) is not None)
    unasked = {name for case in CASES for name in case.unasked}
    check("TLSA records are asked for, but not where the addresses are insecure", "_25._tcp.mx.secure.both.example" in asked and not asked & unasked, asked & unasked)
    postfix_agrees()


def postfix_agrees() -> None:
    said = oracle.ask({case.domain: case.level.split()[0] for case in CASES})
    wrong = {}
    for case in CASES:
        found, wanted = oracle.verdict(said[case.domain]), case.finger[0] if case.finger else case.verdict
        if found != wanted:
            wrong[case.name] = (found, wanted)
            print(said[case.domain])
    others = {case.name: case.finger[1] for case in CASES if case.finger}
    equal(f"posttls-finger agrees on {len(CASES) - len(others)} destinations, and differs as expected on {len(others)}", wrong, {})


def outcomes(scene: Scene) -> dict[int, tuple[str, str]]:
    """The first attempt of each mail: the verdict, and where it was delivered or why not."""
    found: dict[int, tuple[str, str]] = {}
    rows = "SELECT mail_id, result, host, tls_version, tls_peer, text FROM dispatch_history ORDER BY attempt_id"
    for mail, result, at, version, peer, text in scene.query(rows):
        is_delivered = result == "delivered"
        verdict = "refused" if not is_delivered else peer if version else "plain"
        found.setdefault(mail, (verdict, at if is_delivered else text))
    return found


def relays_and_literals() -> None:
    """Names that are the administrator's word, and hosts that have no name."""
    relays = {
        "mx.secure.both.example": ("dane-only", "DANE-EE", ""),
        "mx.insecure-hosts.both.example": ("dane", "unverified", ""),
        "exim-by-hosts-file.example": ("dane-only", "DANE-EE", ""),
        "mx.wrong.both.example": ("dane", "refused", f"[{POSTFIX_EE}]:25: the certificate of the server is not accepted: {NO_MATCH} (DANE) [4.7.5]"),
        "mx.plain-postfix.both.example": ("dane", "refused", f"[{POSTFIX_PLAIN}]:25: STARTTLS is not offered, but DANE needs it [4.7.4]"),
    }
    literals = {EXIM_EE: ("dane", "unverified", EXIM_EE), EXIM_TA: ("dane-only", "refused", f"{HOSTS_FAILED}the host {EXIM_TA} {NO_RECORDS}")}
    policies = [f"relay:{name} {level}" for name, (level, _, _) in relays.items()]
    policies += [f"[{address}] {level}" for address, (level, _, _) in literals.items()]
    scene = scene_of("dane-relays", UNBOUND, policies)
    wanted = {}
    mails = []
    for name, (_, verdict, text) in relays.items():
        mails.append(scene.add(f"relay-by-{name}@both.example", remote=name))
        wanted[mails[-1].id] = (verdict, f"{RELAY_FAILED}{name} {text}" if text else name)
    for address, (_, verdict, text) in literals.items():
        mails.append(scene.add(f"literal@[{address}]"))
        wanted[mails[-1].id] = (verdict, text)
    check("DANE, relays and literals: settled", scene.run_until(lambda: scene.settled(mails)))
    equal("DANE holds for relays, also those of the hosts file; an address literal has none", outcomes(scene), wanted)
    check("DANE, relays: not asked for those that are insecure", "_25._tcp.mx.insecure-hosts.both.example" not in name_servers.asked())


def changed_records(servers: NameServers) -> None:
    """A certificate was renewed before its record: once that is mended, the next attempt sees it."""
    scene = scene_of("dane-changed", UNBOUND, ["* dane"])
    mail = scene.add(f"dane@{CHANGING.domain}")
    scene.start()
    settled = wait(lambda: scene.settled([mail]))
    equal("DANE, changed records: refused before", settled and outcomes(scene)[mail.id], (CHANGING.verdict, CHANGING.text))
    mended = zone(CHANGING)
    mended.records = host(POSTFIX_EE, "3 1 1 <ee>")
    check("DANE, changed records: they are published", servers.replace(mended, f"_25._tcp.mx.{CHANGING.domain}"))
    scene.try_now()
    check("DANE, changed records: delivered with the next attempt", wait(scene.drained), scene.failures(mail))
    equal("DANE, changed records: clean exit", scene.stop(), 0)


def few(scene: Scene, names: list[str]) -> dict[str, tuple[str, str]]:
    """What comes of mail for these cases."""
    mails: dict[str, Mail] = {name: scene.add(f"{scene.name}@{name}.both.example") for name in names}
    check(f"{scene.name}: settled", scene.run_until(lambda: scene.settled(mails.values())))
    found = outcomes(scene)
    return {name: found[mail.id] for name, mail in mails.items() if mail.id in found}


def other_resolver(name: str, address: str) -> None:
    scene = scene_of(f"dane-{address}", address, ["* dane"])
    wanted = {
        case.name: (case.verdict, case.text.replace(UNBOUND, address))
        for case in CASES
        if case.name in ("secure", "insecure-host", "wrong", "bogus-records", "bogus", "opt-out", "alias")
    }
    equal(f"DANE, {name}: the same comes of mail", few(scene, list(wanted)), wanted)
    check(f"DANE, {name}: no warning", "does not validate" not in scene.log.read_text())


def not_validating() -> None:
    names = ["secure", "wrong", "bogus-records"]
    scene = scene_of("dane-off", DNSMASQ_WITHOUT_PROXY, ["* dane", "nodata.both.example dane-only"])
    wanted = {name: ("unverified", f"mx.{name}.both.example") for name in names}
    text = f"{HOSTS_FAILED}DNSSEC does not vouch for the MX records of nodata.both.example, and tls_policy says dane-only [4.7.5]"
    equal("dnsmasq that takes the flag away: DANE has no effect", few(scene, [*names, "nodata"]), {**wanted, "nodata": ("refused", text)})
    check("and a warning says so", DOES_NOT_VALIDATE.format(DNSMASQ_WITHOUT_PROXY) in scene.log.read_text())
