"""RMSNorm (arXiv:1910.07467) on CPUs in few memory passes, with its gradients."""

# T tokens, D dimensions that are normalised

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers.models.mistral4.modeling_mistral4 import Mistral4RMSNorm


def rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Normalised tokens, x / rms(x) * weight, and 1 / rms(x) of each; float32."""
    scale_T1 = torch.linalg.vector_norm(x_TD, dim=-1, keepdim=True, dtype=torch.float32)
    scale_T1 = scale_T1.square_().div_(x_TD.shape[-1]).add_(eps).rsqrt_()
    return torch.mul(x_TD, scale_T1).mul_(weight_D), scale_T1


def rms_norm_backward(dy_TD: Tensor, x_TD: Tensor, weight_D: Tensor, scale_T1: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and weight, float32."""
    unit_TD = torch.mul(x_TD, scale_T1)
    dweight_TD = dy_TD * unit_TD
    along_T1 = (dweight_TD @ weight_D)[:, None].div_(x_TD.shape[-1])
    dx_TD = torch.mul(dy_TD, weight_D).addcmul_(unit_TD, along_T1, value=-1).mul_(scale_T1)
    return dx_TD, dweight_TD.sum(0)


class RMSNorm(torch.autograd.Function):
    """`rms_norm` with its gradients."""

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        y_TD, scale_T1 = rms_norm(x_TD, weight_D, eps)
        ctx.save_for_backward(x_TD, weight_D, scale_T1)
        return y_TD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        return *rms_norm_backward(grads[0], *ctx.saved_tensors), None


class LeanRMSNorm(Mistral4RMSNorm):
    """Mistral4RMSNorm in fewer passes for float32 tensors on a CPU."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(…, D) -> (…, D)."""
        plain = hidden_states.device.type == "cpu" and hidden_states.dtype == torch.float32
        if not plain or isinstance(self.weight, DTensor):
            return super().forward(hidden_states)
        x_TD = hidden_states.reshape(-1, hidden_states.shape[-1])
        return RMSNorm.apply(x_TD, self.weight, self.variance_epsilon).view_as(hidden_states)
