"""Training steps per second against transformers' own model, and what bfloat16 products do to the loss.

    python -m benchmarks training_step [speed] [--presets nano,micro,mini] [--threads 1] [--windows 15] [--clock wall]
    python -m benchmarks training_step curves [--presets nano,micro,mini] [--seeds 0,1,2] [--steps 300]

`speed` interleaves windows of the trainer's own step (all health metrics on) with a plain loop around transformers'
Mistral4 in float32, with either of its backends that are fast on a CPU; each in a process of its own, as a job sets up
memory and threads for its process. On a machine that others use too, `--clock cpu`
counts the process's own seconds (with one thread: those of an idle machine). `curves` trains each seed with bfloat16
products and without, on the running interpreter's standard library. Nothing is compiled.
"""

import argparse
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, median, stdev
from typing import Protocol

import numpy as np
import torch
from scipy import stats
from torch import nn
from transformers.models.mistral4.modeling_mistral4 import Mistral4ForCausalLM

from nightsmith.evals.evidence import flops_per_token
from nightsmith.model.presets import PRESETS
from nightsmith.model.small4 import make_config
from nightsmith.tools.data.resolve import resolve
from nightsmith.trainer.attempt import Attempt
from nightsmith.trainer.journal import Journal
from nightsmith.trainer.optimizers import make_optimizer
from nightsmith.trainer.pretrain import Pretraining, next_token_loss, tail_mean
from nightsmith.trainer.spec import PretrainSpec
from nightsmith.trainer.text import Windows, pack

Step = Callable[[], object]
BACKENDS = ("grouped_mm", "eager")
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
WINDOW_S = 0.6
"""Seconds of a window, at least one step."""


def spec_of(preset: str, **changes: object) -> PretrainSpec:
    """The default recipe on a preset."""
    recipe = {"num_steps": 1_000_000, **changes}
    return PretrainSpec.model_validate({"architecture": PRESETS[preset], "data": "-", "data_digest": "-", **recipe})


def windows_of(spec: PretrainSpec) -> Windows:
    """Training windows from the interpreter's standard library."""
    texts = [file.path.read_bytes() for file in resolve("python-stdlib").files]
    return Windows(pack(texts), spec.architecture.seq_len, spec.architecture.batch_size, spec.seed)


def pretraining(spec: PretrainSpec, windows: Windows, threads: int, folder: Path) -> Pretraining:
    """The trainer's own state, in a run folder of its own."""
    devices = tuple(f"cpu:{place}" for place in range(threads))
    return Pretraining(Attempt(folder, devices, Journal(folder / "events.jsonl", 1), lambda: None), spec, windows)


