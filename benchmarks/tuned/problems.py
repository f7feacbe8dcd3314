"""Small pre-trainings to tune: three held-out problems, and others that the proposer was made on."""

import json
import locale
import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from html.entities import html5
from pathlib import Path
from pydoc_data import topics
from typing import Any

import numpy as np
import torch
from torch import nn

from nightsmith.agent.plan import Tunable
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

ROOT = Path(__file__).parents[2]
SHAPE = PRESETS["nano"].model_copy(update={"num_layers": 1, "num_experts": 4, "seq_len": 64})
CHECKS = 8
"""Times in a run that its training loss is looked at, for pruning."""
HELD_OUT_WINDOWS = 128
RATE = Tunable(name="learning_rate", kind="float", low=1e-4, high=3e-2, log=True)
BATCH = Tunable(name="batch_size", kind="choice", choices=(4, 8, 16, 32))
WARMUP = Tunable(name="warmup_share", kind="float", low=0.0, high=0.3)
DECAY = Tunable(name="weight_decay", kind="float", low=0.0, high=0.3)
BETA2 = Tunable(name="beta2", kind="choice", choices=(0.9, 0.95, 0.99))
SCHEDULE = Tunable(name="schedule", kind="choice", choices=("constant", "cosine", "wsd"))
Recipe = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """What is tuned, by what, to where."""

    metric: str
    """`bits_per_byte`, `loss` (nats a byte) or `exact_match` (share of bytes that the model's first choice is)."""
    threshold: float
    """Second best of 16 recipes at random, as `--study 16` finds it."""
    tokens: int
    """Training tokens of a trial, whatever its batch size."""
    base: Recipe
    space: tuple[Tunable, ...]
    noise: float
    """Deviation of the metric over seeds at `base`."""

    @property
    def sign(self) -> int:
        """1 where higher is better."""
        return 1 if self.metric == "exact_match" else -1

    def reached(self, value: float) -> bool:
        """Whether the threshold is met."""
        return self.sign * (value - self.threshold) >= 0

    def recipe(self, known: Recipe) -> Recipe:
        """With the settings that follow from the shape and the tokens."""
        steps = max(CHECKS, self.tokens // (int(known["batch_size"]) * SHAPE.seq_len))
        return {**known, "num_steps": steps, "seq_len": SHAPE.seq_len, "hidden_size": SHAPE.hidden_size}


COMMON: Recipe = {"warmup_share": 0.05, "weight_decay": 0.1, "beta2": 0.95, "schedule": "cosine"}
HELD_OUT = {
    "cpp": Problem(
        "loss", 2.3683, 200_000, {**COMMON, "learning_rate": 1e-3, "batch_size": 32, "schedule": "constant"},
        (RATE, BATCH, WARMUP, SCHEDULE), 0.006,
    ),
    "aliases": Problem(
        "exact_match", 0.4113, 160_000, {**COMMON, "learning_rate": 1.5e-2, "batch_size": 16, "warmup_share": 0.3},
        (RATE, BATCH, WARMUP, DECAY), 0.0052,
    ),
    "schemas": Problem(
        "bits_per_byte", 1.8342, 240_000, {**COMMON, "learning_rate": 3e-4, "batch_size": 8, "weight_decay": 0.3},
        (RATE, BATCH, DECAY, BETA2, SCHEDULE), 0.0435,
    ),
}  # fmt: skip
"""Nothing was ever tuned on these; their thresholds were found by `--study` before the proposer was run on them."""
FIRST_HELD_OUT = {
    "reference": Problem(
        "bits_per_byte", 2.8858, 200_000, {**COMMON, "learning_rate": 4e-4, "batch_size": 16, "schedule": "wsd"},
        (RATE, BATCH, WARMUP, SCHEDULE), 0.0136,
    ),
    "headers": Problem(
        "exact_match", 0.4841, 160_000, {**COMMON, "learning_rate": 2.5e-2, "batch_size": 8, "schedule": "constant"},
        (RATE, BATCH, DECAY, BETA2, SCHEDULE), 0.023,
    ),
    "names": Problem(
        "loss", 1.64, 240_000, {**COMMON, "learning_rate": 2e-3, "batch_size": 32, "warmup_share": 0.25},
        (RATE, BATCH, WARMUP, DECAY, BETA2), 0.0099,
    ),
}  # fmt: skip
"""Held out once: what the proposer did on these was read when it was mended again."""
PRACTICE = {
    "stdlib": Problem(
        "bits_per_byte", 3.2271, 100_000, {**COMMON, "learning_rate": 1e-3, "batch_size": 8},
        (RATE, BATCH, WARMUP, SCHEDULE), 0.009,
    ),
    "goals": Problem(
        "loss", 2.3774, 120_000, {**COMMON, "learning_rate": 3e-3, "batch_size": 32}, (RATE, BATCH, DECAY), 0.024
    ),
    "docs": Problem(
        "exact_match", 0.2426, 80_000, {**COMMON, "learning_rate": 2e-2, "batch_size": 4, "schedule": "constant"},
        (RATE, BATCH, WARMUP, SCHEDULE), 0.009,
    ),
}  # fmt: skip
"""The proposer was made on these: their figures say nothing of how good it is."""
PROBLEMS = {**HELD_OUT, **FIRST_HELD_OUT, **PRACTICE}


@cache
def texts(problem: str) -> tuple[list[bytes], bytes]:
    """Documents to train on, and one held-out text."""
    documents = list(_documents(problem))
    held_out = [text for text in documents if int(sha256(text)[:8], 16) % 8 == 0]
    return [text for text in documents if int(sha256(text)[:8], 16) % 8], b"\n".join(held_out)


def _documents(problem: str) -> Iterator[bytes]:
    """Of the standard library, of headers, or of this repository."""
    match problem:
        case "cpp":  # torch's headers
            files = sorted((Path(torch.__file__).parent / "include" / "c10").rglob("*.h"))
            yield from (part for file in files for part in _parts(file.read_bytes()))
        case "aliases":  # tables: locales, then HTML's entities
            tables = (locale.locale_alias.items(), html5.items())
            lines = [f"{name}: {value}" for table in tables for name, value in sorted(table)]
            yield from _parts("\n".join(lines).encode())
        case "schemas":  # JSON
            files = sorted((ROOT / "docs" / "schemas").glob("*.json"))
            yield from (part for file in files for part in _parts(file.read_bytes()))
        case "reference":  # the language's reference in English prose
            yield from (part for text in topics.topics.values() for part in _parts(text.encode()))
        case "headers":  # C
            files = sorted(Path(np.get_include()).rglob("*.h"))
            yield from (part for file in files for part in _parts(file.read_bytes()))
        case "names":  # of characters, in the order of their code points
            names = [unicodedata.name(chr(code), "") for code in range(0x3000)]
            yield from _parts("\n".join(filter(None, names)).encode())
        case "stdlib":
            yield from (file.path.read_bytes() for file in resolve("python-stdlib").files[:200])
        case "goals":
            for file in sorted((ROOT / "examples" / "planner").glob("handwritten*.jsonl")):
                lines = map(json.loads, file.read_text().splitlines())
                yield from (str(line.get("goal") or line.get("text")).encode() for line in lines)
        case _:
            yield from (part for file in sorted((ROOT / "docs").glob("*.md")) for part in _parts(file.read_bytes()))


def _parts(text: bytes) -> list[bytes]:
    return [text[at : at + 2000] for at in range(0, len(text), 2000)]


def train(name: str, recipe: Recipe, seed: int, stops: Callable[[float, float], bool]) -> dict[str, Any]:
    """A trial: its value, and at every check the training loss, and the CPU seconds so far.

    The value is null where `stops(share, loss)` ended it.
    """
    problem, (documents, held_out) = PROBLEMS[name], texts(name)
    batch, num_steps = int(recipe["batch_size"]), int(problem.recipe(recipe)["num_steps"])
    rest = {key: value for key, value in recipe.items() if key != "batch_size"}
    spec = PretrainSpec(architecture=SHAPE, data="-", data_digest="-", num_steps=num_steps, seed=seed, **rest)
    windows = Windows(pack(documents), SHAPE.seq_len, batch, seed)
    started = time.process_time()
    model = build(SHAPE, seed=seed).train()
    optimizer = make_optimizer(model.parameters(), spec)
    losses: list[float] = []
    checks: list[tuple[float, float, float]] = []
    for step in range(num_steps):
        loss = next_token_loss(model, torch.from_numpy(windows.batch(step)))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), spec.grad_clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(spec, step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        end_step(model)
        losses.append(loss.item())
        if (step + 1) * CHECKS // num_steps > step * CHECKS // num_steps:
            recent = losses[-max(1, num_steps // CHECKS) :]
            checks.append(((step + 1) / num_steps, float(np.mean(recent)), time.process_time() - started))
            if step + 1 < num_steps and stops(*checks[-1][:2]):
                return {"value": None, "checks": checks, "seconds": checks[-1][2]}
    value = evaluate(model, held_out, problem.metric)
    return {"value": value, "checks": checks, "seconds": time.process_time() - started}


def evaluate(model: Any, held_out: bytes, metric: str) -> float:
    """The metric on windows spread over the held-out text."""
    length = SHAPE.seq_len + 1
    count = len(held_out) // length
    windows = torch.frombuffer(bytearray(held_out[: count * length]), dtype=torch.uint8).view(count, length).long()
    windows = windows[:: max(1, count // HELD_OUT_WINDOWS)][:HELD_OUT_WINDOWS]
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=windows[:, :-1]).logits
    targets = windows[:, 1:]
    if metric == "exact_match":
        return float((logits.argmax(-1) == targets).float().mean())
    loss = float(nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()))
    return loss / float(np.log(2)) if metric == "bits_per_byte" else loss
