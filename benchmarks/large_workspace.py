"""A workspace with 2,000 trials: how long `studies`, `show` and `report` take as whole commands.

    python benchmarks/large_workspace.py [--trials 2000] [--repeat 5] [--keep FOLDER]

Three quarters of the trials belong to one study. Rows, events, verdicts, result files and journals are written through
the record as a run leaves them, nothing is trained. Files are in the page cache, as after a night. Exit 1 where a
median is beyond the bar.
"""

import argparse
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "fakes"))
from study_factory import GOAL, TARGET, Idea, StudyFactory, workspace_in_memory

from nightsmith.evals.types import Decision
from nightsmith.record import events
from nightsmith.trainer.journal import JOURNAL, Journal
from nightsmith.trainer.spec import RunStatus

BAR_S = 2.0
LARGE_SHARE = 0.775
"""Share of the trials that one study has; the others are spread over studies of a hundred, and of five."""
JOURNAL_LINES = 40


def make(num_trials: int, place: Path) -> str:
    """Write the workspace to `place`; returns the id of its large study."""
    large = round(num_trials * LARGE_SHARE)
    rest = num_trials - large
    sizes = [100] * (rest // 125) + [5] * ((rest - 100 * (rest // 125)) // 5)
    with workspace_in_memory() as ws:  # a transaction on a disk waits for it: an hour instead of a minute
        factory = StudyFactory(ws)
        for size in sizes:
            _study(factory, size)
        study = _study(factory, large)
        shutil.copytree(ws.root, place)
    return study


def _study(factory: StudyFactory, num_trials: int) -> str:
    """One study that ran to its end without reaching its target, its best trials confirmed."""
    study = factory.planned(f"{GOAL} {num_trials} trials.", (TARGET,), max_trials=num_trials)
    factory.baseline(study)
    rng, best = random.Random(num_trials), {1: 0.0}
    for number in range(1, num_trials + 1):
        idea = _idea(rng)
        key = factory.trial(study, number, idea)
        if idea.status is RunStatus.FINISHED:
            best[number] = idea.difference
        _leave_traces(factory, study, number, key)
    for number in sorted(best, key=lambda trial: best[trial])[:3]:
        factory.confirmed(study, number, best[number])
    factory.ended(study, "IMPROVED", reason="No sealed fold is left.", claims=[], winner=None)
    return study


def _idea(rng: random.Random) -> Idea:
    difference = rng.gauss(0.05, 0.08)
    change = {"learning_rate": round(10 ** rng.uniform(-4, -2), 6), "batch_size": rng.choice([4, 8, 16])}
    if rng.random() < 0.02:
        return Idea(change, "Go where nobody was.", difference, status=RunStatus.NOT_FINITE, reason="The loss is NaN.")
    decision = Decision.REJECTED if difference > 0.06 else Decision.INCONCLUSIVE
    return Idea(change, "A higher peak learning rate uses the few steps better.", difference, decision)


def _leave_traces(factory: StudyFactory, study: str, number: int, key: str) -> None:
    """The events and the journal that a job leaves beside its result."""
    started = {"attempt": 1, "devices": ["cpu:0"], "kind": "pretrain", "role": "trial", "step": f"trial-{number}"}
    finished = {"attempt": 1, "num_steps": 400, "reason": "", "status": "FINISHED", "wall_s": 24.5}
    events.append(factory.ws, study, "job_started", trial=number, job=key, data=started, now=factory.now)
    events.append(factory.ws, study, "job_finished", trial=number, job=key, data=finished, now=factory.now)
    journal = Journal(factory.ws.run_dir(key) / JOURNAL, 1)
    for step in range(1, JOURNAL_LINES + 1):
        journal.write("step", step=step * 10, loss=5 - step / 10, learning_rate=0.001, tokens_per_s=28_000.0)


def measure(command: list[str], workspace: Path, repeat: int) -> tuple[list[float], float]:
    """Seconds of each repetition, from the start of the process to its end; mean seconds of its CPU time."""
    seconds: list[float] = []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(repeat):
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "nightsmith.agent.cli", *command, "--workspace", str(workspace)],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        seconds.append(time.perf_counter() - begun)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / repeat


def main() -> int:
    """Make it, measure it, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--keep", type=Path, default=None, help="Make it here (or use what is there), and leave it.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = args.keep or Path(scratch) / ".nightsmith"
        study = make(args.trials, place) if not place.exists() else (place / "large").read_text()
        (place / "large").write_text(study)
        slow = False
        load = os.getloadavg()[0]
        print(f"{args.trials} trials; load {load:.1f}; whole commands, {args.repeat} times; bar {BAR_S:.0f} s")
        for command in (["studies"], ["show", study], ["show", study, "--json"], ["report", study]):
            seconds, cpu_s = measure(command, place, args.repeat)
            middle = statistics.median(seconds)
            slow = slow or middle > BAR_S
            shown = " ".join(command)
            print(f"  {shown:18} {middle:5.2f} s   ({min(seconds):.2f} to {max(seconds):.2f}; CPU {cpu_s:.2f} s)")
    return int(slow)


if __name__ == "__main__":
    raise SystemExit(main())
