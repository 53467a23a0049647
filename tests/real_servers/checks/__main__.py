"""Runs the sections that are named as arguments, or all of them."""

import sys
import time
import traceback

from . import bounces, content, dane, dkim, handoff, refusals, reports, routing, servers, volume
from .harness import SCORE, check

SECTIONS = {
    "content": content.run,
    "routing": routing.run,
    "handoff": handoff.run,
    "refusals": refusals.run,
    "bounces": bounces.run,
    "reports": reports.run,
    "volume": volume.run,
    "dkim": dkim.run,
    "dane": dane.run,
}


def main() -> int:
    wanted = sys.argv[1:] or list(SECTIONS)
    for name in wanted:
        if name not in SECTIONS:
            print(f"no section {name}; there are {', '.join(SECTIONS)}", file=sys.stderr)
            return 1
    if check("all servers are up", servers.ready(), servers.missing()):
        for name in wanted:
            print(f"--- {name}", flush=True)
            began = time.monotonic()
            try:
                SECTIONS[name]()
            except Exception:
                check(f"{name} runs to its end", False, traceback.format_exc())
            print(f"       ({name} took {time.monotonic() - began:.1f} s)", flush=True)
    print(f"{SCORE.passed} passed, {SCORE.failed} failed")
    return 0 if SCORE.failed == 0 else 1


sys.exit(main())
