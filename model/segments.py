"""Where the choices of routed experts are computed on a CPU: sorted by expert, each expert's rows beside each other.

Rows come in groups that are computed together: neighbouring experts, padded to the same length; or, where experts are
small and products bfloat16, all experts, each with as many segments of one length as it needs.
"""

# T tokens, K top-k, S choices (T x K), R rows of all segments with their padding, E experts, D model dim,
# G gate and up dims, B segments of a group, N rows of each of them

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Counts = NDArray[np.int64]

PADDING = 32
"""Rows of a bfloat16 segment are a multiple of this: the product's kernel is generated anew for every shape."""
GROUP_UNITS = 1 << 19
"""Experts are computed together up to so many gate and up units: calls are saved, and the units fit in the cache."""
GROUP_WASTE = 1_000_000
"""They are padded to the same length; calls that are saved take as long as so many multiply-adds of padding."""
BLOCK = 128
"""Rows of a segment where all experts are computed together, busy ones as several segments."""
SMALL_EXPERT = 1 << 15
"""That is done up to so many gate and up weights of an expert, which are copied for every segment."""


@dataclass(frozen=True)
class Group:
    """Segments of equal length that are computed together."""

    experts: slice | Tensor
    """Their experts: neighbours, or the expert of each segment."""
    size: int
    """How many segments."""
    rows: slice

    def split(self, rows: Tensor) -> Tensor:
        """(R, …) -> (B, N, …), a view."""
        return rows[self.rows].view(self.size, -1, *rows.shape[1:])

    def gather(self, x_TD: Tensor, segments: "Segments") -> Tensor:
        """Tokens of the group's rows, (B, N, D)."""
        return x_TD.index_select(0, segments.token_R[self.rows]).unflatten(0, (self.size, -1))

    def add(self, total: Tensor, products: Tensor) -> None:
        """Add what the segments give, (B, …), to what their experts give, (E, …)."""
        if isinstance(self.experts, Tensor):
            total.index_add_(0, self.experts, products.to(total.dtype))
        else:
            total[self.experts] = products


@dataclass(frozen=True)
class Segments:
    """Where each choice of an expert is computed. Rows of an expert are contiguous; padding has weight 0."""

    groups: list[Group]
    token_R: Tensor
    """Token of each row; 0 for padding."""
    row_S: Tensor
    """Row of each choice, in order of tokens; the row after the last one for choices of experts that are elsewhere."""

    @property
    def num_rows(self) -> int:
        """Rows of all segments."""
        return len(self.token_R)

    def spread(self, value_TK: Tensor) -> Tensor:
        """Values of choices as values of rows, (R,); 0 for padding."""
        rows = value_TK.new_zeros(self.num_rows + 1)
        return rows.scatter_(0, self.row_S, value_TK.flatten())[:-1]

    def results(self, like: Tensor, *shape: int) -> Tensor:
        """Room for results of all rows, and the zeros of choices that are computed elsewhere, (R + 1, …)."""
        rows = like.new_empty(self.num_rows + 1, *shape)
        rows[-1] = 0
        return rows

    def collect(self, rows: Tensor, top_k: int) -> Tensor:
        """Sum over each token's choices of their rows, (T, D), from (R + 1, D)."""
        return F.embedding_bag(self.row_S.view(-1, top_k), rows, mode="sum")


def arrange(ids_TK: Tensor, gate_up_EGD: Tensor, dtype: torch.dtype) -> Segments:
    """The segments of choices, for products of type `dtype` with these first weights of the experts."""
    if dtype != torch.bfloat16:
        return segment(ids_TK, gate_up_EGD, padding=1)
    if gate_up_EGD[0].numel() <= SMALL_EXPERT:
        return blocks(ids_TK, len(gate_up_EGD))
    return segment(ids_TK, gate_up_EGD, PADDING)


def segment(ids_TK: Tensor, gate_up_EGD: Tensor, padding: int) -> Segments:
    """Sort the choices by expert. Ids of E and above are those of other ranks (expert parallelism).

    Args:
        ids_TK: expert of each choice.
        gate_up_EGD: the experts' first weights; their shape rules which experts are computed together.
        padding: segments are padded to a multiple of this.
    """
    num_experts, units, dim = gate_up_EGD.shape
    counts_E = _count(ids_TK, num_experts)
    lengths: list[int] = []
    groups: list[Group] = []
    for experts, length in _group((-(-counts_E // padding) * padding).tolist(), units, dim):
        start, size = sum(lengths), experts.stop - experts.start
        lengths += [length] * size
        if length:
            groups.append(Group(experts, size, slice(start, sum(lengths))))
    return _place(ids_TK, counts_E, np.array(lengths), groups)


def blocks(ids_TK: Tensor, num_experts: int) -> Segments:
    """The same in one group: as many segments of BLOCK rows as each expert needs."""
    counts_E = _count(ids_TK, num_experts)
    blocks_E = -(-counts_E // BLOCK)
    experts_B = torch.from_numpy(np.repeat(np.arange(num_experts), blocks_E))
    group = Group(experts_B, len(experts_B), slice(0, BLOCK * len(experts_B)))
    return _place(ids_TK, counts_E, BLOCK * blocks_E, [group] if len(experts_B) else [])


def _count(ids_TK: Tensor, num_experts: int) -> Counts:
    return np.bincount(ids_TK.flatten().numpy(), minlength=num_experts)[:num_experts]


def _place(ids_TK: Tensor, counts_E: Counts, lengths_E: Counts, groups: list[Group]) -> Segments:
    """Give each choice its row, where experts have `lengths_E` rows each."""
    # Short integers are sorted by radix.
    ids_S, total = ids_TK.flatten().numpy().astype(np.int16), lengths_E.sum()
    here = ids_S.argsort(kind="stable")[: counts_E.sum()]
    shift_E = (lengths_E - counts_E).cumsum() - (lengths_E - counts_E)
    rows = np.arange(len(here)) + shift_E.repeat(counts_E)
    token_R, row_S = np.zeros(total, np.int64), np.full(len(ids_S), total)
    token_R[rows], row_S[here] = here // ids_TK.shape[1], rows
    return Segments(groups, torch.from_numpy(token_R), torch.from_numpy(row_S))


def _group(lengths: list[int], units: int, dim: int) -> Iterator[tuple[slice, int]]:
    """Neighbours to compute together, and the length of each one's segment."""
    multiply_adds = units * dim * 3 // 2
    start, longest, rows = 0, lengths[0], lengths[0]
    for expert, length in enumerate(lengths[1:], start=1):
        padded = max(longest, length) * (expert + 1 - start)
        waste = (padded - rows - length) * multiply_adds
        if padded * units > GROUP_UNITS or waste > GROUP_WASTE * (expert - start):
            yield slice(start, expert), longest
            start, longest, rows = expert, length, length
        else:
            longest, rows = max(longest, length), rows + length
    yield slice(start, len(lengths)), longest
