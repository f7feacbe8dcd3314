"""Where a study's time goes: seconds per trial outside training and evaluation, by phase.

    python benchmarks/overhead.py WORKSPACE STUDY

Reads a finished study (the demo's, say). Start is process start and imports to the first step; the rest of a round is
spawn, exit, settlement, judgement, MLflow and the planner's proposal.
"""

import sys
from datetime import datetime
from pathlib import Path
from statistics import mean

from nightsmith.record import events
from nightsmith.record.workspace import open_workspace
from nightsmith.trainer import jobs
from nightsmith.trainer.spec import RunResult

Interval = tuple[float, float]


def rounds(workspace: Path, study: str) -> list[tuple[Interval, list[RunResult]]]:
    """Rounds of training jobs that ran side by side: from one round's start to the next one's, and their results."""
    ws = open_workspace(workspace)
    stream = events.read(ws, study=study)
    rows = {row.key: row for row in jobs.rows(ws, study)}
    starts: dict[float, list[RunResult]] = {}
    for event in stream:
        result = rows[event.job].result if event.kind == "job_started" and event.job else None
        if result is None:
            continue
        at = next((known for known in starts if abs(known - event.at.timestamp()) < 3), event.at.timestamp())
        starts.setdefault(at, []).append(result)
    ends = [*list(starts)[1:], _outcome_at(stream)]
    return [((begun, end), results) for (begun, results), end in zip(starts.items(), ends, strict=True)]


def _outcome_at(stream: list[events.Event]) -> float:
    found: list[datetime] = [event.at for event in stream if event.kind == "outcome"]
    return found[-1].timestamp() if found else stream[-1].at.timestamp()


def main() -> int:
    """Print the table."""
    rows = []
    for (begun, end), results in rounds(Path(sys.argv[1]), sys.argv[2]):
        busy = max(result.train_s + result.evaluate_s for result in results)
        start = max(result.wall_s - result.train_s - result.evaluate_s for result in results)
        rows.append((end - begun, busy, start, end - begun - max(result.wall_s for result in results)))
    print(f"{len(rows)} rounds; means in seconds per round of side-by-side jobs")
    for name, column in zip(
        ("round", "train + evaluate", "start of the process", "around it"), zip(*rows, strict=True), strict=True
    ):
        print(f"  {name:22} {mean(column):6.1f}   (largest {max(column):.1f})")
    print(f"  {'outside training':22} {mean(row[0] - row[1] for row in rows):6.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
