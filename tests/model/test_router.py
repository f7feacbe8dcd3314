import copy
import math
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from nightsmith.model.health import RouterUse, take_health
from nightsmith.model.load import load
from nightsmith.model.presets import PRESETS
from nightsmith.model.router import (
    Batch,
    Small4Router,
    bias_update,
    count_load,
    end_step,
    freeze_routers,
    load_balancing_loss,
    routers,
    set_micro_batches,
)
from nightsmith.model.routing_replay import recorded_routing, replayed_routing
from nightsmith.model.small4 import build
from nightsmith.record.errors import NightsmithError

torch.set_num_threads(1)
NANO = PRESETS["nano"]


def tokens(batch: int = 8, length: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (batch, length), generator=torch.Generator().manual_seed(0))


def test_balance_loss_is_one_when_uniform_and_num_experts_when_collapsed() -> None:
    spread = torch.arange(8).remainder(4)[:, None]
    assert load_balancing_loss(torch.full((4,), 0.25), count_load(spread, 4)).item() == pytest.approx(1.0)
    to_first = torch.eye(4)[0]
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
    health = RouterUse(tuple(load), 1.0, 1).health()
    assert 0 <= health.max_vio <= len(load) - 1 + 1e-9
    assert -1e-9 <= health.entropy <= 1 + 1e-9
    assert health.dead_experts == load.count(0)


def test_even_load_is_healthy_and_collapsed_load_is_not() -> None:
    even, collapsed = RouterUse((5, 5, 5, 5), 2.0, 4).health(), RouterUse((20, 0, 0, 0), 2.0, 4).health()
    assert (even.max_vio, even.entropy, even.dead_experts) == (0, pytest.approx(1.0), 0)
    assert (collapsed.max_vio, collapsed.entropy, collapsed.dead_experts) == (3.0, 0, 3)
    assert even.logit_norm == 0.5


def test_the_attached_loss_has_the_gradient_of_a_loss_added_by_hand() -> None:
    coefficient = 0.1

    def gradients(attached: bool) -> list[torch.Tensor]:
        model = build(NANO, seed=0, router_aux_loss_coef=coefficient if attached else 0.0).train()
        outputs = model(tokens(), use_cache=False, output_router_logits=not attached)
        loss = F.cross_entropy(outputs.logits.flatten(0, 1), tokens().flatten())
        for logits in () if attached else outputs.router_logits:
            probs = logits.softmax(-1)
            loss = loss + coefficient * load_balancing_loss(probs.mean(0), count_load(probs.topk(2).indices, 8))
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


def first_router(model: torch.nn.Module) -> Small4Router:
    return next(routers(model))


def gradients_after(model: torch.nn.Module, batches: list[torch.Tensor], **inputs: torch.Tensor) -> list[torch.Tensor]:
    """Gradients of the mean over the batches, accumulated one after the other."""
    for batch in batches:
        (model(batch, use_cache=False, **inputs).logits.logsumexp(-1).mean() / len(batches)).backward()
    return [parameter.grad for parameter in model.parameters()]


def assert_equal(found: list[torch.Tensor], reference: list[torch.Tensor]) -> None:
    for mine, theirs in zip(found, reference, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)


def test_z_loss_holds_the_logits_small() -> None:
    def norm(coefficient: float) -> float:
        model = build(NANO, seed=0, router_z_loss_coef=coefficient).train()
        optimizer = torch.optim.SGD([router.weight for router in routers(model)], lr=1.0)
        with torch.no_grad():
            first_router(model).weight.mul_(50)
        for _ in range(10):
            take_health(model)
            model(tokens(), use_cache=False).logits.mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return take_health(model)[0].logit_norm

    assert norm(0.3) < 0.6 * norm(0.0)


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=32))
def test_the_bias_rises_for_experts_below_the_mean_falls_for_those_above_and_keeps_its_mean(load: list[int]) -> None:
    delta = bias_update(torch.tensor(load), 0.1)
    mean = sum(load) / len(load)
    for change, count in zip(delta.tolist(), load, strict=True):
        assert count == pytest.approx(mean) or (change > delta.min() + 1e-6 or count > mean)
    assert delta.sum().item() == pytest.approx(0, abs=1e-5)
    assert load.count(load[0]) < len(load) or not delta.any()


