"""Experts on several ranks: every rank sees all tokens, computes its own experts on them, and the results are summed.

Registered with transformers as `all_gather`, beside `all_to_all`, which sends a copy of a token for each choice. With
few ranks and several choices a token goes to nearly every rank anyway: sending it once, and getting one sum back, is
less than half as much, in messages of a size that is known beforehand. Under autocast what is sent is bfloat16.
"""

# T tokens of a rank, K top-k, D model dim, R ranks

from typing import Any, cast

import torch
from torch import Tensor
from torch import distributed as dist
from transformers.distributed.expert_parallel import EPImplementation, EPImplementationInterface

from nightsmith.model.attention import product_dtype

ALL_GATHER = "all_gather"
"""Name of this way among transformers' expert-parallel implementations."""
ALL_GATHER_MEAN = "all_gather_mean"
"""The same, and gradients of experts are means over ranks; without it they are sums, which FSDP divides."""


def gather_rows(rows: Tensor, group: dist.ProcessGroup) -> Tensor:
    """(T, …) of every rank as (R x T, …), in the order of ranks. Every rank has as many."""
    out = rows.new_empty(group.size() * len(rows), *rows.shape[1:])
    dist.all_gather_single(out, rows.contiguous(), group=group)
    return out


def sum_rows(rows: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The reverse: of (R x T, …) on every rank this rank's T rows, summed over ranks in their order, float32 inside."""
    out = torch.empty_like(rows, memory_format=torch.contiguous_format)
    dist.all_to_all_single(out, rows.contiguous(), group=group)
    return out.view(group.size(), -1, *rows.shape[1:]).sum(0, dtype=torch.float32).to(rows.dtype)


class GatherRows(torch.autograd.Function):
    """`gather_rows` with `factor` times its gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: dist.ProcessGroup, factor: int) -> Tensor:
        ctx.group, ctx.factor = group, factor
        return gather_rows(rows, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return sum_rows(grads[0], ctx.group).mul_(ctx.factor), None, None


class SumRows(torch.autograd.Function):
    """`sum_rows` with its gradient divided by `divisor`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: dist.ProcessGroup, divisor: int) -> Tensor:
        ctx.group, ctx.divisor = group, divisor
        return sum_rows(rows, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return gather_rows(grads[0], ctx.group).div_(ctx.divisor), None, None


class AllGatherEP(EPImplementation):
    """The interface of transformers: (T, D) tokens, (T, K) ids of experts and routing weights of a rank -> (T, D).

    The ranks of the group hold different batches of the same number of tokens.
    """

    averages = False

    def __call__(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """What this rank's tokens get from the experts of all ranks."""
        group, dtype, number = self.ep_mesh.get_group(), product_dtype(hidden_states), self._number
        shares = group.size() if self.averages else 1  # divided out again where gradients leave the experts
        sent = torch.cat((hidden_states.to(dtype), top_k_weights.to(dtype)), dim=1)
        tokens, weights = GatherRows.apply(sent, group, shares).split(
            (hidden_states.shape[1], top_k_index.shape[1]), dim=1
        )
        local = gather_rows(top_k_index.int(), group).long() - self.ep_mesh.get_local_rank() * number
        elsewhere = (local < 0) | (local >= number)
        local, weights = local.masked_fill(elsewhere, number), weights.masked_fill(elsewhere, 0)
        return SumRows.apply(self.experts_forward(tokens, local, weights), group, shares).to(hidden_states.dtype)

    @property
    def _number(self) -> int:
        """Experts of this rank."""
        return int(cast(Any, self.num_local_experts))


class AveragingEP(AllGatherEP):
    """The same for loops that do not divide the experts' gradients by the number of ranks themselves."""

    averages = True


EPImplementationInterface.register(ALL_GATHER, AllGatherEP)
EPImplementationInterface.register(ALL_GATHER_MEAN, AveragingEP)
