"""The audit: a hash chain of what was approved, refused, restored and changed. Edits, gaps and swaps show."""

import json
import os
import pwd
import sqlite3
from typing import TYPE_CHECKING, Any

from pydantic import AwareDatetime, JsonValue

from nightsmith.record.clock import Clock, utc_now
from nightsmith.record.digest import Contract, canonical_json, sha256
from nightsmith.record.errors import Damaged

if TYPE_CHECKING:
    from nightsmith.record.workspace import Workspace


class AuditLine(Contract):
    """One line of the audit."""

    seq: int
    """Position, from 1."""
    at: AwareDatetime
    """When, UTC."""
    actor: str
    """OS user."""
    action: str
    """What was done or refused, e.g. `approval.granted`."""
    detail: dict[str, JsonValue]
    """Particulars."""


def os_user() -> str:
    """Name of the user that this process runs as, by the kernel's word: environment variables can be set by anybody."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def append(db: sqlite3.Connection, action: str, detail: dict[str, Any], *, now: Clock = utc_now) -> int:
    """Append a line inside the caller's transaction. Returns its position.

    `detail` is plain JSON data; NaN and infinities raise ValueError, a removed head of the chain Damaged.
    """
    head = db.execute("SELECT seq, hash FROM audit_head").fetchone()
    if head is None:
        raise Damaged("The audit's head is gone from record.db, so nothing can be added to it. Restore a backup of it.")
    seq = int(head["seq"]) + 1
    fields = (seq, now().isoformat(), os_user(), action, canonical_json(detail))
    digest = _chained(str(head["hash"]), fields)
    db.execute("INSERT INTO audit (seq, at, actor, action, detail, hash) VALUES (?, ?, ?, ?, ?, ?)", (*fields, digest))
    db.execute("UPDATE audit_head SET seq = ?, hash = ?", (seq, digest))
    return seq


def _chained(previous: str, fields: tuple[Any, ...]) -> str:
    """SHA-256 of the previous line's hash and this line's canonical JSON."""
    return sha256(previous + canonical_json(list(fields)))


def verify(ws: "Workspace") -> int | None:
    """Position of the first line that was edited, moved or removed; None when the chain is whole.

    The chain's head is kept apart, so a cut at the end shows too. There is no secret in it: it convicts a careless
    change, not somebody who recomputes every hash.
    """
    with ws.read() as db:
        head = db.execute("SELECT seq, hash FROM audit_head").fetchone()
        rows = db.execute("SELECT seq, at, actor, action, detail, hash FROM audit ORDER BY seq").fetchall()
    previous = ""
    for expected, row in enumerate(rows, start=1):
        fields = tuple(row)[:-1]
        if row["seq"] != expected or row["hash"] != _chained(previous, fields):
            return expected
        previous = str(row["hash"])
    whole = head is not None and head["seq"] == len(rows) and head["hash"] == previous
    return None if whole else len(rows) + 1


def read(ws: "Workspace") -> list[AuditLine]:
    """All lines, in order."""
    with ws.read() as db:
        rows = db.execute("SELECT seq, at, actor, action, detail FROM audit ORDER BY seq").fetchall()
    return [AuditLine.model_validate({**row, "detail": json.loads(row["detail"])}) for row in rows]
