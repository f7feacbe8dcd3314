"""Every attempt in every backend that holds, as whoever runs this: `python as_user.py FOLDER` prints what got out."""

import json
import sys
import tempfile
from pathlib import Path

import attempts
from world import SECRET, World, world

from nightsmith.sandboxes.base import MIB, Limits, SandboxSpec
from nightsmith.sandboxes.choice import SANDBOXES, unusable
from nightsmith.sandboxes.worker import ReplyStatus, Worker

SPEC = SandboxSpec(limits=Limits(memory_bytes=512 * MIB, file_bytes=8 * MIB, tmp_bytes=32 * MIB))


def escapes(backend: str, around: World) -> list[str]:
    """The attempts that succeeded in a backend."""
    found: list[str] = []
    with Worker(attempts.source(), "attempt", SANDBOXES[backend], SPEC) as worker:
        for name in attempts.ATTEMPTS:
            reply = worker.call({"name": name, "given": around.given}, 5.0)
            if (reply.status is ReplyStatus.OK and reply.value) or SECRET in str(reply) or around.touched():
                found.append(f"{name}: {reply} {around.touched()}")
                around.remember()
    return found


def main() -> None:
    """Print the escapes of each backend as JSON."""
    isolating = [name for name, sandbox in SANDBOXES.items() if sandbox.isolates]
    reasons = {name: reason for name in isolating if (reason := unusable(name)) is not None}
    with tempfile.TemporaryDirectory(dir=sys.argv[1]) as folder, world(Path(folder) / "world") as around:
        found = {name: escapes(name, around) for name in isolating if name not in reasons}
    count = len(attempts.ATTEMPTS) * len(found)
    print(json.dumps({"unusable": reasons, "escapes": found, "attempts": count}))


main()
