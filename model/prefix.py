"""A beginning that all rows share (often a system prompt), computed once for a batch instead of once for each row.

B rows of a batch, P shared tokens.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import torch
from transformers import DynamicCache

MIN_LEN = 8
"""Tokens from which sharing pays."""


def shared_prefix_len(model: Any, rows: Sequence[Sequence[int]]) -> int:
    """Number of leading tokens that all rows have in common and the model can be given as a cache; 0: none worth it.

    At least one token of each row is left over. Models with sliding windows or a recurrent state see another distance
    between tokens, or none, when padding stands between prefix and row; for them nothing is shared.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windowed = kinds != {"full_attention"} or getattr(config, "sliding_window", None) is not None
    if windowed or getattr(model, "_is_stateful", False) or len(rows) < 2:
        return 0
    limit = min(map(len, rows)) - 1
    found = sum(1 for _ in takewhile(lambda i: all(row[i] == rows[0][i] for row in rows), range(limit)))
    return found if found >= MIN_LEN else 0


def prefix_cache(model: Any, prefix_ids_P: torch.Tensor, num_rows: int) -> DynamicCache:
    """The keys and values of a prefix for each of B rows; gradients flow through it where they are on."""
    cache = DynamicCache(config=model.config)
    model(input_ids=prefix_ids_P[None], past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(num_rows)
    return cache
