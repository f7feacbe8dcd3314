"""A trial that is clearly behind earlier ones at the same point of training is stopped early, and not gone on with."""

import json

import study_factory
from hypothesis import given
from hypothesis import strategies as st
from study_factory import StudyFactory

from nightsmith.agent import pruning, rounds
from nightsmith.agent.pruning import Pruner, curve_of, is_behind, loss_at
from nightsmith.record import events
from nightsmith.trainer.journal import JOURNAL

FALLING = [(share / 10, 5.0 - share / 4) for share in range(1, 11)]


def scaled(curve, by):
    return [(share, loss * by) for share, loss in curve]


def test_a_trial_far_above_the_earlier_ones_is_behind():
    assert is_behind(scaled(FALLING, 1.3)[:4], [FALLING, scaled(FALLING, 1.05)])


def test_a_trial_is_not_judged_in_its_first_third_nor_at_its_end():
    bad = scaled(FALLING, 3)
    assert not is_behind(bad[:3], [FALLING])
    assert not is_behind(bad, [FALLING])


def test_a_loss_that_is_no_number_is_behind():
    assert is_behind([(0.5, float("nan"))], [FALLING])


def test_nothing_is_behind_without_an_earlier_trial_or_a_point_to_compare():
    assert not is_behind(FALLING[:5], [])
    assert not is_behind([], [FALLING])
    assert not is_behind([(0.4, 99.0)], [[(0.5, 1.0)]])


@given(st.floats(0.3, 1.1), st.integers(1, 10))
def test_a_trial_within_the_margin_is_never_behind(by, at):
    assert not is_behind(scaled(FALLING, min(by, 1 + pruning.MARGIN - 1e-6))[:at], [FALLING])


def test_trials_are_compared_at_equal_shares_whatever_their_number_of_steps():
    assert loss_at(FALLING, 0.45) == dict(FALLING)[0.4]
    assert loss_at(FALLING, 0.05) is None


def test_a_curve_is_read_from_a_journal_and_one_noisy_step_does_not_count():
    lines = [{"kind": "step", "step": step, "num_steps": 20, "loss": 2.0} for step in range(1, 11)]
    lines += [{"kind": "phase", "phase": "train"}, {"kind": "step", "step": 0, "num_steps": 20, "loss": None}]
    assert curve_of(lines)[-1] == (0.5, 2.0)
    lines.append({"kind": "step", "step": 11, "num_steps": 20, "loss": 4.0})
    assert curve_of(lines)[-1][1] < 2.5


def test_a_step_that_was_taken_again_after_a_kill_counts_once():
    lines = [{"kind": "step", "step": step, "num_steps": 10, "loss": 1.0} for step in (1, 2, 3, 4, 5, 4, 5)]
    assert len(curve_of(lines)) == 1


def journalled(ws, key, loss, until=30):
    lines = [{"kind": "step", "step": step, "num_steps": 40, "loss": loss} for step in range(1, until + 1)]
    (ws.run_dir(key) / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_running_trial_that_is_behind_is_marked_once_and_a_good_one_runs_on():
    with study_factory.workspace_in_memory() as ws:
        factory = StudyFactory(ws)
        name = factory.planned()
        factory.baseline(name)
        for seed in range(4):
            journalled(ws, factory.key(name, f"baseline-{seed}"), 2.0, until=40)
        bad, good = (factory.job(name, f"trial-{n}", n, "trial", 0.0, seed=n, ended=False) for n in (1, 2))
        journalled(ws, bad, 3.0)
        journalled(ws, good, 2.1)
        pruner = Pruner(ws, name)
        assert pruner.hopeless([bad, good]) == [bad]
        assert pruner.hopeless([bad, good]) == [bad]
        (mark,) = (event for event in events.read(ws, study=name) if event.kind == "pruned")
        assert (mark.trial, mark.job) == (1, bad)
        assert "75%" in str(mark.data["reason"])
        assert not rounds._may_go_on(ws, name, bad)


def test_what_was_pruned_is_known_by_its_event():
    with study_factory.workspace_in_memory() as ws:
        name = StudyFactory(ws).planned()
        events.append(ws, name, "pruned", trial=2, job="abc", data={"reason": "Pruned at 30%."})
        assert pruning.reasons(ws, name) == {2: ("abc", "Pruned at 30%.")}
        assert json.dumps(pruning.reasons(ws, "other")) == "{}"
