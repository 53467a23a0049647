"""Records the scenes that are named as arguments, or all of them. A record is kept only if it shows what it is meant to
show, and replays."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

from checks import harness, servers

from .scenes import SCENES, Scene

SIMULATOR = os.environ["SIMULATOR"]
KEPT = pathlib.Path("/srv/kept/transcripts")
# What must not stand in any record: the secrets and names of the test bench.
FORBIDDEN = ["wonder land", "wrong one", "dispatch.example", "127.0.0.", "ottilie", "quentin", "leopold", "alice", "A line.", "Gr\u00fc"]
SERVERS = [
    *[(f"127.0.0.{octet}", 25) for octet in (*range(15, 18), 20, *range(24, 29), 30, 60, 70, *range(73, 76), 80, *range(82, 85), *range(101, 113))],
    *[(f"127.0.0.{octet}", 587) for octet in (*range(11, 15), *range(21, 24), 50, 60, 72, 76, 80, 81)],
    *[(f"127.0.0.{octet}", 465) for octet in (10, 20, 60, 71, 80)],
]


def main() -> int:
    wanted = [scene for scene in SCENES if not sys.argv[1:] or scene.name in sys.argv[1:]]
    unknown = set(sys.argv[1:]) - {scene.name for scene in wanted}
    if unknown:
        print(f"no such scenes: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 1
    KEPT.mkdir()
    harness.wait(lambda: not missing(), 20)
    if missing():
        print(f"these do not listen: {missing()}", file=sys.stderr)
    failed = 0
    for scene in wanted:
        reason = record(scene)
        failed += reason is not None
        print(f"FAILED {scene.name}: {reason}" if reason else f"ok     {scene.name}", flush=True)
    print(f"{len(wanted) - failed} recorded, {failed} failed")
    return 0 if failed == 0 else 1


def missing() -> list[tuple[str, int]]:
    return [place for place in SERVERS if not servers.listens(*place)]


def record(scene: Scene) -> str | None:
    """Makes the pass and keeps its record; what is wrong with it, if something is."""
    # One connection after the other, as it is in a replay.
    directives = {"concurrency": "1", "destination_concurrency": "1", "tls_padding": "0", "announce": "mail.dispatch.example", **scene.directives}
    world = harness.Scene(scene.name, directives)
    world.fill(
        (to, scene.data[number % len(scene.data)], scene.sender, scene.remote or None)
        for number, to in enumerate(scene.recipients)
    )
    words = ["handoff", scene.remote] if scene.remote else ["deliver", scene.recipients[0].partition("@")[2]]
    if scene.is_second:
        world.command(*words)
        # The second attempt is not made in the second of the first.
        with world.connection() as connection:
            connection.execute("UPDATE faillog SET fail_time = fail_time - 10")
    records = world.directory / "records"
    records.mkdir()
    records.chmod(0o777)
    world.write_config(record=str(records))
    status = world.command(*words).returncode
    files = sorted(records.iterdir())
    if status != 0 or len(files) != 1:
        return f"exit status {status}, {len(files)} records; {world.log.read_text()[-600:]}"
    text = files[0].read_text()
    head, _, rest = text.partition("\n")
    if not head.startswith("# Recorded"):
        return f"it begins with {head!r}"
    text = f"# {scene.why} Recorded from {server_of(scene)}.\n{rest}"
    found = [word for word in FORBIDDEN if word in rest]
    if found:
        return f"{found} in\n{text}"
    if scene.shows not in text:
        return f"{scene.shows!r} is not in\n{text}"
    path = KEPT / f"{scene.name}.smtp"
    path.write_text(text)
    replay = subprocess.run([SIMULATOR, "replay", str(path)], capture_output=True, text=True, check=False)
    if replay.returncode != 0:
        path.rename(world.directory / path.name)
        return f"{replay.stdout}\nwas recorded as\n{text}"
    return None


def server_of(scene: Scene) -> str:
    names = {
        "postfix": "Postfix",
        "exim": "Exim",
        "opensmtpd": "OpenSMTPD",
        "dovecot": "Dovecot",
        "chasquid": "chasquid",
        "aiosmtpd": "aiosmtpd",
        "smtp": "smtp-server",
    }
    return names[scene.name.split("-")[0]]


sys.exit(main())
