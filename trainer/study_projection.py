"""What MLflow should show of a study as a whole: outcome, best value by trial, what it cost. Figures only."""

import math
from collections.abc import Sequence

from pydantic import ValidationError

from nightsmith.evals import stats
from nightsmith.evals.targets import lower_is_better
from nightsmith.evals.types import Decision, MetricName, Target
from nightsmith.record import budget, studies
from nightsmith.record.errors import BudgetSpent
from nightsmith.record.studies import StudyRow, TrialRow
from nightsmith.record.workspace import Workspace
from nightsmith.trainer import jobrows
from nightsmith.trainer.jobrows import JobRow
from nightsmith.trainer.projection import (
    Point,
    RunView,
    end_ms_of,
    milliseconds,
    object_of,
    points_of,
    short,
    verdict_of,
)

BASELINE_ROLES = ("baseline", "calibration")
_NO_EVIDENCE = (Decision.UNVERIFIED, Decision.TAMPERED)


def study_view(ws: Workspace, study: str) -> RunView:
    """The parent run: outcome, best value by trial, cost, wall time."""
    row, trials = studies.get(ws, study), studies.trials(ws, study)
    rows = jobrows.rows(ws, study)
    at = (
        milliseconds(row.finished_at)
        if row.finished_at
        else max([milliseconds(row.created_at), *(end_ms_of(job) for job in rows)])
    )
    tags = {
        "nightsmith.study": study,
        "nightsmith.kind": "study",
        "nightsmith.goal": row.goal,
        "nightsmith.state": row.state,
        "nightsmith.outcome": row.outcome or "none yet",
    }
    return RunView(
        key=study_key(study),
        name=f"{study}: {row.goal[:80]}",
        start_ms=milliseconds(row.created_at),
        end_ms=milliseconds(row.finished_at) if row.finished_at else None,
        status="FINISHED" if row.outcome else "RUNNING",
        tags=short(tags),
        points=(*_best(row, trials, rows), *_spent(ws, study, at)),
    )


def study_key(study: str) -> str:
    """Key of a study's parent run."""
    return f"study-{study}"


def _best(row: StudyRow, trials: Sequence[TrialRow], rows: Sequence[JobRow]) -> tuple[Point, ...]:
    """Best screened dev value so far by trial number, from the mean of the baseline's seeds on."""
    targets = _targets(row)
    screens = {trial.number: verdict_of(trial, "screen") for trial in trials}
    named: list[MetricName] = [*(t.metric for t in targets), *(v.metric for v in screens.values() if v)]
    metric = named[0] if named else "bits_per_byte"
    at = {job.trial: end_ms_of(job) for job in rows if job.role in ("baseline", "trial")}
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
    started = milliseconds(row.created_at)
    return tuple(
        Point(f"study/best_{metric}", value, number, at.get(number, started)) for number, value in best.items()
    )


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
    return points_of(figures, spent.trials, at_ms)


def _targets(row: StudyRow) -> list[Target]:
    try:
        return [Target.model_validate(target) for target in object_of(row.spec).get("targets") or ()]
    except ValidationError:
        return []
