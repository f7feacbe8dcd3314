"""The projection: MLflow shows what the record and the result files say, however often it is written."""

import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from judged_study import HYPOTHESIS, JudgedStudy, result, verdict

from nightsmith.evals.types import Decision
from nightsmith.record import budget, studies
from nightsmith.record.workspace import open_workspace
from nightsmith.trainer import jobrows, tracking
from nightsmith.trainer.spec import RunStatus


@pytest.fixture(scope="module")
def ws(tmp_path_factory):
    """One workspace for all: making MLflow's tables takes seconds. Studies do not meet in it."""
    return open_workspace(tmp_path_factory.mktemp("tracking") / ".nightsmith")


@pytest.fixture
def made(ws):
    """A study with a baseline of three seeds and two trials, the second promoted and looked at on the sealed fold."""
    made = JudgedStudy.started(ws)
    made.baseline(2.9, 3.0, 3.1)
    made.trial(1, 3.4, 0.4, Decision.REJECTED)
    made.trial(2, 2.7, -0.3)
    screened, confirmed = (verdict(rule, Decision.PROMOTED, 2.71, -0.29) for rule in ("screen", "confirm"))
    made.judge(2, screen=screened.model_copy(update={"value": 2.7}), confirm=confirmed)
    made.job("sealed-2", 2, "sealed", 2.75, 0)
    budget.tick(ws, made.study, 12.5)
    studies.finish(ws, made.study, "PROVEN", {"reason": "the bound meets the target"})
    return made


def shown(made) -> dict[str, object]:
    return {run.data.tags["nightsmith.key"]: run for run in tracking.read_runs(made.ws, made.study)}


def parent_of(made):
    return shown(made)[f"study-{made.study}"]


def rows_of(made) -> dict[str, jobrows.JobRow]:
    return {row.step: row for row in jobrows.rows(made.ws, made.study)}


