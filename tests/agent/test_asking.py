"""Questions in a person's words, read by the planner that ships, answered from the result files of a study."""

import asyncio

import pytest
import study_factory
from pinned_wheel import own_cache
from study_factory import StudyFactory

from nightsmith.agent import answering, console_talk
from nightsmith.agent.backends import ChatBackend
from nightsmith.agent.planner import Planner
from nightsmith.model.planner_server import ensure, stop


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """What is answered to a sentence about a proven study of four trials; None: not a question about it."""
    with own_cache(tmp_path_factory.mktemp("planner")), study_factory.workspace_in_memory() as ws:
        study = StudyFactory(ws).proven()

        def ask(text: str) -> str | None:
            said = asyncio.run(console_talk.meant(ws, study, text, Planner(ChatBackend())))
            return answering.answer(ws, study, said) if said.kind in console_talk.QUESTIONS else None

        yield ask
        stop(ensure())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("why did trial 3 fail?", "Trial 3 was rejected. It tried weight_decay = 0.9."),
        ("compare 2 and 4", "no interval is known for this difference"),
        ("compare 2 and 5", "There is no trial 5 in s1; trials: 0–4."),
        ("what did last night cost?", "trial 1: 1 job"),
        ("give me trial 2's config", "In full: preset = nano"),
        ("give me trial 7's config", "There is no trial 7"),
        ("what is the learning rate of the best trial?", "learning_rate = 0.0045"),
    ],
)
def test_a_question_is_answered_from_the_record(asked, question, words):
    assert words in (asked(question) or "")


@pytest.mark.slow
def test_what_the_record_cannot_know_is_not_answered(asked):
    assert asked("who is the president of France?") is None
