"""What MLflow should show of a study's jobs, from the truth: the record with its settled results, and journals.

The study's own run: `study_projection`.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from nightsmith.evals.types import Verdict
from nightsmith.record import studies
from nightsmith.record.digest import canonical_json, sha256
from nightsmith.record.errors import Damaged
from nightsmith.record.studies import TrialRow
from nightsmith.record.workspace import Workspace
from nightsmith.trainer import jobrows, runfolder
from nightsmith.trainer.jobrows import JobRow
from nightsmith.trainer.journal import JOURNAL, read_journal
from nightsmith.trainer.lineage import origin
from nightsmith.trainer.spec import RunResult, RunStatus, TrainSpec

CURVES = {"loss": "curve/loss", "learning_rate": "curve/learning_rate", "tokens_per_s": "curve/tokens_per_s"}
"""Journal field -> metric. Apart from the result's names: `train/loss` there is a mean over the last steps."""
CURVE_POINTS = 500
"""Points at most per curve; a long run's journal is thinned evenly."""
EXPERT_POINTS = 60
"""Points at most per curve of the experts' health: there are four for each layer."""
MAX_TAG, MAX_PARAM = 5000, 6000
"""Characters; MLflow refuses longer tags and parameters."""
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


def job_views(ws: Workspace, study: str) -> list[RunView]:
    """The child runs, one a job, in the order in which they were started."""
    trials = {trial.number: trial for trial in studies.trials(ws, study)}
    return [
        _job_view(ws, row, trials.get(row.trial) if row.trial is not None else None) for row in jobrows.rows(ws, study)
    ]


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
    result, end_ms = row.result, end_ms_of(row)
    points = _result_points(row.role, result, end_ms) if result else ()
    return RunView(
        key=row.key,
        name=row.step,
        start_ms=milliseconds(row.created_at),
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
        plan, verdict = object_of(trial.plan), deciding(trial)
        tags |= {
            "trial.move": str(plan.get("move", "")),
            "trial.hypothesis": str(plan.get("hypothesis", "")),
            "trial.change": canonical_json(plan.get("change", {})),
            "trial.verdict": verdict.decision.value if verdict else "none yet",
        }
    if began := origin(row.spec):
        tags |= {
            "nightsmith.began_from": began.job or began.path,
            "nightsmith.began_from_digest": began.weights_digest,
        }
    if result is not None:
        tags |= {
            "nightsmith.status": result.status.value,
            "nightsmith.reason": result.reason,
            "nightsmith.checkpoint": result.checkpoint or "",
            "nightsmith.checkpoint_digest": result.checkpoint_digest or "",
            "nightsmith.devices": ", ".join(result.devices),
        }
    return short(tags)


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
    return points_of(figures, result.num_steps, at_ms)


def _verdict_points(row: JobRow, trial: TrialRow | None, at_ms: int) -> tuple[Point, ...]:
    """The judge's figures, on the run that was screened."""
    if trial is None or row.role != "trial":
        return ()
    figures: dict[str, float | None] = {}
    for rule in ("screen", "confirm"):
        if verdict := verdict_of(trial, rule):
            low, high = verdict.interval or (None, None)
            figures |= {f"{rule}/estimate": verdict.estimate, f"{rule}/low": low, f"{rule}/high": high}
            figures |= {f"{rule}/p": verdict.p, f"{rule}/value": verdict.value}
    return points_of(figures, 0, at_ms)


def _curves(journal: Path) -> tuple[Point, ...]:
    """The training curves; of a step that a resumed job repeated, the last line counts."""
    lines = {line["step"]: line for line in read_journal(journal) if line.get("kind") == "step"}
    steps = [lines[step] for step in sorted(lines)]
    shown = [*_thinned(steps, CURVE_POINTS, _curve_figures), *_thinned(steps, EXPERT_POINTS, _expert_figures)]
    return tuple(point for line, figures in shown for point in _points_at(line, figures))


def _thinned(
    lines: list[dict[str, Any]], most: int, figures: Callable[[dict[str, Any]], dict[str, Any]]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """At most so many of the lines that have such figures, evenly, with them."""
    found = [(line, values) for line in lines if (values := figures(line))]
    return found[:: math.ceil(len(found) / most) or 1]


def _curve_figures(line: dict[str, Any]) -> dict[str, Any]:
    """What every training has, and a method's own figures."""
    own = cast("dict[str, Any]", line.get("metrics") or {})
    return {metric: line.get(name) for name, metric in CURVES.items()} | {f"curve/{name}": own[name] for name in own}


def _expert_figures(line: dict[str, Any]) -> dict[str, Any]:
    """Health of each layer's experts, e.g. `curve/router/layer_03/max_vio`."""
    layers = cast("list[dict[str, Any]]", line.get("router") or [])
    return {f"curve/router/layer_{n:02d}/{name}": each[name] for n, each in enumerate(layers) for name in each}


def _points_at(line: dict[str, Any], figures: dict[str, Any]) -> tuple[Point, ...]:
    at_ms = milliseconds(datetime.fromisoformat(line["at"]))
    numbers = {name: value for name, value in figures.items() if isinstance(value, float | int)}
    return points_of(numbers, line["step"], at_ms)


def _datasets(row: JobRow) -> tuple[Dataset, ...]:
    trained = row.spec if isinstance(row.spec, TrainSpec) else None
    suite = row.spec.dev_suite if isinstance(row.spec, TrainSpec) else row.spec.suite
    read = [(trained.data, trained.data_digest, "training")] if trained else []
    read += [(suite.data, suite.data_digest, suite.split)] if suite else []
    return tuple(
        Dataset(name=f"{Path(path).parent.name}/{Path(path).stem}", digest=digest[:36], path=path, context=context)
        for path, digest, context in read
    )


def deciding(trial: TrialRow) -> Verdict | None:
    """The confirmation where there is one, else the screen."""
    return verdict_of(trial, "confirm") or verdict_of(trial, "screen")


def verdict_of(trial: TrialRow, rule: str) -> Verdict | None:
    """A trial's verdict by one rule."""
    stored = object_of(trial.verdict).get(rule)
    return Verdict.model_validate(stored) if stored else None


def short(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags cut to what MLflow takes."""
    return {name: value[:MAX_TAG] for name, value in tags.items()}


def points_of(figures: Mapping[str, float | None], step: int, at_ms: int) -> tuple[Point, ...]:
    """Points of the finite figures, all at one step."""
    known = {name: value for name, value in figures.items() if value is not None and math.isfinite(value)}
    return tuple(Point(name, float(value), step, at_ms) for name, value in sorted(known.items()))


def _flat(value: Any, prefix: str = "") -> Iterable[tuple[str, str]]:
    """Nested objects as dotted names."""
    if isinstance(value, dict):
        for name, inner in cast("dict[str, Any]", value).items():
            yield from _flat(inner, f"{prefix}.{name}" if prefix else name)
    elif value is not None:
        yield prefix, value if isinstance(value, str) else json.dumps(value)


def object_of(value: Any) -> dict[str, Any]:
    """The JSON object, empty for anything else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def end_ms_of(row: JobRow) -> int:
    """When the newest attempt was settled, else when it was started."""
    return milliseconds(row.finished_at or row.started_at)


def milliseconds(at: datetime) -> int:
    """Milliseconds since the epoch: MLflow's unit of time."""
    return round(at.timestamp() * 1000)
