"""LoRA on every linear layer and routed expert: ours against PEFT's target_parameters; tokens per second and memory.

    python -m benchmarks split_lora [--preset mini] [--rank 16] [--windows 15] [--threads 1] [--clock wall]

Speed: one process, windows by turns. Memory: a fresh process for each arm; what it grows by from before the model is
built to its peak over four steps. `--clock cpu` as in training_step.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from benchmarks.training_step import CLOCKS, Step, measure, ratio, seconds_per_step
from nightsmith.model.lora import add_adapters, expert_weights
from nightsmith.model.presets import PRESETS
from nightsmith.model.small4 import build
from nightsmith.trainer.pretrain import next_token_loss

ARMS = ("split", "peft")


def adapted(arm: str, preset: str, rank: int) -> Any:
    """A preset with adapters everywhere, computed by us or by PEFT."""
    model = build(PRESETS[preset], seed=0)
    if arm == "split":
        return add_adapters(model, base=Path(), rank=rank, alpha=2 * rank, seed=0)
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", target_parameters=expert_weights(model),
        task_type="CAUSAL_LM",
    )  # fmt: skip
    return get_peft_model(model, config)  # pyright: ignore[reportArgumentType]


def training_step(arm: str, preset: str, rank: int) -> Step:
    """Steps on random tokens; float32."""
    shape, model = PRESETS[preset], adapted(arm, preset, rank).train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    batch_BL = torch.randint(0, 256, (shape.batch_size, shape.seq_len + 1))

    def step() -> None:
        next_token_loss(model, batch_BL).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


@dataclass(frozen=True)
class Arm:
    """An arm within this process."""

    step: Step
    clock: Callable[[], float]

    def seconds_per_step(self, steps: int) -> float:
        """Mean over one window, run now."""
        return seconds_per_step(self.step, steps, self.clock)


def peak_bytes() -> int:
    """Largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def own_memory(arm: str, preset: str, rank: int) -> None:
    """Print this process's growth in bytes, and its whole peak."""
    before, step = peak_bytes(), training_step(arm, preset, rank)
    for _ in range(4):
        step()
    print(json.dumps([peak_bytes() - before, peak_bytes()]))


def memory(arm: str, args: argparse.Namespace) -> list[int]:
    """Growth and peak of a fresh process."""
    command = [sys.executable, "-m", "benchmarks", "split_lora", "--own-memory", arm]
    command += ["--preset", args.preset, "--rank", str(args.rank), "--threads", str(args.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Print both arms and their ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--windows", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--own-memory", choices=ARMS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.own_memory:
        own_memory(args.own_memory, args.preset, args.rank)
        return 0
    grown = {arm: memory(arm, args) for arm in ARMS}
    for arm, (growth, peak) in grown.items():
        print(f"{arm:6} grows by {growth / 2**20:,.0f} MiB (whole process {peak / 2**20:,.0f} MiB)")
    (ours, our_peak), (theirs, their_peak) = (grown[arm] for arm in ARMS)
    print(f"memory split / peft: {ours / theirs:.2f}x (whole process {our_peak / their_peak:.2f}x)", flush=True)
    shape = PRESETS[args.preset]
    arms = {arm: Arm(training_step(arm, args.preset, args.rank), CLOCKS[args.clock]) for arm in ARMS}
    seconds = measure(arms, args.windows)
    for arm, values in seconds.items():
        print(f"{arm:6} {shape.batch_size * shape.seq_len / median(values):,.0f} tokens/s, {args.clock} seconds")
    print(f"tokens/s split / peft: {ratio(seconds['peft'], seconds['split'])}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
