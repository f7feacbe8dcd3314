"""RMSNorm (arXiv:1910.07467) on CPUs in few memory passes, with its gradients."""

# T tokens, D dimensions that are normalised

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers.models.mistral4.modeling_mistral4 import Mistral4RMSNorm


def unit_rms(x_TD: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Tokens of unit size, x / rms(x), and 1 / rms(x) of each; float32."""
    scale_T1 = torch.linalg.vector_norm(x_TD, dim=-1, keepdim=True, dtype=torch.float32)
    scale_T1 = scale_T1.square_().div_(x_TD.shape[-1]).add_(eps).rsqrt_()
    return torch.mul(x_TD, scale_T1), scale_T1


def unit_rms_backward(dunit_TD: Tensor, unit_TD: Tensor, scale_T1: Tensor) -> Tensor:
    """Gradient of x, float32; overwrites `dunit_TD`."""
    along_T1 = torch.linalg.vecdot(dunit_TD, unit_TD)[:, None].div_(unit_TD.shape[-1])
    return dunit_TD.addcmul_(unit_TD, along_T1, value=-1).mul_(scale_T1)


class RMSNorm(torch.autograd.Function):
    """x / rms(x) * weight."""

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        unit_TD, scale_T1 = unit_rms(x_TD, eps)
        ctx.save_for_backward(unit_TD, weight_D, scale_T1)
        return unit_TD * weight_D

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        unit_TD, weight_D, scale_T1 = ctx.saved_tensors
        dweight_D = (grads[0] * unit_TD).sum(0)
        return unit_rms_backward(grads[0] * weight_D, unit_TD, scale_T1), dweight_D, None


class LeanRMSNorm(Mistral4RMSNorm):
    """Mistral4RMSNorm in fewer passes for float32 tensors on a CPU."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(…, D) -> (…, D)."""
        plain = hidden_states.device.type == "cpu" and hidden_states.dtype == torch.float32
        if not plain or isinstance(self.weight, DTensor):
            return super().forward(hidden_states)
        x_TD = hidden_states.reshape(-1, hidden_states.shape[-1])
        return RMSNorm.apply(x_TD, self.weight, self.variance_epsilon).view_as(hidden_states)
