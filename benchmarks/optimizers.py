"""Whether Muon earns its place beside AdamW: `nano` from scratch, equal tokens, over seeds, each at its best rate.

    python -m benchmarks optimizers [--arms adamw,muon] [--rates 0.003,0.01] [--seeds 0] [--steps 800] [--out FILE]

Runs that are in FILE are not run again. Data, held-out documents and their scoring: `benchmarks.balancing`.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from balancing import VALIDATION_BYTES, documents, interval

from nightsmith.evals.run import score, summarise
from nightsmith.evals.suite import Row
from nightsmith.model.presets import PRESETS
from nightsmith.model.router import end_step
from nightsmith.model.small4 import build
from nightsmith.trainer.mesh import parts_of
from nightsmith.trainer.optimizers import hidden_matrices, make_optimizer
from nightsmith.trainer.pretrain import next_token_loss
from nightsmith.trainer.schedule import learning_rate
from nightsmith.trainer.spec import PretrainSpec
from nightsmith.trainer.text import Windows, pack

SHAPE = PRESETS["nano"]


def train(arm: Any, rate: float, seed: int, num_steps: int, texts: tuple[list[bytes], list[bytes]]) -> dict[str, Any]:
    """One run's figures."""
    spec = PretrainSpec(
        architecture=SHAPE, data="-", data_digest="-", num_steps=num_steps, seed=seed, learning_rate=rate,
        optimizer=arm,
    )  # fmt: skip
    windows = Windows(pack(texts[0]), SHAPE.seq_len, SHAPE.batch_size, seed)
    model = build(SHAPE, seed=seed).train()
    optimizer = make_optimizer(model.parameters(), spec, hidden_matrices(model, parts_of(model)))
    started = time.process_time()
    for step in range(num_steps):
        next_token_loss(model, torch.from_numpy(windows.batch(step))).backward()
        nn.utils.clip_grad_norm_(model.parameters(), spec.grad_clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(spec, step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        end_step(model)
    cpu_s = time.process_time() - started
    rows = [Row(str(number), text[:VALIDATION_BYTES]) for number, text in enumerate(texts[1])]
    bits = summarise(score(model, rows, SHAPE.seq_len))["bits_per_byte"]
    return {"arm": arm, "rate": rate, "seed": seed, "steps": num_steps, "bits_per_byte": bits, "cpu_s": cpu_s}


def report(runs: list[dict[str, Any]]) -> None:
    """Each arm and rate over its seeds; the best rate of each against AdamW's best, by the same seeds."""
    cells: dict[tuple[str, float], dict[int, dict[str, Any]]] = {}
    for run in runs:
        cells.setdefault((run["arm"], run["rate"]), {})[run["seed"]] = run
    bits = {cell: interval([run["bits_per_byte"] for run in own.values()]) for cell, own in cells.items()}
    for (arm, rate), own in sorted(cells.items()):
        mean, spread = bits[arm, rate]
        seconds = interval([run["cpu_s"] for run in own.values()])[0]
        print(f"{arm:6} rate {rate:<7g} {mean:.4f} ± {spread:.4f} bits per byte, {len(own)} seeds, {seconds:.0f} CPU s")
    best: dict[str, tuple[str, float]] = {}
    for cell in sorted(cells, key=lambda cell: (-len(cells[cell]), bits[cell][0])):
        best.setdefault(cell[0], cell)
    for cell in (cell for arm, cell in best.items() if arm != "adamw" and "adamw" in best):
        base, own = cells[best["adamw"]], cells[cell]
        change, spread = interval(
            [own[s]["bits_per_byte"] - base[s]["bits_per_byte"] for s in own.keys() & base.keys()]
        )
        print(f"{cell} against {best['adamw']}: {change:+.4f} ± {spread:.4f} bits per byte")


def main() -> int:
    """Run what is not in the file yet, then print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--arms", default="adamw,muon")
    parser.add_argument("--rates", default="0.003,0.01")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--out", type=Path, default=Path("optimizers.jsonl"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.is_file() else []
    texts = documents()
    for seed in map(int, args.seeds.split(",")):
        for arm in args.arms.split(","):
            for rate in map(float, args.rates.split(",")):
                if not any((run["arm"], run["rate"], run["seed"]) == (arm, rate, seed) for run in runs):
                    runs.append(train(arm, rate, seed, args.steps, texts))
                    with args.out.open("a") as file:
                        file.write(json.dumps(runs[-1]) + "\n")
                    print(json.dumps(runs[-1]), flush=True)
    report(runs)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
