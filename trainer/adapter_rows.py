"""Supervised fine-tuning of LoRA adapters on prompt and completion pairs: data, order, steps. CPUs first."""

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

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

    def weights(self, completion: Sequence[int]) -> torch.Tensor:
        """Weight of each completion token, float32."""
        weights = torch.ones(len(completion))
        weights[: self.tokens] = self.weight
        return weights


EVEN = Lead()
"""Every token counts the same."""


@dataclass(frozen=True)
class Row:
    """One example as token ids; the completion ends with the stop token."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


def read_rows(path: Path, tokenizer: Tokenizer, stop: str, max_len: int) -> list[Row]:
    """Read JSON lines {"prompt", "completion"}. Prompt and completion are tokenised apart, as the engine sees them.

    Raises Damaged when a row exceeds `max_len` tokens: nothing is cut silently.
    """
    stop_id = tokenizer.token_to_id(stop)
    if stop_id is None:
        raise Damaged(f"The tokenizer has no token {stop!r}. Name the one that ends an answer in the chat template.")
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        pair = json.loads(line)
        prompt, completion = (tokenizer.encode(pair[k], add_special_tokens=False).ids for k in ("prompt", "completion"))
        row = Row(tuple(prompt), (*completion, stop_id))
        if len(row) > max_len:
            raise Damaged(
                f"{path}, line {number}: {len(row)} tokens, allowed are {max_len}. Shorten it, or raise max_len."
            )
        rows.append(row)
    if not rows:
        raise Damaged(f"{path} holds no rows. Each line is an object with `prompt` and `completion`.")
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
        tokens = torch.tensor((*row.prompt, *row.completion))[prefix_len:]
        ids[i, : len(tokens)] = tokens
        start = len(row.prompt) - prefix_len - 1
        targets[i, start : start + len(row.completion)] = torch.tensor(row.completion)
        weights[i, start : start + len(row.completion)] = lead.weights(row.completion)
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
    return total / sum(len(r.completion) for r in rows)
