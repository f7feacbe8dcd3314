"""Routed experts on CPUs: each expert's tokens as one segment, from its input to its output, in few memory passes.

Registered with transformers as `segments`, beside `eager`, `batched_mm` and `grouped_mm`, which compute the same.

* intermediate results stay in the cache, as few experts are finished before the next ones begin;
* routing weights are applied to the expert's hidden units, which are fewer than its outputs;
* under autocast the products are bfloat16;
* outputs are gathered and summed by token in one pass, in a fixed order: equal inputs give equal bits.
"""

# T tokens, K top-k, S choices (T x K), R rows of all segments with their padding, E experts, D model dim,
# F expert hidden dim, G gate and up dims (2F), B experts of a group, N rows of each of its segments

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import SiLUActivation
from transformers.integrations import moe

from nightsmith.model.attention import product_dtype
from nightsmith.record.errors import NightsmithError

SEGMENTS = "segments"
"""Name of this backend among transformers' experts implementations."""
STACKS = ("gate_up_proj", "down_proj")
"""The weights of a layer's routed experts."""
PADDING = 32
"""Rows of a bfloat16 segment are a multiple of this: the product's kernel is generated anew for every shape."""
GROUP_UNITS = 1 << 19
"""Experts are computed together up to so many gate and up units: calls are saved, and the units fit in the cache."""
GROUP_WASTE = 1_000_000
"""They are padded to the same length; calls that are saved take as long as so many multiply-adds of padding."""


@dataclass(frozen=True)
class Group:
    """Neighbouring experts that are computed together: their segments are of equal length."""

    experts: slice
    rows: slice

    def split(self, rows: Tensor) -> Tensor:
        """(R, …) -> (B, N, …), a view."""
        return rows[self.rows].unflatten(0, (self.experts.stop - self.experts.start, -1))

    def gather(self, x_TD: Tensor, segments: "Segments") -> Tensor:
        """Tokens of the group's rows, (B, N, D)."""
        rows_ND = x_TD.index_select(0, segments.token_R[self.rows])
        return rows_ND.unflatten(0, (self.experts.stop - self.experts.start, -1))


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


