"""Causal attention on CPUs as a few batched products: blocks of queries, each against the keys before its end.

Registered with transformers as `causal_blocks`. Half of the score matrix is never formed, as in a flash kernel, but the
products run at the speed of the machine's matrix units; torch's CPU kernel reaches a third of it in bfloat16. What is
not plain causal self-attention (padding, a cache, long windows, whose scores would not fit) goes to torch's kernel.
"""

# N batch x heads, L length, H head dim of queries and keys, V head dim of values, Q queries of a block, S keys before
# the end of a block

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

CAUSAL_BLOCKS = "causal_blocks"
"""Name of this kernel among transformers' attention implementations."""
BLOCK = 64
"""Queries of a block."""
LONGEST = 1024
"""Above this length the saved probabilities would take more memory than time is worth."""


def attend(
    q_NLH: Tensor, k_NLH: Tensor, v_NLV: Tensor, scale: float, visible_B1LL: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """softmax(scale * q k^T, causal) v, (N, L, V), and each block's probabilities, which `attend_backward` needs.

    `visible_B1LL`: False where a query does not see a key before it either; each sees itself.
    """
    out_NLV = torch.empty_like(v_NLV)
    probs: list[Tensor] = []
    for start in range(0, q_NLH.shape[1], BLOCK):
        block_NQH = q_NLH[:, start : start + BLOCK]
        end = start + block_NQH.shape[1]
        mask = _hidden_keys(start, end, q_NLH.dtype)
        if visible_B1LL is not None:
            hidden_B1QS = ~visible_B1LL[:, :, start:end, :end]
            mask = mask.expand_as(hidden_B1QS).masked_fill(hidden_B1QS, float("-inf"))
            mask = mask.repeat(1, q_NLH.shape[0] // mask.shape[0], 1, 1).flatten(0, 1)
        scores_NQS = torch.baddbmm(mask, block_NQH, k_NLH[:, :end].transpose(1, 2), alpha=scale)
        probs.append(scores_NQS.softmax(-1))
        out_NLV[:, start:end] = torch.bmm(probs[-1], v_NLV[:, :end])
    return out_NLV, probs


def attend_backward(
    dout_NLV: Tensor, q_NLH: Tensor, k_NLH: Tensor, v_NLV: Tensor, probs: Sequence[Tensor], scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values."""
    dq_NLH, dk_NLH, dv_NLV = torch.empty_like(q_NLH), torch.zeros_like(k_NLH), torch.zeros_like(v_NLV)
    for start, probs_NQS in zip(range(0, q_NLH.shape[1], BLOCK), probs, strict=True):
        end = probs_NQS.shape[2]
        dout_NQV = dout_NLV[:, start:end]
        dprobs_NQS = torch.bmm(dout_NQV, v_NLV[:, :end].transpose(1, 2))
        dscores_NQS = torch.ops.aten._softmax_backward_data(dprobs_NQS, probs_NQS, -1, probs_NQS.dtype)
        dq_NLH[:, start:end] = torch.bmm(dscores_NQS, k_NLH[:, :end])
        dk_NLH[:, :end].baddbmm_(dscores_NQS.transpose(1, 2), q_NLH[:, start:end])
        dv_NLV[:, :end].baddbmm_(probs_NQS.transpose(1, 2), dout_NQV)
    return dq_NLH.mul_(scale), dk_NLH.mul_(scale), dv_NLV


class CausalBlocks(torch.autograd.Function):
    """`attend` with its gradients."""

    @staticmethod
    def forward(ctx: Any, q_NLH: Tensor, k_NLH: Tensor, v_NLV: Tensor, scale: float) -> Tensor:
        out_NLV, probs = attend(q_NLH, k_NLH, v_NLV, scale)
        ctx.save_for_backward(q_NLH, k_NLH, v_NLV, *probs)
        ctx.scale = scale
        return out_NLV

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q_NLH, k_NLH, v_NLV, *probs = ctx.saved_tensors
        return *attend_backward(grads[0], q_NLH, k_NLH, v_NLV, probs, ctx.scale), None


@lru_cache(maxsize=64)
def _hidden_keys(start: int, end: int, dtype: torch.dtype) -> Tensor:
    """-inf where a key comes after the query, else 0: (end - start, end)."""
    return torch.full((end - start, end), float("-inf"), dtype=dtype).triu_(start + 1)


def product_dtype(x: Tensor) -> torch.dtype:
    """In what matrix products are computed: autocast's type where it is on, else that of the tensor."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def are_plain(*layers: nn.Module) -> bool:
    """Whether these are linear layers without bias, adapters or sharded weights."""
    return all(
        type(layer) is nn.Linear and layer.bias is None and not isinstance(layer.weight, DTensor) for layer in layers
    )


def causal_blocks_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, dropout: float = 0.0, is_causal: bool | None = None, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """The interface of transformers: (batch, heads, L, head dim) -> (batch, L, heads, head dim of values)."""
    batch, heads, length, _ = query.shape
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    plain = attention_mask is None and not dropout and key.shape[:3] == query.shape[:3]
    if not (plain and causal) or length > LONGEST or query.device.type != "cpu":
        out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal=is_causal, **kwargs
        )
        return out, None
    states = (state.to(product_dtype(query)) for state in (query, key, value))
    q_NLH, k_NLH, v_NLV = (state.reshape(batch * heads, length, -1) for state in states)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out_NLV = CausalBlocks.apply(q_NLH, k_NLH, v_NLV, scale)
    return out_NLV.view(batch, heads, length, -1).transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register(CAUSAL_BLOCKS, causal_blocks_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(CAUSAL_BLOCKS, sdpa_mask)
