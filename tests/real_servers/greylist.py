"""A greylisting policy service for Postfix: the first attempt of a sender and recipient is deferred."""

import hashlib
import pathlib
import sys


def main() -> None:
    seen = pathlib.Path(sys.argv[1])
    attributes: dict[str, str] = {}
    for line in sys.stdin:
        name, _, value = line.rstrip("\n").partition("=")
        if name:
            attributes[name] = value
            continue
        pair = f"{attributes.get('sender')} {attributes.get('recipient')}"
        mark = seen / hashlib.sha256(pair.encode()).hexdigest()
        action = "permit_auth_destination" if mark.exists() else "450 4.2.0 Greylisted, come back later"
        mark.touch()
        print(f"action={action}\n", flush=True)
        attributes.clear()


main()
