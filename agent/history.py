"""Reads a study from the record and its result files: the one read model of console, report and planner.

Nothing is judged here. Estimates and intervals are the verdicts', values are the evaluations', cost is the ledger's.
"""

import json
import math
import platform
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from nightsmith.agent import data_words, dossier
from nightsmith.agent.goal import GoalSpec
from nightsmith.agent.materials import DATASET
from nightsmith.agent.plan import StudyPlan, TrialPlan
from nightsmith.agent.side_view import Measurement
from nightsmith.agent.standing import standing
from nightsmith.agent.view import (
    BestPoint,
    DataStep,
    JobView,
    Lineage,
    Origin,
    Phase,
    Refusal,
    ScheduledNight,
    Seal,
    Signature,
    Spent,
    StudySummary,
    StudyView,
    TrialView,
)
from nightsmith.evals import seal, stats, targets
from nightsmith.evals.types import Claim, Decision, EvaluateSpec, MetricName, Target, Verdict
from nightsmith.record import budget, events, schedules, studies
from nightsmith.record.digest import Contract, canonical_json, sha256
from nightsmith.record.errors import BudgetSpent, NightsmithError
from nightsmith.record.events import Event, EventKind
from nightsmith.record.workspace import Workspace
from nightsmith.tools.data.manifest import Manifest, SourceRecord, read_manifest
from nightsmith.trainer import jobrows, runfolder
from nightsmith.trainer.jobrows import JobRow
from nightsmith.trainer.lineage import origin
from nightsmith.trainer.spec import RunResult, RunStatus, TrainSpec

_Read = TypeVar("_Read", bound=Contract)
_NOT_EVIDENCE = (Decision.UNVERIFIED, Decision.TAMPERED)
_PHASES: Mapping[str, str] = {
    "interpreted": "Understand the goal",
    "preflight": "Check what the goal needs",
    "approval": "Plan and approve",
    "data_built": "Build the data",
    "planned": "Measure the baseline and its noise",
    "trial_proposed": "Propose trials",
    "verdict": "Train and screen trials",
    "confirmation": "Confirm on fresh seeds",
    "study_resumed": "Paused",
    "outcome": "Seal and judge",
}
"""The event that ends a stretch -> what the stretch was spent on."""
_OF_JOBS: tuple[EventKind, ...] = ("job_started", "job_progress", "job_finished")
"""Most events of a long study; what they tell stands in the result files."""
_PACKAGES = ("nightsmith", "torch", "transformers", "duckdb", "numpy")


def load(ws: Workspace, study: str, *, jobs: bool = True) -> StudyView:
    """Everything known of a study; an unknown id raises NightsmithError. Unreadable parts are left out, not guessed.

    Without `jobs` no result file is read: outcome, claims, verdicts and cost are there, figures of single runs are not.
    """
    row = studies.get(ws, study)
    detail = _object(row.detail)
    rows, stream = jobrows.rows(ws, study) if jobs else [], events.read(ws, study=study, without=_OF_JOBS)
    ran = [_job(ws, job) for job in rows]
    winner_key = _winner_key(detail, ran)
    spec = _read(GoalSpec, row.spec)
    trials = _trials(ws, study, ran)
    measurement = _read(Measurement, detail.get("measurement"))
    metric = measurement.main if measurement else _metric(spec, trials)
    lower = targets.lower_is_better(metric, spec.targets if spec else ())
    baseline, dataset = _baseline(ran, metric), _dataset(ws, study)
    return StudyView(
        id=study,
        workspace=str(ws.root),
        goal=row.goal,
        state=row.state,
        standing=standing(ws, study, row.outcome),
        outcome=row.outcome,  # pyright: ignore[reportArgumentType] - parsed by pydantic
        reason=str(detail.get("reason") or ""),
        created_at=row.created_at,
        ended_at=row.finished_at,
        night=_night(ws, study),
        spec=spec,
        plan=_read(StudyPlan, dossier.load(ws, study, "plan")),
        sources=_object(_object(dossier.load(ws, study, "interpretation")).get("sources")),
        metric=metric,
        lower_is_better=lower,
        trials=trials,
        baseline=baseline,
        seed_deviation=stats.noise(list(baseline.values())).deviation if len(baseline) > 1 else None,
        target=_target(spec, metric, baseline),
        best=_best(trials, baseline, lower=lower),
        claims=tuple(claim for claim in (_read(Claim, item) for item in detail.get("claims") or ()) if claim),
        winner=detail.get("winner"),
        winner_key=winner_key,
        reference_key=detail.get("reference_key"),
        seal=_seal(ws, rows, stream),
        spent=_spent(ws, study),
        approvals=tuple(_signature(event) for event in stream if event.kind == "approval" and "by" in event.data),
        refusals=tuple(_refusal(event) for event in stream if event.kind == "refused"),
        warnings=tuple(_said(event) for event in stream if event.kind == "warning"),
        phases=_phases(stream),
        lineage=_lineage(ws, ran, winner_key, dataset),
        measurement=measurement,
        built=dataset.splits if dataset and _builds(spec) else (),
        findings=data_words.findings(dataset) if dataset and _builds(spec) else (),
        other_jobs=_others(ran, trials),
        versions=_versions(),
    )


