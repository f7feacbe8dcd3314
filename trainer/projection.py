"""What MLflow should show of a study, computed from the truth: the record with its settled results, and journals."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from nightsmith.evals import stats
from nightsmith.evals.targets import lower_is_better
from nightsmith.evals.types import Decision, MetricName, Target, Verdict
from nightsmith.record import budget, studies
from nightsmith.record.digest import canonical_json, sha256
from nightsmith.record.errors import BudgetSpent, Damaged
from nightsmith.record.studies import StudyRow, TrialRow
from nightsmith.record.workspace import Workspace
from nightsmith.trainer import jobrows, runfolder
from nightsmith.trainer.jobrows import JobRow
from nightsmith.trainer.journal import JOURNAL, read_journal
from nightsmith.trainer.spec import PretrainSpec, RunResult, RunStatus

CURVES = {"loss": "curve/loss", "learning_rate": "curve/learning_rate", "tokens_per_s": "curve/tokens_per_s"}
"""Journal field -> metric. Apart from the result's names: `train/loss` there is a mean over the last steps."""
CURVE_POINTS = 500
"""Points at most per curve; a long run's journal is thinned evenly."""
MAX_TAG, MAX_PARAM = 5000, 6000
"""Characters; MLflow refuses longer tags and parameters."""
BASELINE_ROLES = ("baseline", "calibration")
MLFLOW_STATUS = {RunStatus.FINISHED: "FINISHED", RunStatus.STOPPED: "KILLED", RunStatus.KILLED: "KILLED"}
"""Every other end is FAILED."""


@dataclass(frozen=True)
class Point:
    """One value of a metric."""

    name: str
    value: float
    step: int
    at_ms: int


@dataclass(frozen=True)
class Dataset:
    """A file that a run read."""

    name: str
    digest: str
    path: str
    context: str


@dataclass(frozen=True)
class RunView:
    """One MLflow run as it should be."""

    key: str
    """Tag `nightsmith.key`, by which the run is found."""
    name: str
    start_ms: int
    end_ms: int | None
    status: str
    """MLflow's: RUNNING, FINISHED, FAILED or KILLED."""
    tags: Mapping[str, str]
    params: Mapping[str, str] = field(default_factory=dict[str, str])
    points: tuple[Point, ...] = ()
    datasets: tuple[Dataset, ...] = ()

    def digest(self) -> str:
        """SHA-256 of everything above: equal views need no writing."""
        return sha256(canonical_json(asdict(self)))

    def figures(self) -> dict[str, float]:
        """The value that MLflow shows for each metric: that of the largest step, then of the latest time."""
        ordered = sorted(self.points, key=lambda point: (point.step, point.at_ms, point.value))
        return {point.name: point.value for point in ordered}


def study_view(ws: Workspace, study: str) -> RunView:
    """The parent run: outcome, best value by trial, cost, wall time."""
    row, trials = studies.get(ws, study), studies.trials(ws, study)
    rows = jobrows.rows(ws, study)
    at = _ms(row.finished_at) if row.finished_at else max([_ms(row.created_at), *(_end_ms(job) for job in rows)])
    tags = {
        "nightsmith.study": study,
        "nightsmith.kind": "study",
        "nightsmith.goal": row.goal,
        "nightsmith.state": row.state,
        "nightsmith.outcome": row.outcome or "none yet",
        "mlflow.note.content": _note(row, trials),
    }
    return RunView(
        key=study_key(study),
        name=f"{study}: {row.goal[:80]}",
        start_ms=_ms(row.created_at),
        end_ms=_ms(row.finished_at) if row.finished_at else None,
        status="FINISHED" if row.outcome else "RUNNING",
        tags=_short(tags),
        points=(*_best(row, trials, rows), *_spent(ws, study, at)),
    )


def job_views(ws: Workspace, study: str) -> list[RunView]:
    """The child runs, one a job, in the order in which they were started."""
    trials = {trial.number: trial for trial in studies.trials(ws, study)}
    return [
        _job_view(ws, row, trials.get(row.trial) if row.trial is not None else None) for row in jobrows.rows(ws, study)
    ]


def study_key(study: str) -> str:
    """Key of a study's parent run."""
    return f"study-{study}"


def changed_results(ws: Workspace, study: str) -> list[str]:
    """Keys of jobs whose result file is no longer the result that the record settled."""
    return [row.key for row in jobrows.rows(ws, study) if row.result is not None and _is_changed(ws, row)]


