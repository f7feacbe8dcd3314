"""Which checkpoints nobody needs any more, and taking them away: `nightsmith gc`.

Of an ended study stay its best checkpoints by dev score, its last one, and those that a claim, a promotion or another
job rests on. Whatever is not sure to be superfluous stays. Result files, events, logs and the record stay for ever.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import Field

from nightsmith.agent import dossier, judging
from nightsmith.agent.settings import load_settings
from nightsmith.evals.types import Decision, EvaluateSpec
from nightsmith.record import audit, schedules, studies
from nightsmith.record.digest import Contract
from nightsmith.record.studies import StudyRow
from nightsmith.record.workspace import Workspace
from nightsmith.trainer import jobs, tracking, weights
from nightsmith.trainer.jobrows import STARTED, JobRow
from nightsmith.trainer.spec import TrainSpec


class Kept(Contract):
    """A job whose checkpoint stays."""

    job: str
    """Its key."""
    study: str
    """Its study, or the account that it drew on."""
    reason: str
    """Who needs it."""
    num_bytes: int = Field(ge=0)
    """Size of its checkpoint."""


class Removal(Contract):
    """Folders of one job that go."""

    job: str
    """Its key."""
    study: str
    """Its study."""
    trial: int | None
    """Its trial."""
    folders: tuple[str, ...]
    """Absolute paths."""
    num_bytes: int = Field(ge=0)
    """What they take."""


class Retention(Contract):
    """What stays and what goes."""

    removals: tuple[Removal, ...]
    """By job."""
    kept: tuple[Kept, ...]
    """By job."""

    @property
    def num_bytes(self) -> int:
        """What removing frees."""
        return sum(removal.num_bytes for removal in self.removals)


def retention(ws: Workspace, *, best: int = 1) -> Retention:
    """Look at every job. `best`: how many checkpoints of a study stay for their dev score. Changes nothing."""
    rows = {row.key: row for row in jobs.rows(ws)}
    reasons = _reasons(ws, rows, best)
    removals, kept = list[Removal](), list[Kept]()
    for key, row in rows.items():
        folders = weights.superfluous(row) if key in reasons else weights.held(row)
        if folders:
            removals.append(_removal(row, folders))
        staying = sum(weights.num_bytes(path) for path in weights.held(row) if path not in folders)
        if key in reasons and staying:
            kept.append(Kept(job=key, study=row.study, reason=reasons[key], num_bytes=staying))
    return Retention(removals=tuple(removals), kept=tuple(kept))


def remove(ws: Workspace, shown: Retention, *, best: int = 1) -> Retention:
    """Remove what was shown, as far as it still is superfluous; returns what was removed.

    Nothing can be started between the second look and the moment when the folders are out of sight; the audit has a
    line from that moment on. Deleting them may stop half-way: the next call goes on.
    """
    shown_folders = {folder for removal in shown.removals for folder in removal.folders}
    with ws.write() as db:
        still = [each for each in retention(ws, best=best).removals if shown_folders.issuperset(each.folders)]
        gone = [weights.set_aside(Path(folder)) for each in still for folder in each.folders]
        removed = Retention(removals=tuple(still), kept=())
        if still:
            detail = {"jobs": {each.job: [Path(f).name for f in each.folders] for each in still}}
            audit.append(db, "checkpoints.removed", {**detail, "num_bytes": removed.num_bytes})
    for folder in gone:
        weights.delete(folder)
    return removed


def _removal(row: JobRow, folders: Iterable[Path]) -> Removal:
    paths = tuple(str(path) for path in folders)
    size = sum(weights.num_bytes(Path(path)) for path in paths)
    return Removal(job=row.key, study=row.study, trial=row.trial, folders=paths, num_bytes=size)


def _reasons(ws: Workspace, rows: dict[str, JobRow], best: int) -> dict[str, str]:
    """Why jobs' checkpoints stay, by key."""
    known = {study.id: study for study in studies.all(ws)}
    reasons = {key: reason for path, reason in _named(ws, known.values()) if (key := _job_of(ws, path)) in rows}
    for study in known.values():
        own = [row for row in rows.values() if row.study == study.id]
        reasons |= _needed(ws, study, own, best) if study.outcome else dict.fromkeys(_keys(own), "its study goes on")
    by_hand = (row for row in rows.values() if row.study not in known or row.role == "manual")
    reasons |= dict.fromkeys(_keys(by_hand), "it was started by hand")
    reasons |= dict.fromkeys(_keys(row for row in rows.values() if row.state == STARTED), "it runs")
    return _with_ancestors(ws, rows, reasons)


