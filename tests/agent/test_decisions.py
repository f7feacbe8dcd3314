"""Decisions of the planner are listed from the study's folder, and asked again as they were asked."""

import asyncio
import json

import fake_planner
import pytest

from nightsmith.agent import decisions, dossier, ledger
from nightsmith.agent.conversing import ConverseRequest
from nightsmith.agent.decisions import CannotReplay
from nightsmith.agent.planner import Planner
from nightsmith.agent.settings import load_settings
from nightsmith.record import studies
from nightsmith.record.workspace import open_workspace

GOAL = "Pre-train a small MoE from scratch on ./notes until perplexity is below 12; at most 3 trials."
READY = {
    "s": "read", "L0": "train", "L1": "want", "L2": "trials", "do": "train", "how": ["pretrain"],
    "want": [{"m": "perplexity", "op": "<"}], "ask": [],
}  # fmt: skip
WRONG = READY | {"L9": "train"}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study whose planner can be given answers: the folder, and what makes decisions."""
    monkeypatch.chdir(tmp_path)
    ws = open_workspace(tmp_path / ".nightsmith")
    made = studies.create(ws, GOAL)

    def decide(url):
        monkeypatch.setenv("NIGHTSMITH_PLANNER_URL", url)
        planner = Planner(load_settings(tmp_path).backend(), seed=7)
        reading = asyncio.run(planner.interpret(GOAL))
        ledger.keep_transcript(ws, made, "interpret", reading.transcript)
        request = ConverseRequest(text="why was trial 2 rejected?", study=made, trials=(0, 1, 2))
        _, transcript = asyncio.run(planner.converse(request))
        ledger.keep_transcript(ws, made, "converse", transcript)

    return ws, made, decide


def show(study, capsys):
    ws, made, _ = study
    assert decisions.show(made, ws.root, as_json=True) == 0
    return json.loads(capsys.readouterr().out)


def test_each_decision_tells_what_was_asked_answered_wrong_and_what_came_of_it(study, capsys):
    ws, made, decide = study
    with fake_planner.serve(WRONG, READY, {"k": "why", "t": ["L0"]}) as fake:
        decide(fake.url)
    first, second = show(study, capsys)
    assert (first["number"], first["kind"], first["seed"], first["result"]) == (1, "interpret", 7, "ready")
    assert [json.loads(answer) for answer in first["answers"]] == [WRONG, READY]
    assert "L9" in first["errors"][0]
    assert first["backend"]["url"] == fake.url
    assert (second["kind"], second["result"]) == ("converse", {"kind": "why", "trials": [2]})
    assert first["at"] is not None
    assert decisions.show(made, ws.root, as_json=False) == 0
    told = capsys.readouterr().out
    assert "1  interpret at 20" in told
    assert f"schema {first['schema_digest'][:12]}" in told
    assert f"prompt {first['prompt_digest'][:12]}" in told


def test_a_replay_asks_the_very_same_and_says_whether_the_answers_are_equal(study, capsys):
    ws, made, decide = study
    with fake_planner.serve(WRONG, WRONG, READY, {"k": "why", "t": ["L0"]}) as fake:
        decide(fake.url)
        asked = [{**request} for request in fake.requests[:3]]
        fake.requests.clear()
        assert decisions.replay(made, 1, ws.root, as_json=False) == 0
        assert fake.requests == asked
        assert "the same answer" in capsys.readouterr().out


def test_a_replay_of_another_planner_shows_what_differs_and_which_planner_it_was(study, capsys, monkeypatch):
    ws, made, decide = study
    with fake_planner.serve(READY, {"k": "status"}) as fake:
        decide(fake.url)
    with fake_planner.serve("\x1b[31mno") as other:
        monkeypatch.setenv("NIGHTSMITH_PLANNER_URL", other.url)
        assert decisions.replay(made, 1, ws.root, as_json=True) == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["equal"], told["planner"]["url"]) == (False, other.url)
    assert told["answers"] == ["\x1b[31mno"]


def test_a_decision_that_no_answer_could_settle_is_kept_too(study, capsys):
    *_, decide = study
    with fake_planner.serve("nonsense") as fake:
        decide(fake.url)
    first = show(study, capsys)[0]
    assert (first["result"], len(first["answers"]), len(first["errors"])) == (None, 3, 3)


def test_what_cannot_be_replayed_is_said(study):
    ws, made, _ = study
    with pytest.raises(CannotReplay, match="no decision 1; it has 0"):
        decisions.replay(made, 1, ws.root, as_json=False)
    dossier.add_transcript(ws, made, "interpret", {"messages": [], "answers": ["{}"], "errors": [], "wall_s": 1.0})
    with pytest.raises(CannotReplay, match="before whole prompts were kept"):
        decisions.replay(made, 1, ws.root, as_json=False)
