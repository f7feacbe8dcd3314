"""The router of Small 4 style models: kept balanced wherever it runs, without the model's `forward` knowing of it.

T tokens of a micro-batch, E experts, K top-k, D model dim.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from transformers.models.mistral4.modeling_mistral4 import Mistral4TopkRouter

BIAS = "e_score_correction_bias"
"""Name of the selection bias in checkpoints: that of the DeepSeek family in transformers."""

ROUTER_NAMES = {"gate", "router"}
"""What transformers' mixture-of-experts models call their routers, e.g. `mlp.gate`, `mlp.router`."""


@dataclass(frozen=True)
class Batch:
    """The micro-batch that a model is working on, as far as its routers need to know it."""

    is_token_T: Tensor | None = None
    """False at padding, which is routed too but neither counted nor balanced; None: no padding."""
    groups: tuple[dist.ProcessGroup, ...] = ()
    """Process groups over which the global batch is spread, one a mesh dimension."""

    @property
    def num_shares(self) -> int:
        """Micro-batches that are worked on at the same time, this one included."""
        return math.prod(group.size() for group in self.groups)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Batch":
        """Itself: process groups cannot be copied, and models that hold a batch are."""
        return self


class Small4Router(Mistral4TopkRouter):
    """Softmax router with float32 logits that is balanced by a loss, by a selection bias, or not at all.

    The losses are attached to the routing weights instead of being added to the model's loss: callers that replace the
    model's `forward` (TRL does) train them all the same. They are those of the global batch: loads are summed over
    data-parallel ranks, and over the micro-batches of a step as they come (arXiv:2501.11873). The bias follows the
    loads outside the gradient (arXiv:2408.15664). A frozen router is not balanced.

    The model announces every micro-batch by `begin`, so that what activation checkpointing runs again is counted once.
    Routed groups (`n_group` > 1) are not supported: Small 4 has none.
    """

    load_E: Tensor
    """Choices per expert since the last look at them, int64."""
    step_load_E: Tensor
    """Choices per expert in this optimizer step, int64."""
    logit_norm: Tensor
    """Sum over micro-batches, since the last look, of the mean L2 norm of a token's logits."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.balance_mode: str = config.balance_mode
        self.aux_loss_coef = 0.0 if self.balance_mode == "none" else float(config.router_aux_loss_coef)
        self.z_loss_coef = float(config.router_z_loss_coef)
        self.bias_update_rate = float(config.router_bias_update_rate)
        self.micro_batches = 1
        """Micro-batches of an optimizer step."""
        self.forced_ids_TK: Tensor | None = None
        """Expert ids to route to instead of the router's own choice; see `routing_replay`."""
        self.batch, self.is_counted = Batch(), True
        self.step_batches = self.num_batches = 0
        """Micro-batches of this step so far, and since the last look."""
        bias_E = torch.zeros(self.num_experts) if self.balance_mode == "bias" else None
        self.register_buffer(BIAS, bias_E, persistent=True)

    @property
    def bias_E(self) -> Tensor | None:
        """What is added to the probabilities where experts are chosen, float32; None but in bias mode."""
        return self._buffers[BIAS]

    def begin(self, batch: Batch, *, counts: bool) -> None:
        """A model forward begins. `counts`: it is one of training, so the step goes on or a new one begins with it."""
        self.batch, self.is_counted = batch, not counts
        if not counts:
            return
        if "load_E" not in self.__dict__ or self.load_E.device != self.weight.device:
            self._start_counting()
        if self.step_batches == self.micro_batches:
            self.end_step()
        self.step_batches += 1
        self.num_batches += 1

    def end_step(self) -> None:
        """The optimizer has stepped: move the bias against the loads of the step, and count anew."""
        if not self.step_batches:
            return
        if self.bias_E is not None and self.weight.requires_grad:
            self.bias_E.add_(bias_update(self.step_load_E, self.bias_update_rate))
        self.step_load_E.zero_()
        self.step_batches = 0

    def forget(self) -> None:
        """Nothing has been counted since the last look."""
        if self.num_batches:
            self.load_E.zero_()
            self.logit_norm.zero_()
            self.num_batches = 0

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(…, D) hidden states -> float32 logits (T, E), routing weights (T, K), expert ids (T, K).

        Logits carry no gradient where a loss is attached: what callers make of them is for looking at.
        """
        hidden_TD = hidden_states.reshape(-1, self.hidden_dim)
        with torch.autocast(hidden_TD.device.type, enabled=False):
            logits_TE = F.linear(hidden_TD.float(), self.weight.float())
            ids_TK = self._choose(logits_TE.detach())
            weights_TK = self._weights(logits_TE, ids_TK)
        if self.routed_scaling_factor != 1:
            weights_TK = weights_TK * self.routed_scaling_factor
        weights_TK = weights_TK.to(hidden_states.dtype)
        if not self.training:
            return logits_TE, weights_TK, ids_TK
        load_E = self._count(ids_TK, logits_TE)
        if self._has_loss():
            weights_TK = _WithLoss.apply(weights_TK, self._loss(logits_TE, load_E))
            logits_TE = logits_TE.detach()
        return logits_TE, weights_TK, ids_TK

    def _choose(self, logits_TE: Tensor) -> Tensor:
        if self.forced_ids_TK is not None:
            return self.forced_ids_TK
        scores_TE = logits_TE if self.bias_E is None else softmax(logits_TE) + self.bias_E
        return scores_TE.topk(self.top_k, dim=-1, sorted=False).indices

    def _weights(self, logits_TE: Tensor, ids_TK: Tensor) -> Tensor:
        """Probabilities of the chosen experts, or what each has of their sum."""
        weights_TK = softmax(logits_TE).gather(1, ids_TK)
        return weights_TK / (weights_TK.sum(-1, keepdim=True) + 1e-20) if self.norm_topk_prob else weights_TK

    @torch.no_grad()
    def _count(self, ids_TK: Tensor, logits_TE: Tensor) -> Tensor:
        """Loads of this micro-batch on all ranks, (E,); added to the step's once for each micro-batch."""
        load_E = count_load(ids_TK, self.num_experts, self.batch.is_token_T)
        for group in self.batch.groups:
            dist.all_reduce(load_E, group=group)
        if not self.is_counted:
            self.is_counted = True
            self.load_E += load_E
            self.step_load_E += load_E
            self.logit_norm += _mean(torch.linalg.vector_norm(logits_TE, dim=-1), self.batch.is_token_T)
        return load_E

    def _has_loss(self) -> bool:
        wanted = self.aux_loss_coef or self.z_loss_coef
        return bool(wanted) and self.weight.requires_grad and torch.is_grad_enabled() and self.step_batches > 0

    def _loss(self, logits_TE: Tensor, load_E: Tensor) -> Tensor:
        """This micro-batch's share of the step's losses; the mean over ranks is the global batch's."""
        is_token_T = self.batch.is_token_T
        # Ranks may hold different numbers of tokens: each weighs by its own.
        per_token = self.top_k * self.batch.num_shares / load_E.sum().clamp(min=1)
        loss = logits_TE.new_zeros(())
        if self.aux_loss_coef:
            mean_E = _sum(softmax(logits_TE), is_token_T) * per_token
            loss = loss + self.aux_loss_coef * load_balancing_loss(mean_E, self.step_load_E)
        if self.z_loss_coef:
            loss = loss + self.z_loss_coef * _sum(logits_TE.logsumexp(-1).square(), is_token_T) * per_token
        return loss / self.micro_batches

    def _start_counting(self) -> None:
        device = self.weight.device
        self.load_E = torch.zeros(self.num_experts, dtype=torch.int64, device=device)
        self.step_load_E = self.load_E.clone()
        self.logit_norm = torch.zeros((), device=device)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """The bias stays in float32, whatever the model is cast to: in bfloat16 its updates would vanish."""
        bias_E = self.bias_E
        super()._apply(fn, recurse)
        moved_E = self.bias_E
        if bias_E is not None and moved_E is not None and moved_E.dtype != torch.float32:
            self._buffers[BIAS] = bias_E.to(moved_E.device)
        return self


