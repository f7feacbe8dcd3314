"""An independent Small 4 in plain torch, written from the papers: multi-head latent attention and a mixture of experts.

It shares no code with transformers or with the package, and takes weights by their checkpoint names. Written for
reading, one token and one expert at a time where that is plainer; for the tests' sizes only.

B rows, L tokens, D model dim, H heads, N/R/V head dims (no position, rotary, value), E experts, K top-k.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """What the weights alone do not say."""

    num_layers: int
    num_heads: int
    nope: int
    rope: int
    value: int
    top_k: int
    rope_theta: float
    rope_factor: float
    rope_original_len: int
    attention_beta: float
    """Queries beyond the original length grow by 1 + beta * ln(1 + floor(position / original length))."""
    eps: float = 1e-6


@dataclass(frozen=True)
class Pass:
    """What one forward pass gives."""

    logits: Tensor
    """(B, L, vocabulary)."""
    balance: Tensor
    """Load-balancing losses, summed over layers, every token of the batch taken together."""
    z: Tensor
    """z-losses, likewise."""


def forward(weights: Weights, shape: Shape, ids_BL: Tensor, biases: list[Tensor] | None = None) -> Pass:
    """One pass. `biases`: what is added to each layer's probabilities where experts are chosen."""
    x_BLD = weights["model.embed_tokens.weight"][ids_BL]
    balance, z = torch.zeros(()), torch.zeros(())
    for layer in range(shape.num_layers):
        of_layer = _below(weights, f"model.layers.{layer}.")
        normed_BLD = _rms_norm(x_BLD, of_layer["input_layernorm.weight"], shape.eps)
        x_BLD = x_BLD + _attention(_below(of_layer, "self_attn."), shape, normed_BLD)
        normed_BLD = _rms_norm(x_BLD, of_layer["post_attention_layernorm.weight"], shape.eps)
        scores_TE = normed_BLD.flatten(0, 1) @ of_layer["mlp.gate.weight"].T
        balance, z = balance + _balance(scores_TE, shape), z + (scores_TE.exp().sum(1).log() ** 2).mean()
        x_BLD = x_BLD + _experts(_below(of_layer, "mlp."), shape, normed_BLD, None if biases is None else biases[layer])
    last_BLD = _rms_norm(x_BLD, weights["model.norm.weight"], shape.eps)
    return Pass(last_BLD @ weights["lm_head.weight"].T, balance, z)


def _balance(scores_TE: Tensor, shape: Shape) -> Tensor:
    """Experts * sum over them of share of choices * mean probability."""
    probs_TE = scores_TE.exp() / scores_TE.exp().sum(1, keepdim=True)
    chosen_TK = probs_TE.argsort(1, descending=True)[:, : shape.top_k]
    num_experts = probs_TE.shape[1]
    shares = [(chosen_TK == expert).sum() / chosen_TK.numel() for expert in range(num_experts)]
    return num_experts * sum((share * probs_TE[:, e].mean() for e, share in enumerate(shares)), torch.zeros(()))


