"""The router of Small 4 style models: balance loss that trains wherever the router runs, and its health.

T tokens, E experts, K top-k, D model dim.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.mistral4.modeling_mistral4 import Mistral4TopkRouter


class Small4Router(Mistral4TopkRouter):
    """Softmax router with float32 logits whose balance loss flows into every backward pass.

    The loss is attached to the routing weights instead of being added to the model's loss: callers that replace the
    model's `forward` (TRL does) train it all the same. Routed groups (`n_group` > 1) are not supported by Small 4.
    """

    load_E: Tensor

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.aux_loss_coef = float(config.router_aux_loss_coef)
        self.register_buffer("load_E", torch.zeros(self.num_experts, dtype=torch.int64), persistent=False)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(…, D) hidden states -> float32 logits (T, E), routing weights (T, K), expert ids (T, K)."""
        hidden_TD = hidden_states.reshape(-1, self.hidden_dim)
        logits_TE = F.linear(hidden_TD.float(), self.weight.float())
        probs_TE = logits_TE.softmax(-1)
        weights_TK, ids_TK = probs_TE.topk(self.top_k, dim=-1, sorted=False)
        if self.norm_topk_prob:
            weights_TK = weights_TK / (weights_TK.sum(-1, keepdim=True) + 1e-20)
        weights_TK = (weights_TK * self.routed_scaling_factor).to(hidden_states.dtype)
        if self.training:
            load_E = count_load(ids_TK, self.num_experts)
            self.load_E += load_E
            if self.aux_loss_coef:
                loss = self.aux_loss_coef * load_balancing_loss(probs_TE, load_E)
                weights_TK = _WithLoss.apply(weights_TK, loss)
        return logits_TE, weights_TK, ids_TK


class _WithLoss(torch.autograd.Function):
    """Passes `carrier` through and gives `loss` the gradient 1, as if it had been added to the model's loss."""

    @staticmethod
    def forward(ctx: Any, carrier: Tensor, loss: Tensor) -> Tensor:
        ctx.loss_dtype = loss.dtype
        return carrier.view_as(carrier)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        return grads[0], torch.ones((), dtype=ctx.loss_dtype, device=grads[0].device)


def count_load(expert_ids_TK: Tensor, num_experts: int) -> Tensor:
    """Choices that fell on each expert, (E,), int64; sums to T * K."""
    ids = expert_ids_TK.flatten()
    return torch.zeros(num_experts, dtype=torch.int64, device=ids.device).scatter_add_(0, ids, torch.ones_like(ids))


def load_balancing_loss(probs_TE: Tensor, load_E: Tensor) -> Tensor:
    """Balance loss of one layer: 1.0 under uniform routing, rising to E / K as routing collapses.

    Switch Transformer (arXiv:2101.03961) eq. 4 over all K choices: E * sum(share of choices * mean probability).

    Args:
        probs_TE: router probabilities, float32, rows sum to 1.
        load_E: choices per expert, as `count_load` gives them.
    """
    share_E = load_E / load_E.sum()
    return probs_TE.shape[1] * (share_E * probs_TE.mean(0)).sum()


@dataclass(frozen=True)
class RouterHealth:
    """How evenly one layer's experts were used since the last look."""

    max_vio: float
    """Largest load over mean load, minus 1 (0 is even)."""
    entropy: float
    """Entropy of the load, divided by log(E): 1 is even, 0 is one expert only."""
    dead_experts: int
    """Experts that no token chose."""


def routers(model: nn.Module) -> Iterator[Small4Router]:
    """The routers of a model, first layer first."""
    return (module for module in model.modules() if isinstance(module, Small4Router))


def take_health(model: nn.Module) -> list[RouterHealth]:
    """Health per layer over the training steps since the last call (none: an empty list). Counting starts anew."""
    health = [measure_load(router.load_E.tolist()) for router in routers(model) if router.load_E.any()]
    for router in routers(model):
        router.load_E.zero_()
    return health


def measure_load(load: list[int]) -> RouterHealth:
    """Health of one layer from its choices per expert, at least one."""
    total = sum(load)
    shares = [count / total for count in load if count]
    entropy = -sum(share * math.log(share) for share in shares)
    return RouterHealth(
        max_vio=max(load) * len(load) / total - 1,
        entropy=entropy / math.log(len(load)) if len(load) > 1 else 1.0,
        dead_experts=load.count(0),
    )
