"""Trials an hour: two of one thread side by side, as a study packs them, against one after the other with two threads.

    python -m benchmarks packing [--pairs 4] [--steps 300] [--preset nano] [--source python-stdlib]

A trial is a whole job: start (warm), training, checkpoint, dev evaluation, exit record. Both ways alternate; a pair of
trials is timed from the first start to the moment at which the second result is known.
"""

import argparse
import os
import statistics
import tempfile
import time
from itertools import count
from pathlib import Path

from benchmarks.warm_start import STUDY, prepared, waited
from nightsmith.record.workspace import Workspace
from nightsmith.tools.data.manifest import Manifest
from nightsmith.tools.training import Pretrain, pretrain_spec
from nightsmith.trainer import jobs
from nightsmith.trainer.launch import warm
from nightsmith.trainer.spec import RunStatus

_SEEDS = count()


def started(ws: Workspace, manifest: Manifest, args: argparse.Namespace, threads: int) -> str:
    """Start one trial; returns its key."""
    seed = next(_SEEDS)
    recipe = Pretrain(dataset=manifest.dataset, preset=args.preset, num_steps=args.steps, seed=seed)
    spec = pretrain_spec(recipe, manifest, ws)
    return jobs.start(ws, spec, study=STUDY, step=f"seed-{seed}", role="trial", time_limit_s=600, num_devices=threads)


def ended(ws: Workspace, keys: list[str]) -> None:
    """Wait until all of them have finished."""
    results = waited(lambda: [r for r in [[jobs.poll(ws, key) for key in keys]] if None not in r])[0]
    assert all(result.status is RunStatus.FINISHED for result in results), results


def side_by_side_s(ws: Workspace, manifest: Manifest, args: argparse.Namespace) -> float:
    """Seconds of two trials of one thread at once."""
    begun = time.monotonic()
    ended(ws, [started(ws, manifest, args, 1) for _ in range(2)])
    return time.monotonic() - begun


def in_turn_s(ws: Workspace, manifest: Manifest, args: argparse.Namespace) -> float:
    """Seconds of two trials of two threads, one after the other."""
    begun = time.monotonic()
    for _ in range(2):
        ended(ws, [started(ws, manifest, args, 2)])
    return time.monotonic() - begun


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--source", default="python-stdlib")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ |= {"NIGHTSMITH_CACHE": temporary, "NIGHTSMITH_DEVICES": "cpu:0,cpu:1"}
        ws, manifest = prepared(Path(temporary), args.source)
        warm.bring_up()
        sockets = waited(lambda: list(Path(temporary).glob("servers/*.sock")))
        pairs = [(side_by_side_s(ws, manifest, args), in_turn_s(ws, manifest, args)) for _ in range(args.pairs)]
        sockets[0].unlink()
    for name, seconds in zip(("side by side", "one after the other"), zip(*pairs, strict=True), strict=True):
        pair_s = statistics.median(seconds)
        print(f"{name:20} {pair_s:6.2f} s a pair, {7200 / pair_s:5.0f} trials an hour")
    ratios = [turn / side for side, turn in pairs]
    print(f"ratio {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
