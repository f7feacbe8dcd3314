"""Reads a study's trials back from MLflow: the history that the planner proposes from."""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from pydantic import JsonValue

from nightsmith.record.digest import Contract
from nightsmith.record.workspace import Workspace
from nightsmith.trainer import tracking

_SCREENED_ROLES = ("baseline", "calibration", "trial")


class TrialMetrics(Contract):
    """One trial as MLflow shows it. Trial 0 is the baseline, its figures are means over its seeds."""

    trial: int
    """Trial number."""
    move: str
    """Kind of change."""
    hypothesis: str
    """The proposer's words: shown fenced, never evidence."""
    change: dict[str, JsonValue]
    """Setting -> value."""
    verdict: str
    """The deciding verdict's decision, or `none yet`."""
    statuses: tuple[str, ...]
    """How its jobs ended."""
    num_runs: int
    """Runs that the figures are means over; confirmations and sealed evaluations are not among them."""
    metrics: dict[str, float]
    """Metric name -> mean over those runs, e.g. `dev/bits_per_byte`, `screen/estimate`, `time/wall_s`."""


def read_metrics(ws: Workspace, study: str) -> tuple[TrialMetrics, ...]:
    """The study's trials by number; empty where nothing was projected yet."""
    runs: defaultdict[int, list[Any]] = defaultdict(list)
    for run in tracking.read_runs(ws, study):
        if run.data.tags.get("trial.role") in _SCREENED_ROLES:
            runs[int(run.data.tags["trial.index"])].append(run)
    return tuple(_trial(number, runs[number]) for number in sorted(runs))


def _trial(number: int, runs: Sequence[Any]) -> TrialMetrics:
    tags: dict[str, str] = runs[0].data.tags
    values: defaultdict[str, list[float]] = defaultdict(list)
    for run in runs:
        for name, value in run.data.metrics.items():
            values[name].append(value)
    return TrialMetrics(
        trial=number,
        move=tags.get("trial.move", ""),
        hypothesis=tags.get("trial.hypothesis", ""),
        change=json.loads(tags.get("trial.change", "{}")),
        verdict=tags.get("trial.verdict", "none yet"),
        statuses=tuple(run.data.tags.get("nightsmith.status", "RUNNING") for run in runs),
        num_runs=len(runs),
        metrics={name: sum(found) / len(found) for name, found in sorted(values.items())},
    )
