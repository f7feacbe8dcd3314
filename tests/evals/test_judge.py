"""The judge: what it promotes, what it refuses, and how often it is wrong on nights in which nothing helps."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_runs import SUITE, SimulatedRecipes, scored

from nightsmith.evals import judge, stats
from nightsmith.evals.suite import Items
from nightsmith.evals.types import Decision, Outcome, Target

BPB = "bits_per_byte"
ALPHA = stats.spend_alpha(1)
BELOW_BASELINE = Target(metric=BPB, op="<=", value=-0.15, relative_to="baseline")


def recipes(seed: int, num_items: int = 64) -> SimulatedRecipes:
    return SimulatedRecipes(np.random.default_rng(seed), num_items=num_items)


def confirm(candidates, baseline, **options):
    return judge.confirm(candidates, baseline, metric=BPB, **{"alpha": ALPHA, **options})


@pytest.mark.parametrize("seed_sd", [0.01, 0.03, 0.05])
def test_confirmations_of_changes_that_do_nothing_promote_less_often_than_alpha(seed_sd):
    rng, level, wrong = np.random.default_rng(1), 0.05, 0
    for _ in range(500):
        world = SimulatedRecipes(rng, num_items=24)
        runs = [[world.items(seed_sd=seed_sd) for _ in range(n)] for n in (3, 4)]
        wrong += stats.confirm_effect(*runs, BPB).p_below() < level
    assert wrong / 500 <= level + 2 * math.sqrt(level * (1 - level) / 500)


def test_a_candidate_that_is_only_noisier_than_the_baseline_is_rarely_promoted():
    rng, wrong = np.random.default_rng(2), 0
    for _ in range(600):
        world = SimulatedRecipes(rng, num_items=24)
        noisy, calm = ([world.items(seed_sd=sd) for _ in range(n)] for sd, n in ((0.06, 3), (0.02, 4)))
        wrong += stats.confirm_effect(noisy, calm, BPB).p_below() < 0.05
    assert wrong / 600 <= 0.09  # unequal noise costs some of the level; screening on another run comes on top of it


def null_night(rng: np.random.Generator, seed_sd: float) -> list[Decision]:
    """Ten trials that change nothing; the promising ones are confirmed, at most three."""
    world = SimulatedRecipes(rng, num_items=16)
    baseline = world.runs(3, seed_sd=seed_sd)
    screens = [judge.screen(world.run(seed_sd=seed_sd), baseline, metric=BPB) for _ in range(10)]
    best = sorted((each for each in screens if each.promising), key=lambda each: each.estimate)[:3]
    return [confirm(world.runs(3, seed_sd=seed_sd), baseline).decision for _ in best]


@pytest.mark.parametrize("seed_sd", [0.01, 0.05])
def test_nights_of_luck_alone_promote_nothing_at_the_declared_level(seed_sd):
    rng = np.random.default_rng(3)
    nights = [null_night(rng, seed_sd) for _ in range(300)]
    share = 3 * ALPHA  # what a study on its first night on a split may spend
    assert any(nights)  # luck did get as far as a confirmation
    promoted = sum(Decision.PROMOTED in night for night in nights)
    assert promoted / 300 <= share + 2 * math.sqrt(share * (1 - share) / 300)


def test_a_real_improvement_of_four_seed_deviations_is_promoted_most_of_the_time():
    rng, promoted = np.random.default_rng(4), 0
    for _ in range(60):
        world = SimulatedRecipes(rng, num_items=64)
        promoted += confirm(world.runs(3, -0.12), world.runs(4)).decision == Decision.PROMOTED
    assert promoted >= 36


def test_a_large_improvement_is_promising_in_one_run_and_promoted_by_fresh_seeds():
    world = recipes(5)
    baseline = world.runs(3)
    screened = judge.screen(world.run(-0.4), baseline, metric=BPB, targets=[BELOW_BASELINE])
    assert (screened.decision, screened.promising, screened.meets_target) == (Decision.INCONCLUSIVE, True, True)
    verdict = confirm(world.runs(3, -0.4), baseline, targets=[BELOW_BASELINE])
    assert verdict.decision == Decision.PROMOTED
    assert verdict.interval[0] < verdict.estimate < verdict.interval[1] < 0
    assert (verdict.seeds, verdict.n, verdict.alpha) == ((3, 3), 64, ALPHA)
    assert verdict.p < ALPHA
    assert verdict.reason == "better on fresh seeds"


def test_a_change_that_makes_it_worse_is_rejected_by_screen_and_confirmation():
    world = recipes(6)
    baseline = world.runs(3)
    assert judge.screen(world.run(0.5), baseline, metric=BPB).decision == Decision.REJECTED
    assert confirm(world.runs(3, 0.5), baseline).decision == Decision.REJECTED


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_a_candidate_identical_to_the_baseline_is_never_promoted(seed):
    runs = recipes(seed, 12).runs(3)
    verdict = confirm(runs, runs)
    assert verdict.estimate == 0
    assert verdict.decision == Decision.INCONCLUSIVE
    assert verdict.p == pytest.approx(0.5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), gain=st.floats(0.01, 1))
def test_a_better_candidate_never_gets_a_worse_verdict(seed, gain):
    order = [Decision.REJECTED, Decision.INCONCLUSIVE, Decision.PROMOTED]
    world = recipes(seed, 12)
    baseline, candidates = world.runs(3), world.runs(3)
    better = [scored(shifted(run.items, -gain), f"better {i}") for i, run in enumerate(candidates)]
    before, after = (confirm(side, baseline, alpha=0.05) for side in (candidates, better))
    assert order.index(after.decision) >= order.index(before.decision)
    assert after.p <= before.p
    screens = [judge.screen(side[0], baseline, metric=BPB) for side in (candidates, better)]
    assert screens[0].promising <= screens[1].promising


def shifted(items: Items, bits: float) -> Items:
    return Items(items.row_id, items.nll_nats + bits * math.log(2) * items.num_bytes, items.num_tokens, items.num_bytes)


@pytest.mark.parametrize(("fresh", "calibrated"), [(2, 3), (3, 2)])
def test_with_fewer_than_three_seeds_a_side_nothing_is_said_of_the_recipe(fresh, calibrated):
    world = recipes(7)
    verdict = confirm(world.runs(fresh, -1), world.runs(calibrated))
    assert verdict.decision == Decision.INCONCLUSIVE
    assert verdict.p is None
    assert "needs 3" in verdict.reason


def test_a_screen_without_calibrated_noise_is_inconclusive_and_not_promising():
    world = recipes(8)
    verdict = judge.screen(world.run(-1), world.runs(2), metric=BPB)
    assert (verdict.decision, verdict.promising, verdict.estimate) == (Decision.INCONCLUSIVE, False, None)


def test_one_checkpoint_counted_as_several_seeds_is_unverified():
    world = recipes(9)
    baseline, lucky = world.runs(3), world.run(-0.4)
    assert confirm([lucky, lucky, lucky], baseline).decision == Decision.UNVERIFIED


def test_the_run_that_chose_the_candidate_may_not_confirm_it():
    world = recipes(10)
    baseline, fresh = world.runs(3), world.runs(3, -0.4)
    verdict = confirm(fresh, baseline, screened=[fresh[1].evaluation.checkpoint_digest])
    assert verdict.decision == Decision.UNVERIFIED
    assert "fresh" in verdict.reason


def test_runs_on_another_suite_or_on_other_items_are_tampered():
    world, other = recipes(11), recipes(12)
    baseline = world.runs(3)
    elsewhere = scored(world.items(-1), suite=SUITE.model_copy(update={"max_items": 9}))
    assert judge.screen(elsewhere, baseline, metric=BPB).decision == Decision.TAMPERED
    assert judge.screen(other.run(-1), baseline, metric=BPB).decision == Decision.TAMPERED


def test_infinite_and_unmeasured_metrics_are_unverified():
    world = recipes(13)
    baseline = world.runs(3)
    broken = scored(shifted(world.items(), math.inf))
    assert judge.screen(broken, baseline, metric=BPB).decision == Decision.UNVERIFIED
    assert judge.screen(world.run(), baseline, metric="rouge_l").decision == Decision.UNVERIFIED


@pytest.mark.parametrize(
    ("guardrail", "decision"),
    [
        (Target(metric="loss", op="<=", value=0.05, relative_to="baseline"), Decision.PROMOTED),
        (Target(metric="perplexity", op="<=", value=0.5, relative_to="baseline", relation="ratio"), Decision.REJECTED),
        (Target(metric="accuracy", op=">=", value=-0.01, relative_to="baseline", task="MMLU"), Decision.INCONCLUSIVE),
        (
            Target(metric="loss", op="<=", value=0.0, relative_to="baseline", data="other.parquet"),
            Decision.INCONCLUSIVE,
        ),
        (Target(metric="loss", op="<=", value=0.0, relative_to="last week's model"), Decision.INCONCLUSIVE),
    ],
)
def test_a_promotion_needs_every_guardrail_kept(guardrail, decision):
    world = recipes(14)
    verdict = confirm(world.runs(3, -0.4), world.runs(3), guardrails=[guardrail])
    assert verdict.decision == decision
    assert verdict.guardrails[0].kept == (decision == Decision.PROMOTED)


def test_a_broken_guardrail_keeps_a_screen_from_being_promising():
    world = recipes(15)
    baseline, better = world.runs(3), world.run(-0.4)
    strict = Target(metric=BPB, op="<", value=1.0)
    assert judge.screen(better, baseline, metric=BPB).promising
    assert not judge.screen(better, baseline, metric=BPB, guardrails=[strict]).promising


def claim(world, target, effect=-0.3, reference=True):
    baseline = world.run() if reference else None
    return judge.claim(world.run(effect), baseline, target)


def test_a_claim_is_proven_by_its_bound_and_met_by_its_estimate():
    world = recipes(16)
    far = claim(world, BELOW_BASELINE, -0.4)
    assert (far.met, far.proven) == (True, True)
    assert far.estimate < far.bound < -0.15
    near = claim(world, Target(metric=BPB, op="<=", value=far.estimate, relative_to="baseline"), 0.0)
    assert (near.met, near.proven) == (False, False)


def test_an_estimate_exactly_at_the_threshold_meets_an_inclusive_target_only():
    world = recipes(17)
    run = world.run()
    at = stats.value(run.items, BPB)
    claims = {op: judge.claim(run, None, Target(metric=BPB, op=op, value=at)) for op in (">=", "<=", ">", "<")}
    assert {op for op, made in claims.items() if made.met} == {">=", "<="}
    assert not any(made.proven for made in claims.values())
    assert claims[">="].bound < at < claims["<="].bound


def test_ratios_and_open_ends_are_claimed_against_the_reference():
    world = recipes(18)
    halved = claim(world, Target(metric=BPB, op="<=", value=0.5, relative_to="baseline", relation="ratio"), -1.4)
    assert halved.proven
    assert halved.estimate == pytest.approx(1.1 / 2.5, abs=0.03)
    assert claim(world, Target(metric=BPB, op="min"), -0.3).proven
    assert not claim(world, Target(metric=BPB, op="min"), 0.3).met


def test_the_bound_of_a_claim_lies_beyond_the_truth_in_nineteen_of_twenty_suites():
    rng, wrong = np.random.default_rng(19), 0
    for _ in range(400):
        world = SimulatedRecipes(rng, num_items=80)
        one, other = (scored(world.items(effect, seed_sd=0.0), str(effect)) for effect in (-0.2, 0.0))
        wrong += judge.claim(one, other, BELOW_BASELINE).bound < -0.2
    assert wrong / 400 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)


def test_claims_that_the_items_cannot_decide_are_refused_with_the_way_out():
    world = recipes(20)
    with pytest.raises(judge.NotComparable, match="relative"):
        claim(world, BELOW_BASELINE, reference=False)
    with pytest.raises(judge.NotComparable, match="bits_per_byte"):
        claim(world, Target(metric="accuracy", op=">=", value=0.85))
    with pytest.raises(judge.NotComparable, match="one fold"):
        judge.claim(world.run(), recipes(21, 32).run(), BELOW_BASELINE)


def test_the_outcome_needs_every_target_and_a_threshold_to_be_met():
    world, target = recipes(22), BELOW_BASELINE
    proven, missed = claim(world, target, -0.6), claim(world, Target(metric=BPB, op="<=", value=0.1))
    met = proven.model_copy(update={"proven": False})
    open_end = Target(metric=BPB, op="min")
    improved = claim(world, open_end, -0.6)
    assert judge.outcome([proven], promoted=False, targets=[target]) == Outcome.PROVEN
    assert judge.outcome([met], promoted=True, targets=[target]) == Outcome.MET
    assert judge.outcome([proven, missed], promoted=True, targets=[target, missed.target]) == Outcome.IMPROVED
    assert judge.outcome([proven], promoted=False, targets=[target, missed.target]) == Outcome.NOT_MET
    assert judge.outcome([improved], promoted=True, targets=[open_end]) == Outcome.IMPROVED
    assert judge.outcome([improved], promoted=False, targets=[open_end]) == Outcome.NOT_MET
    assert judge.outcome([], promoted=False, targets=[]) == Outcome.NOT_MET


def test_verdicts_and_claims_survive_canonical_json():
    world = recipes(23)
    verdict = confirm(world.runs(3, -0.4), world.runs(3), targets=[BELOW_BASELINE], guardrails=[BELOW_BASELINE])
    made = claim(world, BELOW_BASELINE)
    assert type(verdict).model_validate_json(verdict.model_dump_json()) == verdict
    assert type(made).model_validate_json(made.model_dump_json()) == made
    assert verdict.digest() != made.digest()


def test_two_models_that_are_alike_are_told_apart_no_more_often_than_the_level():
    rng, told = np.random.default_rng(5), 0
    for _ in range(400):
        world = SimulatedRecipes(rng, num_items=32)
        told += judge.difference(world.run(seed_sd=0.0), world.run(seed_sd=0.0), BPB).better is not None
    assert told / 400 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)


def test_the_better_of_two_models_is_the_same_in_either_order():
    world = recipes(6)
    good, bad = world.run(-0.2, seed_sd=0.0), world.run(seed_sd=0.0)
    first, second = judge.difference(good, bad, BPB), judge.difference(bad, good, BPB)
    assert (first.better, second.better) == ("first", "second")
    assert first.estimate == pytest.approx(-second.estimate)
    assert first.interval == pytest.approx(tuple(-end for end in reversed(second.interval)))


def test_loss_is_not_compared_between_models_that_cut_texts_into_other_tokens():
    world = recipes(7)
    one, other = world.run(), world.run()
    cut = Items(other.items.row_id, other.items.nll_nats, other.items.num_tokens + 1, other.items.num_bytes)
    with pytest.raises(judge.NotComparable, match="use bits_per_byte"):
        judge.difference(one, scored(cut, "other"), "loss")
    assert judge.difference(one, scored(cut, "other"), BPB).n == 64
