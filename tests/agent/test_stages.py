"""The stages of a run in the report: in order, with what each showed, back to random weights."""

from collections.abc import Iterator

import pytest
from study_factory import StudyFactory, workspace_in_memory

from nightsmith.agent import history, report
from nightsmith.agent.stage_words import stage_rows
from nightsmith.agent.view import JobView, StudyView
from nightsmith.record.workspace import Workspace


@pytest.fixture
def ws() -> Iterator[Workspace]:
    with workspace_in_memory() as ws:
        yield ws


def job(key: str, method: str, role: str, began_from: str | None = None, **changes: object) -> JobView:
    known = {"key": key, "method": method, "role": role, "began_from": began_from, "status": "FINISHED", "ended": True}
    return JobView.model_validate({**known, "seed": 0, "checkpoint_digest": f"{key}-weights", **changes})


CHAIN = (
    job("ccc", "grpo", "baseline", "bbb", metrics={"train/loss": 0.0, "reward": 0.25}, scores={"exact_match": 0.5}),
    job("bbb", "sft", "stage", "aaa", metrics={"train/loss": 0.75}),
    job("aaa", "pretrain", "stage", metrics={"train/loss": 1.5}),
    job("ddd", "evaluate", "sealed", "ccc"),
)


def with_jobs(ws: Workspace, *jobs: JobView) -> StudyView:
    view = history.load(ws, StudyFactory(ws).proven())
    trial = view.trials[0].model_copy(update={"jobs": tuple(each.model_copy(update={"trial": 0}) for each in jobs)})
    return view.model_copy(update={"winner": None, "metric": "exact_match", "trials": (trial,), "other_jobs": ()})


def test_a_run_of_three_stages_is_told_from_random_weights_to_its_end_in_both_forms(ws: Workspace) -> None:
    view = with_jobs(ws, *CHAIN)
    rows = stage_rows(view)
    assert [(row.method, row.began) for row in rows] == [
        ("pre-training", "random weights"), ("fine-tuning", "aaa"), ("training by rewards", "bbb"),
    ]  # fmt: skip
    assert [row.showed for row in rows] == ["loss 1.5000", "loss 0.7500", "reward 0.2500, exact match 50.0 % on dev"]
    for told in (report.markdown(view), report.html(view)):
        assert "Stages" in told
        assert all(row.left in told.replace("\\", "") for row in rows)


def test_a_run_whose_second_stage_failed_ends_there_and_says_why(ws: Workspace) -> None:
    failed = job("bbb", "sft", "stage", "aaa", status="KILLED", reason="out of memory", checkpoint_digest=None)
    rows = stage_rows(with_jobs(ws, failed, CHAIN[2]))
    assert [(row.method, row.left) for row in rows] == [("pre-training", "aaa-weights"), ("fine-tuning", "")]
    assert "KILLED: out of memory" in rows[1].showed


def test_runs_of_one_stage_have_no_table_of_stages(ws: Workspace) -> None:
    view = history.load(ws, StudyFactory(ws).proven())
    assert stage_rows(view) == ()
    assert "Stages" not in report.markdown(view)
