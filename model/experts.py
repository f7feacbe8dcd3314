"""Routed experts on CPUs: each expert's tokens as one segment, from its input to its output, in few memory passes.

Registered with transformers as `segments`, beside `eager`, `batched_mm` and `grouped_mm`, which compute the same.

* intermediate results stay in the cache, as few experts are finished before the next ones begin;
* routing weights are applied to the expert's hidden units, which are fewer than its outputs;
* under autocast the products are bfloat16, and small experts are computed all together, in blocks of rows;
* outputs are gathered and summed by token in one pass, in a fixed order: equal inputs give equal bits.
"""

# T tokens, K top-k, R rows of all segments with their padding, E experts, D model dim, F expert hidden dim,
# G gate and up dims (2F), B segments of a group, N rows of each of them

from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import SiLUActivation
from transformers.integrations import moe

from nightsmith.model.attention import product_dtype
from nightsmith.model.segments import Segments, arrange
from nightsmith.model.swiglu import swiglu, swiglu_backward
from nightsmith.record.errors import NightsmithError

SEGMENTS = "segments"
"""Name of this backend among transformers' experts implementations."""
STACKS = ("gate_up_proj", "down_proj")
"""The weights of a layer's routed experts."""


class SegmentedExperts(torch.autograd.Function):
    """SwiGLU experts on segments: out_T = sum over K of weight * down(silu(gate x) * up x)."""

    @staticmethod
    def forward(
        ctx: Any, x_TD: Tensor, weights_TK: Tensor, gate_up_EGD: Tensor, down_EDF: Tensor, segments: Segments,
        dtype: torch.dtype,
    ) -> Tensor:  # fmt: skip
        ctx.segments, ctx.top_k = segments, weights_TK.shape[1]
        ctx.stacks = gate_up_EGD.shape, down_EDF.shape, gate_up_EGD.dtype
        x_TD, weights_TK, gate_up_EGD, down_EDF = (t.to(dtype) for t in (x_TD, weights_TK, gate_up_EGD, down_EDF))
        weight_R = segments.spread(weights_TK)
        x_RD = x_TD.index_select(0, segments.token_R)
        out_RD = segments.results(x_TD, x_TD.shape[1])
        saved: list[Tensor] = []
        for group in segments.groups:
            x_BND, weight_BN = group.split(x_RD), group.split(weight_R)
            gate_up_BGD, down_BDF = gate_up_EGD[group.experts], down_EDF[group.experts]
            hidden_BGN = torch.bmm(gate_up_BGD, x_BND.transpose(1, 2))
            act_BFN, silu_BFN = swiglu(hidden_BGN)
            act_BNF = act_BFN.mul_(weight_BN[:, None]).transpose(1, 2)
            torch.bmm(act_BNF, down_BDF.transpose(1, 2), out=group.split(out_RD))
            saved += hidden_BGN, silu_BFN, gate_up_BGD, down_BDF
        ctx.save_for_backward(x_RD, weight_R, *saved)
        return segments.collect(out_RD, ctx.top_k)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None, None]:
        x_RD, weight_R, *saved = ctx.saved_tensors
        segments: Segments = ctx.segments
        dout_RD = grads[0].to(x_RD.dtype).contiguous().index_select(0, segments.token_R)
        dx_RD, dweight_R = segments.results(x_RD, x_RD.shape[1]), segments.results(x_RD)
        gate_up_shape, down_shape, dtype = ctx.stacks
        dgate_up_EGD, ddown_EDF = torch.zeros(gate_up_shape, dtype=dtype), torch.zeros(down_shape, dtype=dtype)
        for group, hidden_BGN, silu_BFN, gate_up_BGD, down_BDF in zip(segments.groups, *[iter(saved)] * 4, strict=True):
            x_BND, dout_BND, weight_B1N = group.split(x_RD), group.split(dout_RD), group.split(weight_R)[:, None]
            act_BFN = silu_BFN * hidden_BGN[:, silu_BFN.shape[1] :]
            dact_BFN = torch.bmm(down_BDF.transpose(1, 2), dout_BND.transpose(1, 2))
            group.split(dweight_R[:-1]).copy_((act_BFN * dact_BFN).sum(1))
            dhidden_BGN = swiglu_backward(dact_BFN.mul_(weight_B1N), hidden_BGN, silu_BFN)
            act_BNF = act_BFN.mul_(weight_B1N).transpose(1, 2)
            group.add(ddown_EDF, torch.bmm(dout_BND.transpose(1, 2), act_BNF))
            group.add(dgate_up_EGD, torch.bmm(dhidden_BGN, x_BND))
            torch.bmm(dhidden_BGN.transpose(1, 2), gate_up_BGD, out=group.split(dx_RD))
        dweights_TK = dweight_R[segments.row_S].view(-1, ctx.top_k)
        return segments.collect(dx_RD, ctx.top_k), dweights_TK, dgate_up_EGD, ddown_EDF, None, None


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
    segments = arrange(ids_TK, module.gate_up_proj, dtype)
    out_TD = SegmentedExperts.apply(x_TD, weights_TK, module.gate_up_proj, module.down_proj, segments, dtype)
    return out_TD.to(x_TD.dtype)


moe.ALL_EXPERTS_FUNCTIONS.register(SEGMENTS, segmented_experts)
