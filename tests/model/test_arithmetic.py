from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from nightsmith.model.arithmetic import Arithmetic, choose, multiplies_bfloat16
from nightsmith.model.head import cross_entropy
from nightsmith.model.health import take_health
from nightsmith.model.presets import PRESETS
from nightsmith.model.small4 import build

torch.set_num_threads(1)
CPU = torch.device("cpu")
TOKENS = torch.randint(0, 256, (4, 97), generator=torch.Generator().manual_seed(0))


def gradients(arithmetic: Arithmetic, model: Any) -> tuple[dict[str, torch.Tensor], list[Any]]:
    """Gradients of one training step, the router's losses included, and the health of its experts."""
    model.train().zero_grad()
    with arithmetic.applied(model):
        with arithmetic.autocast():
            loss = cross_entropy(model, TOKENS[:, :-1], TOKENS[:, 1:])
        loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}, take_health(model)


def balanced(name: str) -> Any:
    return build(PRESETS[name], seed=0, router_aux_loss_coef=0.01, router_z_loss_coef=0.001)


@pytest.mark.parametrize("name", ["nano", "micro"])
def test_gradients_and_health_in_float32_are_those_of_the_plain_model(name: str) -> None:
    model = balanced(name)
    ours, our_health = gradients(choose(model, CPU, "float32"), model)
    theirs, their_health = gradients(Arithmetic(), model)
    for name, gradient in theirs.items():
        assert (ours[name] - gradient).norm() / gradient.norm() <= 1e-5, name
    assert [layer.dead_experts for layer in our_health] == [layer.dead_experts for layer in their_health]
    assert [layer.max_vio for layer in our_health] == [layer.max_vio for layer in their_health]


def test_gradients_with_bfloat16_products_stay_within_their_rounding() -> None:
    model = balanced("nano")
    ours, _ = gradients(Arithmetic("causal_blocks", "segments", "bfloat16"), model)
    theirs, _ = gradients(Arithmetic(), model)
    for name, gradient in theirs.items():
        assert ours[name].dtype == torch.float32
        assert (ours[name] - gradient).norm() / gradient.norm() < 5e-2, name


def test_outside_of_training_a_model_computes_as_before() -> None:
    model = build(PRESETS["nano"], seed=0).eval()
    before, modules = model(TOKENS).logits, [type(module) for module in model.modules()]
    with choose(model, CPU, "auto").applied(model):
        assert [type(module) for module in model.modules()] != modules
        assert model.config._experts_implementation == "segments"
    assert torch.equal(model(TOKENS).logits, before)
    assert [type(module) for module in model.modules()] == modules


def test_asked_for_more_than_the_last_hidden_states_a_lean_model_answers_as_transformers_does() -> None:
    model = build(PRESETS["nano"], seed=0)
    padding = torch.ones(4, 97, dtype=torch.bool)
    padding[1, :9] = False
    asked = {"output_hidden_states": True, "output_router_logits": True, "attention_mask": padding, "use_cache": False}
    theirs = model(TOKENS, **asked)
    with choose(model, CPU, "float32").applied(model):
        ours = model(TOKENS, **asked)
    assert len(ours.hidden_states) == len(theirs.hidden_states) == 3
    torch.testing.assert_close(ours.router_logits, theirs.router_logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.logits[padding], theirs.logits[padding], atol=1e-5, rtol=1e-4)


def test_bfloat16_is_chosen_where_the_cpu_multiplies_it_and_nobody_asked_for_float32() -> None:
    model = build(PRESETS["nano"], seed=0)
    assert choose(model, CPU, "auto").products == ("bfloat16" if multiplies_bfloat16() else "float32")
    assert choose(model, CPU, "float32").products == "float32"


def test_other_models_and_accelerators_are_left_alone() -> None:
    llama = LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    assert choose(llama, CPU, "auto") == Arithmetic()
    assert choose(build(PRESETS["nano"], seed=0), torch.device("cuda"), "auto") == Arithmetic()
    before = llama(TOKENS % 64).logits
    with Arithmetic().applied(llama):
        assert torch.equal(llama(TOKENS % 64).logits, before)
