"""Rows of the record's `jobs` table. Torch-free."""

import sqlite3
from typing import Any, Literal

from pydantic import AwareDatetime, Field, TypeAdapter

from nightsmith.record.clock import utc_now
from nightsmith.record.digest import Contract, sha256
from nightsmith.record.errors import NightsmithError
from nightsmith.record.workspace import Workspace
from nightsmith.trainer.spec import LaunchSpec, RunResult, RunSpec

Role = Literal["baseline", "calibration", "trial", "confirmation", "sealed", "stage", "manual", "measured"]
"""`stage`: an earlier stage of a run; its checkpoint goes into the next one, and only the last one is judged.
`measured`: a model as it is, which nobody trains."""
STARTED = "STARTED"
"""State of a job from its intent to its settlement; then its state is the RunStatus it ended with."""

_SPEC: TypeAdapter[RunSpec] = TypeAdapter(RunSpec)


class JobRow(Contract):
    """One job as the record knows it."""

    key: str
    """12 hex digits: what is started by the same study, step and spec is the same job."""
    study: str
    """Study, and account that it draws on."""
    step: str
    """Step of the study's plan."""
    trial: int | None = None
    """Trial number."""
    role: Role
    """What the job is for."""
    spec: RunSpec
    """What is run."""
    launch: LaunchSpec
    """How its newest attempt was started."""
    attempt: int = Field(ge=1)
    """Number of the newest attempt: how often it was started."""
    state: str = STARTED
    """STARTED, or the status it ended with."""
    created_at: AwareDatetime
    """First intent."""
    started_at: AwareDatetime
    """Intent of the newest attempt."""
    finished_at: AwareDatetime | None = None
    """When the newest attempt was settled."""
    result: RunResult | None = None
    """Result of the newest settled attempt."""


def key_of(study: str, step: str, spec: RunSpec) -> str:
    """The key of a job, before and after it exists."""
    return sha256(f"{study}|{step}|{spec.digest()}")[:12]


def find(db: sqlite3.Connection, key: str) -> JobRow | None:
    """The job with this key, if there is one."""
    row = db.execute("SELECT * FROM jobs WHERE key = ?", (key,)).fetchone()
    return None if row is None else _read(row)


def get(ws: Workspace, key: str) -> JobRow:
    """The job with this key. Raises NightsmithError where there is none."""
    with ws.read() as db:
        row = find(db, key)
    if row is None:
        raise NightsmithError(f"There is no job {key!r} in {ws.root}. `nightsmith show STUDY` lists a study's jobs.")
    return row


def rows(ws: Workspace, study: str | None = None) -> list[JobRow]:
    """The jobs of a study, or of all, in the order of their first start."""
    with ws.read() as db:
        found = db.execute(
            "SELECT * FROM jobs WHERE ? IS NULL OR study = ? ORDER BY created_at, rowid", (study, study)
        ).fetchall()
    return [_read(row) for row in found]


def put(db: sqlite3.Connection, row: JobRow) -> None:
    """Record the intent to start an attempt: of a new job, or the next one of a settled job, whose row it replaces."""
    values = {
        **row.model_dump(include={"key", "study", "step", "trial", "role", "attempt", "state"}),
        "spec": row.spec.model_dump_json(),
        "launch": row.launch.model_dump_json(),
        "created_at": row.created_at.isoformat(),
        "started_at": row.started_at.isoformat(),
    }
    places = ", ".join(f":{name}" for name in values)
    db.execute(f"INSERT OR REPLACE INTO jobs ({', '.join(values)}) VALUES ({places})", values)


def settle(db: sqlite3.Connection, row: JobRow, result: RunResult) -> bool:
    """Record how an attempt ended, once; False where that was recorded before."""
    cursor = db.execute(
        "UPDATE jobs SET state = ?, result = ?, finished_at = ? WHERE key = ? AND attempt = ? AND state = ?",
        (result.status, result.model_dump_json(), utc_now().isoformat(), row.key, row.attempt, STARTED),
    )
    return cursor.rowcount == 1


def _read(row: sqlite3.Row) -> JobRow:
    values: dict[str, Any] = dict(row)
    values["spec"] = _SPEC.validate_json(values["spec"])
    values["launch"] = LaunchSpec.model_validate_json(values["launch"])
    if values["result"] is not None:
        values["result"] = RunResult.model_validate_json(values["result"])
    return JobRow.model_validate(values)
