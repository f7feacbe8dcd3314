"""Studies and their trials as rows of plain JSON: this package does not know the agent's types."""

import json
import sqlite3
from typing import Any

from pydantic import AwareDatetime, JsonValue

from nightsmith.record.clock import Clock, utc_now
from nightsmith.record.digest import Contract, canonical_json
from nightsmith.record.errors import NightsmithError
from nightsmith.record.workspace import Workspace, keep_good

FINISHED = "finished"
"""State of a study that has an outcome."""


class StudyRow(Contract):
    """One study."""

    id: str
    """`s1`, `s2`, …"""
    goal: str
    """The goal's text, verbatim."""
    spec: JsonValue = None
    """The GoalSpec, once interpreted."""
    state: str
    """Where it stands: `created`, what the agent set, `finished`."""
    detail: JsonValue = None
    """Particulars of the state or outcome."""
    outcome: str | None = None
    """How it ended; null while it has not."""
    created_at: AwareDatetime
    """When it was made, UTC."""
    finished_at: AwareDatetime | None = None
    """When it ended, UTC."""


class TrialRow(Contract):
    """One trial of a study."""

    study: str
    """Study id."""
    number: int
    """0 is the baseline."""
    plan: JsonValue
    """The TrialPlan."""
    verdict: JsonValue = None
    """The Verdict, once judged."""
    created_at: AwareDatetime
    """When it was proposed, UTC."""


def create(ws: Workspace, goal: str, *, now: Clock = utc_now) -> str:
    """Record a new study. Returns its id.

    A number whose folder exists is not used again: after a restored record that folder may be a lost study's.
    """
    folders = [path.name[1:] for path in ws.studies.iterdir()]
    used = max((int(number) for number in folders if number.isdecimal()), default=0)
    with ws.write() as db:
        last = db.execute("SELECT COALESCE(MAX(number), 0) FROM studies").fetchone()[0]
        number = max(used, int(last)) + 1
        db.execute(
            "INSERT INTO studies (id, number, goal, state, created_at) VALUES (?, ?, ?, 'created', ?)",
            (f"s{number}", number, goal, now().isoformat()),
        )
    return f"s{number}"


def set_spec(ws: Workspace, study: str, spec: JsonValue) -> None:
    """Record the interpreted goal, as plain JSON data."""
    _update(ws, study, "spec = ?", canonical_json(spec))


def set_state(ws: Workspace, study: str, state: str, detail: JsonValue = None) -> None:
    """Record where a study stands. A study that had ended is open again: it was resumed."""
    _update(ws, study, "state = ?, detail = ?, outcome = NULL, finished_at = NULL", state, canonical_json(detail))


def finish(ws: Workspace, study: str, outcome: str, detail: JsonValue = None, *, now: Clock = utc_now) -> None:
    """Record how a study ended, and keep a good copy of the record."""
    assignments = f"state = '{FINISHED}', outcome = ?, detail = ?, finished_at = ?"
    _update(ws, study, assignments, outcome, canonical_json(detail), now().isoformat())
    keep_good(ws)


def get(ws: Workspace, study: str) -> StudyRow:
    """One study; an unknown id raises NightsmithError with those that exist."""
    with ws.read() as db:
        return _study(_existing(db, study))


def all(ws: Workspace) -> list[StudyRow]:
    """All studies, oldest first."""
    with ws.read() as db:
        return [_study(row) for row in db.execute("SELECT * FROM studies ORDER BY number")]


def add_trial(ws: Workspace, study: str, number: int, plan: JsonValue, *, now: Clock = utc_now) -> TrialRow:
    """Record a proposed trial once: asked again, the first plan stands. Returns the trial that stands."""
    with ws.write() as db:
        _existing(db, study)
        db.execute(
            "INSERT INTO trials (study, number, plan, created_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (study, number, canonical_json(plan), now().isoformat()),
        )
        row = db.execute("SELECT * FROM trials WHERE study = ? AND number = ?", (study, number)).fetchone()
    return _trial(row)


def set_verdict(ws: Workspace, study: str, number: int, verdict: JsonValue) -> None:
    """Record how a trial was judged; judged again, the last verdict stands."""
    with ws.write() as db:
        cursor = db.execute(
            "UPDATE trials SET verdict = ? WHERE study = ? AND number = ?", (canonical_json(verdict), study, number)
        )
        if cursor.rowcount == 0:
            raise NightsmithError(f"Study {study!r} has no trial {number}. Record it with add_trial first.")


def trials(ws: Workspace, study: str) -> list[TrialRow]:
    """Trials of a study, by number."""
    with ws.read() as db:
        _existing(db, study)
        return [_trial(row) for row in db.execute("SELECT * FROM trials WHERE study = ? ORDER BY number", (study,))]


def _update(ws: Workspace, study: str, assignments: str, *values: str) -> None:
    with ws.write() as db:
        _existing(db, study)
        db.execute(f"UPDATE studies SET {assignments} WHERE id = ?", (*values, study))


def _existing(db: sqlite3.Connection, study: str) -> sqlite3.Row:
    row = db.execute("SELECT * FROM studies WHERE id = ?", (study,)).fetchone()
    if row is None:
        known = [str(other["id"]) for other in db.execute("SELECT id FROM studies ORDER BY number DESC LIMIT 10")]
        raise NightsmithError(f"There is no study {study!r}. Studies: {', '.join(known) or 'none yet'}.")
    return row


def _study(row: sqlite3.Row) -> StudyRow:
    columns = {**row} | _parsed(row, "spec", "detail")
    return StudyRow.model_validate({name: value for name, value in columns.items() if name != "number"})


def _trial(row: sqlite3.Row) -> TrialRow:
    return TrialRow.model_validate({**row} | _parsed(row, "plan", "verdict"))


def _parsed(row: sqlite3.Row, *names: str) -> dict[str, Any]:
    return {name: None if row[name] is None else json.loads(row[name]) for name in names}
