"""Whether a study goes on by itself or waits for a person is told from its papers, the ledger and its lock."""

from collections.abc import Iterator

import pytest
from study_factory import StudyFactory, workspace_in_memory

from nightsmith.agent import dossier, history, render
from nightsmith.agent.standing import Standing, how_on, lock_name
from nightsmith.record.workspace import Workspace

ASKED = {"status": "needs_answers", "spec": None, "questions": [], "reasons": [], "num_answers": 0}


@pytest.fixture
def ws() -> Iterator[Workspace]:
    with workspace_in_memory() as ws:
        yield ws


def at(ws: Workspace, study: str) -> Standing:
    return history.load(ws, study).standing


def test_a_study_waits_for_answer_approval_or_somebody_to_resume_it(ws: Workspace):
    factory = StudyFactory(ws)
    asked, planned, approved = factory.created(), factory.created(), factory.planned()
    dossier.save(ws, asked, "interpretation", ASKED)
    dossier.save(ws, planned, "interpretation", ASKED | {"status": "ready"})
    dossier.save(ws, planned, "plan", {})
    assert [at(ws, study) for study in (asked, planned, approved)] == [
        Standing.ANSWER,
        Standing.APPROVAL,
        Standing.PAUSED,
    ]
    dossier.save(ws, asked, "answers", ["perplexity at most 9"])
    assert at(ws, asked) is Standing.PAUSED
    with ws.lock(lock_name(approved)):
        assert at(ws, approved) is Standing.RUNNING
    factory.ended(approved, "STOPPED")
    assert at(ws, approved) is Standing.ENDED


def test_the_list_of_studies_says_what_waits_within_80_columns(ws: Workspace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    factory = StudyFactory(ws)
    dossier.save(ws, factory.created(), "interpretation", ASKED)
    factory.proven()
    shown = render.study_table(history.summaries(ws))
    assert "needs an answer" in shown
    assert "PROVEN" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_how_to_go_on_is_a_command_only_where_a_person_is_needed():
    assert how_on("s4", Standing.APPROVAL) == "nightsmith resume s4"
    assert "--answer" in how_on("s4", Standing.ANSWER)
    assert how_on("s4", Standing.RUNNING) == how_on("s4", Standing.ENDED) == ""


def test_without_jobs_outcome_verdicts_and_cost_are_the_same(ws: Workspace):
    study = StudyFactory(ws).proven()
    light, whole = history.load(ws, study, jobs=False), history.load(ws, study)
    assert (light.outcome, light.claims, light.spent) == (whole.outcome, whole.claims, whole.spent)
    assert [trial.verdict for trial in light.trials] == [trial.verdict for trial in whole.trials]
