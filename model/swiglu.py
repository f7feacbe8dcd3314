"""SwiGLU (arXiv:2002.05202) on CPUs: its units, their gradients, and a dense block as one autograd node.

Hidden units are computed transposed, so that the gate's and the up projection's are contiguous.
"""

# T tokens, D model dim, F hidden dim, G gate and up dims (2F), … dimensions in front, N rows

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import SiLUActivation
from transformers.models.mistral4.modeling_mistral4 import Mistral4MLP

from nightsmith.model.attention import are_plain, product_dtype


def swiglu(hidden_GN: Tensor) -> tuple[Tensor, Tensor]:
    """silu(gate) * up, (…, F, N), of (…, G, N); and silu(gate), which costs more to compute again than to keep."""
    gate_FN, up_FN = hidden_GN.chunk(2, dim=-2)
    silu_FN = F.silu(gate_FN)
    return silu_FN * up_FN, silu_FN


def swiglu_backward(dact_FN: Tensor, hidden_GN: Tensor, silu_FN: Tensor) -> Tensor:
    """Gradient of the hidden units; overwrites `dact_FN`."""
    gate_FN, up_FN = hidden_GN.chunk(2, dim=-2)
    dhidden_GN = torch.empty_like(hidden_GN)
    dgate_FN, dup_FN = dhidden_GN.chunk(2, dim=-2)
    torch.mul(dact_FN, silu_FN, out=dup_FN)
    torch.ops.aten.silu_backward(dact_FN.mul_(up_FN), gate_FN, grad_input=dgate_FN)
    return dhidden_GN


class SwiGLU(torch.autograd.Function):
    """down(silu(gate x) * up x), (T, D), with products of type `dtype`."""

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, gate_FD: Tensor, up_FD: Tensor, down_DF: Tensor, dtype: torch.dtype) -> Tensor:
        x_TD, down_DF = x_TD.to(dtype), down_DF.to(dtype)
        gate_up_GD = torch.cat((gate_FD, up_FD)).to(dtype)
        hidden_GT = gate_up_GD @ x_TD.t()
        act_FT, silu_FT = swiglu(hidden_GT)
        ctx.save_for_backward(x_TD, gate_up_GD, down_DF, hidden_GT, act_FT, silu_FT)
        return act_FT.t() @ down_DF.t()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        x_TD, gate_up_GD, down_DF, hidden_GT, act_FT, silu_FT = ctx.saved_tensors
        dout_TD = grads[0]
        dhidden_GT = swiglu_backward(down_DF.t() @ dout_TD.t(), hidden_GT, silu_FT)
        dgate_FD, dup_FD = (dhidden_GT @ x_TD).chunk(2)
        return dhidden_GT.t() @ gate_up_GD, dgate_FD, dup_FD, dout_TD.t() @ act_FT.t(), None


class OneNodeMLP(Mistral4MLP):
    """Mistral4MLP that runs as one node where it can: plain weights, SiLU, CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) -> (…, D)."""
        layers: tuple[Any, ...] = self.gate_proj, self.up_proj, self.down_proj
        silu = isinstance(self.act_fn, (nn.SiLU, SiLUActivation))
        if x.device.type != "cpu" or not silu or not are_plain(*layers):
            return super().forward(x)
        weights = (layer.weight for layer in layers)
        return SwiGLU.apply(x.flatten(0, -2), *weights, product_dtype(x)).view(x.shape)
