"""Scores a language model on a suite, byte by byte. The heavy half of evaluation; files and row selection: `suite`.

B windows of a batch, L window length, V vocabulary.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nightsmith.evals.suite import Items, Row, select_rows, write_items
from nightsmith.evals.types import Evaluation, SuiteSpec
from nightsmith.model.presets import BOS, PAD

ITEMS = "items.parquet"
BATCH_TOKENS = 4096
IGNORED = -100
"""Target of padded positions."""

OnBatch = Callable[[int, int], None]
"""Told windows done and windows in all after each batch; may raise to end the evaluation."""


def evaluate(
    model: Any, suite: SuiteSpec, out: Path, *, checkpoint_digest: str, on_batch: OnBatch | None = None
) -> Evaluation:
    """Score every item of the suite and write `items.parquet` into `out`.

    Each item is its first `max_bytes` bytes after a BOS, so every byte is predicted exactly once, and is read in
    windows of `seq_len` that do not see each other. Equal weights, suite and thread count give bit-equal items.

    Args:
        model: maps `input_ids` (B, L) to an object with `logits` (B, L, V); it is put into evaluation mode.
        suite: what is scored.
        out: folder for the item scores.
        checkpoint_digest: digest of the model's weights, recorded in the result.
        on_batch: progress.

    Raises:
        EvidenceMissing, EvidenceAltered: the suite's file is absent, or not the one with its digest.
    """
    started = time.monotonic()
    items = score(model, select_rows(suite), suite.seq_len, on_batch)
    digest = write_items(out / ITEMS, items)
    return Evaluation(
        checkpoint_digest=checkpoint_digest,
        suite_digest=suite.digest(),
        items=ITEMS,
        items_digest=digest,
        metrics=summarise(items),
        num_items=len(items),
        wall_s=time.monotonic() - started,
    )


def summarise(items: Items) -> dict[str, float]:
    """Metrics over all items: sums of likelihood by sums of bytes or tokens, so long items weigh more."""
    nll, num_tokens, num_bytes = (
        math.fsum(column.tolist()) for column in (items.nll_nats, items.num_tokens, items.num_bytes)
    )
    loss = nll / num_tokens
    return {
        "bits_per_byte": nll / math.log(2) / num_bytes,
        "loss": loss,
        "perplexity": math.exp(loss) if loss < 700 else math.inf,
    }


def score(
    model: Any,
    rows: Sequence[Row],
    seq_len: int,
    on_batch: OnBatch | None = None,
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> Items:
    """Negative log-likelihood of each row's bytes, in nats, summed in float64."""
    windows = [(index, window) for index, row in enumerate(rows) for window in cut(row.content, seq_len)]
    nll = np.zeros(len(rows))
    done = 0
    model.eval()
    device = next(model.parameters()).device
    for batch in _batches(windows, max(1, batch_tokens // seq_len)):
        sums = _score_windows(model, [window for _, window in batch], device)
        np.add.at(nll, [index for index, _ in batch], sums)
        done += len(batch)
        if on_batch is not None:
            on_batch(done, len(windows))
    sizes = np.array([len(row.content) for row in rows], dtype=np.float64)
    return Items(np.array([row.row_id for row in rows], dtype=np.str_), nll, sizes, sizes)


def cut(content: bytes, seq_len: int) -> Iterator[list[int]]:
    """Windows of at most seq_len + 1 tokens: each token but a window's first is predicted, and each byte once."""
    tokens = [BOS, *content]
    for start in range(0, len(content), seq_len):
        yield tokens[start : start + seq_len + 1]


def _batches(windows: list[tuple[int, list[int]]], size: int) -> Iterator[list[tuple[int, list[int]]]]:
    return (windows[start : start + size] for start in range(0, len(windows), size))


@torch.inference_mode()
def _score_windows(model: Any, windows: list[list[int]], device: torch.device) -> np.ndarray:
    """Summed nats of each window, (B,), float64. Padding stands on the right, where causal attention ignores it."""
    longest = max(len(window) for window in windows) - 1
    inputs_BL = torch.full((len(windows), longest), PAD)
    targets_BL = torch.full((len(windows), longest), IGNORED)
    for row, window in enumerate(windows):
        inputs_BL[row, : len(window) - 1] = torch.tensor(window[:-1])
        targets_BL[row, : len(window) - 1] = torch.tensor(window[1:])
    logits_BLV: Tensor = model(input_ids=inputs_BL.to(device), use_cache=False).logits
    losses = F.cross_entropy(
        logits_BLV.float().flatten(0, 1), targets_BL.flatten().to(device), ignore_index=IGNORED, reduction="none"
    )
    return losses.double().view(len(windows), longest).sum(1).cpu().numpy()
