"""Figures in words: the side, the size, the unit."""

import math

import pytest

from nightsmith.agent import figures
from nightsmith.evals.types import Target


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (Target(metric="exact_match", op=">=", value=0.85), "exact match at least 85.0 %"),
        (Target(metric="accuracy", task="MMLU", op=">", value=0.7), "accuracy on MMLU above 70.0 %"),
        (Target(metric="loss", op="min"), "loss as low as possible"),
        (Target(metric="custom", name="speed", op=">=", value=3.0), "speed at least 3.0000"),
        (
            Target(metric="bits_per_byte", op="<=", value=-0.15, relative_to="baseline"),
            "bits per byte at least 0.1500 below the baseline",
        ),
        (
            Target(metric="bits_per_byte", op="<", value=-0.15, relative_to="baseline"),
            "bits per byte more than 0.1500 below the baseline",
        ),
        (Target(metric="f1", op=">=", value=0.02, relative_to="baseline"), "F1 at least 2.0 points above the baseline"),
        (
            Target(metric="accuracy", op=">=", value=-0.01, relative_to="baseline"),
            "accuracy at most 1.0 points below the baseline",
        ),
        (Target(metric="f1", op=">=", value=0, relative_to="baseline"), "F1 no lower than the baseline"),
        (Target(metric="f1", op=">", value=0, relative_to="gpt-oss"), "F1 above gpt-oss"),
        (
            Target(metric="perplexity", op="<=", value=0.5, relative_to="baseline", relation="ratio"),
            "perplexity at most 0.500 times the baseline",
        ),
    ],
)
def test_a_target_is_said_as_a_person_would(target: Target, words: str):
    assert figures.target_words(target) == words


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min"),
     (None, "–"), (math.nan, "–")],
)  # fmt: skip
def test_durations_read_as_a_clock(seconds: float | None, shown: str):
    assert figures.duration(seconds) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [(812, "812"), (9999, "9,999"), (65_536, "65.5 k"), (1.2e6, "1.2 M"), (3.4e9, "3.4 G"), (None, "–")],
)
def test_counts_are_short(number: float | None, shown: str):
    assert figures.count(number) == shown


def test_differences_carry_a_true_minus_and_shares_are_points():
    assert figures.difference("bits_per_byte", -0.31) == "−0.3100"
    assert figures.difference("accuracy", 0.021) == "+2.1 points"
    assert figures.value("accuracy", 0.851) == "85.1 %"
    assert figures.value("loss", math.inf) == "–"


def test_small_p_values_are_not_zero():
    assert figures.p_value(0.00000021) == "< 0.0001"
    assert figures.p_value(0.0167) == "0.0167"
