"""Baseline and winner side by side, as report and `show` print them."""

import pytest
from study_factory import StudyFactory, workspace_in_memory

from nightsmith.agent import history, render, report, side_words
from nightsmith.agent.side_by_side import with_sides
from nightsmith.agent.side_view import AnswerPair, Figure, MetricPair, SideBySide, SplitPair
from nightsmith.agent.view import JobView

HOSTILE = "<script>alert(1)</script> | **bold** \x1b[31m"


@pytest.fixture
def view():
    with workspace_in_memory() as ws:
        study = StudyFactory(ws).proven()
        yield history.load(ws, study)


def sides(text: str = "rot", *, is_winner: bool = True) -> SideBySide:
    pair = MetricPair(
        metric="exact_match",
        before=Figure(value=0.0, low=0.0, high=0.037),
        after=Figure(value=0.75, low=0.66, high=0.83),
    )
    answer = AnswerPair(
        row_id="t.csv:3", prompt=text, reference=text, before=text, after=text, before_right=False, after_right=True
    )
    splits = (
        SplitPair(split="dev", num_items=64, metrics=(pair,)),
        SplitPair(split="sealed", num_items=128, metrics=(pair,)),
    )
    return SideBySide(trial=4, is_winner=is_winner, splits=splits, answers=(answer,) * 10, answers_split="sealed")


def test_both_sides_have_their_figures_with_intervals_and_number_of_rows(view):
    shown = view.model_copy(update={"sides": sides()})
    for text in (report.markdown(shown), render.show(shown)):
        assert all(figure in text for figure in ("0.0 %", "3.7 %", "75.0 %", "66.0 %", "83.0 %", "128 rows"))


def test_answers_are_said_to_be_the_first_rows_not_chosen_ones(view):
    text = report.html(view.model_copy(update={"sides": sides()}))
    assert "first 10 rows of the sealed split in the order of their row ids, not chosen" in text


def test_texts_of_data_and_models_are_shown_and_never_markup(view):
    shown = view.model_copy(update={"sides": sides(HOSTILE)})
    assert "<script>alert" not in report.html(shown)
    assert "<script>alert" not in report.markdown(shown)
    assert "\x1b" not in report.html(shown) + report.markdown(shown)


def test_the_best_trial_is_not_called_a_winner_where_nothing_won(view):
    text = report.html(view.model_copy(update={"sides": sides(is_winner=False)}))
    assert "the best screened trial, 4" in text
    assert "Winner</th>" not in text


def test_jobs_that_trained_on_the_same_rows_are_told_of_once(view):
    rows = {"data/rows": 81.0, "data/rows_too_long": 2.0, "data/trained_tokens": 902.0}
    roles = (("a", "stage"), ("b", "stage"), ("c", "trial"))
    jobs = tuple(
        JobView(key=key, role=role, trial=4, status="FINISHED", ended=True, metrics=rows, num_tokens=500)
        for key, role in roles
    )
    told = side_words.audit_words(view.model_copy(update={"sides": sides(), "trials": (), "other_jobs": jobs}))
    assert [each.split(":")[0] for each in told] == [
        "Rows of each of the jobs a and b, an earlier stage",
        "Rows of job c",
    ]
    assert "2 more were too long and left out" in told[0]


def test_a_study_whose_item_scores_are_gone_has_no_sides_and_its_report_is_written_all_the_same():
    with workspace_in_memory() as ws:
        study = StudyFactory(ws).proven()
        assert with_sides(ws, history.load(ws, study)).sides is None
        assert report.write(ws, study).is_file()
