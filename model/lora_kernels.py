"""Arithmetic of LoRA training on CPUs in few memory passes: frozen projection plus adapter, loss, norms, attention."""

# T tokens, D model dim, O output dim, R rank, F gate and up dims, N rows x key heads, Q queries (group x length),
# S keys, H heads, E head dim, V vocabulary

import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn


class LoraLinear(torch.autograd.Function):
    """y = x W^T + (x A^T) B^T with W frozen: its gradient is never formed, and y takes no second memory pass."""

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, weight_OD: Tensor, a_RD: Tensor, b_OR: Tensor) -> Tensor:
        hidden_TR = x_TD @ a_RD.T
        ctx.save_for_backward(x_TD, weight_OD, a_RD, b_OR, hidden_TR)
        return torch.addmm(x_TD @ weight_OD.T, hidden_TR, b_OR.T)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor]:
        (dy_TO,) = grads
        x_TD, weight_OD, a_RD, b_OR, hidden_TR = ctx.saved_tensors
        dhidden_TR = dy_TO @ b_OR
        dx_TD = torch.addmm(dy_TO @ weight_OD, dhidden_TR, a_RD) if ctx.needs_input_grad[0] else None
        return dx_TD, None, dhidden_TR.T @ x_TD, dy_TO.T @ hidden_TR


class CompletionLoss(torch.autograd.Function):
    """Summed cross-entropy through a frozen head, each token with its weight.

    The gradient is formed in the forward pass, block by block, so that no logits outlive their block.
    """

    BLOCK = 256

    @staticmethod
    def forward(ctx: Any, hidden_TD: Tensor, head_VD: Tensor, targets_T: Tensor, weights_T: Tensor) -> Tensor:
        total = hidden_TD.new_zeros((), dtype=torch.float32)
        dhidden_TD = torch.empty_like(hidden_TD)
        for start in range(0, len(targets_T), CompletionLoss.BLOCK):
            rows = slice(start, start + CompletionLoss.BLOCK)
            probs = (hidden_TD[rows] @ head_VD.T).float().softmax(-1)
            target, weight = targets_T[rows, None], weights_T[rows, None]
            # One pass over the vocabulary instead of a second one for logsumexp; float32 holds p down to 1e-38.
            total -= (weight * probs.gather(-1, target).clamp_min(1e-37).log()).sum()
            probs.scatter_add_(-1, target, torch.full_like(target, -1, dtype=probs.dtype))
            dhidden_TD[rows] = (weight * probs).to(hidden_TD.dtype) @ head_VD
        ctx.save_for_backward(dhidden_TD)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (dhidden_TD,) = ctx.saved_tensors
        return dhidden_TD * grads[0].to(dhidden_TD.dtype), None, None, None


def _rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    scale_T1 = x_TD.float().pow(2).mean(-1, keepdim=True).add(eps).rsqrt()
    return x_TD * scale_T1.to(x_TD.dtype) * weight_D


def _swiglu(gate_up_TF: Tensor) -> Tensor:
    gate, up = gate_up_TF.chunk(2, dim=-1)
    return nn.functional.silu(gate) * up


def _rotate(x_THE: Tensor, cos_T1E: Tensor, sin_T1E: Tensor) -> Tensor:
    low, high = x_THE.chunk(2, dim=-1)
    return x_THE * cos_T1E + torch.cat((-high, low), dim=-1) * sin_T1E


def _attend(q_NQE: Tensor, k_NSE: Tensor, v_NSE: Tensor, mask_QS: Tensor) -> Tensor:
    scores_NQS = torch.baddbmm(mask_QS, q_NQE, k_NSE.transpose(-1, -2), alpha=q_NQE.shape[-1] ** -0.5)
    return scores_NQS.softmax(-1) @ v_NSE


@dataclass(frozen=True)
class Kernels:
    """The passes that are bound by memory, not by matrix products: the ones that a compiler can fuse."""

    rms_norm: Callable[[Tensor, Tensor, float], Tensor] = _rms_norm
    swiglu: Callable[[Tensor], Tensor] = _swiglu
    rotate: Callable[[Tensor, Tensor, Tensor], Tensor] = _rotate
    attend: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = _attend
    """Grouped-query attention as two batched products per key head; 3x faster on CPUs than the SDPA kernel."""


def kernels(*, compiled: bool) -> Kernels:
    """Compiled where asked and where there is a C++ compiler (1.15x a step for some 20 s once), else as written."""
    if not (compiled and shutil.which("g++")):
        return Kernels()
    plain = Kernels()
    return Kernels(**{f.name: torch.compile(getattr(plain, f.name), dynamic=True) for f in fields(Kernels)})
