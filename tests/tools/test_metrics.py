"""The planner's history: trials as MLflow shows them."""

import pytest
from judged_study import HYPOTHESIS, JudgedStudy

from nightsmith.evals.types import Decision
from nightsmith.record.workspace import open_workspace
from nightsmith.tools.metrics import read_metrics
from nightsmith.trainer import tracking


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    made = JudgedStudy.started(open_workspace(tmp_path_factory.mktemp("metrics") / ".nightsmith"))
    made.baseline(2.9, 3.0, 3.1)
    made.trial(1, 3.4, 0.4, Decision.REJECTED)
    made.job("confirmation-1", 1, "confirmation", 9.9, 1001)
    made.job("sealed-1", 1, "sealed", 9.9, 0)
    return made


def test_history_is_one_row_a_trial_with_means_over_the_baseline_s_seeds(made):
    assert read_metrics(made.ws, made.study) == ()
    tracking.project(made.ws, made.study)
    baseline, trial = read_metrics(made.ws, made.study)
    assert (baseline.trial, baseline.num_runs, baseline.verdict) == (0, 3, "none yet")
    assert baseline.metrics["dev/bits_per_byte"] == pytest.approx(3.0)
    assert (trial.trial, trial.num_runs, trial.verdict) == (1, 1, "REJECTED")
    assert (trial.move, trial.hypothesis, trial.change) == ("hyperparameters", HYPOTHESIS, {"learning_rate": 0.003})
    assert (trial.metrics["dev/bits_per_byte"], trial.metrics["screen/estimate"]) == (3.4, 0.4)
    assert trial.statuses == ("FINISHED",)


def test_history_is_what_mlflow_shows(made):
    tracking.project(made.ws, made.study)
    run = next(r for r in tracking.read_runs(made.ws, made.study) if r.data.tags.get("nightsmith.step") == "trial-1")
    tracking.open_client(made.ws).log_metric(run.info.run_id, "time/wall_s", 77.0, step=50)
    assert read_metrics(made.ws, made.study)[1].metrics["time/wall_s"] == 77.0