class LeanRouter(Small4Router):
    """Small4Router in fewer passes: what a chosen expert has of the sum is the softmax over the chosen alone."""

    def _weights(self, logits_TE: Tensor, ids_TK: Tensor) -> Tensor:
        return softmax(logits_TE.gather(1, ids_TK)) if self.norm_topk_prob else super()._weights(logits_TE, ids_TK)


class _WithLoss(torch.autograd.Function):
    """Passes `carrier` through and gives `loss` the gradient 1, as if it had been added to the model's loss."""

    @staticmethod
    def forward(ctx: Any, carrier: Tensor, loss: Tensor) -> Tensor:
        ctx.loss_dtype = loss.dtype
        return carrier.view_as(carrier)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        return grads[0], torch.ones((), dtype=ctx.loss_dtype, device=grads[0].device)


def softmax(logits_TE: Tensor) -> Tensor:
    """Probabilities of the experts. Rows of less than 16 entries torch's CPU kernel takes one by one, columns not."""
    return logits_TE.softmax(-1) if logits_TE.shape[-1] >= 16 else logits_TE.t().softmax(0).t()


def count_load(expert_ids_TK: Tensor, num_experts: int, is_token_T: Tensor | None = None) -> Tensor:
    """Choices that fell on each expert, (E,), int64; sums to K times the tokens (those of `is_token_T` only)."""
    ids = expert_ids_TK.flatten()
    ones = torch.ones_like(ids)
    if is_token_T is not None:
        ones = is_token_T.to(ids.dtype).repeat_interleave(expert_ids_TK.shape[1])
    return torch.zeros(num_experts, dtype=torch.int64, device=ids.device).scatter_add_(0, ids, ones)


