"""Whether balancing keeps every expert in use, and what it costs: 32 experts top-4, with and without, over seeds.

    python -m benchmarks balancing [--seeds 0,1,2] [--arms none,aux,bias] [--steps 1024] [--out FILE.jsonl]

Trains on the running interpreter's standard library, byte by byte, 512 tokens a step, with the trainer's own step and
the evaluations' own scoring. Loads are those of the last tenth of the steps. Runs that are in FILE are not run again.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from torch import nn

from nightsmith.evals.run import score, summarise
from nightsmith.evals.suite import Row
from nightsmith.model.health import take_use, worst
from nightsmith.model.presets import PRESETS
from nightsmith.model.router import end_step
from nightsmith.model.small4 import build
from nightsmith.record.digest import sha256
from nightsmith.tools.data.resolve import resolve
from nightsmith.trainer.optimizers import make_optimizer
from nightsmith.trainer.pretrain import next_token_loss
from nightsmith.trainer.schedule import learning_rate
from nightsmith.trainer.spec import PretrainSpec
from nightsmith.trainer.text import Windows, pack

SHAPE = PRESETS["nano"].model_copy(update={"num_experts": 32, "top_k": 4, "num_layers": 3, "batch_size": 4})
ARMS: dict[str, dict[str, Any]] = {
    "none": {},
    "aux": {"balance_mode": "aux", "router_aux_loss_coef": 0.01},
    "aux 0.02": {"balance_mode": "aux", "router_aux_loss_coef": 0.02},
    "bias": {"balance_mode": "bias"},
    "aux+z": {"balance_mode": "aux", "router_aux_loss_coef": 0.01, "router_z_loss_coef": 0.001},
}
HELD_OUT = 16
"""One document of so many is for validation."""
VALIDATION_DOCUMENTS, VALIDATION_BYTES = 96, 4096


def documents() -> tuple[list[bytes], list[bytes]]:
    """Training and validation documents, told apart by their content."""
    texts = [file.path.read_bytes() for file in resolve("python-stdlib").files]
    held_out = [text for text in texts if int(sha256(text)[:8], 16) % HELD_OUT == 0]
    return [text for text in texts if int(sha256(text)[:8], 16) % HELD_OUT], held_out[:VALIDATION_DOCUMENTS]


def train(arm: str, seed: int, num_steps: int, training: list[bytes], validation: list[bytes]) -> dict[str, Any]:
    """One run's figures."""
    spec = PretrainSpec(
        architecture=SHAPE, data="-", data_digest="-", num_steps=num_steps, seed=seed, learning_rate=3e-3
    )
    windows = Windows(pack(training), SHAPE.seq_len, SHAPE.batch_size, seed)
    model = build(SHAPE, seed=seed, **ARMS[arm]).train()
    optimizer, started = make_optimizer(model.parameters(), spec), time.perf_counter()
    for step in range(num_steps):
        if step == num_steps - num_steps // 10:
            take_use(model)
        next_token_loss(model, torch.from_numpy(windows.batch(step))).backward()
        nn.utils.clip_grad_norm_(model.parameters(), spec.grad_clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(spec, step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        end_step(model)
    seconds = time.perf_counter() - started
    health = worst([use.health() for use in take_use(model)])
    rows = [Row(str(number), text[:VALIDATION_BYTES]) for number, text in enumerate(validation)]
    tokens = num_steps * SHAPE.seq_len * SHAPE.batch_size
    return {
        "arm": arm, "seed": seed, "tokens": tokens, "tokens_per_s": tokens / seconds,
        "bits_per_byte": summarise(score(model, rows, SHAPE.seq_len))["bits_per_byte"], **health,
    }  # fmt: skip


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half-width of its two-sided 95 % t interval."""
    mean = math.fsum(values) / len(values)
    spread = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1) if len(values) > 1 else math.inf
    return mean, float(spread)


def report(runs: list[dict[str, Any]]) -> None:
    """The table, and each arm's validation loss against `none` by the same seeds."""
    bits = {(run["arm"], run["seed"]): run["bits_per_byte"] for run in runs}
    head = ("arm", "bits per byte", "against none", "worst MaxVio", "dead", "entropy", "norm")
    print("{:8} {:>22} {:>22} {:>13} {:>5} {:>8} {:>6}".format(*head))
    for arm in dict.fromkeys(run["arm"] for run in runs):
        own = [run for run in runs if run["arm"] == arm]
        mean, spread = interval([run["bits_per_byte"] for run in own])
        paired = [run["bits_per_byte"] - bits[none] for run in own if (none := ("none", run["seed"])) in bits]
        change, change_spread = interval(paired) if paired and arm != "none" else (0.0, 0.0)
        print(
            f"{arm:8} {mean:12.4f} ± {spread:7.4f} {change:+12.4f} ± {change_spread:7.4f} "
            f"{max(run['router/max_vio'] for run in own):13.2f} {max(run['router/dead_experts'] for run in own):5.0f} "
            f"{min(run['router/entropy'] for run in own):8.3f} {max(run['router/logit_norm'] for run in own):6.1f}"
        )
    print(f"{runs[0]['tokens']:,} tokens a run; {min(run['tokens_per_s'] for run in runs):,.0f} tokens/s at least")


def main() -> int:
    """Run what is not in the file yet, then print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--arms", default="none,aux,bias")
    parser.add_argument("--steps", type=int, default=1024)
    parser.add_argument("--out", type=Path, default=Path("balancing.jsonl"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.is_file() else []
    training, validation = documents()
    for seed in map(int, args.seeds.split(",")):
        for arm in args.arms.split(","):
            if not any((run["arm"], run["seed"]) == (arm, seed) for run in runs):
                runs.append(train(arm, seed, args.steps, training, validation))
                with args.out.open("a") as file:
                    file.write(json.dumps(runs[-1]) + "\n")
                print(json.dumps(runs[-1]), flush=True)
    report(runs)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
