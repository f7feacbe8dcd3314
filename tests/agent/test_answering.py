"""Answers about a study come from its result files and verdicts; what is not known is said not to be."""

import dataclasses

import pytest
import study_factory
from study_factory import IDEAS, StudyFactory

from nightsmith.agent import answering
from nightsmith.agent.conversing import Utterance
from nightsmith.evals.types import Decision
from nightsmith.trainer.spec import RunStatus


@pytest.fixture(scope="module")
def proven():
    with study_factory.workspace_in_memory() as ws:
        yield ws, StudyFactory(ws).proven()


def said(study, kind, *trials, **more):
    return answering.answer(*study, Utterance(kind=kind, trials=trials, **more))


def test_why_names_the_rule_estimate_interval_items_seeds_and_p(proven):
    told = said(proven, "why", 3)
    assert "Trial 3 was rejected" in told
    assert "weight_decay = 0.9" in told
    assert "the screen" in told
    assert "+0.2417" in told
    assert "+0.1587 to +0.3247" in told
    assert "n = 128 items; seeds 1 against 4" in told
    assert "p = 0.4000" in told


def test_why_of_a_confirmed_trial_tells_of_both_looks(proven):
    told = said(proven, "why", 4)
    assert "Trial 4 was promoted" in told
    assert "seeds 1 against 4" in told
    assert "seeds 3 against 4" in told


def test_why_without_a_trial_is_about_the_outcome(proven):
    assert said(proven, "why").startswith("PROVEN")


def test_a_trial_that_does_not_exist_is_named_with_those_that_do(proven):
    for kind in ("why", "compare", "cost", "config"):
        assert said(proven, kind, 9) == "There is no trial 9 in s1; trials: 0–4."


def test_a_failed_job_is_the_reason_of_its_trial():
    with study_factory.workspace_in_memory() as ws:
        factory = StudyFactory(ws)
        study = factory.planned()
        factory.baseline(study)
        broken = dataclasses.replace(IDEAS[0], status=RunStatus.FAILED, reason="loss is \x1b[31mNaN at step 7",
                                     decision=Decision.UNVERIFIED)  # fmt: skip
        factory.trial(study, 1, broken)
        told = said((ws, study), "why", 1)
        assert "FAILED" in told
        assert "NaN at step 7" in told
        assert "\x1b" not in told


def test_two_trials_are_compared_side_by_side_and_said_not_to_be_tested_against_each_other(proven):
    told = said(proven, "compare", 2, 4)
    assert "trial 2" in told.splitlines()[0]
    assert "trial 4" in told.splitlines()[0]
    assert "schedule = wsd" in told
    assert "no interval is known" in told
    assert max(map(len, told.splitlines()[:-1])) <= 80


def test_one_trial_is_compared_with_the_baseline(proven):
    assert "the baseline" in said(proven, "compare", 3)


def test_cost_adds_up_the_jobs_of_each_trial(proven):
    told = said(proven, "cost")
    assert "s1 has taken 3 min 07 s of 9 min 00 s" in told
    assert "trial 4: 4 jobs" in told
    assert "sealed evaluations: 2 jobs" in told
    assert "trial 4" not in said(proven, "cost", 1)


def test_config_shows_a_setting_and_the_trials_that_changed_it(proven):
    told = said(proven, "config", setting="learning_rate")
    assert "learning_rate is 0.001 in the plan's recipe" in told
    assert "trial 1: 0.003" in told
    assert "learning_rate = 0.003 (recipe: 0.001)" in said(proven, "config", 1)
    assert said(proven, "config", 2, setting="learning_rate") == "Trial 2: learning_rate = 0.001, as in the recipe."
    assert "has no lora_rank" in said(proven, "config", 2, setting="lora_rank")


def test_config_of_a_trial_is_told_in_full_with_what_it_changed(proven):
    told = said(proven, "config", 2)
    assert "schedule = wsd (recipe: its default)" in told
    assert "In full: preset = nano, num_steps = 64, learning_rate = 0.001, schedule = wsd" in told


def test_best_names_the_winner_with_its_figures(proven):
    told = said(proven, "best")
    assert "Trial 4 is best" in told
    assert "learning_rate = 0.0045" in told.splitlines()[1]
    assert "PROVEN" in told


def test_a_study_without_trials_says_that_nothing_was_measured():
    with study_factory.workspace_in_memory() as ws:
        study = StudyFactory(ws).planned()
        assert "has not been measured" in said((ws, study), "best")
        assert "UNFINISHED" in said((ws, study), "status")
        assert "There is no trial 1 in s1; trials: none yet." in said((ws, study), "why", 1)
