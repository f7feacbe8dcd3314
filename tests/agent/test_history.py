"""The read model: what the record and the result files say, nothing else."""

import json
import time
from collections.abc import Iterator

import pytest
from study_factory import BASELINE, GOAL, IDEAS, Idea, StudyFactory, workspace_in_memory

from nightsmith.agent import history
from nightsmith.evals import stats
from nightsmith.evals.types import Decision, Outcome, Target
from nightsmith.record import events, studies
from nightsmith.record.errors import NightsmithError
from nightsmith.record.workspace import Workspace
from nightsmith.trainer import jobrows
from nightsmith.trainer.spec import RunResult, RunStatus


@pytest.fixture
def ws() -> Iterator[Workspace]:
    with workspace_in_memory() as ws:
        yield ws


@pytest.fixture
def factory(ws: Workspace) -> StudyFactory:
    return StudyFactory(ws)


def test_every_figure_of_a_job_is_its_result_files(ws: Workspace, factory: StudyFactory):
    view = history.load(ws, factory.proven())
    assert len(view.jobs) == 13
    for job in view.jobs:
        result = RunResult.model_validate_json((ws.runs / job.key / "result.json").read_bytes())
        assert result.evaluation is not None
        assert (job.scores, job.wall_s, job.num_tokens, job.checkpoint_digest) == (
            result.evaluation.metrics, result.wall_s, result.num_tokens, result.checkpoint_digest,
        )  # fmt: skip


def test_verdicts_and_claims_are_the_judges_own(ws: Workspace, factory: StudyFactory):
    view = history.load(ws, factory.proven())
    row = studies.trials(ws, view.id)[4]
    last = view.trials[4]
    assert view.outcome is Outcome.PROVEN
    assert last.confirm is not None
    assert last.confirm.model_dump(mode="json") == row.verdict["confirm"]
    assert last.decision is Decision.PROMOTED
    assert view.trials[2].decision is Decision.INCONCLUSIVE
    assert (view.claims[0].estimate, view.claims[0].bound) == (-0.3074, -0.2791)


def test_baseline_noise_is_that_of_the_statistics(ws: Workspace, factory: StudyFactory):
    view = history.load(ws, factory.proven())
    noise = stats.noise(list(view.baseline.values()))
    assert sorted(view.baseline) == [0, 1, 2, 3]
    assert view.seed_deviation == noise.deviation
    assert view.baseline_mean == pytest.approx(noise.mean)
    assert view.target == pytest.approx(noise.mean - 0.15)


def test_the_best_so_far_only_gets_better_and_starts_at_the_baseline(ws: Workspace, factory: StudyFactory):
    view = history.load(ws, factory.proven())
    assert [point.trial for point in view.best] == [0, 1, 4]
    assert view.best[-1].value == BASELINE + IDEAS[-1].difference
    assert [point.value for point in view.best] == sorted((point.value for point in view.best), reverse=True)


def test_a_value_that_is_only_as_good_as_the_best_is_not_better(ws: Workspace, factory: StudyFactory):
    for op in ("min", "max"):
        study = factory.planned(targets=(Target(metric="custom", name="taste", op=op),))
        for number in (1, 2):
            factory.trial(study, number, IDEAS[0])
        assert [point.trial for point in history.load(ws, study).best] == [1]


def test_a_value_without_evidence_is_never_the_best(ws: Workspace, factory: StudyFactory):
    study = factory.planned()
    factory.baseline(study)
    factory.trial(study, 1, Idea({"seed": 1}, "Too good.", -2.0, Decision.TAMPERED))
    assert [point.trial for point in history.load(ws, study).best] == [0]


def test_higher_metrics_grow(ws: Workspace, factory: StudyFactory):
    study = factory.planned(targets=(Target(metric="accuracy", op=">=", value=0.8),))
    for number, idea in enumerate(IDEAS, 1):
        factory.trial(study, number, idea)
    view = history.load(ws, study)
    assert not view.lower_is_better
    assert view.target == 0.8
    assert [point.trial for point in view.best] == [1, 2, 3]


def test_a_failed_job_is_a_value_with_its_reason(ws: Workspace, factory: StudyFactory):
    study = factory.planned()
    factory.trial(study, 1, Idea({}, "Large.", 0.0, status=RunStatus.OUT_OF_MEMORY, reason="Memory was exhausted."))
    trial = history.load(ws, study).trials[0]
    assert (trial.status, trial.reason) == ("OUT_OF_MEMORY", "Memory was exhausted.")


def test_a_running_job_is_running_and_has_no_figures(ws: Workspace, factory: StudyFactory):
    study = factory.planned()
    key = factory.job(study, "trial-1", 1, "trial", 0.0, seed=4, ended=False)
    (job,) = history.load(ws, study).running
    assert (job.key, job.status, job.scores) == (key, "RUNNING", {})


