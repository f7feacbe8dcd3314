"""A study is told by a sentence what to leave alone and what to try; it heeds that inside its approved plan."""

import asyncio
from pathlib import Path

import pytest
import study_factory
from study_factory import IDEAS, StudyFactory

from nightsmith.agent import proposing, steering
from nightsmith.agent.conversing import Utterance
from nightsmith.agent.proposals import Proposal, ProposeRequest, SettingState
from nightsmith.agent.services import Services
from nightsmith.agent.steering import CannotSteer
from nightsmith.record import events

LOWER_RATE = Utterance(kind="try", setting="learning_rate", direction="lower")
NO_RATE = Utterance(kind="avoid", setting="learning_rate")


class FakePlanner:
    """Proposes to raise the learning rate, and keeps what it was asked."""

    def __init__(self):
        self.asked: list[ProposeRequest] = []

    async def propose(self, request):
        self.asked.append(request)
        raised = Proposal(move="hyperparameters", setting="learning_rate", direction="raise", hypothesis="faster")
        return [raised] * request.k, {"answers": []}


@pytest.fixture
def study():
    with study_factory.workspace_in_memory() as ws:
        factory = StudyFactory(ws)
        name = factory.planned()
        factory.baseline(name)
        yield factory, name


def request():
    states = (SettingState(name="learning_rate", value=0.001), SettingState(name="schedule", value="cosine"))
    return ProposeRequest(objective="lower", settings=states, trials_left=3, k=2)


def proposed(factory, name, *, room):
    planner = FakePlanner()
    services = Services(ws=factory.ws, planner=lambda: planner, cwd=Path())
    plans, _ = asyncio.run(proposing.propose(services, name, 1, room))
    return plans, planner


def test_a_setting_to_leave_alone_is_not_offered_to_the_planner(study):
    factory, name = study
    told = steering.tell(factory.ws, name, "leave the learning rate alone", NO_RATE)
    assert "left alone" in told
    assert [state.name for state in steering.steered(factory.ws, name, request()).settings] == ["schedule"]


def test_one_direction_can_be_left_alone_and_the_other_stays_open(study):
    factory, name = study
    steering.tell(factory.ws, name, "do not raise it", NO_RATE.model_copy(update={"direction": "raise"}))
    ways = steering.steered(factory.ws, name, request()).open_changes()
    assert ("learning_rate", "lower") in ways
    assert ("learning_rate", "raise") not in ways


def test_the_newest_word_on_a_setting_holds(study):
    factory, name = study
    steering.tell(factory.ws, name, "leave it", NO_RATE)
    steering.tell(factory.ws, name, "no, lower it", LOWER_RATE)
    assert len(steering.steered(factory.ws, name, request()).settings) == 2


def test_what_a_person_wants_tried_is_the_next_trial_and_only_once(study):
    factory, name = study
    steering.tell(factory.ws, name, "try a lower learning rate", LOWER_RATE)
    plans, planner = proposed(factory, name, room=1)
    assert plans[0].change["learning_rate"] < 0.001
    assert planner.asked == []
    events.append(factory.ws, name, "trial_proposed", trial=1, data={"change": plans[0].change})
    assert steering.wanted(factory.ws, name) == []


def test_the_planner_fills_the_room_that_is_left(study):
    factory, name = study
    steering.tell(factory.ws, name, "try a lower learning rate", LOWER_RATE)
    plans, planner = proposed(factory, name, room=2)
    assert [plan.change["learning_rate"] > 0.001 for plan in plans] == [False, True]
    assert planner.asked[0].k == 1


def test_nothing_is_proposed_where_everything_is_to_be_left_alone(study):
    factory, name = study
    steering.tell(factory.ws, name, "leave the learning rate alone", NO_RATE)
    plans, planner = proposed(factory, name, room=2)
    assert plans == []
    assert planner.asked == []


def test_a_setting_outside_the_plan_is_refused_with_those_inside(study):
    factory, name = study
    with pytest.raises(CannotSteer, match=r"do not change top_k.*settings: learning_rate"):
        steering.tell(factory.ws, name, "fewer experts", Utterance(kind="try", setting="top_k", direction="lower"))
    assert not [event for event in events.read(factory.ws, study=name) if event.kind == "told"]


def test_a_sentence_that_says_neither_is_refused_with_what_is_possible(study):
    factory, name = study
    with pytest.raises(CannotSteer, match='Say for example "leave the learning_rate alone"'):
        steering.tell(factory.ws, name, "hello", Utterance(kind="unknown"))


def test_an_ended_study_cannot_be_steered():
    with study_factory.workspace_in_memory() as ws:
        name = StudyFactory(ws).proven(ideas=IDEAS[-1:])
        with pytest.raises(CannotSteer, match="has ended"):
            steering.tell(ws, name, "try a lower learning rate", LOWER_RATE)
