"""The destinations: each is a zone below both.example, with what has to come of mail for it.

Where nothing else is said, the host of a domain is `mx` in its own zone, and the level is `dane`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# Receivers by address: which certificate they show stands in master.cf and in certificates.EXIM.
POSTFIX_EE, POSTFIX_TA, POSTFIX_V1, POSTFIX_PLAIN, POSTFIX_ALT, POSTFIX_EXPIRED, POSTFIX_COMMON, POSTFIX_ALONE, POSTFIX_OLD, POSTFIX_ED25519 = (
    f"127.0.0.{n}" for n in range(70, 80)
)
EXIM_EE, EXIM_TA, EXIM_V1, EXIM_PLAIN, EXIM_STRANGER, EXIM_P521, EXIM_DOMAIN = (f"127.0.0.{n}" for n in range(80, 87))
# The port, other than 25, at which alone POSTFIX_ALT listens.
ALT = 2525

DOMAIN = "Failed to resolve recipient domain: "
HOSTS_FAILED = "Failed to reach any MX: "
SERVFAIL = "failed: name server 127.0.0.55:53 answered SERVFAIL [4.4.3]"
NO_RECORDS = "has no TLSA records that can be used and that DNSSEC vouches for, and tls_policy says dane-only [4.7.5]"


@dataclass
class Case:
    """A zone, and what has to come of mail for its domain."""

    name: str
    records: str
    # What the log says that the server has proved, `plain` if there is no TLS, or `refused`.
    verdict: str
    # The text in faillog; for delivered mail the host that has it.
    text: str
    level: str = "dane"
    is_fatal: bool = False
    signing: str = "nsec"
    # Owner and type of the records whose signature is wrong.
    spoiled: list[tuple[str, str]] = field(default_factory=list)
    # Names whose TLSA records nobody may have asked for.
    unasked: list[str] = field(default_factory=list)
    # The domain that mail is for, if it is not the apex of the zone.
    below: str = ""
    # Where posttls-finger sees it otherwise: how, and why.
    finger: tuple[str, str] | None = None

    @property
    def zone(self) -> str:
        return f"{self.name}.both.example."

    @property
    def domain(self) -> str:
        return f"{self.below}{self.zone}".rstrip(".")


def delivered(name: str, verdict: str, records: str, to: str = "", **more: object) -> Case:
    """A case whose mail arrives, at `mx` of its own zone unless another host is named."""
    return Case(name, records, verdict, f"{to or 'mx.' + name}.both.example", **more)


def refused(name: str, text: str, records: str, **more: object) -> Case:
    return Case(name, records, "refused", text, **more)


def not_accepted(name: str, trouble: str, address: str, *tlsa: str, **more: object) -> Case:
    """A case whose only host shows a certificate with which something is wrong."""
    return refused(name, not_accepted_text(name, address, trouble), host(address, *tlsa), **more)


def not_accepted_text(name: str, address: str, trouble: str) -> str:
    return f"{HOSTS_FAILED}mx.{name}.both.example [{address}]:25: the certificate of the server is not accepted: {trouble} (DANE) [4.7.5]"


def without_tls(name: str, address: str, *tlsa: str, basis: str = "DANE", **more: object) -> Case:
    """A case whose only host does not offer STARTTLS: who takes it away on the way must gain nothing."""
    return refused(name, without_tls_text(name, address, basis), host(address, *tlsa), **more)


def without_tls_text(name: str, address: str, basis: str) -> str:
    return f"{HOSTS_FAILED}mx.{name}.both.example [{address}]:25: STARTTLS is not offered, but {basis} needs it [4.7.4]"


def host(address: str, *tlsa: str) -> str:
    """A domain with one host that has this address, and these TLSA records at port 25."""
    return f"@ MX 10 mx\nmx A {address}\n" + "".join(f"_25._tcp.mx TLSA {record}\n" for record in tlsa)


NO_MATCH = "it matches none of the TLSA records"
NO_OPTION = "it has no such option; its `-o smtp_tls_dane_insecure_mx_policy=…` changes nothing"
NO_ELSE = "it has no such option"

# What the lookup of the domain comes to.
ROUTES = [
    delivered("secure", "DANE-EE", host(POSTFIX_EE, "3 1 1 <ee>")),
    delivered("implicit", "DANE-EE", f"@ A {EXIM_EE}\n_25._tcp TLSA 3 1 1 <ee>", to="implicit"),
    delivered("alias-domain", "DANE-EE", "www CNAME secure.both.example.", below="www.", to="mx.secure"),
    delivered("insecure", "DANE-insecure-MX", "@ MX 10 mx.secure", signing="unsigned", to="mx.secure"),
    refused("insecure-wrong", not_accepted_text("wrong", POSTFIX_EE, NO_MATCH), "@ MX 10 mx.wrong", signing="unsigned"),
    delivered("insecure-encrypt", "unverified", "@ MX 10 mx.wrong", signing="unsigned", level="dane insecure_mx=encrypt", to="mx.wrong", finger=("refused", NO_OPTION)),
    refused("insecure-encrypt-plain", without_tls_text("plain-postfix", POSTFIX_PLAIN, "DANE"), "@ MX 10 mx.plain-postfix", signing="unsigned", level="dane insecure_mx=encrypt"),
    delivered("insecure-may", "plain", "@ MX 10 mx.plain-postfix", signing="unsigned", level="dane insecure_mx=may", to="mx.plain-postfix", finger=("refused", NO_OPTION)),
    refused(
        "insecure-only",
        HOSTS_FAILED + "DNSSEC does not vouch for the MX records of insecure-only.both.example, and tls_policy says dane-only [4.7.5]",
        "@ MX 10 mx.secure",
        signing="unsigned",
        level="dane-only",
        finger=("DANE-insecure-MX", "it takes insecure MX records at this level too"),
    ),
    delivered(
        "insecure-implicit",
        "unverified",
        f"@ A {POSTFIX_EE}\n_25._tcp TLSA 3 1 1 <wrong>",
        signing="unsigned",
        unasked=["_25._tcp.insecure-implicit.both.example"],
        to="insecure-implicit",
    ),
    refused("nxdomain", DOMAIN + "the domain absent.nxdomain.both.example does not exist [5.1.2]", "@ TXT none", below="absent.", is_fatal=True),
    refused("null-mx", DOMAIN + "the domain null-mx.both.example does not accept mail (null MX) [5.1.10]", "@ MX 0 .", is_fatal=True),
    refused("bogus", f"{DOMAIN}looking up the MX records of bogus.both.example {SERVFAIL}", host(POSTFIX_EE, "3 1 1 <ee>"), spoiled=[("@", "MX")]),
    refused(
        "bogus-implicit",
        f"{DOMAIN}looking up the MX records of bogus-implicit.both.example {SERVFAIL}",
        f"@ A {POSTFIX_EE}\n_25._tcp TLSA 3 1 1 <ee>",
        spoiled=[("@", "NSEC")],
    ),
]

# What the addresses of the host come to.
HOSTS = [
    delivered("insecure-host", "unverified", "@ MX 10 mx.insecure-hosts", unasked=["_25._tcp.mx.insecure-hosts.both.example"], to="mx.insecure-hosts"),
    delivered("alias", "DANE-TA", "@ MX 10 mx\nmx CNAME mx.ta-201\n_25._tcp.mx TLSA 3 1 1 <wrong>"),
    delivered("alias-own", "DANE-EE", "@ MX 10 mx\nmx CNAME mx.nodata\n_25._tcp.mx TLSA 3 1 1 <ee>"),
    delivered(
        "alias-insecure-end",
        "DANE-EE",
        "@ MX 10 mx\nmx CNAME mx.insecure-hosts\n_25._tcp.mx TLSA 3 1 1 <ee>",
        unasked=["_25._tcp.mx.insecure-hosts.both.example"],
    ),
    delivered(
        "alias-insecure",
        "unverified",
        "@ MX 10 alias.insecure-hosts",
        unasked=[f"_25._tcp.{name}.insecure-hosts.both.example" for name in ("alias", "mx")],
        to="alias.insecure-hosts",
    ),
    delivered(
        "bogus-address", "DANE-EE", f"@ MX 10 mx\n@ MX 20 mx.secure\nmx A {POSTFIX_EE}\n_25._tcp.mx TLSA 3 1 1 <ee>", spoiled=[("mx", "A")], to="mx.secure"
    ),
    refused(
        "bogus-only-address",
        f"{HOSTS_FAILED}looking up the IPv4 addresses of mx.bogus-only-address.both.example {SERVFAIL}",
        host(POSTFIX_EE, "3 1 1 <ee>"),
        spoiled=[("mx", "A")],
    ),
    refused(
        "alias-bogus",
        f"{HOSTS_FAILED}looking up the TLSA records of _25._tcp.mx.bogus-records.both.example {SERVFAIL}",
        "@ MX 10 mx\nmx CNAME mx.bogus-records\n_25._tcp.mx TLSA 3 1 1 <ee>",
    ),
    delivered(
        "alias-tree", "DANE-EE", f"@ MX 10 mx.old.alias-tree\nold DNAME new\nmx.new A {POSTFIX_EE}\n_25._tcp.mx.new TLSA 3 1 1 <ee>", to="mx.old.alias-tree"
    ),
    delivered("bogus-family", "DANE-EE", host(POSTFIX_EE, "3 1 1 <ee>") + "mx AAAA 2001:db8::70", spoiled=[("mx", "AAAA")]),
]

# What the TLSA records come to.
RECORDS = [
    *[delivered(f"ee-3{s}{m}", "DANE-EE", host(EXIM_EE, f"3 {s} {m} <ee>")) for s in "01" for m in "012"],
    delivered("ta-201", "DANE-TA", host(POSTFIX_TA, "2 0 1 <ca>")),
    delivered("ta-211", "DANE-TA", host(POSTFIX_TA, "2 1 1 <ca>")),
    delivered("ta-201-exim", "DANE-TA", host(EXIM_TA, "2 0 1 <ca>")),
    delivered("ta-211-exim", "DANE-TA", host(EXIM_TA, "2 1 1 <ca>")),
    delivered("ta-200", "DANE-TA", host(POSTFIX_TA, "2 0 0 <ca>")),
    delivered("ta-210", "DANE-TA", host(EXIM_TA, "2 1 0 <ca>")),
    delivered("unusable", "unverified", host(POSTFIX_EE, "1 1 1 <wrong>", "0 0 1 <wrong>")),
    without_tls("unusable-plain", POSTFIX_PLAIN, "1 1 1 <wrong>"),
    refused("unusable-only", f"{HOSTS_FAILED}the host mx.unusable-only.both.example {NO_RECORDS}", host(POSTFIX_EE, "1 1 1 <wrong>"), level="dane-only"),
    delivered("nodata", "unverified", host(POSTFIX_EE)),
    delivered("nodata-exim", "unverified", host(EXIM_EE)),
    delivered("nodata-plain", "plain", host(POSTFIX_PLAIN)),
    without_tls("nodata-encrypt", POSTFIX_PLAIN, basis="tls_policy", level="dane else=encrypt", finger=("plain", NO_ELSE)),
    refused("nodata-only", f"{HOSTS_FAILED}the host mx.nodata-only.both.example {NO_RECORDS}", host(POSTFIX_EE), level="dane-only"),
    delivered("opt-out", "unverified", host(POSTFIX_EE), signing="opt-out"),
    delivered("opt-out-records", "DANE-EE", host(POSTFIX_EE, "3 1 1 <ee>"), signing="opt-out"),
    delivered("insecure-records", "unverified", f"@ MX 10 mx\nmx A {POSTFIX_EE}\n_25._tcp.mx CNAME tlsa.insecure-hosts"),
    refused(
        "bogus-records",
        f"{HOSTS_FAILED}looking up the TLSA records of _25._tcp.mx.bogus-records.both.example {SERVFAIL}",
        host(POSTFIX_EE, "3 1 1 <ee>"),
        spoiled=[("_25._tcp.mx", "TLSA")],
    ),
    refused(
        "bogus-denial",
        f"{HOSTS_FAILED}looking up the TLSA records of _25._tcp.mx.bogus-denial.both.example {SERVFAIL}",
        host(POSTFIX_EE),
        spoiled=[("mx", "NSEC")],
    ),
    delivered("bogus-first", "DANE-EE", "@ MX 10 mx.bogus-records\n@ MX 20 mx.secure", to="mx.secure"),
    delivered("alias-records", "DANE-EE", f"@ MX 10 mx\nmx A {POSTFIX_EE}\n_25._tcp.mx CNAME _25._tcp.mx.secure"),
    refused(
        "alias-loop",
        f"{HOSTS_FAILED}looking up the TLSA records of _25._tcp.mx.alias-loop.both.example {SERVFAIL}",
        host(POSTFIX_EE) + "_25._tcp.mx CNAME _25._tcp.loop.alias-loop\n_25._tcp.loop CNAME _25._tcp.mx.alias-loop",
    ),
    delivered("alias-nowhere", "unverified", host(POSTFIX_EE) + "_25._tcp.mx CNAME nothing.secure"),
    delivered("odd", "unverified", host(POSTFIX_EE, "3 1 1 <short>", "4 1 1 <wrong>", "3 2 1 <wrong>", "3 1 9 <wrong>", "2 0 0 <wrong>")),
    delivered("odd-and-good", "DANE-EE", host(POSTFIX_EE, "3 1 1 <short>", "4 1 1 <wrong>", "3 2 1 <wrong>", "3 1 9 <wrong>", "3 1 1 <ee>")),
    # More than a datagram holds.
    delivered("many", "DANE-EE", host(POSTFIX_EE, *[f"3 1 1 <wrong-{n}>" for n in range(120)], "3 1 1 <ee>")),
    not_accepted("wrong", NO_MATCH, POSTFIX_EE, "3 1 1 <wrong>"),
    delivered(
        "wrong-first", "DANE-EE", "@ MX 10 mx.wrong\n@ MX 20 mx.secure", to="mx.secure", finger=("refused", "it stops at the first host that answers")
    ),
    delivered("rollover", "DANE-EE", host(POSTFIX_EE, "3 1 1 <wrong>", "3 1 1 <ee>")),
    delivered("either-usage", "DANE-TA", host(POSTFIX_TA, "3 1 1 <wrong>", "2 1 1 <ca>")),
    not_accepted("agility", NO_MATCH, POSTFIX_EE, "3 1 2 <wrong>", "3 1 1 <ee>"),
    delivered("agility-strong", "DANE-EE", host(POSTFIX_EE, "3 1 1 <wrong>", "3 1 2 <ee>")),
    delivered("agility-selectors", "DANE-EE", host(POSTFIX_EE, "3 1 2 <wrong>", "3 0 1 <ee>")),
]

# Two ports are tried, of which the host listens at the second. posttls-finger tries only one.
ONE_PORT = ("refused", "it tries only port 25")
PORTS = [
    refused("port-blocked", f"{HOSTS_FAILED}mx.port-blocked.both.example [{POSTFIX_ALT}]:25: Connection refused [4.4.1]", host(POSTFIX_ALT, "3 1 1 <ee>")),
    delivered("port-both", "DANE-EE", host(POSTFIX_ALT, "3 1 1 <wrong>") + f"_{ALT}._tcp.mx TLSA 3 1 1 <ee>", finger=ONE_PORT),
    delivered("port-none", "unverified", host(POSTFIX_ALT), finger=ONE_PORT),
]

# What the receivers show.
RECEIVERS = [
    delivered("v1-postfix", "DANE-EE", host(POSTFIX_V1, "3 1 1 <v1>")),
    delivered("v1-exim", "DANE-EE", host(EXIM_V1, "3 0 1 <v1>")),
    delivered("v1-old", "DANE-EE", host(POSTFIX_OLD, "3 1 1 <v1>")),
    delivered("ed25519", "DANE-EE", host(POSTFIX_ED25519, "3 1 1 <ed25519>")),
    delivered("p521", "DANE-EE", host(EXIM_P521, "3 1 1 <p521>")),
    delivered("wildcard", "DANE-TA", host(POSTFIX_TA, "2 1 1 <ca>")),
    delivered("common-name", "DANE-TA", host(POSTFIX_COMMON, "2 1 1 <ca>")),
    # A certificate for the names in DOMAINS, none of which is that of a host.
    delivered("domain-name", "DANE-TA", host(EXIM_DOMAIN, "2 1 1 <ca>")),
    *[delivered(name, "DANE-TA", f"www CNAME end.{name}\nend MX 10 mx.domain-name", below="www.", to="mx.domain-name") for name in ("original-name", "expanded-name")],
    delivered(
        "implicit-name",
        "DANE-TA",
        f"www CNAME end.implicit-name\nend A {EXIM_DOMAIN}\n_25._tcp.end TLSA 2 1 1 <ca>",
        below="www.",
        to="www.implicit-name",
        finger=("refused", "it takes only the name of the records, against RFC 7672 section 3.2.2"),
    ),
    refused(
        "domain-insecure",
        not_accepted_text("domain-name", EXIM_DOMAIN, "it is for another name"),
        "@ MX 10 mx.domain-name",
        signing="unsigned",
        finger=("DANE-insecure-MX", "it takes the name of the domain although its MX records are insecure, against RFC 7672 section 3.2.2"),
    ),
    not_accepted("alone-201", NO_MATCH, POSTFIX_ALONE, "2 0 1 <ca>"),
    not_accepted("alone-211", NO_MATCH, POSTFIX_ALONE, "2 1 1 <ca>"),
    delivered("alone-200", "DANE-TA", host(POSTFIX_ALONE, "2 0 0 <ca>")),
    delivered("alone-210", "DANE-TA", host(POSTFIX_ALONE, "2 1 0 <ca>")),
    without_tls("plain-postfix", POSTFIX_PLAIN, "3 1 1 <ee>"),
    without_tls("plain-exim", EXIM_PLAIN, "2 1 1 <ca>"),
    not_accepted("wrong-exim", NO_MATCH, EXIM_EE, "3 1 1 <wrong>"),
    not_accepted("stranger", NO_MATCH, EXIM_STRANGER, "2 1 1 <ca>"),
    not_accepted("leaf-as-authority", NO_MATCH, POSTFIX_TA, "2 1 1 <ta>"),
    not_accepted("other-name", "it is for another name", POSTFIX_TA, "2 1 1 <ca>"),
    not_accepted("expired", "it has expired", POSTFIX_EXPIRED, "2 1 1 <ca>"),
    delivered("expired-ee", "DANE-EE", host(POSTFIX_EXPIRED, "3 1 1 <expired>")),
]

CASES = [*ROUTES, *HOSTS, *RECORDS, *PORTS, *RECEIVERS]
# Zones that others point to, or that are met otherwise.
INSECURE_HOSTS = f"""mx A {POSTFIX_EE}
alias CNAME mx
_25._tcp.mx TLSA 3 1 1 <wrong>
_25._tcp.alias TLSA 3 1 1 <wrong>
tlsa TLSA 3 1 1 <wrong>"""
CHANGING = not_accepted("changing", NO_MATCH, POSTFIX_EE, "3 1 1 <wrong>")
OTHERS = [Case("insecure-hosts", INSECURE_HOSTS, "", "", signing="unsigned"), CHANGING]
# The names that the private authority certifies: those of domains, for one receiver, and those of hosts, for the others.
DOMAINS = [f"{name}.both.example" for name in ("domain-name", "domain-insecure", "www.original-name", "end.expanded-name", "www.implicit-name")]
HOSTS_CERTIFIED = [f"{'*' if case.name == 'wildcard' else 'mx'}.{case.name}.both.example" for case in CASES if case.name != "other-name"]

# What each case rests on: whether the resolver says of a lookup that it is secure.
SECURITY = [
    ("secure", "MX", True),
    ("mx.secure", "A", True),
    ("_25._tcp.mx.secure", "TLSA", True),
    ("implicit", "MX", True),
    ("insecure", "MX", False),
    ("mx.insecure-hosts", "A", False),
    ("mx.alias", "A", True),
    ("mx.alias-insecure-end", "A", False),
    ("mx.alias-insecure-end", "CNAME", True),
    ("mx.nodata", "A", True),
    ("_25._tcp.mx.nodata", "TLSA", True),
    ("mx.opt-out", "A", True),
    ("_25._tcp.mx.opt-out", "TLSA", False),
    ("_25._tcp.mx.opt-out-records", "TLSA", True),
    ("_25._tcp.mx.insecure-records", "TLSA", False),
]