def test_a_changed_result_file_gives_no_figures(ws: Workspace, factory: StudyFactory):
    study = factory.planned()
    key = factory.trial(study, 1, IDEAS[0])
    path = ws.runs / key / "result.json"
    changed = json.loads(path.read_text())
    changed["evaluation"]["metrics"]["bits_per_byte"] = 0.1
    path.write_text(json.dumps(changed))
    (job,) = history.load(ws, study).jobs
    assert (job.status, job.scores) == ("UNREADABLE", {})
    assert "exit record" in job.reason


def test_a_killed_job_without_a_result_file_is_known_from_the_record(ws: Workspace, factory: StudyFactory):
    study = factory.planned()
    key = factory.job(study, "trial-1", 1, "trial", 0.0, seed=4, ended=False)
    killed = RunResult(key=key, spec_digest="0", status=RunStatus.KILLED, reason="The process vanished.")
    with ws.write() as db:
        jobrows.settle(db, jobrows.get(ws, key), killed)
    (job,) = history.load(ws, study).jobs
    assert (job.status, job.ended, job.reason) == ("KILLED", True, "The process vanished.")


def test_a_study_that_was_only_typed_can_be_read(ws: Workspace, factory: StudyFactory):
    view = history.load(ws, factory.created("hello"))
    assert (view.goal, view.outcome, view.spec, view.plan, view.trials) == ("hello", None, None, None, ())


def test_an_unknown_study_is_named_with_those_that_exist(ws: Workspace, factory: StudyFactory):
    factory.created()
    with pytest.raises(NightsmithError, match=r"'s9'.*s1"):
        history.load(ws, "s9")


def test_refusals_and_warnings_are_told_with_their_reason(ws: Workspace, factory: StudyFactory):
    study = factory.planned()
    factory.refused(study, "The budget is spent.", trial=2)
    events.append(ws, study, "warning", data={"message": "The record was restored."})
    view = history.load(ws, study)
    assert [(refusal.what, refusal.trial) for refusal in view.refusals] == [("The budget is spent.", 2)]
    assert view.warnings == ("The record was restored.",)


def test_phases_add_up_to_the_time_between_first_and_last_event(ws: Workspace, factory: StudyFactory):
    study = factory.proven()
    stream = events.read(ws, study=study)
    view = history.load(ws, study)
    assert sum(phase.seconds for phase in view.phases) == pytest.approx(
        (stream[-1].at - stream[0].at).total_seconds(), abs=1.0
    )
    assert {phase.name: round(phase.seconds) for phase in view.phases}["Confirm on fresh seeds"] in range(52, 60)


def test_lineage_goes_from_source_to_checkpoint(ws: Workspace, factory: StudyFactory):
    lineage = history.load(ws, factory.proven()).lineage
    assert lineage.sources[0].name == "the Python standard library's source code"
    assert lineage.rows == {"train": 388, "dev": 128, "fold0": 96}
    assert lineage.checkpoint_digest
    assert lineage.dev_suite_digest != lineage.sealed_suite_digest


def test_a_report_can_still_be_read_where_the_data_are_gone(ws: Workspace, factory: StudyFactory):
    study = factory.proven()
    for manifest in ws.data.glob("*/manifest.json"):
        manifest.unlink()
    assert history.load(ws, study).lineage.data_digest is None


def test_spending_is_the_ledgers(ws: Workspace, factory: StudyFactory):
    spent = history.load(ws, factory.proven()).spent
    assert (spent.amount.trials, spent.active_s, spent.allowed.wall_clock_s) == (4, 187.4, 540)
    assert spent.amount.tokens == 11 * 65536


def test_reading_changes_nothing(ws: Workspace, factory: StudyFactory):
    study = factory.proven()
    before = {path: path.stat().st_mtime_ns for path in ws.root.rglob("*") if path.is_file() and path.parent != ws.root}
    assert history.load(ws, study) == history.load(ws, study)
    assert before == {
        path: path.stat().st_mtime_ns for path in ws.root.rglob("*") if path.is_file() and path.parent != ws.root
    }


def test_summaries_count_trials_and_promotions_newest_first(ws: Workspace, factory: StudyFactory):
    factory.proven()
    factory.created("hello")
    newest, oldest = history.summaries(ws)
    assert (newest.goal, newest.num_trials, newest.outcome) == ("hello", 0, None)
    assert (oldest.goal, oldest.num_trials, oldest.num_promoted, oldest.outcome) == (GOAL, 4, 1, Outcome.PROVEN)


def test_two_thousand_trials_are_summarised_within_a_second_or_two(ws: Workspace, factory: StudyFactory):
    screened = {"screen": {"decision": "INCONCLUSIVE"}, "confirm": None}
    plan = json.dumps({"move": "hyperparameters", "hypothesis": "x" * 300, "change": {}, "calls": []})
    for _ in range(10):
        study = factory.created()
        rows = [(study, n, plan, json.dumps(screened), factory.at.isoformat()) for n in range(201)]
        with ws.write() as db:
            db.executemany("INSERT INTO trials (study, number, plan, verdict, created_at) VALUES (?, ?, ?, ?, ?)", rows)
    begun = time.monotonic()
    assert sum(row.num_trials for row in history.summaries(ws)) == 2000
    assert time.monotonic() - begun < 2.0