def _is_changed(ws: Workspace, row: JobRow) -> bool:
    try:
        found = runfolder.read_end(ws.root / "runs" / row.key, row.attempt)
    except Damaged:
        return True
    # A vanished process left no exit record: the record settled it as KILLED.
    return found != row.result and (found is not None or row.state == RunStatus.FINISHED)


def _job_view(ws: Workspace, row: JobRow, trial: TrialRow | None) -> RunView:
    result, end_ms = row.result, _end_ms(row)
    points = _result_points(row.role, result, end_ms) if result else ()
    return RunView(
        key=row.key,
        name=row.step,
        start_ms=_ms(row.created_at),
        end_ms=end_ms if result else None,
        status=MLFLOW_STATUS.get(result.status, "FAILED") if result else "RUNNING",
        tags=_job_tags(row, trial, result),
        params={name: value[:MAX_PARAM] for name, value in _flat(row.spec.model_dump(mode="json"))},
        points=(*points, *_verdict_points(row, trial, end_ms), *_curves(ws.root / "runs" / row.key / JOURNAL)),
        datasets=_datasets(row),
    )


def _job_tags(row: JobRow, trial: TrialRow | None, result: RunResult | None) -> dict[str, str]:
    tags = {
        "nightsmith.study": row.study,
        "nightsmith.kind": "job",
        "nightsmith.step": row.step,
        "trial.role": row.role,
        "trial.index": "" if row.trial is None else str(row.trial),
    }
    if trial is not None:
        plan, verdict = _object(trial.plan), _deciding(trial)
        tags |= {
            "trial.move": str(plan.get("move", "")),
            "trial.hypothesis": str(plan.get("hypothesis", "")),
            "trial.change": canonical_json(plan.get("change", {})),
            "trial.verdict": verdict.decision.value if verdict else "none yet",
        }
    if result is not None:
        tags |= {
            "nightsmith.status": result.status.value,
            "nightsmith.reason": result.reason,
            "nightsmith.checkpoint": result.checkpoint or "",
            "nightsmith.checkpoint_digest": result.checkpoint_digest or "",
            "nightsmith.devices": ", ".join(result.devices),
        }
    return _short(tags)


def _result_points(role: str, result: RunResult, at_ms: int) -> tuple[Point, ...]:
    """Every figure of the result file, under its own name; evaluation metrics by their split."""
    figures = result.metrics | {
        "train/num_steps": float(result.num_steps),
        "train/num_tokens": float(result.num_tokens),
        "time/wall_s": result.wall_s,
        "time/train_s": result.train_s,
        "time/evaluate_s": result.evaluate_s,
        "memory/peak_gib": result.peak_memory_gib,
    }
    if result.evaluation:
        split = "sealed" if role == "sealed" else "dev"
        figures |= {f"{split}/{name}": value for name, value in result.evaluation.metrics.items()}
        figures[f"{split}/num_items"] = float(result.evaluation.num_items)
    return _points(figures, result.num_steps, at_ms)


def _verdict_points(row: JobRow, trial: TrialRow | None, at_ms: int) -> tuple[Point, ...]:
    """The judge's figures, on the run that was screened."""
    if trial is None or row.role != "trial":
        return ()
    figures: dict[str, float | None] = {}
    for rule in ("screen", "confirm"):
        if verdict := _verdict(trial, rule):
            low, high = verdict.interval or (None, None)
            figures |= {f"{rule}/estimate": verdict.estimate, f"{rule}/low": low, f"{rule}/high": high}
            figures |= {f"{rule}/p": verdict.p, f"{rule}/value": verdict.value}
    return _points(figures, 0, at_ms)


def _curves(journal: Path) -> tuple[Point, ...]:
    """The training curve; of a step that a resumed job repeated, the last line counts."""
    lines = {line["step"]: line for line in read_journal(journal) if line.get("kind") == "step"}
    steps = sorted(lines)[:: math.ceil(len(lines) / CURVE_POINTS) or 1]
    return tuple(
        Point(metric, float(lines[step][name]), step, _ms(datetime.fromisoformat(lines[step]["at"])))
        for step in steps
        for name, metric in CURVES.items()
        if isinstance(lines[step].get(name), float | int) and math.isfinite(lines[step][name])
    )


