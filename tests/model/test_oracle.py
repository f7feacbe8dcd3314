"""Logits and gradients against an independent implementation, and against unmodified transformers."""

from typing import Any

import oracle
import pytest
import torch
from torch.nn import functional as F
from transformers.models.mistral4.configuration_mistral4 import Mistral4Config
from transformers.models.mistral4.modeling_mistral4 import Mistral4ForCausalLM

from nightsmith.model.presets import PRESETS
from nightsmith.model.router import routers
from nightsmith.model.small4 import Small4ForCausalLM, make_config

torch.set_num_threads(1)
TINY = PRESETS["nano"].model_copy(update={"hidden_size": 32, "expert_size": 16})
ORIGINAL_LEN = 8
"""Positions from here on are stretched, and their queries grow."""


def stretched(**routing: Any) -> Small4ForCausalLM:
    """A model with weights large enough for everything to matter, whose positions are stretched by YaRN."""
    config = make_config(TINY, **routing)
    config.rope_parameters |= {"factor": 4.0, "original_max_position_embeddings": ORIGINAL_LEN}
    torch.manual_seed(0)
    model = Small4ForCausalLM(config).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2 + (parameter.ndim == 1))
    return model


def shape_of(model: Small4ForCausalLM) -> oracle.Shape:
    rope = model.config.rope_parameters
    return oracle.Shape(
        num_layers=TINY.num_layers, num_heads=TINY.num_heads, nope=TINY.nope_head_dim, rope=TINY.rope_head_dim,
        value=TINY.value_head_dim, top_k=TINY.top_k, rope_theta=rope["rope_theta"], rope_factor=rope["factor"],
        rope_original_len=rope["original_max_position_embeddings"], attention_beta=rope["llama_4_scaling_beta"],
    )  # fmt: skip


def tokens() -> torch.Tensor:
    return torch.randint(0, 256, (2, 20), generator=torch.Generator().manual_seed(0))


def cross_entropy(logits: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens()[:, 1:].flatten())


def relative(found: torch.Tensor, reference: torch.Tensor) -> float:
    """Largest deviation in units of the reference's largest value."""
    return ((found - reference).abs().max() / reference.abs().max()).item()


def leaves(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm"])
def test_logits_and_gradients_are_those_of_the_independent_implementation(implementation: str) -> None:
    model = stretched(router_aux_loss_coef=0.3, router_z_loss_coef=0.2)
    model.set_experts_implementation(implementation)
    weights, shape = leaves(model), shape_of(model)
    logits = model(tokens(), use_cache=False).logits
    reference = oracle.forward(weights, shape, tokens())
    assert relative(logits, reference.logits) <= 1e-5
    cross_entropy(logits).backward()
    (cross_entropy(reference.logits) + 0.3 * reference.balance + 0.2 * reference.z).backward()
    for name, parameter in model.named_parameters():
        assert relative(parameter.grad, weights[name].grad) <= 1e-5, name


def test_a_selection_bias_changes_which_experts_are_chosen_and_not_how_they_weigh() -> None:
    model = stretched(balance_mode="bias").eval()
    before = model(tokens()).logits
    for number, router in enumerate(routers(model)):
        router.bias_E.copy_(torch.randn(TINY.num_experts, generator=torch.Generator().manual_seed(number)) * 0.3)
    after = model(tokens()).logits
    biases = [router.bias_E for router in routers(model)]
    assert relative(after, before) > 1e-2
    assert relative(after, oracle.forward(leaves(model), shape_of(model), tokens(), biases).logits) <= 1e-5


@pytest.mark.parametrize("magnitude", [0.0, 1.0])
def test_logits_and_gradients_are_those_of_unmodified_transformers_at_its_own_scale(magnitude: float) -> None:
    ours = stretched()
    rope = ours.config.rope_parameters | {"mscale_all_dim": magnitude}
    names = Mistral4Config().to_dict().keys() - {"model_type"}
    plain = Mistral4ForCausalLM(
        Mistral4Config(**{k: v for k, v in ours.config.to_dict().items() if k in names} | {"rope_parameters": rope})
    ).train()
    plain.load_state_dict(ours.state_dict())
    for mine, theirs in zip(ours.model.layers, plain.model.layers, strict=True):
        assert (mine.self_attn.scaling == theirs.self_attn.scaling) == (magnitude == 0)
        mine.self_attn.scaling = theirs.self_attn.scaling
    outputs = [model(tokens(), use_cache=False).logits for model in (ours, plain)]
    assert relative(*outputs) <= 1e-6
    for logits in outputs:
        cross_entropy(logits).backward()
    for (name, mine), theirs in zip(ours.named_parameters(), plain.parameters(), strict=True):
        assert relative(mine.grad, theirs.grad) <= 1e-6, name
