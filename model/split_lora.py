"""LoRA on routed experts as extra products, (x A) B beside x W: no merged copy of an expert is ever made.

PEFT keeps the adapters (`target_parameters`): its names, files, merging and switching off stay. Only its forward pass
is replaced, which adds B A to the whole stack of experts and differentiates that stack. Under expert parallelism, where
PEFT's forward fails, each rank has the adapters of its own experts (`split_lora_ranks`).
"""

# T tokens, K top-k, R rows of all segments, E experts, D model dim, F expert hidden dim, G gate and up dims (2F),
# B experts of a group, N rows of each of its segments, P rank of the adapters

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import ParamWrapper
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.integrations import moe

from nightsmith.model.attention import product_dtype
from nightsmith.model.experts import STACKS, is_plain_swiglu
from nightsmith.model.segments import PADDING, Segments, segment
from nightsmith.model.swiglu import swiglu, swiglu_backward

SPLIT_LORA = "split_lora"
"""Name of this backend among transformers' experts implementations; without adapters it is `grouped_mm`."""


@dataclass(frozen=True)
class Factors:
    """One adapter of a stack of experts: its weights gain `scale * B A`."""

    a_EPI: Tensor
    """Down projections, (experts, rank, in)."""
    b_EOP: Tensor
    """Up projections, (experts, out, rank)."""
    scale: float

    def scaled(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """A and scale * B, contiguous."""
        return self.a_EPI.to(dtype), (self.b_EOP * self.scale).to(dtype).contiguous()


class SplitLora(ParamWrapper):
    """PEFT's adapter of one stack of experts, which hands its factors to the experts instead of merging them."""

    @contextmanager
    def _activate_lora(self, active_adapters: list[str]) -> Iterator[None]:
        names = [name for name in active_adapters if name in self.lora_A]
        if len(names) > 1:
            with super()._activate_lora(active_adapters):
                yield
            return
        experts: Any = self.get_base_layer()
        given: dict[str, Factors] = experts.split_lora
        for name in names:
            b_EOP, a_EPI, scale = self.get_delta_factors(name)
            given[self.parameter_name] = Factors(a_EPI, b_EOP, scale)
        try:
            yield
        finally:
            given.clear()


def use_split_lora(model: Any) -> int:
    """Compute PEFT's adapters of routed experts as extra products where that is possible; returns in how many layers.

    Experts with biases, transposed weights, another activation than SiLU, or adapters on one of their two stacks alone,
    keep PEFT's forward.
    """
    adapted: dict[Any, list[ParamWrapper]] = {}
    for wrapper in model.modules():
        if type(wrapper) is ParamWrapper:
            adapted.setdefault(wrapper.get_base_layer(), []).append(wrapper)
    split = [experts for experts, wrappers in adapted.items() if is_plain_swiglu(experts) and len(wrappers) == 2]
    for experts in split:
        experts.split_lora = {}
        for wrapper in adapted[experts]:
            wrapper.__class__ = SplitLora
    if split:
        model.get_base_model().set_experts_implementation(SPLIT_LORA)
    return len(split)


@contextmanager
def plain_peft(model: nn.Module) -> Iterator[None]:
    """Inside, PEFT finds its own classes, which alone it adds further adapters to; slower, and the same sums."""
    split: list[Any] = [module for module in model.modules() if type(module) is SplitLora]
    for module in split:
        module.__class__ = ParamWrapper
    try:
        yield
    finally:
        for module in split:
            module.__class__ = SplitLora


def split_lora_experts(self: nn.Module, x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor) -> Tensor:
    """The interface of transformers: (T, D) tokens, (T, K) expert ids and routing weights -> (T, D)."""
    module: Any = self
    factors: dict[str, Factors] = getattr(module, "split_lora", {})
    frozen = not any(getattr(module, name).requires_grad for name in STACKS)
    if not factors:
        return moe.grouped_mm_experts_forward(module, x_TD, ids_TK, weights_TK)
    if x_TD.device.type != "cpu" or not frozen:
        return grouped(module, x_TD, ids_TK, weights_TK, factors)
    dtype = product_dtype(x_TD)
    segments = segment(ids_TK, module.gate_up_proj, PADDING if dtype == torch.bfloat16 else 1)
    adapters = [matrix for name in STACKS for matrix in factors[name].scaled(dtype)]
    stacks = (module.gate_up_proj.to(dtype), module.down_proj.to(dtype))
    out_TD = SplitLoraExperts.apply(x_TD.to(dtype), weights_TK.to(dtype), segments, *stacks, *adapters)
    return out_TD.to(x_TD.dtype)


class SplitLoraExperts(torch.autograd.Function):
    """`experts.SegmentedExperts` with frozen weights and an adapter on each of the two stacks."""

    @staticmethod
    def forward(
        ctx: Any, x_TD: Tensor, weights_TK: Tensor, segments: Segments, gate_up_EGD: Tensor, down_EDF: Tensor,
        a1_EPD: Tensor, b1_EGP: Tensor, a2_EPF: Tensor, b2_EDP: Tensor,
    ) -> Tensor:  # fmt: skip
        weight_R = segments.spread(weights_TK)
        out_RD = segments.results(x_TD, x_TD.shape[1])
        hidden: list[Tensor] = []
        for group in segments.groups:
            e = group.experts
            x_BDN = group.gather(x_TD, segments).transpose(1, 2)
            hidden_BGN = torch.bmm(gate_up_EGD[e], x_BDN).baddbmm_(b1_EGP[e], torch.bmm(a1_EPD[e], x_BDN))
            act_BNF = swiglu(hidden_BGN)[0].mul_(group.split(weight_R)[:, None]).transpose(1, 2)
            out_BND = torch.bmm(act_BNF, down_EDF[e].transpose(1, 2), out=group.split(out_RD))
            out_BND.baddbmm_(torch.bmm(act_BNF, a2_EPF[e].transpose(1, 2)), b2_EDP[e].transpose(1, 2))
            hidden.append(hidden_BGN)
        ctx.save_for_backward(x_TD, weight_R, gate_up_EGD, down_EDF, a1_EPD, b1_EGP, a2_EPF, b2_EDP, *hidden)
        ctx.segments, ctx.top_k = segments, weights_TK.shape[1]
        return segments.collect(out_RD, ctx.top_k)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_TD, weight_R, gate_up_EGD, down_EDF, a1_EPD, b1_EGP, a2_EPF, b2_EDP, *hidden = ctx.saved_tensors
        segments: Segments = ctx.segments
        dout_TD = grads[0].contiguous()
        dx_RD, dweight_R = segments.results(x_TD, x_TD.shape[1]), segments.results(x_TD)
        da1, db1, da2, db2 = (torch.zeros_like(factor) for factor in (a1_EPD, b1_EGP, a2_EPF, b2_EDP))
        for group, hidden_BGN in zip(segments.groups, hidden, strict=True):
            e, weight_B1N = group.experts, group.split(weight_R)[:, None]
            x_BND, dout_BND = group.gather(x_TD, segments), group.gather(dout_TD, segments)
            act_BFN, silu_BFN = swiglu(hidden_BGN)
            dlow_BPN = torch.bmm(b2_EDP[e].transpose(1, 2), dout_BND.transpose(1, 2))
            dact_BFN = torch.bmm(down_EDF[e].transpose(1, 2), dout_BND.transpose(1, 2))
            dact_BFN.baddbmm_(a2_EPF[e].transpose(1, 2), dlow_BPN)
            group.split(dweight_R[:-1]).copy_((act_BFN * dact_BFN).sum(1))
            act_BNF = act_BFN.mul_(weight_B1N).transpose(1, 2)
            da2[e] = torch.bmm(dlow_BPN, act_BNF)
            db2[e] = torch.bmm(dout_BND.transpose(1, 2), torch.bmm(act_BNF, a2_EPF[e].transpose(1, 2)))
            dhidden_BGN = swiglu_backward(dact_BFN.mul_(weight_B1N), hidden_BGN, silu_BFN)
            dlow_BPN = torch.bmm(b1_EGP[e].transpose(1, 2), dhidden_BGN)
            da1[e] = torch.bmm(dlow_BPN, x_BND)
            db1[e] = torch.bmm(dhidden_BGN, torch.bmm(x_BND, a1_EPD[e].transpose(1, 2)))
            dx_BND = torch.bmm(dhidden_BGN.transpose(1, 2), gate_up_EGD[e], out=group.split(dx_RD))
            dx_BND.baddbmm_(dlow_BPN.transpose(1, 2), a1_EPD[e])
        dweights_TK = dweight_R[segments.row_S].view(-1, ctx.top_k)
        return segments.collect(dx_RD, ctx.top_k), dweights_TK, None, None, None, da1, db1, da2, db2


def grouped(module: Any, x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor, factors: dict[str, Factors]) -> Tensor:
    """The same by grouped products, which autograd differentiates: for accelerators, and where experts train too."""
    ids_S, order_S = torch.sort(ids_TK.flatten())
    counts = torch.histc(ids_S.float(), bins=module.num_experts, min=0, max=module.num_experts - 1)
    ends_E = counts.cumsum(0, dtype=torch.int32)
    here_S1 = (ids_S < module.num_experts)[:, None]

    def project(rows: Tensor, name: str) -> Tensor:
        a_EPI, b_EOP = factors[name].scaled(rows.dtype)
        low = moe._grouped_linear(rows, a_EPI, ends_E).where(here_S1, 0.0)
        out = moe._grouped_linear(rows, getattr(module, name), ends_E) + moe._grouped_linear(low, b_EOP, ends_E)
        return out.where(here_S1, 0.0)

    x_SD = x_TD[order_S // ids_TK.shape[1]].where(here_S1, 0.0)
    gate_SF, up_SF = project(x_SD, "gate_up_proj").chunk(2, dim=-1)
    out_SD = project(F.silu(gate_SF) * up_SF, "down_proj") * weights_TK.flatten()[order_S, None]
    return torch.empty_like(out_SD).index_copy(0, order_S, out_SD).view(*ids_TK.shape, -1).sum(1).to(x_TD.dtype)


moe.ALL_EXPERTS_FUNCTIONS.register(SPLIT_LORA, split_lora_experts)
