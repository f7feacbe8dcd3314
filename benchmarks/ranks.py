"""Tokens per second of one process against two, one thread each: the trainer's own steps, in windows that take turns.

    python -m benchmarks ranks [--preset mini] [--batch-size ROWS] [--plans dp+ep,fsdp+ep] [--windows 15]
                               [--exchange all_gather] [--profile]

This process trains alone; the two wait meanwhile. CPU seconds are told too: on a machine that others use, waiting for
the slower one of two is not told apart from what the exchange costs. A step's batch, `--batch-size` or the preset's, is
the same on both sides. With `--profile` rank 0's operators are listed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Client, Listener
from pathlib import Path
from statistics import median

import torch
from torch import distributed as dist

from benchmarks.training_step import pretraining, ratio, seconds_per_step, spec_of, windows_of
from nightsmith.model.capacity.sharding import ParallelPlan
from nightsmith.model.presets import PRESETS
from nightsmith.trainer import mesh
from nightsmith.trainer.pretrain import Pretraining
from nightsmith.trainer.spec import PretrainSpec

PLANS = {
    "dp": ParallelPlan(dp=2),
    "dp+ep": ParallelPlan(dp=2, ep=2),
    "fsdp": ParallelPlan(fsdp=2),
    "fsdp+ep": ParallelPlan(fsdp=2, ep=2),
    "tp": ParallelPlan(tp=2),
}
KEY = b"ranks"
WINDOW_S = 1.5


def spec_with(preset: str, batch_size: int, **changes: object) -> PretrainSpec:
    """The default recipe on a preset, with so many rows in a step."""
    return spec_of(preset, architecture=PRESETS[preset].model_copy(update={"batch_size": batch_size}), **changes)


def rank(address: str, preset: str, plan: str, exchange: str, batch_size: int, *, profile: bool) -> None:
    """One of two processes: rank 0 is told how many steps to take, and answers with the seconds that they took."""
    mesh.ALL_GATHER = exchange
    with tempfile.TemporaryDirectory() as folder:
        spec = spec_with(preset, batch_size, parallel=PLANS[plan])
        training = pretraining(spec, windows_of(spec), 1, Path(folder))
        with training.computing():
            _seconds(training, 3)
            if profile:
                _profile(training)
            _serve(address, training)


def _serve(address: str, training: Pretraining) -> None:
    first = dist.get_rank() == 0
    told = Client(address, authkey=KEY) if first else None
    while True:
        steps = torch.tensor([told.recv() if told else 0])
        dist.broadcast(steps, 0)
        if not steps.item():
            return
        seconds = _seconds(training, int(steps.item()))
        if told:
            told.send(seconds)


def _seconds(training: Pretraining, steps: int) -> tuple[float, float]:
    """Wall and CPU seconds of a step."""
    started = time.process_time()
    return seconds_per_step(training.step, steps, time.perf_counter), (time.process_time() - started) / steps


def _profile(training: Pretraining) -> None:
    with torch.profiler.profile() as profiler:
        _seconds(training, 5)
    if dist.get_rank() == 0:
        print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=30, max_name_column_width=40))


def measure(args: argparse.Namespace, plan: str) -> None:
    """Print both speeds and their ratio."""
    spec = spec_with(args.preset, args.batch_size or PRESETS[args.preset].batch_size)
    with tempfile.TemporaryDirectory() as folder, Listener(authkey=KEY) as listener:
        batch_size = str(spec.architecture.batch_size)
        options = [args.preset, plan, args.exchange, batch_size, *(["--profile"] if args.profile else [])]
        argv = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            "-m",
            "benchmarks.ranks",
        ]
        ranks = subprocess.Popen(
            [*argv, "--rank", listener.address, *options],
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        )
        alone = pretraining(spec, windows_of(spec), 1, Path(folder))
        threading.Thread(target=_end_with, args=(ranks,), daemon=True).start()
        with listener.accept() as two, alone.computing():
            seconds: dict[str, list[tuple[float, float]]] = {"one": [], "two": []}
            steps = max(1, round(WINDOW_S / min(_seconds(alone, 1)[0] for _ in range(3))))
            for window in range(args.windows):
                for name in ("one", "two") if window % 2 else ("two", "one"):
                    if name == "one":
                        seconds[name].append(_seconds(alone, steps))
                    else:
                        two.send(steps)
                        seconds[name].append(two.recv())
                told = ", ".join(
                    f"{name} {each[-1][0]:.2f} s (CPU {each[-1][1]:.2f})" for name, each in seconds.items()
                )
                print(f"  a step: {told}", flush=True)
            two.send(0)
        ranks.wait()
    tokens = spec.architecture.batch_size * spec.architecture.seq_len
    wall, cpu = ({name: [each[clock] for each in values] for name, values in seconds.items()} for clock in (0, 1))
    rates = {name: tokens / median(values) for name, values in wall.items()}
    print(
        f"{args.preset} {plan}, {tokens:,} tokens a step: one process {rates['one']:,.0f} tokens/s, "
        f"two {rates['two']:,.0f}: "
        f"{ratio(wall['one'], wall['two'])} over {args.windows} windows of {steps} steps; "
        f"CPU seconds of a step: {median(cpu['one']):.3f}, of rank 0: {median(cpu['two']):.3f}",
        flush=True,
    )


def _end_with(ranks: subprocess.Popen[bytes]) -> None:
    """Nobody answers once the ranks have failed."""
    if ranks.wait():
        os._exit(1)


def main() -> int:
    """Measure each plan, or be one of its ranks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--batch-size", type=int, help="rows of a step, on both sides")
    parser.add_argument("--plans", type=lambda text: text.split(","), default=["dp+ep", "fsdp+ep"])
    parser.add_argument("--windows", type=int, default=15)
    parser.add_argument("--exchange", default=mesh.ALL_GATHER, help="how tokens reach the experts of other ranks")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--rank", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.rank:
        rank(*args.rank[:-1], int(args.rank[-1]), profile=args.profile)
        return 0
    for plan in args.plans:
        measure(args, plan)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
