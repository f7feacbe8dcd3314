"""Multi-head latent attention as one autograd node: projections, norms, rotation and `attention.attend`, few passes.

The same arithmetic as transformers' Mistral4Attention, which is the oracle in the tests, with these differences:

* the two projections of the input are one product; weights of norms go into the projections after them;
* rotary pairs are rotated as complex numbers where they lie: queries and keys are permuted alike, so scores are equal;
* under autocast every product is bfloat16, norms and rotation are float32.

What the node does not cover (a cache, padding, adapters on a projection, sharded weights) runs transformers' forward.
"""

# B batch, L length, T tokens (B x L), D model dim, C latent dims (q rank + kv rank + rope), H heads, N batch x heads,
# E head dim of queries and keys (nope + rope), V head dim of values, P rotary pairs, O output rows of a weight

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers.models.mistral4.modeling_mistral4 import Mistral4Attention

from nightsmith.model.attention import CAUSAL_BLOCKS, LONGEST, are_plain, attend, attend_backward, product_dtype
from nightsmith.model.norm import unit_rms, unit_rms_backward


@dataclass(frozen=True)
class LatentShape:
    """Sizes of one layer's attention, and its scale."""

    batch: int
    heads: int
    q_rank: int
    kv_rank: int
    nope: int
    rope: int
    value: int
    eps: float
    scale: float
    dtype: torch.dtype

    def by_head(self, x_TO: Tensor) -> Tensor:
        """(T, heads x dim) -> (B, H, L, dim), a view."""
        return x_TO.view(self.batch, -1, self.heads, x_TO.shape[-1] // self.heads).transpose(1, 2)


def rotate(x: Tensor, cis_LP: Tensor) -> Tensor:
    """Rotate pairs of neighbours in the last dimension, (…, L, 2P), by complex numbers; float32."""
    pairs = torch.view_as_complex(x.float().contiguous().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * cis_LP).flatten(-2)


class LatentAttention(torch.autograd.Function):
    """(T, D) -> (T, D) with the weights of `Mistral4Attention`."""

    @staticmethod
    def forward(
        ctx: Any, x_TD: Tensor, cis_LP: Tensor, visible_B1LL: Tensor | None, shape: LatentShape, *weights: Tensor
    ) -> Tensor:
        q_a, q_norm, q_b, kv_a, kv_norm, kv_b, o = weights
        x_TD, down_CD, o = x_TD.to(shape.dtype), torch.cat((q_a, kv_a)).to(shape.dtype), o.to(shape.dtype)
        q_up, kv_up = (q_b * q_norm).to(shape.dtype), (kv_b * kv_norm).to(shape.dtype)
        latent_TC = (x_TD @ down_CD.t()).float()
        q_latent, kv_latent, k_rope = latent_TC.split((shape.q_rank, shape.kv_rank, shape.rope), dim=-1)
        q_unit, q_scale = unit_rms(q_latent, shape.eps)
        kv_unit, kv_scale = unit_rms(kv_latent, shape.eps)
        q_NLE = _queries(q_unit.to(shape.dtype) @ q_up.t(), cis_LP, shape)
        k_NLE, v_NLV = _keys_and_values(kv_unit.to(shape.dtype) @ kv_up.t(), k_rope, cis_LP, shape)
        out_NLV, probs = attend(q_NLE, k_NLE, v_NLV, shape.scale, visible_B1LL)
        out_TO = _by_token(out_NLV, shape)
        ctx.save_for_backward(
            x_TD, cis_LP, down_CD, q_unit, q_scale, kv_unit, kv_scale, q_NLE, k_NLE, v_NLV, out_TO,
            q_norm, q_b, q_up, kv_norm, kv_b, kv_up, o, *probs,
        )  # fmt: skip
        ctx.shape = shape
        return out_TO @ o.t()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (
            x_TD, cis_LP, down_CD, q_unit, q_scale, kv_unit, kv_scale, q_NLE, k_NLE, v_NLV, out_TO,
            q_norm, q_b, q_up, kv_norm, kv_b, kv_up, o, *probs,
        ) = ctx.saved_tensors  # fmt: skip
        shape: LatentShape = ctx.shape
        dout_TD = grads[0].to(shape.dtype)
        dout_NLV = shape.by_head(dout_TD @ o).reshape(v_NLV.shape)
        dq_NLE, dk_NLE, dv_NLV = attend_backward(dout_NLV, q_NLE, k_NLE, v_NLV, probs, shape.scale)
        dq_TO = _queries_backward(dq_NLE, cis_LP, shape)
        dkv_TO, dk_rope = _keys_and_values_backward(dk_NLE, dv_NLV, cis_LP, shape)
        dq_latent = unit_rms_backward((dq_TO @ q_up).float(), q_unit, q_scale)
        dkv_latent = unit_rms_backward((dkv_TO @ kv_up).float(), kv_unit, kv_scale)
        dq_up, dkv_up = dq_TO.t() @ q_unit.to(shape.dtype), dkv_TO.t() @ kv_unit.to(shape.dtype)
        dlatent_TC = torch.cat((dq_latent, dkv_latent, dk_rope), dim=-1).to(shape.dtype)
        dq_a, dkv_a = (dlatent_TC.t() @ x_TD).split((shape.q_rank, shape.kv_rank + shape.rope))
        return (
            dlatent_TC @ down_CD, None, None, None,
            dq_a, (dq_up * q_b).sum(0), dq_up * q_norm,
            dkv_a, (dkv_up * kv_b).sum(0), dkv_up * kv_norm, dout_TD.t() @ out_TO,
        )  # fmt: skip


def _queries(q_TO: Tensor, cis_LP: Tensor, shape: LatentShape) -> Tensor:
    q_BHLE = shape.by_head(q_TO).contiguous()
    q_BHLE[..., shape.nope :] = rotate(q_BHLE[..., shape.nope :], cis_LP)
    return q_BHLE.flatten(0, 1)


def _queries_backward(dq_NLE: Tensor, cis_LP: Tensor, shape: LatentShape) -> Tensor:
    dq_NLE[..., shape.nope :] = rotate(dq_NLE[..., shape.nope :], cis_LP.conj())
    return _by_token(dq_NLE, shape)


def _keys_and_values(kv_TO: Tensor, k_rope: Tensor, cis_LP: Tensor, shape: LatentShape) -> tuple[Tensor, Tensor]:
    nope_BHLE, value_BHLV = shape.by_head(kv_TO).split((shape.nope, shape.value), dim=-1)
    k_BHLE = kv_TO.new_empty(*nope_BHLE.shape[:-1], shape.nope + shape.rope)
    k_BHLE[..., : shape.nope] = nope_BHLE
    k_BHLE[..., shape.nope :] = rotate(k_rope.reshape(shape.batch, 1, -1, shape.rope), cis_LP)
    return k_BHLE.flatten(0, 1), value_BHLV.flatten(0, 1)


def _keys_and_values_backward(
    dk_NLE: Tensor, dv_NLV: Tensor, cis_LP: Tensor, shape: LatentShape
) -> tuple[Tensor, Tensor]:
    dkv_NLO = torch.cat((dk_NLE[..., : shape.nope], dv_NLV), dim=-1)
    dk_rope = dk_NLE[..., shape.nope :].float().unflatten(0, (shape.batch, shape.heads)).sum(1)
    return _by_token(dkv_NLO, shape), rotate(dk_rope, cis_LP.conj()).flatten(0, 1)


def _by_token(x_NLE: Tensor, shape: LatentShape) -> Tensor:
    """(N, L, dim) -> (T, H x dim)."""
    return x_NLE.unflatten(0, (shape.batch, shape.heads)).transpose(1, 2).flatten(2).flatten(0, 1)


def _is_covered(mask: Tensor | None) -> bool:
    """Whether every query sees itself, perhaps some before it, and nothing after it: no mask, or one of documents."""
    if mask is None:
        return True
    plain = mask.dtype == torch.bool and mask.ndim == 4
    return plain and bool(mask.diagonal(dim1=-2, dim2=-1).all()) and not mask.triu(1).any()


class OneNodeAttention(Mistral4Attention):
    """Mistral4Attention that runs as one node where it can: `causal_blocks`, whole windows, plain weights, CPU."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        position_ids: Tensor,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> Any:
        """As Mistral4Attention's."""
        whole = _is_covered(attention_mask) and past_key_values is None and position_embeddings[0].shape[0] == 1
        if not whole or not self._is_one_node(hidden_states):
            return super().forward(
                hidden_states, position_embeddings, attention_mask, position_ids, past_key_values, **kwargs
            )
        cos, sin = (part[0, :, : self.qk_rope_head_dim // 2].float() for part in position_embeddings)
        shape, x_TD = self._shape(hidden_states), hidden_states.flatten(0, 1)
        out_TD = LatentAttention.apply(x_TD, torch.complex(cos, sin), attention_mask, shape, *self._weights())
        return out_TD.view_as(hidden_states), None

    def _is_one_node(self, hidden_states: Tensor) -> bool:
        config: Any = self.config
        length = hidden_states.shape[1]
        return (
            config._attn_implementation == CAUSAL_BLOCKS
            and hidden_states.device.type == "cpu"
            and length <= min(LONGEST, config.rope_parameters["original_max_position_embeddings"])
            and config.rope_interleave
            and not (self.training and self.attention_dropout)
            and are_plain(*self._projections())
            and not any(isinstance(weight, DTensor) for weight in self._weights())
        )

    def _projections(self) -> tuple[Any, ...]:
        return self.q_a_proj, self.q_b_proj, self.kv_a_proj_with_mqa, self.kv_b_proj, self.o_proj

    def _weights(self) -> tuple[Tensor, ...]:
        q_a, q_b, kv_a, kv_b, o = (module.weight for module in self._projections())
        assert self.q_a_layernorm is not None
        return q_a, self.q_a_layernorm.weight, q_b, kv_a, self.kv_a_layernorm.weight, kv_b, o

    def _shape(self, hidden_states: Tensor) -> LatentShape:
        layer: Any = self
        return LatentShape(
            batch=hidden_states.shape[0], heads=layer.num_heads, q_rank=layer.q_lora_rank, kv_rank=layer.kv_lora_rank,
            nope=layer.qk_nope_head_dim, rope=layer.qk_rope_head_dim, value=layer.v_head_dim,
            eps=layer.kv_a_layernorm.variance_epsilon, scale=layer.scaling, dtype=product_dtype(hidden_states),
        )  # fmt: skip