def _datasets(row: JobRow) -> tuple[Dataset, ...]:
    trained = row.spec if isinstance(row.spec, PretrainSpec) else None
    suite = row.spec.dev_suite if isinstance(row.spec, PretrainSpec) else row.spec.suite
    read = [(trained.data, trained.data_digest, "training")] if trained else []
    read += [(suite.data, suite.data_digest, suite.split)] if suite else []
    return tuple(
        Dataset(name=f"{Path(path).parent.name}/{Path(path).stem}", digest=digest[:36], path=path, context=context)
        for path, digest, context in read
    )


def _best(row: StudyRow, trials: Sequence[TrialRow], rows: Sequence[JobRow]) -> tuple[Point, ...]:
    """Best screened dev value so far by trial number, from the mean of the baseline's seeds on."""
    targets = _targets(row)
    screens = {trial.number: _verdict(trial, "screen") for trial in trials}
    named: list[MetricName] = [*(t.metric for t in targets), *(v.metric for v in screens.values() if v)]
    metric = named[0] if named else "bits_per_byte"
    at = {job.trial: _end_ms(job) for job in rows if job.role in ("baseline", "trial")}
    seeds = [job.result for job in rows if job.role in BASELINE_ROLES]
    values = [r.evaluation.metrics.get(metric, math.nan) for r in seeds if r and r.evaluation]
    found = {0: stats.noise(values).mean} if values and all(map(math.isfinite, values)) else {}
    for number, verdict in screens.items():
        if number and verdict and verdict.value is not None and verdict.decision not in _NO_EVIDENCE:
            found[number] = verdict.value
    better = min if lower_is_better(metric, targets) else max
    best: dict[int, float] = {}
    for number in sorted(found):
        best[number] = better([*best.values(), found[number]])
    started = _ms(row.created_at)
    return tuple(
        Point(f"study/best_{metric}", value, number, at.get(number, started)) for number, value in best.items()
    )


_NO_EVIDENCE = (Decision.UNVERIFIED, Decision.TAMPERED)


def _spent(ws: Workspace, study: str, at_ms: int) -> tuple[Point, ...]:
    """What the ledger says the study drew on, its children included."""
    try:
        balance = budget.balance(ws, study)
    except BudgetSpent:  # never approved: nothing could be spent
        return ()
    spent = balance.spent
    figures = {
        "study/wall_s": balance.active_s,
        "study/cost": spent.cost,
        "study/gpu_hours": spent.gpu_hours,
        "study/cpu_s": spent.cpu_s,
        "study/tokens": spent.tokens,
    }
    return _points(figures, spent.trials, at_ms)


def _note(row: StudyRow, trials: Sequence[TrialRow]) -> str:
    """Markdown, outcome first: MLflow folds it after a few lines. Text by the planner stays out of it."""
    detail = _object(row.detail)
    goal = " ".join(row.goal.split()).replace("<", "&lt;")
    lines = [
        f"**{row.outcome or f'Running: {row.state}'}**. {detail.get('reason') or ''}".rstrip(),
        "",
        f"> {goal}",
        "",
    ]
    for trial in trials:
        if verdict := _deciding(trial):
            lines.append(f"- trial {trial.number}: **{verdict.decision.value}**, {verdict.reason}")
    return "\n".join(lines)


def _targets(row: StudyRow) -> list[Target]:
    try:
        return [Target.model_validate(target) for target in _object(row.spec).get("targets") or ()]
    except ValidationError:
        return []


def _deciding(trial: TrialRow) -> Verdict | None:
    return _verdict(trial, "confirm") or _verdict(trial, "screen")


def _verdict(trial: TrialRow, rule: str) -> Verdict | None:
    stored = _object(trial.verdict).get(rule)
    return Verdict.model_validate(stored) if stored else None


def _short(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: value[:MAX_TAG] for name, value in tags.items()}


def _points(figures: Mapping[str, float | None], step: int, at_ms: int) -> tuple[Point, ...]:
    known = {name: value for name, value in figures.items() if value is not None and math.isfinite(value)}
    return tuple(Point(name, float(value), step, at_ms) for name, value in sorted(known.items()))


def _flat(value: Any, prefix: str = "") -> Iterable[tuple[str, str]]:
    """Nested objects as dotted names."""
    if isinstance(value, dict):
        for name, inner in cast("dict[str, Any]", value).items():
            yield from _flat(inner, f"{prefix}.{name}" if prefix else name)
    elif value is not None:
        yield prefix, value if isinstance(value, str) else json.dumps(value)


def _object(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _end_ms(row: JobRow) -> int:
    """When the newest attempt was settled, else when it was started."""
    return _ms(row.finished_at or row.started_at)


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
