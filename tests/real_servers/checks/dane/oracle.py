"""What Postfix makes of a destination: posttls-finger, asking the same resolver."""

from __future__ import annotations

import pathlib
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

from .name_servers import UNBOUND

RESOLV_CONF = pathlib.Path("/srv/dane/resolv.conf")
# The resolver of the test instead of that of the namespace, in a mount namespace of its own.
SCRIPT = 'mount --bind "$0" /etc/resolv.conf && exec posttls-finger -c -L summary,verbose "$@"'


def words(destination: str, level: str) -> str:
    """What posttls-finger says of the first host that it gets an answer from."""
    command = ["unshare", "--mount", "bash", "-c", SCRIPT, str(RESOLV_CONF), "-l", level, destination]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout + done.stderr


def ask(destinations: dict[str, str]) -> dict[str, str]:
    """What it says of each of these, at its level."""
    RESOLV_CONF.write_text(f"nameserver {UNBOUND}\noptions trust-ad edns0\n")
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(destinations, pool.map(words, destinations, destinations.values())))


def verdict(said: str) -> str:
    """What that comes to, in the words of the cases."""
    # Only the last host counts: of those before, some record or address could not be had.
    said = re.split(r"Failed to establish session to .*", said)[-1].strip() or "lookup failed"
    made = re.search(r"(Verified|Trusted|Untrusted|Anonymous) TLS connection established", said)
    matched = re.search(r"Matched DANE (EE|TA) ", said)
    if made and made[1] == "Verified" and matched:
        return f"DANE-{matched[1]}"
    # Its word for what is proved where the MX records are insecure.
    if made and made[1] == "Trusted" and matched:
        return "DANE-insecure-MX"
    if made and "all TLSA records unusable" in said:
        return "unverified"
    # Without records `dane-only` wants a certificate that the system trusts, and there is none.
    if any(words in said for words in ("lookup failed", "DNSSEC-signed TLSA record:", 'resorting to "secure"')):
        return "refused"
    if made:
        return "unverified"
    # Records that cannot be used demand TLS all the same.
    return "refused" if "unsupported TLSA" in said else "plain"
