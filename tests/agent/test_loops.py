"""A study does not go round in circles: same call and result, same failure, trial after trial without a gain."""

from nightsmith.agent import loops
from nightsmith.agent.plan import TrialPlan
from nightsmith.agent.proposals import PastTrial, ProposeRequest, SettingState
from nightsmith.evals.types import Decision, Verdict
from nightsmith.tools.base import ToolCall


def trial(rate, move="hyperparameters"):
    call = ToolCall(tool="pretrain", args={"learning_rate": rate})
    return TrialPlan(move=move, hypothesis="", calls=(call,))


def verdict(decision=Decision.INCONCLUSIVE, value=4.0):
    return Verdict(decision=decision, rule="screen", metric="bits_per_byte", value=value, reason="")


def past(number, gain, setting="learning_rate", direction="raise", decision="inconclusive"):
    return PastTrial(number=number, setting=setting, direction=direction, gain=gain, decision=decision)


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


def test_a_change_that_was_tried_in_vain_since_the_best_trial_is_not_proposed_again():
    history = [past(1, 0.3, decision="promising"), past(2, 0.1, "batch_size", "lower")]
    assert loops.exhausted(history) == (("batch_size", "lower"),)


def test_a_setting_that_two_trials_changed_in_vain_is_left_alone():
    history = [past(1, 0.3, decision="promising"), past(2, 0.1), past(3, None, direction="lower")]
    assert {way for name, way in loops.exhausted(history)} == {"raise", "lower", "tune"}


def test_a_better_trial_opens_everything_again():
    vain = [past(1, -0.1), past(2, -0.1, direction="lower")]
    assert loops.exhausted([*vain, past(3, 0.2, "batch_size", "lower", decision="promising")]) == ()


def test_where_everything_was_tried_in_vain_the_question_stays_as_it_was():
    state = SettingState(name="learning_rate", value=1e-3)
    history = (past(1, 0.0), past(2, 0.0, direction="lower"))
    request = ProposeRequest(objective="lower", settings=(state,), history=history, trials_left=3)
    assert loops.without_exhausted(request) == request
    more = request.model_copy(update={"settings": (state, SettingState(name="batch_size", value=8))})
    assert {name for name, _ in loops.without_exhausted(more).open_changes()} == {"batch_size"}


def test_a_trial_that_is_better_by_a_hair_opens_nothing():
    good = [past(1, 0.3, decision="promising"), past(2, 0.301, direction="lower", decision="promising")]
    assert ("learning_rate", "lower") in loops.exhausted(good)
