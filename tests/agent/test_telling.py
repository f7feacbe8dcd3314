"""A long study stays readable: `show` and the report begin with the trials that a reader looks for."""

import json
from collections.abc import Iterator

import pytest
from study_factory import Idea, StudyFactory, workspace_in_memory

from nightsmith.agent import display, history, render, report
from nightsmith.agent.telling import BEST, LAST, WHOLE, rest, telling
from nightsmith.agent.view import StudyView
from nightsmith.evals.types import Decision
from nightsmith.record.workspace import Workspace

TRIALS, CONFIRMED, REFUSED, TAMPERED = 60, 21, 30, 33


@pytest.fixture(scope="module")
def ws() -> Iterator[Workspace]:
    with workspace_in_memory() as ws:
        yield ws


@pytest.fixture(scope="module")
def long(ws: Workspace) -> StudyView:
    """Sixty trials, each worse than the one before, of which one was confirmed, one refused, one tampered with."""
    factory = StudyFactory(ws)
    study = factory.planned(max_trials=TRIALS)
    factory.baseline(study)
    for number in range(1, TRIALS + 1):
        tampered = number == TAMPERED
        factory.trial(
            study, number,
            Idea({"learning_rate": 0.001 * number, "schedule": "wsd"}, "Another rate.", 0.01 * number,
                 Decision.TAMPERED if tampered else Decision.REJECTED),
        )  # fmt: skip
    factory.confirmed(study, CONFIRMED, 0.2, Decision.REJECTED)
    for _ in range(40):
        factory.refused(study, "The trial would change the evaluator.", trial=REFUSED)
    return history.load(ws, study)


def numbers(trials: object) -> list[int]:
    return [trial.number for trial in trials]  # pyright: ignore


def test_the_best_the_last_and_all_that_were_confirmed_or_refused_come_first(long: StudyView):
    last = range(TRIALS - LAST + 1, TRIALS + 1)
    assert numbers(telling(long)) == [*range(1, BEST + 1), CONFIRMED, REFUSED, TAMPERED, *last]
    assert numbers((*telling(long), *rest(long))) != numbers(long.proposed)
    assert sorted(numbers((*telling(long), *rest(long)))) == numbers(long.proposed)


def test_a_short_study_is_shown_whole(ws: Workspace):
    view = history.load(ws, StudyFactory(ws).proven())
    assert len(view.proposed) <= WHOLE
    assert telling(view) == view.proposed
    assert rest(view) == ()


def test_show_says_how_many_more_there_are_within_80_columns(long: StudyView, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown, whole = render.show(long), render.show(long, every=True)
    assert "… 45 more trials, --all shows them." in shown
    assert "… 28 earlier ones, --all shows them." in shown
    assert len(shown.splitlines()) < 80
    assert "--all" not in whole
    assert len(whole.splitlines()) > 100
    assert max(map(len, (*shown.splitlines(), *whole.splitlines()))) <= 80


def test_the_page_folds_the_other_trials_and_loses_none(long: StudyView):
    page = report.html(long)
    shown, _, folded = page.partition("<summary>45 more trials</summary>")
    assert page.count('data-label="Idea"') == TRIALS
    assert shown.count('data-label="Idea"') == TRIALS - 45
    assert folded
    assert "45 more trials are in `index.html`" in report.markdown(long)


def test_json_is_complete(long: StudyView, ws: Workspace, capsys: pytest.CaptureFixture[str]):
    display.show(long.id, ws.root, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert [trial["number"] for trial in told["trials"]] == list(range(TRIALS + 1))
    assert len(told["refusals"]) == 40
    display.studies_table(ws.root, as_json=True)
    assert {"id", "goal", "state", "outcome", "num_trials"} <= json.loads(capsys.readouterr().out)[0].keys()
