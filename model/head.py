"""Mean cross-entropy of the next tokens: on CPUs, output head and loss are one autograd node."""

# B windows, L length, T tokens (B x L), D model dim, V vocabulary

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nightsmith.model.attention import are_plain, product_dtype
from nightsmith.model.backbone import LeanModel

LEAST = 1e-37
"""Probability that a target counts as at least; float32 holds 1e-38."""


class HeadLoss(torch.autograd.Function):
    """Of tokens (T, D) under a head (V, D), with products of type `dtype`.

    Gradients are formed in the forward pass, so that the logits are one tensor that never leaves it.
    """

    @staticmethod
    def forward(ctx: Any, hidden_TD: Tensor, head_VD: Tensor, targets_T: Tensor, dtype: torch.dtype) -> Tensor:
        hidden_TD, head_VD, targets_T1 = hidden_TD.to(dtype), head_VD.to(dtype), targets_T[:, None]
        probs_TV = (hidden_TD @ head_VD.t()).float().softmax(-1)
        loss = -probs_TV.gather(1, targets_T1).clamp_min_(LEAST).log_().mean()
        probs_TV.scatter_add_(1, targets_T1, probs_TV.new_full(targets_T1.shape, -1.0))
        dlogits_TV = probs_TV.to(dtype)
        ctx.save_for_backward(dlogits_TV @ head_VD, dlogits_TV.t() @ hidden_TD)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        dhidden_TD, dhead_VD = ctx.saved_tensors
        scale = grads[0] / len(dhidden_TD)
        return dhidden_TD.float() * scale, dhead_VD.float() * scale, None, None


def cross_entropy(model: Any, input_ids: Tensor, targets: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Nats per token, for ids and targets (B, L), of any causal model; `attention_mask` as the model takes it."""
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
    if isinstance(getattr(model, "model", None), LeanModel) and are_plain(model.lm_head):
        hidden_BLD = model.model(**inputs).last_hidden_state
        dtype = product_dtype(hidden_BLD)
        return HeadLoss.apply(hidden_BLD.flatten(0, 1), model.lm_head.weight, targets.flatten(), dtype)
    logits_BLV = model(**inputs).logits
    return F.cross_entropy(logits_BLV.float().flatten(0, 1), targets.flatten())