def segment(ids_TK: Tensor, gate_up_EGD: Tensor, padding: int) -> Segments:
    """Sort the choices by expert. Ids of E and above are those of other ranks (expert parallelism).

    Args:
        ids_TK: expert of each choice.
        gate_up_EGD: the experts' first weights; their shape rules which experts are computed together.
        padding: segments are padded to a multiple of this.
    """
    num_experts, units, dim = gate_up_EGD.shape
    ids_S = ids_TK.flatten()
    counts_E = torch.bincount(ids_S, minlength=num_experts)[:num_experts]
    counts: list[int] = counts_E.tolist()
    lengths: list[int] = []
    groups: list[Group] = []
    for experts, length in _group([-(-count // padding) * padding for count in counts], units, dim):
        start = sum(lengths)
        lengths += [length] * (experts.stop - experts.start)
        if length:
            groups.append(Group(experts, slice(start, sum(lengths))))
    here = ids_S.argsort(stable=True)[: sum(counts)]
    starts_E = torch.tensor(lengths).cumsum(0) - torch.tensor(lengths) - (counts_E.cumsum(0) - counts_E)
    rows = torch.arange(len(here)) + starts_E.repeat_interleave(counts_E)
    token_R = ids_S.new_zeros(sum(lengths)).scatter_(0, rows, here // ids_TK.shape[1])
    row_S = torch.full_like(ids_S, sum(lengths)).scatter_(0, here, rows)
    return Segments(groups, token_R, row_S)


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


class SegmentedExperts(torch.autograd.Function):
    """SwiGLU experts on segments: out_T = sum over K of weight * down(silu(gate x) * up x).

    Hidden units are computed transposed, so that the gate's and the up projection's are contiguous.
    """

    @staticmethod
    def forward(
        ctx: Any, x_TD: Tensor, weights_TK: Tensor, gate_up_EGD: Tensor, down_EDF: Tensor, segments: Segments
    ) -> Tensor:
        weight_R = segments.spread(weights_TK)
        x_RD = x_TD.index_select(0, segments.token_R)
        out_RD = segments.results(x_TD, x_TD.shape[1])
        hidden: list[Tensor] = []
        for group in segments.groups:
            x_BND, weight_BN = group.split(x_RD), group.split(weight_R)
            hidden_BGN = torch.bmm(gate_up_EGD[group.experts], x_BND.transpose(1, 2))
            act_BFN = swiglu(hidden_BGN).mul_(weight_BN[:, None])
            down_BFD = down_EDF[group.experts].transpose(1, 2)
            torch.bmm(act_BFN.transpose(1, 2), down_BFD, out=group.split(out_RD))
            hidden.append(hidden_BGN)
        ctx.save_for_backward(x_RD, weight_R, gate_up_EGD, down_EDF, *hidden)
        ctx.segments, ctx.top_k = segments, weights_TK.shape[1]
        return segments.collect(out_RD, ctx.top_k)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        x_RD, weight_R, gate_up_EGD, down_EDF, *hidden = ctx.saved_tensors
        segments: Segments = ctx.segments
        dout_RD = grads[0].contiguous().index_select(0, segments.token_R)
        dx_RD, dweight_R = segments.results(x_RD, x_RD.shape[1]), segments.results(x_RD)
        dgate_up_EGD, ddown_EDF = torch.zeros_like(gate_up_EGD), torch.zeros_like(down_EDF)
        for group, hidden_BGN in zip(segments.groups, hidden, strict=True):
            x_BND, dout_BND, weight_B1N = group.split(x_RD), group.split(dout_RD), group.split(weight_R)[:, None]
            act_BFN = swiglu(hidden_BGN)
            dact_BFN = torch.bmm(down_EDF[group.experts].transpose(1, 2), dout_BND.transpose(1, 2))
            group.split(dweight_R[:-1]).copy_((act_BFN * dact_BFN).sum(1))
            dhidden_BGN = swiglu_backward(dact_BFN.mul_(weight_B1N), hidden_BGN)
            act_BNF = act_BFN.mul_(weight_B1N).transpose(1, 2)
            torch.bmm(dout_BND.transpose(1, 2), act_BNF, out=ddown_EDF[group.experts])
            torch.bmm(dhidden_BGN, x_BND, out=dgate_up_EGD[group.experts])
            torch.bmm(dhidden_BGN.transpose(1, 2), gate_up_EGD[group.experts], out=group.split(dx_RD))
        dweights_TK = dweight_R[segments.row_S].view(-1, ctx.top_k)
        return segments.collect(dx_RD, ctx.top_k), dweights_TK, dgate_up_EGD, ddown_EDF, None


def swiglu(hidden_BGN: Tensor) -> Tensor:
    """silu(gate) * up, (B, F, N)."""
    gate_BFN, up_BFN = hidden_BGN.chunk(2, dim=1)
    return F.silu(gate_BFN).mul_(up_BFN)


def swiglu_backward(dact_BFN: Tensor, hidden_BGN: Tensor) -> Tensor:
    """Gradient of the hidden units; overwrites `dact_BFN`."""
    gate_BFN, up_BFN = hidden_BGN.chunk(2, dim=1)
    dhidden_BGN = torch.empty_like(hidden_BGN)
    dgate_BFN, dup_BFN = dhidden_BGN.chunk(2, dim=1)
    torch.mul(dact_BFN, F.silu(gate_BFN), out=dup_BFN)
    torch.ops.aten.silu_backward(dact_BFN.mul_(up_BFN), gate_BFN, grad_input=dgate_BFN)
    return dhidden_BGN


def is_plain_swiglu(experts: Any) -> bool:
    """Whether experts are two stacks of (out, in) weights without biases, with silu(gate) * up between them."""
    return (
        all(getattr(getattr(experts, name, None), "ndim", 0) == 3 for name in STACKS)
        and getattr(experts, "is_concatenated", False)
        and not any(getattr(experts, name, True) for name in ("has_bias", "is_transposed", "has_post_expert_norm"))
        and isinstance(experts.act_fn, (nn.SiLU, SiLUActivation))
        and type(experts)._apply_gate is moe._default_apply_gate
    )


def segmented_experts(self: nn.Module, x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor) -> Tensor:
    """The interface of transformers: (T, D) tokens, (T, K) expert ids and routing weights -> (T, D).

    Raises:
        NightsmithError: the experts are of another kind.
    """
    module: Any = self
    if not is_plain_swiglu(module):
        raise NightsmithError(
            f"{type(module).__name__} has biases, transposed weights or another activation than SiLU; {SEGMENTS!r} "
            "computes plain SwiGLU experts. Use the experts implementation 'grouped_mm'."
        )
    if x_TD.device.type != "cpu":
        return moe.grouped_mm_experts_forward(module, x_TD, ids_TK, weights_TK)
    dtype = product_dtype(x_TD)
    padding = PADDING if dtype == torch.bfloat16 else 1
    segments = segment(ids_TK, module.gate_up_proj, padding)
    out_TD = SegmentedExperts.apply(
        x_TD.to(dtype), weights_TK.to(dtype), module.gate_up_proj.to(dtype), module.down_proj.to(dtype), segments
    )
    return out_TD.to(x_TD.dtype)


moe.ALL_EXPERTS_FUNCTIONS.register(SEGMENTS, segmented_experts)