def stock_step(spec: PretrainSpec, windows: Windows, backend: str) -> Step:
    """A plain loop around transformers' model."""
    torch.manual_seed(0)
    model = Mistral4ForCausalLM(make_config(spec.architecture)).train()
    model.set_experts_implementation(backend)
    optimizer, steps = make_optimizer(model.parameters(), spec), iter(range(spec.num_steps))

    def step() -> None:
        next_token_loss(model, torch.from_numpy(windows.batch(next(steps)))).backward()
        nn.utils.clip_grad_norm_(model.parameters(), spec.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def peak(dtype: torch.dtype, clock: Callable[[], float]) -> float:
    """Matrix-product operations per second of this machine with torch's threads, best of several."""
    a = torch.randn(1024, 1024).to(dtype)
    seconds = []
    for _ in range(12):
        started = clock()
        a @ a
        seconds.append(clock() - started)
    return 2 * 1024**3 / min(seconds)


def seconds_per_step(step: Step, steps: int, clock: Callable[[], float]) -> float:
    """Mean over one window."""
    started = clock()
    for _ in range(steps):
        step()
    return (clock() - started) / steps


def arm(args: argparse.Namespace) -> None:
    """Be one arm: a line with what it computes in, then seconds per step for each number of steps read."""
    torch.set_num_threads(args.threads)
    spec = spec_of(args.presets[0])
    with tempfile.TemporaryDirectory() as folder:
        if args.arm != "ours":
            _answer("float32", stock_step(spec, windows_of(spec), args.arm), args)
            return
        training = pretraining(spec, windows_of(spec), args.threads, Path(folder))
        with training.computing():
            _answer(training.products, training.step, args)


def _answer(products: str, step: Step, args: argparse.Namespace) -> None:
    print(products, flush=True)
    for line in sys.stdin:
        print(seconds_per_step(step, int(line), CLOCKS[args.clock]), flush=True)


class Arm:
    """An arm's process."""

    def __init__(self, name: str, preset: str, args: argparse.Namespace) -> None:
        options = {"arm": name, "presets": preset, "threads": args.threads, "clock": args.clock}
        command = [sys.executable, __file__, "arm", *(f"--{key}={value}" for key, value in options.items())]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.products = self._line()

    def seconds_per_step(self, steps: int) -> float:
        """Mean over one window, run now."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@contextmanager
def started(preset: str, args: argparse.Namespace) -> Iterator[dict[str, Arm]]:
    """All arms of a preset; they wait for their windows."""
    arms = {name: Arm(name, preset, args) for name in ("ours", *BACKENDS)}
    try:
        yield arms
    finally:
        for each in arms.values():
            each.process.communicate()


class Timed(Protocol):
    """What can be timed by windows."""

    def seconds_per_step(self, steps: int) -> float:
        """Mean over one window, run now."""
        ...


def measure(arms: Mapping[str, Timed], num_windows: int) -> dict[str, list[float]]:
    """Seconds per step of each arm in each window; arms take turns, and begin by turns."""
    warm = {name: min(each.seconds_per_step(1) for _ in range(4)) for name, each in arms.items()}
    steps = {name: max(1, round(WINDOW_S / seconds)) for name, seconds in warm.items()}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for window in range(num_windows):
        order = list(arms)[window % len(arms) :] + list(arms)[: window % len(arms)]
        for name in order:
            seconds[name].append(arms[name].seconds_per_step(steps[name]))
    return seconds


def ratio(theirs: list[float], ours: list[float]) -> str:
    """Geometric mean of the windows' ratios, with its 95 % interval (t)."""
    logs = np.log(np.array(theirs) / np.array(ours))
    half = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / math.sqrt(len(logs))
    low, middle, high = np.exp([logs.mean() - half, logs.mean(), logs.mean() + half])
    return f"{middle:.2f}x ({low:.2f}-{high:.2f})"


def speed(args: argparse.Namespace) -> None:
    """Print tokens per second, shares of the machine's peak, and the ratio to transformers' best backend."""
    torch.set_num_threads(args.threads)
    peaks = {dtype: peak(dtype, CLOCKS[args.clock]) for dtype in (torch.float32, torch.bfloat16)}
    told = ", ".join(f"{str(dtype).removeprefix('torch.')} {value / 1e9:.0f}" for dtype, value in peaks.items())
    print(f"threads {args.threads}, {args.clock} seconds; matrix products, GFLOP/s: {told}")
    for preset in args.presets:
        shape = PRESETS[preset]
        tokens = shape.batch_size * shape.seq_len
        with started(preset, args) as arms:
            products = arms["ours"].products
            seconds = measure(arms, args.windows)
        dtype = torch.bfloat16 if products == "bfloat16" else torch.float32
        best = min(BACKENDS, key=lambda name: median(seconds[name]))
        for name, values in seconds.items():
            rate, of = tokens / median(values), peaks[dtype if name == "ours" else torch.float32]
            share = rate * flops_per_token(shape) / of
            spread = f"{tokens / max(values):,.0f}-{tokens / min(values):,.0f}"
            print(f"{preset:6} {name:10} {rate:8,.0f} tokens/s ({spread}), {share:.0%} of its peak", flush=True)
        print(f"{preset:6} ours ({products}) / {best}: {ratio(seconds[best], seconds['ours'])}", flush=True)


def curves(args: argparse.Namespace) -> None:
    """Print the final loss of each seed with and without bfloat16 products, and the difference beside seed noise."""
    torch.set_num_threads(1)
    for preset in args.presets:
        finals: dict[str, list[float]] = {"auto": [], "float32": []}
        products = ""
        for seed in args.seeds:
            for precision, losses in finals.items():
                spec = spec_of(preset, seed=seed, precision=precision, num_steps=args.steps)
                with tempfile.TemporaryDirectory() as folder:
                    training = pretraining(spec, windows_of(spec), 1, Path(folder))
                    with training.computing():
                        for _ in range(args.steps):
                            training.step()
                losses.append(tail_mean(training.losses))
                products = products or training.products
        pairs = [a - b for a, b in zip(finals["auto"], finals["float32"], strict=True)]
        told = {name: " ".join(f"{loss:.4f}" for loss in losses) for name, losses in finals.items()}
        print(f"{preset:6} {args.steps} steps, loss: {products} {told['auto']}; float32 {told['float32']}")
        print(
            f"{preset:6} difference {mean(pairs):+.4f} (seeds differ by sd {stdev(finals['float32']):.4f})", flush=True
        )


def main() -> int:
    """Run one part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", nargs="?", choices=["speed", "curves", "arm"], default="speed")
    parser.add_argument("--arm", choices=["ours", *BACKENDS], default="ours", help="which arm this process is")
    parser.add_argument("--presets", type=lambda text: text.split(","), default=["nano", "micro", "mini"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--windows", type=int, default=15)
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    {"speed": speed, "curves": curves, "arm": arm}[args.part](args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
