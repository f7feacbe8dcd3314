"""`events.jsonl` of a run folder: written by the job, read by whoever watches it. One JSON object a line."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

JOURNAL = "events.jsonl"
TAIL_BYTES = 65_536


class Journal:
    """Appends lines, each with one write, so that threads and crashes never mix or tear two lines."""

    def __init__(self, path: Path, attempt: int) -> None:
        """Open for appending. `attempt` is written into every line."""
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._attempt = attempt

    def write(self, kind: str, **data: Any) -> None:
        """Append one line. Raises OSError where the disk is full."""
        line = {"at": datetime.now(UTC).isoformat(), "attempt": self._attempt, "kind": kind, **data}
        os.write(self._file, (json.dumps(line) + "\n").encode())


def read_journal(path: Path) -> list[dict[str, Any]]:
    """All whole lines, oldest first; empty where there is no journal yet. A torn line is left out."""
    try:
        return list(_parse(path.read_bytes()))
    except FileNotFoundError:
        return []


def read_tail(path: Path) -> list[dict[str, Any]]:
    """The whole lines within the last 64 KiB, oldest first: enough to know how a job stands, whatever its length."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            return list(_parse(file.read()))
    except FileNotFoundError:
        return []


def _parse(content: bytes) -> Iterator[dict[str, Any]]:
    for line in content.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value
