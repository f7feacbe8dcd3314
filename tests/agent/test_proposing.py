"""From the planner's move to a trial: what goes with it, and what a study is asked next."""

import asyncio
from pathlib import Path

import pytest
import study_factory
from study_factory import Idea, StudyFactory

from nightsmith.agent import dossier, proposing, steering
from nightsmith.agent.conversing import Utterance
from nightsmith.agent.plan import Tunable
from nightsmith.agent.proposals import Proposal
from nightsmith.agent.services import Services
from nightsmith.record import studies

SPACE = (
    Tunable(name="learning_rate", kind="float", low=1e-4, high=3e-2, log=True),
    Tunable(name="batch_size", kind="choice", choices=(4, 8, 16, 32)),
    Tunable(name="schedule", kind="choice", choices=("constant", "cosine", "wsd")),
)


class Planner:
    """Proposes one move, and keeps what it was asked."""

    def __init__(self, setting, direction):
        self.move = Proposal(move="hyperparameters", setting=setting, direction=direction, hypothesis="Why.")
        self.asked = []

    async def propose(self, request):
        self.asked.append(request)
        return [self.move], {"answers": []}


@pytest.fixture
def study():
    with study_factory.workspace_in_memory() as ws:
        factory = StudyFactory(ws)
        name = factory.planned()
        plan = dossier.study_plan(ws, name).model_copy(update={"space": SPACE})
        dossier.save(ws, name, "plan", plan.model_dump(mode="json"))
        factory.baseline(name)
        yield factory, name


def proposed(study, setting, direction, number=1):
    factory, name = study
    planner = Planner(setting, direction)
    services = Services(ws=factory.ws, planner=lambda: planner, cwd=Path())
    plans, _ = asyncio.run(proposing.propose(services, name, number, 1))
    return plans[0], planner.asked


def test_settings_that_are_off_go_to_sound_values_with_the_planners_move(study):
    trial, _ = proposed(study, "schedule", "tune")
    assert trial.setting == "schedule"
    assert trial.change["learning_rate"] == 3.8e-3
    assert trial.change["schedule"] == "wsd"
    assert trial.change["batch_size"] == 4
    assert trial.hypothesis.startswith("Why. With it")
    assert trial.calls[-1].args["learning_rate"] == 3.8e-3


def test_the_planners_own_move_wins_over_what_would_go_with_it(study):
    trial, _ = proposed(study, "batch_size", "lower")
    assert set(trial.change) == {"batch_size", "learning_rate"}
    assert trial.setting == "batch_size"


def test_the_planner_hears_of_its_move_and_not_of_what_went_with_it(study):
    factory, name = study
    trial, _ = proposed(study, "schedule", "tune")
    studies.add_trial(factory.ws, name, 1, trial.model_dump(mode="json"))
    factory.trial(name, 1, Idea(trial.change, "", -0.2))
    _, asked = proposed(study, "learning_rate", "raise", number=2)
    (past,) = asked[0].history
    assert (past.setting, past.direction) == ("schedule", "tune")


def test_once_the_recipe_is_sound_a_trial_changes_one_setting(study):
    factory, name = study
    factory.trial(name, 1, Idea({"learning_rate": 4.7e-3, "batch_size": 4}, "", -0.2))
    trial, _ = proposed(study, "learning_rate", "raise", number=2)
    assert trial.start == 1
    assert trial.change == {"learning_rate": 9.3e-3}


def test_ways_out_of_the_sound_values_are_not_offered(study):
    _, asked = proposed(study, "learning_rate", "raise")
    assert ("learning_rate", "lower") not in asked[0].open_changes()
    assert ("learning_rate", "raise") in asked[0].open_changes()


def test_what_a_person_wants_left_alone_is_left_alone(study):
    factory, name = study
    steering.tell(factory.ws, name, "leave the batch size", Utterance(kind="avoid", setting="batch_size"))
    trial, _ = proposed(study, "schedule", "tune")
    assert set(trial.change) == {"schedule", "learning_rate"}


def test_what_a_person_wants_tried_is_tried_by_itself(study):
    factory, name = study
    wanted = Utterance(kind="try", setting="schedule", direction="tune")
    steering.tell(factory.ws, name, "try another schedule", wanted)
    trial, _ = proposed(study, "learning_rate", "raise")
    assert set(trial.change) == {"schedule"}