def _needed(ws: Workspace, study: StudyRow, rows: Sequence[JobRow], best: int) -> dict[str, str]:
    """Why checkpoints of an ended study stay; the strongest reason each."""
    detail: Any = study.detail or {}
    trained = [row for row in rows if row.role in ("trial", "confirmation") and weights.held(row)]
    reasons = dict.fromkeys(_keys(trained[-1:]), "it is the study's last")
    reasons |= dict.fromkeys(_keys(_by_score(ws, study.id, rows)[:best]), "its dev score is among the study's best")
    for trial in studies.trials(ws, study.id):
        if (verdict := judging.verdict_of(trial, "confirm")) and verdict.decision is Decision.PROMOTED:
            resting = [row for row in rows if row.trial in (0, trial.number)]
            reasons |= dict.fromkeys(_keys(resting), f"the promotion of trial {trial.number} rests on it")
    sealed = {_job_of(ws, Path(row.spec.checkpoint)) for row in rows if isinstance(row.spec, EvaluateSpec)}
    claimed = {detail.get("winner_key"), detail.get("reference_key")} | sealed
    return reasons | dict.fromkeys(_keys(row for row in rows if row.key in claimed), "a claim rests on it")


def _by_score(ws: Workspace, study: str, rows: Iterable[JobRow]) -> list[JobRow]:
    """The study's trained models by their dev score, best first."""
    scored = [
        (row.result.evaluation.metrics.get(judging.primary_metric(ws, study), math.nan), row)
        for row in rows
        if isinstance(row.spec, TrainSpec) and row.result and row.result.evaluation and weights.held(row)
    ]
    sign = 1 if scored and judging.is_lower_better(ws, study) else -1
    return [
        row for _, row in sorted((each for each in scored if math.isfinite(each[0])), key=lambda each: sign * each[0])
    ]


def _named(ws: Workspace, known: Iterable[StudyRow]) -> Iterator[tuple[Path, str]]:
    """Models that something still to come is about to read, and versions in MLflow's registry."""
    for study in known:
        if study.outcome is None:
            plan: Any = dossier.load(ws, study.id, "plan") or {}
            folder = dossier.load(ws, study.id, "folder") or "."
            named = (_text_of(plan.get("model"), "path"), _text_of(study.spec, "model"))
            yield from ((Path(folder) / name, f"{study.id} trains it further") for name in named if name)
    for schedule in schedules.all(ws):
        if name := _text_of(schedule.spec, "model"):
            yield Path(schedule.folder) / name, f"the nights of {schedule.name} train it further"
    if name := load_settings().model:
        yield Path.cwd() / name, "the settings name it"
    yield from ((path, "it is registered in MLflow") for path in tracking.registered(ws))


def _text_of(value: Any, name: str) -> str | None:
    """A field of a JSON object, where it is one and has it."""
    fields = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    found = fields.get(name)
    return found if isinstance(found, str) else None


def _with_ancestors(ws: Workspace, rows: dict[str, JobRow], reasons: dict[str, str]) -> dict[str, str]:
    """Those that kept ones name in their specs stay too, and what these name in theirs."""
    found, queue = dict(reasons), list(reasons)
    while queue:
        key = queue.pop()
        for name in _texts(rows[key].spec.model_dump(mode="json")):
            parent = _job_of(ws, Path(name)) if name.startswith("/") else None
            if parent in rows and parent not in found:
                found[parent] = f"job {key} was made of it"
                queue.append(parent)
    return found


def _texts(value: Any) -> Iterator[str]:
    """Every text in JSON data."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _texts(list(cast("dict[str, Any]", value).values()))
    elif isinstance(value, list):
        for each in cast("list[Any]", value):
            yield from _texts(each)


def _job_of(ws: Workspace, path: Path) -> str | None:
    """The job in whose run folder a path lies."""
    runs, place = ws.runs.resolve(), path.expanduser().resolve()
    return place.relative_to(runs).parts[0] if runs in place.parents else None


def _keys(rows: Iterable[JobRow]) -> list[str]:
    return [row.key for row in rows]