def test_the_bias_evens_out_the_load_without_any_gradient() -> None:
    model = build(NANO, seed=0, balance_mode="bias", router_bias_update_rate=1e-3).train()
    for _ in range(60):
        take_health(model)
        model(tokens(), use_cache=False)
        end_step(model)
    evened = max(health.max_vio for health in take_health(model))
    unbalanced = build(NANO, seed=0).train()
    unbalanced(tokens(), use_cache=False)
    assert evened < 0.3 * max(health.max_vio for health in take_health(unbalanced))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_bias_is_updated_once_a_step_by_the_loads_of_all_its_micro_batches() -> None:
    halves = list(tokens().chunk(2))
    whole, accumulated = (build(NANO, seed=0, balance_mode="bias").train() for _ in range(2))
    set_micro_batches(accumulated, 2)
    whole(tokens(), use_cache=False)
    for half in halves:
        accumulated(half, use_cache=False)
        assert not first_router(accumulated).bias_E.any()
    for model in (whole, accumulated):
        end_step(model)
        end_step(model)
    for mine, theirs in zip(routers(accumulated), routers(whole), strict=True):
        assert mine.bias_E.any()
        assert torch.equal(mine.bias_E, theirs.bias_E)


def test_a_step_that_nobody_ends_ends_where_the_next_begins() -> None:
    told, untold = (build(NANO, seed=0, balance_mode="bias").train() for _ in range(2))
    for _ in range(3):
        told(tokens(), use_cache=False)
        end_step(told)
        untold(tokens(), use_cache=False)
    end_step(untold)
    assert torch.equal(first_router(told).bias_E, first_router(untold).bias_E)


def test_losses_of_equal_micro_batches_add_up_to_those_of_one() -> None:
    one, accumulated = (build(NANO, seed=0, router_aux_loss_coef=0.1, router_z_loss_coef=0.1).train() for _ in range(2))
    set_micro_batches(accumulated, 2)
    assert_equal(gradients_after(accumulated, [tokens(), tokens()]), gradients_after(one, [tokens()]))


def test_padding_is_neither_counted_nor_balanced() -> None:
    padded = torch.cat([tokens(), torch.full((8, 32), 258)], 1)
    mask = torch.cat([torch.ones(8, 64), torch.zeros(8, 32)], 1).long()
    models = [build(NANO, seed=0, router_aux_loss_coef=0.5, router_z_loss_coef=0.5).train() for _ in range(2)]
    for model, inputs in zip(
        models, ({"input_ids": tokens()}, {"input_ids": padded, "attention_mask": mask}), strict=True
    ):
        (0 * model(**inputs, use_cache=False).logits.sum()).backward()
    assert [health.max_vio for health in take_health(models[0])] == [h.max_vio for h in take_health(models[1])]
    found, reference = ([router.weight.grad for router in routers(model)] for model in reversed(models))
    assert_equal(found, reference)


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_activation_checkpointing_runs_again_is_counted_once_and_has_the_same_gradient(reentrant: bool) -> None:
    stored, recomputed = (build(NANO, seed=0, router_aux_loss_coef=0.1).train() for _ in range(2))
    recomputed.activation_checkpointing_enable({"use_reentrant": reentrant})
    recomputed.enable_input_require_grads()
    reference = gradients_after(stored, [tokens()])
    assert_equal(gradients_after(recomputed, [tokens()]), reference)
    assert [int(router.load_E.sum()) for router in routers(recomputed)] == [8 * 64 * 2] * NANO.num_layers
    assert take_health(recomputed) == take_health(stored)


