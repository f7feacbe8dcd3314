from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightsmith.model.presets import PRESETS
from nightsmith.trainer.schedule import FLOOR, learning_rate
from nightsmith.trainer.spec import PretrainSpec

ScheduleName = Literal["constant", "cosine", "wsd"]


def spec(schedule: ScheduleName, num_steps: int = 100, warmup_share: float = 0.1) -> PretrainSpec:
    return PretrainSpec(
        architecture=PRESETS["nano"], data="/d", data_digest="0", num_steps=num_steps, learning_rate=1e-2,
        schedule=schedule, warmup_share=warmup_share,
    )  # fmt: skip


@given(st.sampled_from(["constant", "cosine", "wsd"]), st.integers(1, 500), st.floats(0, 0.5))
def test_the_rate_is_positive_never_above_the_peak_and_never_rises_after_the_warm_up(
    schedule: ScheduleName, num_steps: int, warmup_share: float
) -> None:
    asked = spec(schedule, num_steps, warmup_share)
    rates = [learning_rate(asked, step) for step in range(num_steps)]
    assert all(0 < rate <= 1e-2 * (1 + 1e-12) for rate in rates)
    after = rates[round(warmup_share * num_steps) :]
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in pairwise(after))


def test_the_warm_up_is_linear_and_ends_at_the_peak() -> None:
    assert [learning_rate(spec("constant"), step) for step in (0, 4, 9, 10)] == pytest.approx([1e-3, 5e-3, 1e-2, 1e-2])


def test_cosine_and_wsd_end_near_their_floor_and_constant_stays() -> None:
    assert learning_rate(spec("cosine"), 99) == pytest.approx(FLOOR * 1e-2, rel=0.02)
    assert learning_rate(spec("wsd"), 81) == pytest.approx(1e-2)
    assert learning_rate(spec("wsd"), 99) == pytest.approx(FLOOR * 1e-2, rel=0.6)
    assert learning_rate(spec("constant"), 99) == 1e-2
