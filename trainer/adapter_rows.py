"""Supervised fine-tuning of LoRA adapters on conversations: data, order, steps. CPUs first."""

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from nightsmith.model.chat_rows import ChatFormat, parse_messages
from nightsmith.model.lora_llama import Batch, LoraLlama
from nightsmith.record.errors import Damaged

IGNORED = -100
FAMILY_TOKENS = 8
Family = tuple[int, ...]
"""First tokens of a prompt: rows of one kind of question share a system prompt, rows of two kinds do not."""


@dataclass(frozen=True)
class Lead:
    """How much more the beginning of an answer counts: there the decision falls that all the rest follows from."""

    tokens: int = 0
    weight: float = 1.0

    def weights(self, labels: Sequence[int]) -> torch.Tensor:
        """Weight of each label, float32: 0 where nothing is trained."""
        weights, place = torch.zeros(len(labels)), 0
        for i, label in enumerate(labels):
            place = 0 if label == IGNORED else place + 1
            weights[i] = 0.0 if place == 0 else self.weight if place <= self.tokens else 1.0
        return weights


EVEN = Lead()
"""Every token counts the same."""


@dataclass(frozen=True)
class Row:
    """One example."""

    ids: tuple[int, ...]
    """Its tokens."""
    labels: tuple[int, ...]
    """The same, IGNORED where they are not trained."""

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def prompt(self) -> tuple[int, ...]:
        """What comes before the first token that is trained."""
        return self.ids[: next(i for i, label in enumerate(self.labels) if label != IGNORED)]


def read_rows(path: Path, tokenizer: Any, max_len: int) -> list[Row]:
    """Read JSON lines {"messages"}: conversations, of which the last answer is trained, rendered as `sft` renders them.

    Raises Damaged when a row exceeds `max_len` tokens: nothing is cut silently.
    """
    lines = path.read_text().splitlines()
    if not lines:
        raise Damaged(f"{path} holds no rows. Each line is an object with `messages`.")
    messages = [parse_messages(json.dumps(json.loads(line).get("messages")), str(n)) for n, line in enumerate(lines, 1)]
    rows: list[Row] = []
    for number, row in enumerate(ChatFormat(tokenizer).last_answers(messages), 1):
        if len(row) > max_len:
            raise Damaged(
                f"{path}, line {number}: {len(row)} tokens, allowed are {max_len}. Shorten it, or raise max_len."
            )
        labels = (token if trained else IGNORED for token, trained in zip(row.ids, row.trained, strict=True))
        rows.append(Row(row.ids, tuple(labels)))
    return rows


def common_prefix_len(rows: Sequence[Row]) -> int:
    """Number of leading prompt tokens that all rows share; at least one token of every prompt stays out of it."""
    first, limit = rows[0].prompt, min(len(r.prompt) for r in rows) - 1
    return next((i for i in range(limit) if any(r.prompt[i] != first[i] for r in rows)), limit)


def family(row: Row) -> Family:
    """The kind of question that a row asks."""
    return row.prompt[:FAMILY_TOKENS]


def family_prefix_lens(rows: Sequence[Row]) -> dict[Family, int]:
    """Leading prompt tokens shared by all rows of each family: few distinct lengths, so kernels are reused."""
    members: dict[Family, list[Row]] = {}
    for row in rows:
        members.setdefault(family(row), []).append(row)
    return {name: common_prefix_len(rows) for name, rows in members.items()}


def shared(rows: Sequence[Row], prefix_lens: Mapping[Family, int]) -> int:
    """Leading prompt tokens that a batch computes once."""
    families = {family(row) for row in rows}
    return prefix_lens[families.pop()] if len(families) == 1 else common_prefix_len(rows)


def batch_order(rows: Sequence[Row], batch_size: int, num_steps: int, seed: int) -> Iterator[list[int]]:
    """Row numbers of each step: epoch by epoch shuffled, in neighbourhoods of 32 batches sorted by family and length.

    A pure function of its arguments, so that a resumed run skips to its step.
    """
    rng = random.Random(seed)
    done = 0
    while done < num_steps:
        order = rng.sample(range(len(rows)), len(rows))
        batches: list[list[int]] = []
        for start in range(0, len(order), 32 * batch_size):
            near = sorted(order[start : start + 32 * batch_size], key=lambda i: (family(rows[i]), len(rows[i]), i))
            batches += [near[i : i + batch_size] for i in range(0, len(near), batch_size)]
        rng.shuffle(batches)
        yield from batches[: num_steps - done]
        done += len(batches)


def collate(rows: Sequence[Row], prefix_len: int, multiple: int = 16, lead: Lead = EVEN) -> Batch:
    """Pad rows to one length, a multiple of `multiple`: few distinct shapes, so oneDNN reuses its kernels."""
    longest = max(len(r) for r in rows) - prefix_len
    length = math.ceil(longest / multiple) * multiple
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    targets, weights = torch.full((len(rows), length), IGNORED), torch.zeros(len(rows), length)
    for i, row in enumerate(rows):
        tokens, following = torch.tensor(row.ids[prefix_len:]), row.labels[prefix_len + 1 :]
        ids[i, : len(tokens)] = tokens
        targets[i, : len(following)] = torch.tensor(following)
        weights[i, : len(following)] = lead.weights(following)
    return Batch(torch.tensor(rows[0].prompt[:prefix_len], dtype=torch.long), ids, targets, weights)


def cosine(step: int, num_steps: int, warmup_share: float, floor: float = 0.02) -> float:
    """Factor on the learning rate: linear warm-up, then a half cosine down to `floor`."""
    warmup = max(1, round(num_steps * warmup_share))
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def train_step(model: LoraLlama, optimizer: torch.optim.Optimizer, batch: Batch, grad_clip: float) -> float:
    """One optimizer step on the weighted mean over completion tokens; returns the loss in nats a token."""
    total = (batch.targets_NL != IGNORED).sum() if batch.weights_NL is None else batch.weights_NL.sum()
    loss = model(batch) / float(total)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    optimizer.step()
    return float(loss.detach())


@torch.no_grad()
def mean_loss(model: LoraLlama, rows: Sequence[Row], prefix_lens: Mapping[Family, int], batch_size: int) -> float:
    """Loss in nats a completion token over `rows`."""
    ordered = sorted(rows, key=lambda row: (family(row), len(row)))
    parts = [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]
    total = sum(float(model(collate(part, shared(part, prefix_lens)))) for part in parts)
    return total / sum(label != IGNORED for row in rows for label in row.labels)
