"""The one typed event stream that console, `--json` and pages read."""

import json
import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import AwareDatetime, Field, JsonValue

from nightsmith.record.clock import Clock, utc_now
from nightsmith.record.digest import Contract, canonical_json

if TYPE_CHECKING:
    from nightsmith.record.workspace import Workspace

EventKind = Literal[
    "study_started",
    "interpreted",
    "question",
    "preflight",
    "approval",
    "planned",
    "data_built",
    "job_started",
    "job_progress",
    "job_finished",
    "trial_proposed",
    "pruned",
    "verdict",
    "confirmation",
    "unsealed",
    "refused",
    "budget",
    "warning",
    "told",
    "study_paused",
    "study_resumed",
    "outcome",
    "report",
]


class Event(Contract):
    """One thing that happened in a study."""

    seq: int = Field(ge=0)
    """Position in the workspace's stream."""
    at: AwareDatetime
    """When, UTC."""
    study: str
    """Study id; empty: the whole workspace."""
    kind: EventKind
    """What kind of thing."""
    trial: int | None = None
    """Trial number."""
    job: str | None = None
    """Job key."""
    data: dict[str, JsonValue] = {}
    """Particulars; figures in it come from result files."""


def append(
    ws: "Workspace",
    study: str,
    kind: EventKind,
    *,
    trial: int | None = None,
    job: str | None = None,
    data: dict[str, Any] | None = None,
    now: Clock = utc_now,
) -> Event:
    """Append an event in a transaction of its own. `data` is plain JSON data."""
    with ws.write() as db:
        return insert(db, study, kind, trial=trial, job=job, data=data, now=now)


def insert(
    db: sqlite3.Connection,
    study: str,
    kind: EventKind,
    *,
    trial: int | None = None,
    job: str | None = None,
    data: dict[str, Any] | None = None,
    now: Clock = utc_now,
) -> Event:
    """Append an event inside the caller's transaction: it is seen if, and only if, that is committed."""
    event = Event(seq=0, at=now(), study=study, kind=kind, trial=trial, job=job, data=data or {})
    cursor = db.execute(
        "INSERT INTO events (at, study, kind, trial, job, data) VALUES (?, ?, ?, ?, ?, ?)",
        (event.at.isoformat(), study, kind, trial, job, canonical_json(event.data)),
    )
    return event.model_copy(update={"seq": cursor.lastrowid})


def read(
    ws: "Workspace",
    *,
    study: str | None = None,
    after: int = 0,
    limit: int | None = None,
    without: Sequence[EventKind] = (),
) -> list[Event]:
    """Events with `seq` above `after`, oldest first, of one study or of all, but some kinds; at most `limit`."""
    with ws.read() as db:
        rows = db.execute(
            "SELECT * FROM events WHERE seq > ? AND (? IS NULL OR study = ?) AND kind NOT IN "
            "(SELECT value FROM json_each(?)) ORDER BY seq LIMIT ?",
            (after, study, study, json.dumps(without), -1 if limit is None else limit),
        ).fetchall()
    return [Event.model_validate({**row, "data": json.loads(row["data"])}) for row in rows]
