"""Estimates: right by hand, right against the bootstrap, intervals that cover."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_runs import SimulatedRecipes

from nightsmith.evals import stats
from nightsmith.evals.suite import Items

approx = pytest.approx
LIKELIHOODS = ["bits_per_byte", "loss", "perplexity"]


def items_of(nll, num_bytes, num_tokens=None) -> Items:
    row_ids = np.array([f"row{i:04d}" for i in range(len(nll))])
    return Items(row_ids, np.array(nll, float), np.array(num_tokens or num_bytes, float), np.array(num_bytes, float))


def test_metrics_are_ratios_of_sums_not_means_of_ratios():
    items = items_of([2.0, 30.0], [4, 10], [5, 11])
    assert stats.value(items, "bits_per_byte") == approx(32 / math.log(2) / 14)
    assert stats.value(items, "loss") == approx(2.0)
    assert stats.value(items, "perplexity") == approx(math.exp(2.0))


def test_an_absurd_loss_gives_infinite_perplexity_rather_than_an_overflow():
    assert stats.value(items_of([1e6, 1e6], [1, 1]), "perplexity") == math.inf


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**16), metric=st.sampled_from(LIKELIHOODS))
def test_permuting_items_changes_nothing(seed, metric):
    rng = np.random.default_rng(seed)
    items = SimulatedRecipes(rng, num_items=12).items()
    order = rng.permutation(len(items))
    shuffled = Items(items.row_id[order], items.nll_nats[order], items.num_tokens[order], items.num_bytes[order])
    assert stats.item_effect(stats.point(shuffled, metric)) == stats.item_effect(stats.point(items, metric))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**16), scale=st.floats(0.1, 10))
def test_scaling_the_scores_scales_estimate_and_error_alike(seed, scale):
    items = SimulatedRecipes(np.random.default_rng(seed), num_items=12).items()
    scaled = items_of(items.nll_nats * scale, items.num_bytes)
    before, after = (stats.item_effect(stats.point(each, "bits_per_byte")) for each in (items, scaled))
    assert (after.estimate, after.se) == approx((before.estimate * scale, before.se * scale))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**16), metric=st.sampled_from(LIKELIHOODS))
def test_influences_sum_to_zero_and_predict_the_effect_of_weighting_an_item(seed, metric):
    items = SimulatedRecipes(np.random.default_rng(seed), num_items=12).items()
    point, weight = stats.point(items, metric), 1e-6
    weights = np.ones(12)
    weights[3] += weight
    weighted = items_of(items.nll_nats * weights, items.num_bytes * weights, list(items.num_tokens * weights))
    assert point.influence.sum() == approx(0, abs=1e-9 * abs(point.value))
    assert (stats.value(weighted, metric) - point.value) / weight == approx(point.influence[3] / 12, rel=1e-3, abs=1e-6)


def resampled(items: Items, draw: np.ndarray) -> Items:
    return items_of(items.nll_nats[draw], items.num_bytes[draw], list(items.num_tokens[draw]))


@pytest.mark.parametrize("relate", ["own", "difference", "ratio"])
def test_standard_errors_agree_with_the_bootstrap_over_documents(relate):
    recipes = SimulatedRecipes(np.random.default_rng(1), num_items=300)
    candidate, reference = recipes.items(-0.2), recipes.items()
    of = {"own": lambda candidate, _: candidate, "difference": stats.difference, "ratio": stats.ratio}[relate]
    closed = stats.item_effect(of(*(stats.point(each, "bits_per_byte") for each in (candidate, reference))))
    rng = np.random.default_rng(2)
    draws = [rng.integers(0, 300, 300) for _ in range(1000)]
    again = [
        of(*(stats.point(resampled(each, draw), "bits_per_byte") for each in (candidate, reference))).value
        for draw in draws
    ]
    assert closed.se == approx(np.std(again), rel=0.1)


def test_pairing_by_item_removes_the_difficulty_of_the_documents():
    recipes = SimulatedRecipes(np.random.default_rng(3), num_items=200)
    one, other = (stats.point(recipes.items(), "bits_per_byte") for _ in range(2))
    assert stats.difference(one, other).item_variance < 0.2 * (one.item_variance + other.item_variance)


def misses(effects: list[stats.Effect], truth: float) -> int:
    return sum(not low <= truth <= high for low, high in (effect.interval() for effect in effects))


def test_item_intervals_miss_the_truth_as_often_as_they_say():
    population = SimulatedRecipes(np.random.default_rng(4), num_items=20_000)
    everything = population.items()
    truth, rng = stats.value(everything, "bits_per_byte"), np.random.default_rng(5)
    draws = [rng.choice(20_000, 256, replace=False) for _ in range(600)]
    effects = [stats.item_effect(stats.point(resampled(everything, draw), "bits_per_byte")) for draw in draws]
    assert 0.03 <= misses(effects, truth) / 600 <= 0.08


@pytest.mark.parametrize("seed_sd", [0.01, 0.05])
def test_recipe_intervals_cover_the_true_difference(seed_sd):
    rng = np.random.default_rng(6)
    effects = []
    for _ in range(400):
        recipes = SimulatedRecipes(rng, num_items=48)
        sides = [[recipes.items(shift, seed_sd=seed_sd) for _ in range(n)] for shift, n in ((-0.1, 3), (0.0, 4))]
        effects.append(stats.confirm_effect(*sides, "bits_per_byte"))
    assert misses(effects, -0.1) / 400 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)


def test_screen_intervals_cover_one_new_run():
    rng = np.random.default_rng(7)
    effects = []
    for _ in range(400):
        recipes = SimulatedRecipes(rng, num_items=48)
        baseline = [recipes.items() for _ in range(3)]
        effects.append(stats.screen_effect(recipes.items(-0.1), baseline, "bits_per_byte"))
    assert misses(effects, -0.1) / 400 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)


def test_seed_noise_rules_a_recipe_however_many_items_there_are():
    recipes = SimulatedRecipes(np.random.default_rng(8), num_items=5000)
    baseline = [recipes.items(seed_sd=0.05) for _ in range(3)]
    effect = stats.screen_effect(recipes.items(seed_sd=0.05), baseline, "bits_per_byte")
    deviation = stats.noise([stats.value(each, "bits_per_byte") for each in baseline]).deviation
    assert effect.se == approx(deviation * math.sqrt(4 / 3), rel=0.01)
    assert effect.df == 2


def test_bounds_are_student_t_and_mirror_each_other():
    effect = stats.Effect(estimate=-0.2, se=0.1, df=4, n=100)
    assert effect.upper() == approx(-0.2 + 2.1318467863 * 0.1)
    assert effect.interval() == approx((-0.2 - 2.7764451052 * 0.1, -0.2 + 2.7764451052 * 0.1))
    assert effect.p_below() == approx(0.05805826, rel=1e-5)
    assert effect.p_above() == approx(1 - effect.p_below())


def test_without_any_variation_nothing_is_inferred():
    still = stats.Effect(estimate=-0.2, se=0.0, df=4, n=100)
    assert (still.p_below(), still.p_above()) == (1.0, 1.0)


def test_alpha_over_all_nights_adds_up_to_the_total_and_falls():
    nights = [stats.spend_alpha(k) for k in range(1, 20_000)]
    assert 3 * sum(nights) == approx(0.05, rel=1e-3)
    assert 3 * sum(nights) < 0.05
    assert all(later < earlier for earlier, later in itertools.pairwise(nights))
    with pytest.raises(ValueError, match="counted from 1"):
        stats.spend_alpha(0)