def _attention(weights: Weights, shape: Shape, x_BLD: Tensor) -> Tensor:
    """Multi-head latent attention (arXiv:2405.04434, section 2.1) with causal mask."""
    batch, length, _ = x_BLD.shape
    heads, nope, rope, value = shape.num_heads, shape.nope, shape.rope, shape.value
    latent_q = _rms_norm(x_BLD @ weights["q_a_proj.weight"].T, weights["q_a_layernorm.weight"], shape.eps)
    q_BLHX = (latent_q @ weights["q_b_proj.weight"].T).view(batch, length, heads, nope + rope)
    down = x_BLD @ weights["kv_a_proj_with_mqa.weight"].T
    rank = down.shape[-1] - rope
    latent_kv = _rms_norm(down[..., :rank], weights["kv_a_layernorm.weight"], shape.eps)
    kv_BLHX = (latent_kv @ weights["kv_b_proj.weight"].T).view(batch, length, heads, nope + value)
    k_rope_BLR = _rotate(down[..., rank:], shape)
    output = torch.empty(batch, length, heads, value)
    for head in range(heads):
        q_rope_BLR = _rotate(q_BLHX[:, :, head, nope:], shape)
        scores_BLL = q_BLHX[:, :, head, :nope] @ kv_BLHX[:, :, head, :nope].transpose(1, 2)
        scores_BLL = (scores_BLL + q_rope_BLR @ k_rope_BLR.transpose(1, 2)) / math.sqrt(nope + rope)
        place = torch.arange(length)
        scores_BLL = scores_BLL * _far_query(place, shape)[None, :, None]
        scores_BLL = scores_BLL.masked_fill(place[None, :] > place[:, None], -math.inf)
        output[:, :, head] = scores_BLL.softmax(-1) @ kv_BLHX[:, :, head, nope:]
    return output.flatten(2) @ weights["o_proj.weight"].T


def _experts(weights: Weights, shape: Shape, x_BLD: Tensor, bias_E: Tensor | None) -> Tensor:
    """Softmax over all experts, the K best of them weighed by their share among themselves, and the shared expert."""
    shared = _swiglu(
        x_BLD,
        weights["shared_experts.gate_proj.weight"],
        weights["shared_experts.up_proj.weight"],
        weights["shared_experts.down_proj.weight"],
    )
    tokens_TD = x_BLD.flatten(0, 1)
    probs_TE = (tokens_TD @ weights["gate.weight"].T).softmax(1)
    rows = []
    for token_D, probs_E in zip(tokens_TD, probs_TE, strict=True):
        order = (probs_E if bias_E is None else probs_E + bias_E).argsort(descending=True)[: shape.top_k]
        total = sum(probs_E[expert] for expert in order)
        row_D = torch.zeros_like(token_D)
        for expert in order:
            gate, up = weights["experts.gate_up_proj"][expert].chunk(2)
            row_D = row_D + probs_E[expert] / total * _swiglu(token_D, gate, up, weights["experts.down_proj"][expert])
        rows.append(row_D)
    return torch.stack(rows).view_as(x_BLD) + shared


def _swiglu(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    gated = x @ gate.T
    return (gated * torch.sigmoid(gated) * (x @ up.T)) @ down.T


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def _rotate(x_BLR: Tensor, shape: Shape) -> Tensor:
    """Rotary embedding of interleaved pairs; the first half of the result holds the pairs' first members."""
    length, dims = x_BLR.shape[1:]
    angle_LP = torch.arange(length)[:, None] * _frequencies(dims, shape)[None]
    first, second = x_BLR[..., 0::2], x_BLR[..., 1::2]
    cos, sin = angle_LP.cos(), angle_LP.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def _frequencies(dims: int, shape: Shape) -> Tensor:
    """YaRN by parts (arXiv:2309.00071, section 3.2, ramp from 1 to 32 turns), without its temperature."""
    found = []
    for pair in range(dims // 2):
        frequency = shape.rope_theta ** (-2 * pair / dims)
        low = max(0, math.floor(_dimension_of(32, dims, shape)))
        high = min(dims - 1, math.ceil(_dimension_of(1, dims, shape)))
        ramp = min(1.0, max(0.0, (pair - low) / ((high - low) or 0.001)))
        found.append(frequency / shape.rope_factor * ramp + frequency * (1 - ramp))
    return torch.tensor(found)


def _dimension_of(turns: float, dims: int, shape: Shape) -> float:
    """The pair that makes so many turns over the original length."""
    return dims * math.log(shape.rope_original_len / (turns * 2 * math.pi)) / (2 * math.log(shape.rope_theta))


def _far_query(place_L: Tensor, shape: Shape) -> Tensor:
    return 1 + shape.attention_beta * torch.log(1 + torch.floor(place_L / shape.rope_original_len))


def _below(weights: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