def contents(ws) -> dict[str, list]:
    """Everything in MLflow's database."""
    with sqlite3.connect(ws.root / "mlflow.db") as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {name: sorted(db.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for name in tables}


def test_a_study_is_a_parent_run_with_a_child_for_each_job(made):
    tracking.project(made.ws, made.study)
    runs, parent = shown(made), parent_of(made)
    children = [run for run in runs.values() if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(run.data.tags["nightsmith.step"] for run in children) == sorted(rows_of(made))
    assert len(runs) == len(children) + 1
    assert tracking.differences(made.ws, made.study) == []


def test_a_trial_carries_its_hypothesis_its_verdict_and_the_figures_of_its_result(made):
    tracking.project(made.ws, made.study)
    row = rows_of(made)["trial-2"]
    run = shown(made)[row.key]
    assert run.data.tags["trial.hypothesis"] == HYPOTHESIS
    assert (run.data.tags["trial.index"], run.data.tags["trial.role"]) == ("2", "trial")
    assert (run.data.tags["trial.verdict"], run.data.tags["trial.move"]) == ("PROMOTED", "hyperparameters")
    assert json.loads(run.data.tags["trial.change"]) == {"learning_rate": 0.003}
    assert run.data.metrics.items() >= row.result.metrics.items()
    assert run.data.metrics["dev/bits_per_byte"] == 2.7
    assert run.data.metrics["screen/estimate"] == -0.29
    assert run.data.params["architecture.hidden_size"] == "64"
    assert run.data.tags["nightsmith.checkpoint"] == row.result.checkpoint
    assert run.info.status == "FINISHED"
    names = {(each.dataset.name, each.tags[0].value) for each in run.inputs.dataset_inputs}
    assert names == {("abc/train", "training"), ("abc/dev", "dev")}


def test_sealed_figures_are_kept_apart_from_dev_figures(made):
    tracking.project(made.ws, made.study)
    run = shown(made)[rows_of(made)["sealed-2"].key]
    assert run.data.metrics["sealed/bits_per_byte"] == 2.75
    assert not any(name.startswith("dev/") for name in run.data.metrics)


def test_the_parent_shows_the_outcome_and_the_best_value_by_trial(made):
    tracking.project(made.ws, made.study)
    parent = parent_of(made)
    client = tracking.open_client(made.ws)
    history = client.get_metric_history(parent.info.run_id, "study/best_bits_per_byte")
    assert [(point.step, point.value) for point in history] == [(0, 3.0), (1, 3.0), (2, 2.7)]
    assert parent.data.tags["nightsmith.outcome"] == "PROVEN"
    assert parent.data.metrics["study/wall_s"] == 12.5
    assert "study/cost" in parent.data.metrics


def test_name_and_description_are_written_once_and_leave_figures_alone(made):
    tracking.project(made.ws, made.study)
    for _ in range(2):
        tracking.describe(made.ws, made.study, name=f"{made.study} PROVEN", told="by the bound.", note="PROVEN: by it.")
        tracking.summarise(made.ws, "Nothing waits for you.")
        before = contents(made.ws)
        tracking.project(made.ws, made.study)
        assert contents(made.ws) == before
    assert parent_of(made).info.run_name == f"{made.study} PROVEN"
    assert parent_of(made).data.tags["mlflow.note.content"] == "PROVEN: by it."
    assert parent_of(made).data.tags["what happened"] == "by the bound."
    assert tracking.differences(made.ws, made.study) == []


def test_the_experiment_says_how_its_page_opens_and_where_each_study_is(made):
    tracking.project(made.ws, made.study)
    tracking.summarise(made.ws, "x" * 6000)
    experiment = tracking.open_client(made.ws).get_experiment_by_name(tracking.EXPERIMENT)
    assert len(experiment.tags["mlflow.note.content"]) == 5000
    view = json.loads(experiment.tags["mlflow.sharedViewState.nightsmith"])
    assert view["searchFilter"] == "tags.`nightsmith.kind` = 'study'"
    found = tracking.pages(made.ws)
    assert found.experiment.startswith(f"#/experiments/{experiment.experiment_id}/runs?")
    assert "viewStateShareKey=nightsmith" in found.experiment
    assert f"/runs/{parent_of(made).info.run_id}/artifacts/report/index.html" in found.reports[made.study]


def test_a_copied_workspace_keeps_its_reports_to_itself(made, tmp_path):
    tracking.project(made.ws, made.study)
    # by another process: closing a copied database here would take SQLite's locks from the open one
    subprocess.run(["cp", "-a", made.ws.root, tmp_path / "copy"], check=True)
    copy = open_workspace(tmp_path / "copy")
    (tmp_path / "index.html").write_text("<html>s1</html>")
    tracking.attach_report(copy, made.study, tmp_path / "index.html")
    report = f"artifacts/{parent_of(made).info.run_id}/artifacts/report/index.html"
    assert (copy.root / report).read_text() == "<html>s1</html>"
    assert not (made.ws.root / report).exists()
    assert tracking.differences(copy, made.study) == []


def test_the_training_curve_comes_from_the_journal(made):
    tracking.project(made.ws, made.study)
    run = shown(made)[rows_of(made)["trial-1"].key]
    history = tracking.open_client(made.ws).get_metric_history(run.info.run_id, "curve/loss")
    assert [(point.step, point.value) for point in history] == [(1, 4.0), (2, 3.0), (3, 2.0)]


def test_each_layers_experts_have_their_curves(made):
    tracking.project(made.ws, made.study)
    run = shown(made)[rows_of(made)["trial-1"].key]
    client = tracking.open_client(made.ws)
    curve = client.get_metric_history(run.info.run_id, "curve/router/layer_01/dead_experts")
    assert [(point.step, point.value) for point in curve] == [(1, 2.0), (2, 1.0), (3, 0.0)]
    assert run.data.metrics["curve/router/layer_00/max_vio"] == 0.5 / 3


def test_projecting_again_changes_nothing_in_the_database(made):
    tracking.project(made.ws, made.study)
    before = contents(made.ws)
    tracking.project(made.ws, made.study)
    assert contents(made.ws) == before


def test_a_running_job_is_shown_as_running_and_completed_later(ws):
    made = JudgedStudy.started(ws)
    key = made.job("baseline-0", 0, "baseline", 3.0, 0, running=True)
    tracking.project(ws, made.study)
    assert shown(made)[key].info.status == "RUNNING"
    row = jobrows.get(ws, key)
    made.finish(row, result(key, row.spec, "baseline", 3.0))
    tracking.project(ws, made.study)
    assert shown(made)[key].info.status == "FINISHED"
    assert shown(made)[key].data.metrics["dev/bits_per_byte"] == 3.0
    assert tracking.differences(ws, made.study) == []


def test_a_failed_job_says_why(ws):
    made = JudgedStudy.started(ws)
    key = made.job("baseline-0", 0, "baseline", 3.0, 0, running=True)
    row = jobrows.get(ws, key)
    update = {"status": RunStatus.OUT_OF_MEMORY, "reason": "11 GiB were asked for.", "evaluation": None}
    made.finish(row, result(key, row.spec, "baseline", 3.0).model_copy(update=update))
    tracking.project(ws, made.study)
    run = shown(made)[key]
    assert (run.info.status, run.data.tags["nightsmith.status"]) == ("FAILED", "OUT_OF_MEMORY")
    assert run.data.tags["nightsmith.reason"] == "11 GiB were asked for."


def test_a_figure_that_was_edited_in_mlflow_is_flagged_and_not_believed(made):
    tracking.project(made.ws, made.study)
    key = rows_of(made)["trial-1"].key
    client = tracking.open_client(made.ws)
    client.log_metric(shown(made)[key].info.run_id, "dev/bits_per_byte", 1.0, step=99)
    client.set_tag(shown(made)[key].info.run_id, "trial.verdict", "PROMOTED")
    tracking.project(made.ws, made.study)
    assert tracking.differences(made.ws, made.study) == [
        tracking.Difference(key, "dev/bits_per_byte", 3.4, 1.0),
        tracking.Difference(key, "trial.verdict", "REJECTED", "PROMOTED"),
    ]


def test_missing_runs_and_strange_runs_are_flagged(made):
    tracking.project(made.ws, made.study)
    client, row = tracking.open_client(made.ws), rows_of(made)["trial-1"]
    client.delete_run(shown(made)[row.key].info.run_id)
    parent = parent_of(made)
    tags = {"nightsmith.study": made.study, "nightsmith.key": "f" * 12}
    client.create_run(parent.info.experiment_id, tags=tags)
    found = {(each.key, each.shown) for each in tracking.differences(made.ws, made.study)}
    assert found == {(row.key, None), ("f" * 12, "1 too many")}


def test_a_result_file_that_is_not_what_the_record_settled_is_flagged(made):
    tracking.project(made.ws, made.study)
    row = rows_of(made)["trial-1"]
    forged = row.result.model_copy(update={"metrics": row.result.metrics | {"train/loss": 0.1}})
    (made.ws.run_dir(row.key) / "result.json").write_text(forged.model_dump_json())
    assert tracking.Difference(row.key, "result.json", "as recorded", "changed") in tracking.differences(
        made.ws, made.study
    )


def test_the_report_lies_on_the_parent_run_inside_the_workspace(made, tmp_path):
    (tmp_path / "index.html").write_text("<p>PROVEN</p>")
    for _ in range(2):
        tracking.attach_report(made.ws, made.study, tmp_path / "index.html")
    run_id = parent_of(made).info.run_id
    found = list((made.ws.root / "artifacts" / run_id).rglob("*.html"))
    assert [path.read_text() for path in found] == ["<p>PROVEN</p>"]
    assert found[0].parent.name == "report"


def project_and_die(root, study: str) -> None:
    ws = open_workspace(root)
    client = tracking.open_client(ws)

    class Dying:
        """The real client, whose process dies in the third child."""

        created = 0

        def __getattr__(self, name):
            return getattr(client, name)

        def create_run(self, *args, **options):
            self.created += 1
            if self.created == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            return client.create_run(*args, **options)

    tracking.open_client = lambda _: Dying()
    tracking.project(ws, study)


def test_a_projection_killed_halfway_is_completed_by_the_next(made):
    process = multiprocessing.get_context("spawn").Process(target=project_and_die, args=(made.ws.root, made.study))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert 0 < len(shown(made)) < 1 + len(rows_of(made))
    tracking.project(made.ws, made.study)
    assert tracking.differences(made.ws, made.study) == []


def make_tables_by_half(root):
    """Make MLflow's tables, but not the version that says so, and die."""
    workspace = open_workspace(root)
    tracking.open_client(workspace)
    with closing(sqlite3.connect(workspace.root / tracking.DATABASE)) as db, db:
        db.execute("DELETE FROM alembic_version")
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_tables_that_a_kill_left_half_made_are_made_anew(tmp_path):
    ws = open_workspace(tmp_path / ".nightsmith")
    process = multiprocessing.get_context("spawn").Process(target=make_tables_by_half, args=(ws.root,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    made = JudgedStudy.started(ws)
    made.baseline(2.9, 3.0, 3.1)
    tracking.project(ws, made.study)
    assert tracking.differences(ws, made.study) == []


def test_two_that_project_at_once_write_each_run_once(made):
    with ThreadPoolExecutor(2) as pool:  # the lock is the kernel's, between threads as between processes
        for done in [pool.submit(tracking.project, made.ws, made.study) for _ in range(2)]:
            done.result()
    assert tracking.differences(made.ws, made.study) == []


def test_nothing_is_read_and_no_database_made_where_nothing_was_projected(tmp_path):
    ws = open_workspace(tmp_path / ".nightsmith")
    assert tracking.read_runs(ws, "s1") == []
    assert not (ws.root / "mlflow.db").exists()