def load_balancing_loss(mean_probs_E: Tensor, load_E: Tensor) -> Tensor:
    """Balance loss of one layer: 1.0 under uniform routing, rising to E / K as routing collapses.

    Switch Transformer (arXiv:2101.03961) eq. 4 over all K choices: E * sum(share of choices * mean probability).

    Args:
        mean_probs_E: router probabilities, mean over the tokens; sums to 1.
        load_E: choices per expert, as `count_load` gives them.
    """
    share_E = load_E / load_E.sum().clamp(min=1)
    return mean_probs_E.shape[0] * (share_E * mean_probs_E).sum()


def bias_update(load_E: Tensor, rate: float) -> Tensor:
    """Change of the selection bias: `rate` up for experts below the mean load, down for those above, centred."""
    load_E = load_E.float()
    delta_E = rate * torch.sign(load_E.mean() - load_E)
    return delta_E - delta_E.mean()


def routers(model: nn.Module) -> Iterator[Small4Router]:
    """The routers of a model, first layer first."""
    return (module for module in model.modules() if isinstance(module, Small4Router))


def end_step(model: nn.Module) -> None:
    """To be called after each optimizer step; without it a step ends where the next one begins."""
    for router in routers(model):
        router.end_step()


def set_micro_batches(model: nn.Module, number: int) -> None:
    """Say how many micro-batches make a step (gradient accumulation): losses are means over them."""
    for router in routers(model):
        router.micro_batches = number


def freeze_routers(model: nn.Module, *, frozen: bool = True) -> None:
    """Exclude the routers from training, or include them again: Small 4's and those of other families.

    Frozen ones of Small 4 are not balanced, only watched.
    """
    for name, parameter in model.named_parameters():
        if ROUTER_NAMES & set(name.split(".")):
            parameter.requires_grad_(not frozen)


def data_parallel_groups(model: Any) -> tuple[dist.ProcessGroup, ...]:
    """The groups over which batches are spread: of the model's mesh, else every process (DDP, Accelerate)."""
    if not dist.is_available() or not dist.is_initialized():
        return ()
    mesh = getattr(model, "_mesh_manager", None)
    groups = [mesh.get_mesh(name).get_group() for name in ("dp_replicate", "fsdp")] if mesh else [dist.group.WORLD]
    return tuple(group for group in groups if group is not None and group.size() > 1)


def _sum(values_T: Tensor, is_token_T: Tensor | None) -> Tensor:
    """Sum over the tokens of (T,) or (T, E)."""
    if is_token_T is None:
        return values_T.sum(0)
    return (values_T * is_token_T.view(-1, *[1] * (values_T.ndim - 1))).sum(0)


def _mean(values_T: Tensor, is_token_T: Tensor | None) -> Tensor:
    return values_T.mean() if is_token_T is None else _sum(values_T, is_token_T) / is_token_T.sum().clamp(min=1)
