"""Seconds until a threshold is reached: Nightsmith's proposals, the same without the model's moves, Optuna TPE, random.

    python -m benchmarks tuning [--seeds 5] [--problems reference,headers,names] [--cache FILE] [--study] [--json out]

Three small pre-trainings on different texts, by different metrics, from recipes whose faults differ; nothing was tuned
on them. Every arm begins with the same recipe, whose run it knows and pays for. A trial's result depends on problem,
settings and seed alone, so that arms share it through the cache. Counted are the CPU seconds of the trials, up to where
they were pruned, and those that the arm takes to choose, with all threads of the planner's server. An arm that does not
arrive counts with all that it spent. `--study 16` draws recipes at random: a threshold is the second best of sixteen,
of other seeds than the arms'; the recipes themselves are not told. `--problems stdlib,goals,docs` are for practice.
"""

import argparse
import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

from benchmarks.tuned.arms import ARMS, Results, measured
from benchmarks.tuned.problems import HELD_OUT, PROBLEMS
from nightsmith.agent.plan import Tunable


def ratio(ours: list[float], theirs: list[float], draws: int = 4000) -> tuple[float, float, float]:
    """Ratio of the medians, with the 95 % interval of a bootstrap over seeds."""
    rng = np.random.default_rng(0)
    mine, other = np.array(ours), np.array(theirs)
    picks = rng.integers(len(mine), size=(draws, len(mine)))
    ratios = np.median(mine[picks], axis=1) / np.median(other[picks], axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(np.median(mine) / np.median(other)), float(low), float(high)


def study(results: Results, names: list[str], count: int) -> None:
    """Random recipes, so that a threshold can be set without one of them being seen."""
    for name in names:
        problem, draw = PROBLEMS[name], random.Random(name)
        base = [results.of(name, problem.base, 100 + seed, _never) for seed in range(3)]
        rows = [
            results.of(name, {**problem.base, **{t.name: _drawn(t, draw) for t in problem.space}}, 100 + number, _never)
            for number in range(count)
        ]
        best = sorted((row["value"] for row in rows), key=lambda value: -problem.sign * value)
        values, seconds = [row["value"] for row in base], [row["seconds"] for row in (*base, *rows)]
        told = f"base {np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}, second best of {count} {best[1]:.4f}"
        print(f"{name}: {told}; trials of {min(seconds):.1f} to {max(seconds):.1f} CPU seconds", flush=True)


def _never(share: float, loss: float) -> bool:
    del share, loss
    return False


def _drawn(tunable: Tunable, draw: random.Random) -> Any:
    if tunable.kind == "choice":
        return draw.choice(tunable.choices)
    low, high = tunable.low or 0.0, tunable.high or 0.0
    return float(f"{low * (high / low) ** draw.random():.2g}") if tunable.log else round(draw.uniform(low, high), 2)


def main() -> None:
    """Measure what is asked for, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--problems", default=",".join(HELD_OUT))
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--cache", type=Path, default=Path("tuning.jsonl"))
    parser.add_argument("--study", type=int, default=0, metavar="N", help="find thresholds by N random recipes instead")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    results, names = Results(args.cache), args.problems.split(",")
    if args.study:
        return study(results, names, args.study)
    rows: list[dict[str, Any]] = []
    order = [(name, arm, seed) for seed in range(args.seeds) for name in names for arm in args.arms.split(",")]
    with suppress(KeyboardInterrupt):  # what there is counts
        for name, arm, seed in order:
            run = measured(arm, name, seed, results)
            rows.append({"arm": arm, "problem": name, "seed": seed, "seconds": run.seconds,
                         "choosing_s": run.choosing_s, "trials": run.trials, "pruned": run.pruned,
                         "arrived": run.arrived})  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
    report(rows, names)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    return None


def report(rows: list[dict[str, Any]], names: list[str]) -> None:
    """Medians, and ratios of Nightsmith's to each other arm's."""
    for name in names:
        seconds = {arm: [r["seconds"] for r in rows if (r["arm"], r["problem"]) == (arm, name)] for arm in ARMS}
        for arm, own in ((arm, own) for arm, own in seconds.items() if own):
            mine = [r for r in rows if (r["arm"], r["problem"]) == (arm, name)]
            trials, choosing = (np.median([row[name_] for row in mine]) for name_ in ("trials", "choosing_s"))
            line = f"{name:8} {arm:11} median {np.median(own):6.2f} s, {trials:g} trials, choosing {choosing:.2f} s, "
            line += f"arrived {sum(row['arrived'] for row in mine)} of {len(mine)}"
            if seconds["nightsmith"] and arm != "nightsmith":
                line += "; nightsmith {:.2f}x [{:.2f}, {:.2f}] of it".format(*ratio(seconds["nightsmith"], own))
            print(line)


if __name__ == "__main__":
    main()
