"""Whether a running trial is so far behind earlier ones at the same point of training that its end is not worth it.

A curve is (share of the steps done, training loss) in order. Trials see the same tokens, whatever their batch size, so
that equal shares are comparable. A trial is held against the best of the earlier ones, since it is tried to beat
that one, but by a margin: training loss is not the metric, and a rate that decays late catches up.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from nightsmith.record import events
from nightsmith.record.workspace import Workspace
from nightsmith.trainer import jobs
from nightsmith.trainer.jobrows import STARTED, JobRow
from nightsmith.trainer.journal import JOURNAL, read_journal
from nightsmith.trainer.spec import PretrainSpec, RunStatus, SftSpec

Curve = Sequence[tuple[float, float]]
"""(Share of the steps done, training loss in nats per token), in order."""
LEAST_SHARE = 0.35
"""Nothing is judged before: warm-up takes up to 0.3 of the steps, and what any model learns first tells little."""
MARGIN = 0.05
"""By how much of the loss a trial must be worse than the best of the earlier ones."""
SMOOTHED, SMOOTHED_SHARE = 5, 1 / 8
"""Points of a journal that are averaged at least, and the share of the steps: the loss of one step is noisy."""
COMPARED = ("baseline", "calibration", "trial")


def is_behind(running: Curve, earlier: Sequence[Curve]) -> bool:
    """Whether the newest point of a running trial is clearly worse than what earlier trials had reached by then."""
    if not running:
        return False
    share, loss = running[-1]
    if not LEAST_SHARE <= share < 1:
        return False
    then = [known for curve in earlier if (known := loss_at(curve, share)) is not None]
    return bool(then) and not loss <= (1 + MARGIN) * min(then)


def loss_at(curve: Curve, share: float) -> float | None:
    """The loss at that share of the steps, or the last one before it; None where the curve begins later."""
    at = bisect_right([point for point, _ in curve], share + 1e-9)
    return curve[at - 1][1] if at else None


def curve_of(lines: Iterable[dict[str, Any]]) -> Curve:
    """The curve in a job's journal, each point the mean of an eighth; of a job that went on, all attempts."""
    losses: dict[float, float] = {}
    for line in lines:
        loss, step, num_steps = (line.get(name) for name in ("loss", "step", "num_steps"))
        if line.get("kind") == "step" and loss is not None and step and num_steps and math.isfinite(loss):
            losses[step / num_steps] = loss
    points = sorted(losses.items())
    shares = [share for share, _ in points]
    found: list[tuple[float, float]] = []
    for end in range(SMOOTHED, len(points) + 1):
        first = min(end - SMOOTHED, bisect_right(shares, shares[end - 1] - SMOOTHED_SHARE))
        found.append((shares[end - 1], fmean(loss for _, loss in points[first:end])))
    return found


@dataclass
class Pruner:
    """Watches the trials of one study."""

    ws: Workspace
    study: str
    known: dict[str, Curve] = field(default_factory=dict[str, Curve])
    """Curves of jobs that have finished, by key."""

    def hopeless(self, keys: Sequence[str]) -> list[str]:
        """Those of the running jobs that are to be stopped. Each is said once, in the event that marks it."""
        rows = jobs.rows(self.ws, self.study)
        running = [row for row in rows if row.key in keys and row.state == STARTED and row.role == "trial"]
        marked = {key for key, _ in reasons(self.ws, self.study).values()}
        return [row.key for row in running if row.key in marked or self._mark(row, rows)]

    def _mark(self, row: JobRow, rows: Sequence[JobRow]) -> bool:
        spec = row.spec
        if not isinstance(spec, PretrainSpec | SftSpec):  # losses of other methods say nothing of where they stand
            return False
        alike = [each for each in rows if each.role in COMPARED and each.state == RunStatus.FINISHED]
        earlier = [
            self._curve(e) for e in alike if e.spec.kind == spec.kind and getattr(e.spec, "data", "") == spec.data
        ]
        running = _read(row)
        if not is_behind(running, earlier):
            return False
        share, loss = running[-1]
        told = f"Pruned at {share:.0%} of its steps: a training loss of {loss:.3g}, clearly above the best run's."
        events.append(self.ws, self.study, "pruned", trial=row.trial, job=row.key, data={"reason": told})
        return True

    def _curve(self, row: JobRow) -> Curve:
        if row.key not in self.known:
            self.known[row.key] = _read(row)
        return self.known[row.key]


def _read(row: JobRow) -> Curve:
    return curve_of(read_journal(Path(row.launch.workdir) / JOURNAL))


def reasons(ws: Workspace, study: str) -> dict[int, tuple[str, str]]:
    """Trials that were pruned: number -> (job key, why)."""
    marks = (event for event in events.read(ws, study=study) if event.kind == "pruned")
    return {event.trial or 0: (event.job or "", str(event.data.get("reason", ""))) for event in marks}
