"""Schedules and their occurrences: what runs at night, and what became of each night.

An occurrence is claimed by inserting its row: one moment of one schedule is run once, whoever wakes up and how often.
What was approved for a schedule is an approval of `account(schedule)`, in `record.approvals`.
"""

import json
import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import AwareDatetime, JsonValue

from nightsmith.record import approvals, audit
from nightsmith.record.approvals import Approval
from nightsmith.record.budget import Budget
from nightsmith.record.clock import Clock, utc_now
from nightsmith.record.digest import Contract, canonical_json
from nightsmith.record.errors import NightsmithError, NotApproved
from nightsmith.record.recurrence import Due, Recurrence
from nightsmith.record.workspace import Workspace

WAITING: Literal["waiting"] = "waiting"
"""Outcome of an occurrence that waits for a person; its study may have ended since."""
MISSED: Literal["missed"] = "missed"
SKIPPED: Literal["skipped"] = "skipped"
FAILED: Literal["failed"] = "failed"


class ScheduleRow(Contract):
    """One schedule."""

    id: int
    """Number, never used again."""
    name: str
    """Name, unique among schedules that are not removed."""
    goal: str
    """The goal's text, verbatim."""
    spec: JsonValue
    """The GoalSpec that every occurrence pursues."""
    interpretation: dict[str, JsonValue]
    """How the goal was read, once: status, spec, sources."""
    folder: str
    """Absolute path of the folder that the goal speaks of."""
    recurrence: Recurrence
    """When it is due."""
    budget: Budget
    """What one occurrence may spend."""
    catch_up: bool = True
    """Whether an occurrence is run after its window has passed, where the machine was off."""
    created_at: AwareDatetime
    """When it was added, UTC."""
    removed_at: AwareDatetime | None = None
    """When it was removed, UTC; its history stays."""

    @property
    def account(self) -> str:
        """Under this name its standing envelope is approved."""
        return f"schedule-{self.id}"

    @property
    def lock(self) -> str:
        """Name of the lock that whoever runs it holds."""
        return f"night-{self.id}"


class OccurrenceRow(Contract):
    """One occurrence of a schedule."""

    id: int
    """Number."""
    schedule: int
    """Schedule's number."""
    due_at: AwareDatetime
    """When it was due, UTC."""
    ends_at: AwareDatetime | None = None
    """End of the window that it was given, UTC; null: none."""
    started_at: AwareDatetime | None = None
    """When it was begun, UTC; null: it was not."""
    ended_at: AwareDatetime | None = None
    """When it ended or was given up, UTC; null while it runs, or was cut off."""
    study: str | None = None
    """Its study."""
    outcome: str | None = None
    """The study's outcome, or waiting, missed, skipped, failed."""
    exit_status: int | None = None
    """Exit status of its run."""
    note: str = ""
    """What is to be said of it."""


def add(
    ws: Workspace, name: str, *, goal: str, interpretation: dict[str, Any], folder: str, recurrence: Recurrence,
    budget: Budget, catch_up: bool = True, now: Clock = utc_now,
) -> ScheduleRow:  # fmt: skip
    """Record a schedule. Raises NightsmithError where the name is taken."""
    spec = canonical_json(interpretation["spec"])
    values = (name, goal, spec, canonical_json(interpretation), folder, recurrence.canonical(), budget.canonical())
    with ws.write() as db:
        if db.execute("SELECT 1 FROM schedules WHERE name = ? AND removed_at IS NULL", (name,)).fetchone():
            raise NightsmithError(f"There is a schedule {name!r} already. Choose another name, or remove that one.")
        cursor = db.execute(
            "INSERT INTO schedules (name, goal, spec, interpretation, folder, recurrence, budget, catch_up, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*values, int(catch_up), now().isoformat()),
        )
        audit.append(db, "schedule.added", {"schedule": cursor.lastrowid, "name": name}, now=now)
        return _schedule(db.execute("SELECT * FROM schedules WHERE id = ?", (cursor.lastrowid,)).fetchone())


def all(ws: Workspace, *, removed: bool = False) -> list[ScheduleRow]:
    """Schedules, oldest first; with `removed`, those too."""
    with ws.read() as db:
        rows = db.execute("SELECT * FROM schedules WHERE ? OR removed_at IS NULL ORDER BY id", (removed,))
        return [_schedule(row) for row in rows]


def get(ws: Workspace, name: str) -> ScheduleRow:
    """One schedule by name; an unknown name raises NightsmithError with those that exist."""
    known = all(ws)
    for row in known:
        if row.name == name:
            return row
    names = ", ".join(row.name for row in known) or "none yet"
    raise NightsmithError(f"There is no schedule {name!r}. Schedules: {names}.")


def remove(ws: Workspace, name: str, *, now: Clock = utc_now) -> ScheduleRow:
    """Take a schedule out; what ran stays in its history."""
    row = get(ws, name)
    with ws.write() as db:
        db.execute("UPDATE schedules SET removed_at = ? WHERE id = ?", (now().isoformat(), row.id))
        audit.append(db, "schedule.removed", {"schedule": row.id, "name": name}, now=now)
    return row


