import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from nightsmith.model.presets import PRESETS
from nightsmith.model.router import count_load, load_balancing_loss, measure_load, routers, take_health
from nightsmith.model.small4 import build

torch.set_num_threads(1)
NANO = PRESETS["nano"]


def tokens(batch: int = 8, length: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (batch, length), generator=torch.Generator().manual_seed(0))


def test_balance_loss_is_one_when_uniform_and_num_experts_when_collapsed() -> None:
    spread = torch.arange(8).remainder(4)[:, None]
    assert load_balancing_loss(torch.full((8, 4), 0.25), count_load(spread, 4)).item() == pytest.approx(1.0)
    to_first = torch.eye(4)[[0] * 8]
    one = torch.zeros(8, 1, dtype=torch.long)
    assert load_balancing_loss(to_first, count_load(one, 4)).item() == pytest.approx(4.0)


@given(st.integers(1, 40), st.integers(2, 16), st.integers(0, 1000))
def test_every_choice_is_counted_once(num_tokens: int, num_experts: int, seed: int) -> None:
    probs = torch.rand(num_tokens, num_experts, generator=torch.Generator().manual_seed(seed))
    load = count_load(probs.topk(2).indices, num_experts)
    assert load.sum().item() == num_tokens * 2
    assert load.max().item() <= num_tokens


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=32).filter(any))
def test_health_stays_within_its_bounds(load: list[int]) -> None:
    health = measure_load(load)
    assert 0 <= health.max_vio <= len(load) - 1 + 1e-9
    assert -1e-9 <= health.entropy <= 1 + 1e-9
    assert health.dead_experts == load.count(0)


def test_even_load_is_healthy_and_collapsed_load_is_not() -> None:
    assert measure_load([5, 5, 5, 5]).max_vio == 0
    assert measure_load([5, 5, 5, 5]).entropy == pytest.approx(1.0)
    assert measure_load([20, 0, 0, 0]) == measure_load([4, 0, 0, 0])
    assert (measure_load([20, 0, 0, 0]).max_vio, measure_load([20, 0, 0, 0]).dead_experts) == (3.0, 3)


def test_the_attached_loss_has_the_gradient_of_a_loss_added_by_hand() -> None:
    coefficient = 0.1

    def gradients(attached: bool) -> list[torch.Tensor]:
        model = build(NANO, seed=0, router_aux_loss_coef=coefficient if attached else 0.0).train()
        outputs = model(tokens(), use_cache=False, output_router_logits=not attached)
        loss = F.cross_entropy(outputs.logits.flatten(0, 1), tokens().flatten())
        for logits in () if attached else outputs.router_logits:
            probs = logits.softmax(-1)
            loss = loss + coefficient * load_balancing_loss(probs, count_load(probs.topk(2).indices, 8))
        loss.backward()
        return [parameter.grad for parameter in model.parameters()]

    for ours, reference in zip(gradients(attached=True), gradients(attached=False), strict=True):
        torch.testing.assert_close(ours, reference, atol=1e-6, rtol=1e-5)


def test_the_balance_loss_evens_out_the_load() -> None:
    def worst_violation(coefficient: float) -> float:
        model = build(NANO, seed=0, router_aux_loss_coef=coefficient).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(30):
            take_health(model)
            loss = F.cross_entropy(model(tokens(), use_cache=False).logits.flatten(0, 1), tokens().flatten())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return max(health.max_vio for health in take_health(model))

    assert worst_violation(0.1) < 0.5 * worst_violation(0.0)


def test_health_counts_training_steps_only_and_starts_anew_after_a_look() -> None:
    model = build(NANO, seed=0)
    model.eval()(tokens())
    assert take_health(model) == []
    model.train()(tokens())
    assert [int(router.load_E.sum()) for router in routers(model)] == [8 * 64 * 2] * NANO.num_layers
    assert all(health.entropy > 0.5 for health in take_health(model))
    assert take_health(model) == []


def test_router_logits_are_float32_in_a_bfloat16_model() -> None:
    model = build(NANO, seed=0).to(torch.bfloat16).eval()
    outputs = model(tokens(), output_router_logits=True)
    assert outputs.logits.dtype == torch.bfloat16
    assert [logits.dtype for logits in outputs.router_logits] == [torch.float32] * NANO.num_layers
    assert math.isfinite(outputs.logits.float().mean().item())
