"""A fine-tuning end to end: a model folder and two tables of one's own, two stages; only the planner is a double."""

import json

import pytest
import tuning_study
from tuning_study import ANOTHER, GOAL, STOP

from nightsmith.agent.plan import StudyPlan
from nightsmith.record import audit
from nightsmith.record.workspace import open_workspace
from nightsmith.trainer import jobrows, tracking
from nightsmith.trainer.spec import EvaluateSpec, SftSpec

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """The study, run once for the tests that look at it."""
    folder = tmp_path_factory.mktemp("tuning")
    with tuning_study.bench(folder, tuning_study.reading(), {"t": [ANOTHER]}, {"t": [STOP]}) as bench:
        finished = bench.run("run", GOAL, "--yes", "--json")
        yield bench, finished


@pytest.fixture(scope="module")
def ws(ended):
    return open_workspace(ended[0].workspace)


def jobs_of(ws, role: str) -> list[jobrows.JobRow]:
    return [row for row in jobrows.rows(ws, "s1") if row.role == role]


def test_a_target_that_two_answers_make_easy_is_proven_or_met(ended):
    _, finished = ended
    assert finished.returncode == 0, finished.stderr
    assert ended[0].show()["outcome"] in ("PROVEN", "MET")


def test_the_baseline_is_the_model_in_the_folder_as_it_is_evaluated_once(ended, ws):
    (baseline,) = jobs_of(ws, "baseline")
    assert isinstance(baseline.spec, EvaluateSpec)
    assert baseline.spec.checkpoint == str(ended[0].folder / "tiny-llama")
    assert jobs_of(ws, "calibration") == []


def test_every_trial_goes_through_both_stages_and_the_second_starts_from_the_firsts_weights(ws):
    first = {row.result.checkpoint_digest: row for row in jobs_of(ws, "stage") if row.result}
    for row in jobs_of(ws, "trial"):
        assert isinstance(row.spec, SftSpec)
        before = first[row.spec.model.weights_digest]
        assert before.trial == row.trial
        assert row.spec.data != before.spec.data
    assert {row.trial for row in first.values()} == {row.trial for row in jobs_of(ws, "trial")}


def test_only_the_last_stage_is_evaluated_and_on_the_suite_of_the_baseline(ws):
    (baseline,) = jobs_of(ws, "baseline")
    assert {row.spec.dev_suite for row in jobs_of(ws, "trial")} == {baseline.spec.suite}
    assert {row.spec.dev_suite for row in jobs_of(ws, "stage")} == {None}


def test_the_first_trial_is_the_plans_recipe_and_later_ones_change_one_setting(ended):
    plans = {trial["number"]: trial["plan"] for trial in ended[0].show()["trials"]}
    assert (plans[1]["move"], plans[1]["change"]) == ("recipe", {})
    assert all(len(plan["change"]) == 1 for number, plan in plans.items() if number > 1)


def test_what_was_approved_is_fine_tuning_and_evaluation_by_the_plan_that_was_shown(ended, ws):
    with ws.read() as db:
        envelope = json.loads(db.execute("SELECT approval FROM approvals").fetchone()["approval"])["envelope"]
    plan = StudyPlan.model_validate(ended[0].show()["plan"])
    assert envelope["kinds"] == ["sft", "evaluate"]
    assert envelope["plan_digest"] == plan.digest()


def test_the_report_shows_both_sides_ten_answers_the_columns_and_the_audit(ended):
    html = (ended[0].workspace / "reports" / "s1" / "index.html").read_text()
    for said in ("Before and after", "Answers before and after", "Frage d. Kunden", "kundenanliegen", "stop token"):
        assert said in html, said
    assert html.count('data-label="Reference"') == 10
    assert "<script" not in html


def test_show_tells_both_sides_with_their_intervals(ended):
    sides = ended[0].show()["sides"]
    assert [split["split"] for split in sides["splits"]] == ["dev", "sealed"]
    measured = {pair["metric"] for pair in sides["splits"][1]["metrics"]}
    assert {"exact_match", "token_f1", "output_tokens", "loss", "perplexity", "bits_per_byte"} <= measured
    match = sides["splits"][1]["metrics"][0]
    assert match["metric"] == "exact_match"
    assert match["after"]["low"] <= match["after"]["value"] <= match["after"]["high"]


def test_every_figure_in_mlflow_is_that_of_its_result_file(ws):
    assert tracking.differences(ws, "s1") == []


def test_the_audit_chain_of_the_study_is_whole(ws):
    assert audit.verify(ws) is None
