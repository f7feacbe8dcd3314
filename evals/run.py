"""Scores a language model on a suite. The heavy half of evaluation; files and row selection: `suite`; chat: `chat`.

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

from nightsmith.evals.suite import FIGURES, Items, Row, select_conversations, select_rows, write_items
from nightsmith.evals.types import Evaluation, SuiteSpec
from nightsmith.model.bytes_tokenizer import bytes_tokenizer, is_byte_level
from nightsmith.model.chat_rows import leading_bos
from nightsmith.model.presets import BOS, PAD
from nightsmith.record.errors import NightsmithError

ITEMS = "items.parquet"
BATCH_TOKENS = 4096
BATCH_LOGITS = 2**26
"""Logits of a batch at most: 256 MiB in float32."""
IGNORED = -100
"""Target of padded positions."""

OnBatch = Callable[[int, int], None]
"""Told windows done and windows in all after each batch; may raise to end the evaluation."""


def evaluate(
    model: Any,
    suite: SuiteSpec,
    out: Path,
    *,
    checkpoint_digest: str,
    tokenizer: Any = None,
    on_batch: OnBatch | None = None,
) -> Evaluation:
    """Score every item of the suite and write `items.parquet` into `out`.

    A text item is its first `max_bytes` bytes after a BOS, so every byte is predicted exactly once, and is read in
    windows of `seq_len` tokens that do not see each other. Equal weights, suite and thread count give bit-equal items.

    Args:
        model: maps `input_ids` (B, L) to an object with `logits` (B, L, V); it is put into evaluation mode.
        suite: what is scored.
        out: folder for the item scores.
        checkpoint_digest: digest of the model's weights, recorded in the result.
        tokenizer: the model's; None: a token is a byte.
        on_batch: progress.

    Raises:
        EvidenceMissing, EvidenceAltered: the suite's file is absent, or not the one with its digest.
        NightsmithError: the suite cannot be put to this model.
    """
    started = time.monotonic()
    items = _items(model, tokenizer, suite, on_batch)
    if not len(items):
        raise NightsmithError(
            f"The suite {suite.data} has no item that could be scored. Build the data with more rows."
        )
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


def _items(model: Any, tokenizer: Any, suite: SuiteSpec, on_batch: OnBatch | None) -> Items:
    if suite.kind == "chat":
        from nightsmith.evals.chat import score_chat

        return score_chat(model, tokenizer or bytes_tokenizer(), select_conversations(suite), suite, on_batch)
    rows = select_rows(suite)
    if tokenizer is None or is_byte_level(tokenizer):
        return score(model, rows, suite.seq_len, on_batch)
    return score_tokens(model, tokenizer, rows, suite.seq_len, on_batch)


def summarise(items: Items) -> dict[str, float]:
    """Metrics over all items: likelihood by bytes or tokens, so long ones weigh more; answers and pairs by means."""
    nll, num_tokens, num_bytes = (
        math.fsum(column.tolist()) for column in (items.nll_nats, items.num_tokens, items.num_bytes)
    )
    loss = nll / num_tokens
    figures = {name: getattr(items, name) for name in FIGURES}
    return {
        "bits_per_byte": nll / math.log(2) / num_bytes,
        "loss": loss,
        "perplexity": math.exp(loss) if loss < 700 else math.inf,
        **{name: math.fsum(values.tolist()) / len(items) for name, values in figures.items() if values is not None},
    }


def score(
    model: Any,
    rows: Sequence[Row],
    seq_len: int,
    on_batch: OnBatch | None = None,
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> Items:
    """Negative log-likelihood of each row's bytes, in nats, summed in float64. A token is a byte."""
    tokens = [[BOS, *row.content] for row in rows]
    nll = _nll(model, tokens, seq_len, on_batch, batch_tokens, PAD)
    sizes = np.array([len(row.content) for row in rows], dtype=np.float64)
    return Items(np.array([row.row_id for row in rows], dtype=np.str_), nll, sizes, sizes)


def score_tokens(
    model: Any, tokenizer: Any, rows: Sequence[Row], seq_len: int, on_batch: OnBatch | None = None
) -> Items:
    """The same by a tokenizer's tokens. A character that the cut at `max_bytes` split is left out."""
    texts = [row.content.decode(errors="ignore") for row in rows]
    start = _start_token(tokenizer)
    tokens = [[start, *ids] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    batch_tokens = min(BATCH_TOKENS, BATCH_LOGITS // len(tokenizer))
    nll = _nll(model, tokens, seq_len, on_batch, batch_tokens, tokenizer.pad_token_id)
    num_tokens = np.array([len(ids) - 1 for ids in tokens], dtype=np.float64)
    num_bytes = np.array([len(text.encode()) for text in texts], dtype=np.float64)
    kept = num_tokens > 0  # a first character wider than max_bytes leaves nothing
    ids = np.array([row.row_id for row in rows], dtype=np.str_)
    return Items(ids[kept], nll[kept], num_tokens[kept], num_bytes[kept])


def _start_token(tokenizer: Any) -> int:
    """What a text's first token is predicted from: BOS where texts begin with it, else EOS, which separates texts."""
    found = next(iter(leading_bos(tokenizer)), tokenizer.eos_token_id)
    if found is None:
        raise NightsmithError(
            "The tokenizer has neither BOS nor EOS, so that nothing precedes a text. Name one of its tokens as "
            "`eos_token` in the model's tokenizer_config.json."
        )
    return int(found)


def _nll(
    model: Any,
    rows: Sequence[list[int]],
    seq_len: int,
    on_batch: OnBatch | None,
    batch_tokens: int,
    pad: int,
) -> np.ndarray:
    """Summed nats of each row's tokens but the first."""
    windows = [(index, window) for index, row in enumerate(rows) for window in cut(row, seq_len)]
    nll = np.zeros(len(rows))
    done = 0
    model.eval()
    device = next(model.parameters()).device
    for batch in _batches(windows, max(1, batch_tokens // seq_len)):
        sums = _score_windows(model, [window for _, window in batch], device, pad)
        np.add.at(nll, [index for index, _ in batch], sums)
        done += len(batch)
        if on_batch is not None:
            on_batch(done, len(windows))
    return nll


def cut(tokens: list[int], seq_len: int) -> Iterator[list[int]]:
    """Windows of at most seq_len + 1 tokens: each but the very first token is predicted, once."""
    for start in range(0, len(tokens) - 1, seq_len):
        yield tokens[start : start + seq_len + 1]


def _batches(windows: list[tuple[int, list[int]]], size: int) -> Iterator[list[tuple[int, list[int]]]]:
    return (windows[start : start + size] for start in range(0, len(windows), size))


@torch.inference_mode()
def _score_windows(model: Any, windows: list[list[int]], device: torch.device, pad: int) -> np.ndarray:
    """Summed nats of each window, (B,), float64. Padding stands on the right, where causal attention ignores it."""
    longest = max(len(window) for window in windows) - 1
    inputs_BL = torch.full((len(windows), longest), pad)
    targets_BL = torch.full((len(windows), longest), IGNORED)
    for row, window in enumerate(windows):
        inputs_BL[row, : len(window) - 1] = torch.tensor(window[:-1])
        targets_BL[row, : len(window) - 1] = torch.tensor(window[1:])
    logits_BLV: Tensor = model(input_ids=inputs_BL.to(device), use_cache=False).logits
    losses = F.cross_entropy(
        logits_BLV.float().flatten(0, 1), targets_BL.flatten().to(device), ignore_index=IGNORED, reduction="none"
    )
    return losses.double().view(len(windows), longest).sum(1).cpu().numpy()
