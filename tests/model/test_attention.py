"""Attention in few passes against transformers' own modules, which are the oracle."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache
from transformers.models.mistral4.modeling_mistral4 import Mistral4Attention, Mistral4MLP, Mistral4RMSNorm

from nightsmith.model.attention import BLOCK, CAUSAL_BLOCKS, LONGEST, CausalBlocks
from nightsmith.model.attention_latent import OneNodeAttention
from nightsmith.model.norm import LeanRMSNorm
from nightsmith.model.presets import PRESETS
from nightsmith.model.small4 import build
from nightsmith.model.swiglu import OneNodeMLP

torch.set_num_threads(1)
NANO = PRESETS["nano"]


def relative(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@pytest.mark.parametrize("length", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_blocks_give_the_output_and_the_gradients_of_torchs_attention(length: int) -> None:
    states = [random(6, length, 8, seed=seed) for seed in range(2)] + [random(6, length, 5, seed=2)]
    results = []
    for attention in (
        lambda q, k, v: CausalBlocks.apply(q, k, v, 0.3),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3),
    ):
        copies = [state.detach().clone().requires_grad_() for state in states]
        out = attention(*copies)
        out.backward(torch.linspace(-1, 1, out.numel()).view_as(out))
        results.append([out, *(state.grad for state in copies)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@pytest.fixture
def layer() -> Any:
    """A layer's attention with weights of some size, on its plain class."""
    model = build(NANO, seed=0)
    attention = model.model.layers[0].self_attn
    with torch.no_grad():
        for weight in attention.parameters():
            weight.mul_(4)
    attention.rotary = model.model.rotary_emb
    return attention


def attend(layer: Any, kind: type, length: int = 100, **changes: Any) -> list[Tensor]:
    """Output and gradients of a layer's attention under one of its classes."""
    layer.__class__ = kind
    layer.config._attn_implementation = "sdpa" if kind is Mistral4Attention else CAUSAL_BLOCKS
    layer.zero_grad()
    hidden, positions = random(3, length, NANO.hidden_size), torch.arange(length)[None] + 5
    arguments = {"attention_mask": None, "position_ids": positions, **changes}
    out, _ = layer(hidden, layer.rotary(hidden, arguments["position_ids"]), **arguments)
    out.backward(torch.linspace(-1, 1, out.numel()).view_as(out).to(out.dtype))
    return [out.detach(), hidden.grad, *(weight.grad for weight in layer.parameters())]


def test_one_node_gives_the_output_and_the_gradients_of_mistral4(layer: Any) -> None:
    pairs = zip(attend(layer, OneNodeAttention), attend(layer, Mistral4Attention), strict=True)
    assert max(relative(ours, theirs) for ours, theirs in pairs) <= 5e-6


def test_one_node_in_bfloat16_stays_within_its_rounding(layer: Any) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        ours = attend(layer, OneNodeAttention)
    assert [weight.dtype for weight in ours[1:]] == [torch.float32] * 8
    assert (
        1e-4 < max(relative(a.float(), b) for a, b in zip(ours, attend(layer, Mistral4Attention), strict=True)) < 3e-2
    )


def padded() -> dict[str, Any]:
    mask = torch.ones(3, 1, 100, 100, dtype=torch.bool).tril()
    mask[0, :, :, :7] = False
    mask[0, :, :7] = True  # rows without a key would be nan
    return {"attention_mask": mask}


@pytest.mark.parametrize(
    "changes",
    [padded(), {"position_ids": torch.arange(300).view(3, 100)}, {"length": LONGEST + 3}],
    ids=["padding", "positions of their own", "a long window"],
)
def test_what_one_node_does_not_cover_is_computed_by_transformers(layer: Any, changes: dict[str, Any]) -> None:
    pairs = zip(attend(layer, OneNodeAttention, **changes), attend(layer, Mistral4Attention, **changes), strict=True)
    assert max(relative(ours, theirs) for ours, theirs in pairs) <= 5e-6


def test_one_node_keeps_documents_apart_as_a_mask_does(layer: Any) -> None:
    documents_BL = torch.randint(0, 2, (3, 100), generator=torch.Generator().manual_seed(0)).cumsum(1) // 20
    mask = (documents_BL[:, :, None] == documents_BL[:, None, :]).tril()[:, None]
    pairs = zip(
        attend(layer, OneNodeAttention, attention_mask=mask),
        attend(layer, Mistral4Attention, attention_mask=mask),
        strict=True,
    )
    assert max(relative(ours, theirs) for ours, theirs in pairs) <= 5e-6
    assert relative(attend(layer, OneNodeAttention)[0], attend(layer, Mistral4Attention, attention_mask=mask)[0]) > 0.1


def test_a_cache_is_filled_and_read_as_ever(layer: Any) -> None:
    hidden, outs = random(1, 9, NANO.hidden_size), []
    positions = torch.arange(9)[None]
    for kind in (OneNodeAttention, Mistral4Attention):
        layer.__class__, cache = kind, DynamicCache(config=layer.config)
        layer.config._attn_implementation = CAUSAL_BLOCKS if kind is OneNodeAttention else "sdpa"
        for part in (slice(0, 6), slice(6, 7), slice(7, 9)):
            mask = (positions[0, None, None, part, None] >= torch.arange(part.stop)) if part.start else None
            angles = layer.rotary(hidden, positions[:, part])
            outs.append(layer(hidden[:, part], angles, mask, positions[:, part], past_key_values=cache)[0])
    assert max(relative(ours, theirs) for ours, theirs in zip(outs[:3], outs[3:], strict=True)) <= 1e-6


def test_the_lean_norm_gives_the_output_and_the_gradients_of_the_plain_one() -> None:
    norm, results = Mistral4RMSNorm(48), []
    torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(0))
    for kind in (LeanRMSNorm, Mistral4RMSNorm):
        norm.__class__, x = kind, random(2, 30, 48)
        norm.zero_grad()
        out = norm(x)
        out.backward(torch.linspace(-1, 1, out.numel()).view_as(out))
        results.append([out, x.grad, norm.weight.grad])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_the_lean_mlp_gives_the_output_and_the_gradients_of_the_plain_one() -> None:
    mlp, results = build(NANO, seed=0).model.layers[0].mlp.shared_experts, []
    for kind in (OneNodeMLP, Mistral4MLP):
        mlp.__class__, x = kind, random(2, 30, NANO.hidden_size)
        mlp.zero_grad()
        out = mlp(x)
        out.backward(torch.linspace(-1, 1, out.numel()).view_as(out))
        results.append([out, x.grad, *(weight.grad for weight in mlp.parameters())])
    assert max(relative(ours, theirs) for ours, theirs in zip(*results, strict=True)) <= 1e-6


def test_a_lean_mlp_with_an_adapter_or_another_activation_runs_as_ever() -> None:
    mlp: Any = build(NANO, seed=0).model.layers[0].mlp.shared_experts
    mlp.act_fn, x = torch.nn.GELU(), random(2, 30, NANO.hidden_size)
    plain = mlp(x)
    mlp.__class__ = OneNodeMLP
    assert torch.equal(mlp(x), plain)
    mlp.act_fn, adapted = torch.nn.SiLU(), torch.nn.Sequential(mlp.down_proj, torch.nn.Linear(64, 64))
    mlp.down_proj = adapted
    assert torch.equal(mlp(x), Mistral4MLP.forward(mlp, x))
