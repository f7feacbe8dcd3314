"""Seconds of `nightsmith plan "GOAL"` as a whole command: warm, beside a running job, and from a cold start.

    python -m benchmarks plan_latency [--goals 30] [--cold 5] [--json out.json]

Goals that the planner was never trained on, the embedded planner, a fresh workspace. `cold` stops the planner's server
before each command. The job beside is pre-training of `nano` with as many threads as there are cores. Bars: warm on
idle cores at most 2 s in the median and 4 s at the 95th percentile, beside a job at most 8 s, cold at most 6 s.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from nightsmith.model.planner_server import ADAPTER, ensure, stop

GOALS = Path(__file__).parents[1] / "examples" / "planner" / "heldout_third.jsonl"
COMMAND = [sys.executable, "-m", "nightsmith.agent.cli"]
JOB = [sys.executable, "-m", "benchmarks", "training_step", "arm", "--arm", "ours", "--presets", "nano"]


WARM_UP_S = 30.0
"""Seconds from the job's start until it surely trains."""


def seconds(goal: str, folder: Path) -> float:
    """One command from its start to its end."""
    began = time.monotonic()
    done = subprocess.run([*COMMAND, "plan", goal, "--json"], cwd=folder, capture_output=True, text=True)
    assert done.stdout.lstrip().startswith("{"), done.stderr
    return time.monotonic() - began


@contextmanager
def a_job() -> Iterator[None]:
    """Pre-training that goes on meanwhile."""
    threads = ["--threads", str(len(os.sched_getaffinity(0)))]
    job = subprocess.Popen([*JOB, *threads], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert job.stdin is not None
    try:
        print(10**9, file=job.stdin, flush=True)
        time.sleep(WARM_UP_S)
        yield
    finally:
        job.kill()
        job.wait()


def told(name: str, values: list[float]) -> dict[str, float]:
    """Print median, 95th percentile and the longest."""
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)]
    print(f"{name:10} median {median(values):.2f} s, p95 {p95:.2f} s, longest {ordered[-1]:.2f} s, n {len(values)}")
    return {"median_s": median(values), "p95_s": p95, "longest_s": ordered[-1], "n": len(values)}


def main() -> int:
    """Print the three."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--goals", type=int, default=30)
    parser.add_argument("--cold", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    goals = [json.loads(line)["goal"] for line in GOALS.read_text().splitlines()]
    goals = goals[:: max(1, len(goals) // args.goals)]
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds(goals[0], folder)
        found["warm"] = told("warm", [seconds(goal, folder) for goal in goals])
        with a_job():
            found["beside"] = told("beside", [seconds(goal, folder) for goal in goals])
        cold: list[float] = []
        for goal in goals[: args.cold]:
            stop(ensure(ADAPTER))
            cold.append(seconds(goal, folder))
        found["cold"] = told("cold", cold)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