def summaries(ws: Workspace) -> list[StudySummary]:
    """One line a study, newest first: one query; papers are read of those only that have not ended."""
    query = """
        SELECT s.id, s.goal, s.state, s.outcome, s.created_at, s.number,
               COUNT(t.number) FILTER (WHERE t.number > 0) AS num_trials,
               COUNT(t.number) FILTER (WHERE json_extract(t.verdict, '$.confirm.decision') = 'PROMOTED') AS num_promoted
        FROM studies s LEFT JOIN trials t ON t.study = s.id GROUP BY s.id ORDER BY s.number DESC"""
    with ws.read() as db:
        rows = db.execute(query).fetchall()
    at = {row["id"]: standing(ws, row["id"], row["outcome"]) for row in rows}
    return [StudySummary.model_validate({**row, "standing": at[row["id"]]}) for row in map(_summary, rows)]


def _summary(row: sqlite3.Row) -> dict[str, Any]:
    return {name: row[name] for name in StudySummary.model_fields.keys() & row.keys()}


def _read(kind: type[_Read], value: Any) -> _Read | None:
    """The value as its type; None where it is absent or of another version."""
    try:
        return None if value is None else kind.model_validate(value)
    except ValidationError:
        return None


def _object(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _job(ws: Workspace, row: JobRow) -> JobView:
    trained, began = row.spec if isinstance(row.spec, TrainSpec) else None, origin(row.spec)
    known: dict[str, Any] = {
        "key": row.key,
        "role": row.role,
        "method": row.spec.kind,
        "trial": row.trial,
        "seed": trained.seed if trained else None,
        "data": trained.data if trained else None,
        "began_from": (began.job or began.path) if began else None,
        "began_from_digest": began.weights_digest if began else None,
    }
    try:
        result = runfolder.read_end(ws.root / "runs" / row.key, row.attempt) or row.result
    except (NightsmithError, ValidationError) as damage:
        return JobView(**known, status="UNREADABLE", ended=True, reason=str(damage))
    if result is None:
        return JobView(**known, status="RUNNING", ended=False)
    return JobView(**known, **_results(result))


def _results(result: RunResult) -> dict[str, Any]:
    cpus = sum(device.startswith("cpu") for device in result.devices)
    evaluation = result.evaluation
    return {
        "status": result.status.value,
        "ended": True,
        "reason": result.reason,
        "metrics": result.metrics,
        "scores": evaluation.metrics if evaluation else {},
        "num_items": evaluation.num_items if evaluation else 0,
        "suite_digest": evaluation.suite_digest if evaluation else None,
        "num_tokens": result.num_tokens,
        "wall_s": result.wall_s,
        "train_s": result.train_s,
        "evaluate_s": result.evaluate_s,
        "cpu_s": result.wall_s * cpus,
        "gpu_hours": result.wall_s * (len(result.devices) - cpus) / 3600,
        "devices": result.devices,
        "checkpoint": result.checkpoint,
        "checkpoint_digest": result.checkpoint_digest,
    }


def _trials(ws: Workspace, study: str, jobs: Iterable[JobView]) -> tuple[TrialView, ...]:
    own: defaultdict[int | None, list[JobView]] = defaultdict(list)
    for job in jobs:
        if job.role != "sealed":
            own[job.trial].append(job)
    return tuple(_trial(row, own[row.number]) for row in studies.trials(ws, study))


def _trial(row: studies.TrialRow, jobs: Iterable[JobView]) -> TrialView:
    verdict = _object(row.verdict)
    return TrialView(
        number=row.number,
        plan=_read(TrialPlan, row.plan),
        jobs=tuple(jobs),
        screen=_read(Verdict, verdict.get("screen")),
        confirm=_read(Verdict, verdict.get("confirm")),
    )


def _others(jobs: Iterable[JobView], trials: Iterable[TrialView]) -> tuple[JobView, ...]:
    shown = {job.key for trial in trials for job in trial.jobs}
    return tuple(job for job in jobs if job.key not in shown)


def _metric(spec: GoalSpec | None, trials: Sequence[TrialView]) -> MetricName:
    """What the study is judged by: the first target's metric, else what the verdicts compared."""
    if spec and spec.targets:
        return spec.targets[0].metric
    compared: list[MetricName] = [trial.verdict.metric for trial in trials if trial.verdict]
    return compared[0] if compared else "bits_per_byte"


def _baseline(jobs: Iterable[JobView], metric: str) -> dict[int, float]:
    """Seed -> dev value of the baseline's finished runs."""
    runs = [job for job in jobs if job.role in ("baseline", "calibration") and job.status == RunStatus.FINISHED]
    values = {job.seed or 0: job.scores.get(metric, math.nan) for job in runs}  # a model as it is has no seed
    return {seed: value for seed, value in sorted(values.items()) if math.isfinite(value)}


def _target(spec: GoalSpec | None, metric: str, baseline: Mapping[int, float]) -> float | None:
    """Where the first target lies on the dev scale: a line to look at, no judgement."""
    target: Target | None = spec.targets[0] if spec and spec.targets else None
    if target is None or target.value is None or target.metric != metric:
        return None
    if target.relative_to is None:
        return target.value
    if target.relative_to != "baseline" or not baseline:
        return None
    mean = stats.noise(list(baseline.values())).mean
    return mean * target.value if target.relation == "ratio" else mean + target.value


def _best(trials: Iterable[TrialView], baseline: Mapping[int, float], *, lower: bool) -> tuple[BestPoint, ...]:
    """Best screened value so far, from the baseline's mean on; what is no evidence does not count."""
    best: list[BestPoint] = []
    if baseline:
        best.append(BestPoint(trial=0, value=stats.noise(list(baseline.values())).mean))
    for trial in trials:
        point = _screened(trial)
        if point and (not best or (point.value < best[-1].value if lower else point.value > best[-1].value)):
            best.append(point)
    return tuple(best)


def _screened(trial: TrialView) -> BestPoint | None:
    """A trial's screened value; its interval is the estimate's, moved to the value."""
    verdict = trial.screen
    if trial.number == 0 or verdict is None or verdict.value is None or trial.decision in _NOT_EVIDENCE:
        return None
    if verdict.interval is None or verdict.estimate is None:
        return BestPoint(trial=trial.number, value=verdict.value)
    low, high = (verdict.value - verdict.estimate + end for end in verdict.interval)
    return BestPoint(trial=trial.number, value=verdict.value, low=low, high=high)


def _night(ws: Workspace, study: str) -> ScheduledNight | None:
    started = schedules.of_study(ws, study)
    if started is None:
        return None
    schedule, occurrence = started
    return ScheduledNight(
        schedule=schedule.name, timezone=schedule.recurrence.timezone, due_at=occurrence.due_at,
        ends_at=occurrence.ends_at,
    )  # fmt: skip


def _winner_key(detail: Mapping[str, Any], jobs: Iterable[JobView]) -> str | None:
    """The unsealed job; where nothing was unsealed, the promoted trial's own, so that it can be done again."""
    own = (job.key for job in jobs if job.role == "trial" and job.trial == detail.get("winner"))
    return detail.get("winner_key") or next(own, None)


def _seal(ws: Workspace, rows: Iterable[JobRow], stream: Iterable[Event]) -> Seal:
    opened = [event.data.get("fold") for event in stream if event.kind == "unsealed"]
    folds = {row.spec.suite.data_digest for row in rows if row.role == "sealed" and isinstance(row.spec, EvaluateSpec)}
    if not opened:
        return Seal(strength=seal.STRENGTH)
    taken = [seal.LOOKS - seal.looks_left(ws, [fold]) for fold in folds]
    fold = opened[-1] if isinstance(opened[-1], int) else None
    looks = max(taken, default=None)
    return Seal(strength=seal.STRENGTH, opened=True, fold=fold, looks=looks, allowed=seal.LOOKS)


def _spent(ws: Workspace, study: str) -> Spent:
    try:
        balance = budget.balance(ws, study)
    except BudgetSpent:  # never approved: nothing could be spent
        return Spent()
    return Spent(allowed=balance.budget, amount=balance.spent, active_s=balance.active_s)


def _signature(event: Event) -> Signature:
    return Signature(at=event.at, by=str(event.data["by"]), how=str(event.data.get("how", "")))


def _refusal(event: Event) -> Refusal:
    return Refusal(at=event.at, what=_said(event), trial=event.trial)


def _said(event: Event) -> str:
    """The sentence in an event's data; without one, all of it."""
    for name in ("reason", "message"):
        if isinstance(said := event.data.get(name), str) and said:
            return said
    return json.dumps(event.data, ensure_ascii=False) if event.data else "no reason was recorded"


def _phases(stream: Iterable[Event]) -> tuple[Phase, ...]:
    """Time between events, added up by what the later one ends."""
    seconds: defaultdict[str, float] = defaultdict(float)
    before, planned = None, False
    for event in stream:
        if event.kind not in _PHASES and event.kind not in ("study_started", "study_paused", "unsealed"):
            continue
        # The same kind of event tells of the plan, before the approval, and of the calibrated noise, after the data.
        kind = "approval" if event.kind == "planned" and not planned else event.kind
        planned = planned or event.kind == "data_built"
        if before is not None and kind in _PHASES:
            seconds[_PHASES[kind]] += (event.at - before).total_seconds()
        before = event.at
    return tuple(Phase(name=name, seconds=spent) for name, spent in seconds.items() if spent >= 0.05)


def _builds(spec: GoalSpec | None) -> bool:
    return spec is not None and spec.intent == "build_data"


def _dataset(ws: Workspace, study: str) -> Manifest | None:
    """The dataset whose held-out rows judge, or that was asked for; None before it is built."""
    name = _object(dossier.load(ws, study, "datasets")).get(DATASET)
    return _manifest(ws, name) if isinstance(name, str) else None


def _lineage(ws: Workspace, jobs: Sequence[JobView], winner_key: str | None, built: Manifest | None) -> Lineage:
    """From the files that the jobs really read back to their sources, and on to the winner's checkpoint.

    Where nothing was trained, from what was built. Splits and steps are those of the last stage, whose held-out rows
    judge.
    """
    winner = next((job for job in jobs if job.key == winner_key), None)
    files = {job.data: None for job in sorted(jobs, key=lambda job: job.role == "stage") if job.data}
    if not files and built:
        files[str(built.path(ws, built.splits[0].name))] = None
    manifests = [_manifest(ws, Path(file).parent.name) for file in files]
    data, manifest = next(iter(files), None), manifests[0] if manifests else None
    suites = {job.role == "sealed": job.suite_digest for job in jobs if job.suite_digest}
    return Lineage(
        data=data,
        data_digest=manifest.dataset if manifest else None,
        sources=tuple(_origin(source) for known in manifests if known for source in known.sources),
        steps=tuple(DataStep(name=step.kind, rows_in=step.rows_in, rows_out=step.rows_out) for step in manifest.steps)
        if manifest
        else (),
        rows={split.name: split.rows for split in manifest.splits} if manifest else {},
        dev_suite_digest=suites.get(False),
        sealed_suite_digest=suites.get(True),
        checkpoint=winner.checkpoint if winner else None,
        checkpoint_digest=winner.checkpoint_digest if winner else None,
    )


def _manifest(ws: Workspace, name: str) -> Manifest | None:
    """The dataset's manifest; a report is still written where the data are gone."""
    try:
        return read_manifest(ws, name)
    except NightsmithError:
        return None


def _origin(source: SourceRecord) -> Origin:
    content = sha256(canonical_json(source.content()))
    return Origin(
        name=source.ref, num_files=len(source.files), num_rows=source.num_rows, content_digest=content,
        columns=_columns(source),
    )  # fmt: skip


def _columns(source: SourceRecord) -> str:
    """`prompt = 'Frage', completion = 'Antwort'`, and the reason where they were proposed."""
    if source.chat_columns is None:
        return ""
    parts = source.chat_columns.model_dump(exclude_none=True).items()
    return source.columns_why or ", ".join(f"{part} = {column!r}" for part, column in parts)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # a bare clone that was never installed
            continue
    return found
