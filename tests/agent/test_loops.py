"""A study does not go round in circles: same call and result, same failure, trial after trial without a gain."""

from nightsmith.agent import loops
from nightsmith.agent.plan import TrialPlan
from nightsmith.agent.proposals import PastTrial
from nightsmith.evals.types import Decision, Verdict
from nightsmith.tools.base import ToolCall


def trial(rate, move="hyperparameters"):
    call = ToolCall(tool="pretrain", args={"learning_rate": rate})
    return TrialPlan(move=move, hypothesis="", calls=(call,))


def verdict(decision=Decision.INCONCLUSIVE, value=4.0):
    return Verdict(decision=decision, rule="screen", metric="bits_per_byte", value=value, reason="")


def past(number, gain, setting="learning_rate", direction="raise"):
    return PastTrial(number=number, setting=setting, direction=direction, gain=gain, decision="inconclusive")


def test_a_trial_that_was_run_is_not_run_again_and_another_is():
    known = [(trial(1e-3), verdict())]
    assert "run before" in loops.repetition(trial(1e-3), known)
    assert loops.repetition(trial(2e-3), known) == ""


def test_a_trial_that_runs_beside_is_not_run_twice():
    assert loops.repetition(trial(1e-3), [(trial(1e-3), None)])


def test_a_recipe_may_be_repeated_to_see_another_seed():
    assert loops.repetition(trial(1e-3, "seed"), [(trial(1e-3), verdict())]) == ""


def test_a_failed_trial_is_never_run_again_not_even_with_another_seed():
    assert "failed before" in loops.repetition(trial(1e-3, "seed"), [(trial(1e-3), verdict(Decision.UNVERIFIED))])


def test_the_same_call_with_the_same_result_twice_is_a_loop():
    known = [(trial(1e-3), verdict()), (trial(1e-3, "seed"), verdict())]
    assert "same result" in loops.repetition(trial(1e-3, "seed"), known)
    known[1] = (trial(1e-3, "seed"), verdict(value=4.1))
    assert loops.repetition(trial(1e-3, "seed"), known) == ""


def test_what_was_tried_on_a_plateau_is_not_proposed_again():
    history = [past(1, 0.3), *(past(number, 0.1, "batch_size", "lower") for number in range(2, 2 + loops.PLATEAU))]
    assert loops.exhausted(history) == (("batch_size", "lower"),)


def test_there_is_no_plateau_while_trials_get_better():
    assert loops.exhausted([past(number, 0.1 * number) for number in range(1, 8)]) == ()
    assert loops.exhausted([past(1, -0.1)] * (loops.PLATEAU - 1)) == ()


def test_a_study_without_any_gain_is_on_a_plateau_from_its_first_trial():
    assert loops.exhausted([past(number, None) for number in range(loops.PLATEAU)]) == (("learning_rate", "raise"),)