def test_a_frozen_router_is_watched_but_not_balanced() -> None:
    for routing in ({"router_aux_loss_coef": 0.5}, {"balance_mode": "bias"}):
        frozen, plain = build(NANO, seed=0, **routing).train(), build(NANO, seed=0).train()
        for model in (frozen, plain):
            freeze_routers(model)
            gradients_after(model, [tokens()])
            end_step(model)
        for mine, theirs in zip(frozen.parameters(), plain.parameters(), strict=True):
            assert (mine.grad is None) == (theirs.grad is None)
            assert mine.grad is None or torch.equal(mine.grad, theirs.grad)
        assert first_router(frozen).weight.grad is None
        assert first_router(frozen).bias_E is None or not first_router(frozen).bias_E.any()
        assert take_health(frozen) == take_health(plain)
        freeze_routers(frozen, frozen=False)
        gradients_after(frozen, [tokens()])
        assert first_router(frozen).weight.grad is not None


def test_router_and_bias_compute_in_float32_whatever_the_model_is_cast_to(tmp_path) -> None:
    model = build(NANO, seed=0, balance_mode="bias")
    bias = torch.randn(8, generator=torch.Generator().manual_seed(0)) * 1e-4
    first_router(model).bias_E.copy_(bias)
    model.save_pretrained(tmp_path)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(tokens(), output_router_logits=True).router_logits[0].dtype == torch.float32
    for cast in (model.to(torch.bfloat16), AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)):
        assert cast.lm_head.weight.dtype == torch.bfloat16
        assert torch.equal(first_router(cast).bias_E, bias)


def test_balancing_by_bias_can_start_from_any_checkpoint_and_keeps_its_bias_in_its_own(tmp_path) -> None:
    build(NANO, seed=0).save_pretrained(tmp_path / "before")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "before", balance_mode="bias").train()
    assert not any(router.bias_E.any() for router in routers(model))
    model(tokens(), use_cache=False)
    end_step(model)
    model.save_pretrained(tmp_path / "after")
    again = load(tmp_path / "after")
    assert again.config.balance_mode == "bias"
    assert all(torch.equal(a.bias_E, b.bias_E) for a, b in zip(routers(model), routers(again), strict=True))


def test_passes_without_gradient_are_not_counted_as_training() -> None:
    model = build(NANO, seed=0, balance_mode="bias").train()
    with torch.no_grad():
        model(tokens(), use_cache=False)
    assert take_health(model) == []
    model(tokens(), use_cache=False)
    with torch.no_grad():
        model(tokens(4, 32), use_cache=False)
    end_step(model)
    assert take_health(model)[0].max_vio > 0


def test_replayed_routing_repeats_the_recorded_pass_and_lets_the_router_learn() -> None:
    sampling, training = build(NANO, seed=0).eval(), build(NANO, seed=0).train()
    with recorded_routing(sampling) as ids, torch.no_grad():
        before = sampling(tokens()).logits
    assert [tuple(each.shape) for each in ids] == [(8 * 64, 2)] * NANO.num_layers
    other = [(each + 1) % 8 for each in ids]
    with torch.no_grad(), replayed_routing(training, other):
        assert not torch.allclose(training(tokens(), use_cache=False).logits, before)
    with replayed_routing(training, ids):
        logits = training(tokens(), use_cache=False).logits
        logits.square().mean().backward()
    torch.testing.assert_close(logits, before, atol=1e-6, rtol=1e-5)
    assert first_router(training).weight.grad.any()
    assert [int(router.load_E.sum()) for router in routers(training)] == [8 * 64 * 2] * NANO.num_layers


def test_routing_that_does_not_fit_the_model_is_refused() -> None:
    model = build(NANO, seed=0)
    for ids in ([], [torch.zeros(4, 2, dtype=torch.long)], [torch.full((4, 2), 8)] * 2, [torch.zeros(4, 3).long()] * 2):
        with pytest.raises(NightsmithError, match=r"give 2 tensors \(T, 2\)"), replayed_routing(model, ids):
            pass


def test_a_copied_model_counts_for_itself() -> None:
    model = build(NANO, seed=0).train()
    first_router(model).batch = Batch(groups=(threading.Lock(),))  # like a process group, it cannot be copied
    twin = copy.deepcopy(model)
    twin(tokens(), use_cache=False)
    assert take_health(model) == []
    assert len(take_health(twin)) == NANO.num_layers