def standing(ws: Workspace, schedule: ScheduleRow, now: Clock = utc_now) -> Approval:
    """The approval that rules the schedule's nights.

    Raises:
        NotApproved: there is none, it expired, it was changed, or another user gave it.
    """
    mend = f"Renew it: nightsmith night renew {schedule.name}."
    with ws.read() as db:
        approval = approvals.require(db, schedule.account, kind="evaluate", time_limit_s=1, mend=mend, now=now)
    if approval.by != audit.os_user():
        raise NotApproved(f"{schedule.name} was approved by {approval.by}, but {audit.os_user()} runs it. {mend}")
    return approval


def valid_approval(ws: Workspace, schedule: ScheduleRow, now: Clock = utc_now) -> Approval | None:
    """The approval that rules the schedule's nights, where there is one."""
    try:
        return standing(ws, schedule, now)
    except NotApproved:
        return None


def handled_until(ws: Workspace, schedule: ScheduleRow) -> datetime:
    """The moment up to which every occurrence is accounted for; what is due later is new."""
    with ws.read() as db:
        last = db.execute("SELECT MAX(due_at) FROM occurrences WHERE schedule = ?", (schedule.id,)).fetchone()[0]
    return schedule.created_at if last is None else max(schedule.created_at, datetime.fromisoformat(last))


def begin(ws: Workspace, schedule: int, due: Due, *, now: Clock = utc_now) -> OccurrenceRow | None:
    """Claim an occurrence in order to run it; None where somebody has claimed it already."""
    with ws.write() as db:
        cursor = db.execute(
            "INSERT INTO occurrences (schedule, due_at, ends_at, started_at, note) VALUES (?, ?, ?, ?, '')"
            " ON CONFLICT DO NOTHING",
            (schedule, _text(due.at), due.until and _text(due.until), _text(now())),
        )
        return None if cursor.rowcount == 0 else _occurrence(db, int(cursor.lastrowid or 0))


def pass_over(
    ws: Workspace, schedule: int, dues: Iterable[Due], outcome: str, note: str, *, status: int | None = None,
    now: Clock = utc_now,
) -> None:  # fmt: skip
    """Record occurrences that are not run, and why; those that were claimed meanwhile stay as they are."""
    with ws.write() as db:
        db.executemany(
            "INSERT INTO occurrences (schedule, due_at, ends_at, ended_at, outcome, exit_status, note)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [
                (schedule, _text(due.at), due.until and _text(due.until), _text(now()), outcome, status, note)
                for due in dues
            ],
        )


def set_study(ws: Workspace, occurrence: int, study: str) -> None:
    """Record which study an occurrence started."""
    with ws.write() as db:
        db.execute("UPDATE occurrences SET study = ? WHERE id = ?", (study, occurrence))


def end(
    ws: Workspace, occurrence: int, outcome: str, *, status: int, note: str = "", now: Clock = utc_now
) -> OccurrenceRow:
    """Record how an occurrence ended."""
    with ws.write() as db:
        db.execute(
            "UPDATE occurrences SET ended_at = ?, outcome = ?, exit_status = ?, note = ? WHERE id = ?",
            (_text(now()), outcome, status, note, occurrence),
        )
        return _occurrence(db, occurrence)


def release(ws: Workspace, occurrence: int) -> None:
    """Give back the claim of an occurrence that was cut off before it started a study: it is due again."""
    with ws.write() as db:
        db.execute("DELETE FROM occurrences WHERE id = ? AND study IS NULL", (occurrence,))


def remark(ws: Workspace, occurrence: int, note: str) -> None:
    """Note something of an occurrence that has not ended."""
    with ws.write() as db:
        db.execute("UPDATE occurrences SET note = ? WHERE id = ?", (note, occurrence))


def occurrences(ws: Workspace, schedule: int | None = None) -> list[OccurrenceRow]:
    """Occurrences of one schedule or of all, in the order in which they were due."""
    with ws.read() as db:
        rows = db.execute(
            "SELECT * FROM occurrences WHERE ? IS NULL OR schedule = ? ORDER BY due_at, id", (schedule, schedule)
        ).fetchall()
    return [OccurrenceRow.model_validate({**row}) for row in rows]


def of_study(ws: Workspace, study: str) -> tuple[ScheduleRow, OccurrenceRow] | None:
    """The schedule and the occurrence that started a study; None where a person did."""
    with ws.read() as db:
        row = db.execute("SELECT * FROM occurrences WHERE study = ?", (study,)).fetchone()
        if row is None:
            return None
        schedule = db.execute("SELECT * FROM schedules WHERE id = ?", (row["schedule"],)).fetchone()
        return _schedule(schedule), OccurrenceRow.model_validate({**row})


def unfinished(ws: Workspace, schedule: int) -> list[OccurrenceRow]:
    """Occurrences that were begun and neither ended nor were given up: they run, or were cut off."""
    return [row for row in occurrences(ws, schedule) if row.started_at is not None and row.ended_at is None]


def _text(at: datetime) -> str:
    """In UTC with microseconds always, so that texts sort as moments do."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _schedule(row: sqlite3.Row) -> ScheduleRow:
    parsed = {name: json.loads(row[name]) for name in ("spec", "interpretation", "recurrence", "budget")}
    return ScheduleRow.model_validate({**row, **parsed, "catch_up": bool(row["catch_up"])})


def _occurrence(db: sqlite3.Connection, number: int) -> OccurrenceRow:
    row = db.execute("SELECT * FROM occurrences WHERE id = ?", (number,)).fetchone()
    return OccurrenceRow.model_validate({**row})
