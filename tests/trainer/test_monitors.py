"""What monitors say of histories: planted drifts are found, honest learning and noise are left alone."""

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightsmith.trainer.monitors import (
    CLIPPED,
    DEAD,
    ENTROPY,
    FAILED,
    KL,
    LENGTH,
    MONITORS,
    REWARD,
    SAMPLING,
    VERIFIER,
    MonitorLimits,
    check,
)

LIMITS = MonitorLimits()
History = list[dict[str, float]]


def history(num_steps: int, seed: int = 0, noise: float = 0.02, **figures: Any) -> History:
    """Steps with noisy figures; each is a number, or a function of the step's share of the run (0 to 1)."""
    generator = random.Random(seed)
    shapes: dict[str, Any] = {
        "loss": 0.0, "grad_norm": 1.0, REWARD: 0.3, VERIFIER: 0.3, ENTROPY: 1.0, LENGTH: 12.0, CLIPPED: 0.1,
    } | figures  # fmt: skip
    return [
        {
            name: (shape(step / (num_steps - 1)) if callable(shape) else shape) * (1 + generator.gauss(0, noise))
            for name, shape in shapes.items()
        }
        for step in range(num_steps)
    ]


def alarms(steps: History, limits: MonitorLimits = LIMITS) -> list[tuple[int, str]]:
    """(step, monitor) of every alarm as the history grows."""
    found = ((end, check(steps[:end], limits)) for end in range(1, len(steps) + 1))
    return [(end, alarm.monitor) for end, alarm in found if alarm]


PLANTED: dict[str, tuple[str, dict[str, Any]]] = {
    "paid for something else": ("reward_hacking", {REWARD: lambda x: 0.2 + 0.6 * x, VERIFIER: 0.1}),
    "paid while it gets worse": (
        "reward_hacking",
        {REWARD: lambda x: 0.2 + 0.6 * x, VERIFIER: lambda x: 0.3 - 0.2 * x},
    ),
    "scoring breaks": ("failed_scorings", {FAILED: lambda x: 0.8 if x > 0.5 else 0.0}),
    "away from its base": ("kl", {KL: lambda x: 3 * x}),
    "sampler and trainer disagree": ("kl", {SAMPLING: lambda x: 2 * x}),
    "into noise": ("entropy", {ENTROPY: lambda x: 0.4 + 3 * x}),
    "collapses": ("entropy", {ENTROPY: lambda x: 1.0 if x < 0.4 else 0.001}),
    "rambles": ("length", {LENGTH: lambda x: 10 + 60 * x}),
    "falls silent": ("length", {LENGTH: lambda x: 40 - 39 * x}),
    "never ends": ("length", {CLIPPED: lambda x: 0.1 if x < 0.4 else 1.0}),
    "gradients jump": ("loss_spike", {"grad_norm": lambda x: 1.0 if x < 0.7 else 50.0}),
    "experts die": ("dead_experts", {DEAD: lambda x: 0.1 + 0.8 * x}),
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_drift_is_found_and_named_before_the_run_ends(case: str) -> None:
    monitor, figures = PLANTED[case]
    found = alarms(history(80, **figures))
    assert found
    assert found[0][1] == monitor


HONEST: dict[str, dict[str, Any]] = {
    "nothing happens": {},
    "reward and verifier rise together": {REWARD: lambda x: 0.1 + 0.8 * x, VERIFIER: lambda x: 0.05 + 0.7 * x},
    "the policy becomes sure while it learns": {
        REWARD: lambda x: 0.2 + 0.8 * x, VERIFIER: lambda x: 0.2 + 0.8 * x, ENTROPY: lambda x: math.exp(-8 * x),
    },
    "it learns to think longer": {
        REWARD: lambda x: 0.2 + 0.5 * x, VERIFIER: lambda x: 0.2 + 0.5 * x, LENGTH: lambda x: 10 + 90 * x,
    },
    "it never ended its answers": {CLIPPED: 1.0},
    "it learns to end its answers": {CLIPPED: lambda x: 1 - x},
    "single spikes": {"grad_norm": lambda x: 40.0 if x == 0.5 else 1.0},
    "gradients triple for a few steps": {"grad_norm": lambda x: 4.0 if 0.7 < x < 0.75 else 1.0},
    "gradients grow as the policy becomes sure": {"grad_norm": lambda x: math.exp(2.5 * x)},
    "experts were dead before": {DEAD: 0.9},
    "some scorings fail": {FAILED: 0.2},
}  # fmt: skip


@pytest.mark.parametrize("case", HONEST)
@pytest.mark.parametrize("seed", range(3))
def test_honest_runs_are_left_alone(case: str, seed: int) -> None:
    limits = LIMITS.model_copy(update={"max_dead_share": None}) if "dead" in case else LIMITS
    assert alarms(history(81, seed, **HONEST[case]), limits) == []


@given(seed=st.integers(0, 10**6), noise=st.floats(0.0, 0.5), window=st.integers(3, 20))
@settings(max_examples=30, deadline=None)
def test_noise_alone_is_no_reward_hacking(seed: int, noise: float, window: int) -> None:
    steps = history(100, seed, noise)
    limits = MonitorLimits(window=window)
    assert all(MONITORS["reward_hacking"](steps[:end], limits) is None for end in range(1, 101, 3))


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["loss", REWARD, VERIFIER, ENTROPY, KL, LENGTH]), st.floats()), max_size=40
    )
)
@settings(max_examples=60, deadline=None)
def test_any_history_is_judged_without_an_error_and_what_is_not_finite_is_found(steps: History) -> None:
    alarm = check(steps, LIMITS)
    finite = ("loss", REWARD, VERIFIER, ENTROPY, KL)
    if steps and any(not math.isfinite(steps[-1][name]) for name in finite if name in steps[-1]):
        assert alarm is not None
        assert alarm.monitor == "not_finite"


GRPO_NORMS = (
    8.73, 8.54, 7.2, 9.71, 5.32, 4.76, 6.04, 4.38, 10.98, 6.27, 4.27, 8.04, 12.29, 5.23, 4.48, 6.63, 2.41, 10.87, 6.13,
    4.9, 15.2, 6.34, 5.65, 5.82, 6.71, 18.56, 29.33, 18.36,
)  # fmt: skip
"""Gradient norms of a GRPO run of nano whose reward, entropy and length stayed as they were."""


def test_the_heavy_tail_of_grpos_gradient_norms_is_left_alone() -> None:
    assert alarms([{"grad_norm": norm} for norm in GRPO_NORMS]) == []


def test_a_loss_that_stays_far_off_is_a_spike() -> None:
    assert alarms(history(80, loss=lambda x: 2.0 if x < 0.7 else 9.0))[0][1] == "loss_spike"


def test_a_threshold_of_null_switches_its_monitor_off() -> None:
    off = MonitorLimits.model_validate(
        {
            name: None
            for name, field in MonitorLimits.model_fields.items()
            if field.default is not None and "None" in str(field.annotation)
        }
    )
    steps = [figures for _, figures in PLANTED.values()]
    assert all(alarms(history(80, **figures), off) == [] for figures in steps)
