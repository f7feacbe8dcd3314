"""Goals that evaluate a model or compare two, from the sentence to the report; only the planner is a double."""

import csv
import json

import pytest
import tiny_study
from tiny_models import write_model

from nightsmith.agent import labels, literals, side_by_side
from nightsmith.evals import stats
from nightsmith.evals.suite import read_scored
from nightsmith.record import audit
from nightsmith.record.workspace import open_workspace
from nightsmith.trainer import jobrows, tracking

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]
PLAIN = "Evaluate ./tiny-llama on ./seen.csv, no training."
SEEN = "Only evaluate ./tiny-llama on ./seen.csv: is exact match at least 0.8?"
BOUND = "Only evaluate ./tiny-llama on ./faq.csv: is exact match at least 0.8?"
PAIRED = "Compare ./tiny-llama with ./tiny-qwen on ./faq.csv by bits per byte; which is better?"
AHEAD = "Compare ./tiny-qwen with ./tiny-llama on ./more.csv: bits per byte at least 0.01 below ./tiny-llama."
GOALS = (PLAIN, BOUND, BOUND, PAIRED, SEEN, AHEAD)


def reading(goal, do, *, metric=None, op=None, value=None, to=None, model="./tiny-llama"):
    found = {candidate.value: candidate.id for candidate in reversed(literals.find(goal))}
    data = next(found[name] for name in ("./faq.csv", "./seen.csv", "./more.csv") if name in found)
    wire = {"s": "ready", "do": do, "model": found[model], "data": [{"r": data, "as": "eval"}]}
    if metric:
        target = {"m": metric, "op": op}
        target |= {"v": found[value]} if value else {}
        wire["want"] = [target | ({"to": found[to]} if to else {})]
    return labels.labelled(wire, literals.find(goal))


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Six studies: a figure, a threshold, it again, a comparison, a threshold on known rows, one for a difference."""
    bound = reading(BOUND, "evaluate", metric="exact_match", op=">=", value=0.8)
    paired = reading(PAIRED, "compare", metric="bits_per_byte", op="min", to="./tiny-qwen")
    seen = reading(SEEN, "evaluate", metric="exact_match", op=">=", value=0.8)
    told = {"metric": "bits_per_byte", "op": "<=", "value": -0.01, "to": "./tiny-llama", "model": "./tiny-qwen"}
    ahead = reading(AHEAD, "compare", **told)
    answers = (reading(PLAIN, "evaluate"), bound, bound, paired, seen, ahead)
    with tiny_study.bench(tmp_path_factory.mktemp("measured"), *answers) as bench:
        write_model(bench.folder / "tiny-llama")
        write_model(bench.folder / "tiny-qwen", "qwen3_moe")
        for name, first in (("faq.csv", 0), ("seen.csv", 50), ("more.csv", 100)):
            with (bench.folder / name).open("w", newline="") as file:
                table = csv.writer(file)
                table.writerow(["question", "answer"])
                table.writerows(
                    [f"What is {first + number} plus one?", str(first + number + 1)] for number in range(30)
                )
        yield bench, [bench.run("run", goal, "--yes", "--json") for goal in GOALS]


def test_a_model_is_evaluated_on_every_row_and_ends_done_with_figure_interval_and_n(ended):
    bench, runs = ended
    assert runs[0].returncode == 0, runs[0].stderr + runs[0].stdout
    shown, ws = bench.show("s1"), open_workspace(bench.workspace)
    (job,) = jobrows.rows(ws, "s1")
    scored = read_scored(ws.run_dir(job.key), job.result.evaluation)
    assert (shown["outcome"], shown["measurement"]["n"], shown["measurement"]["main"]) == ("MET", 30, "exact_match")
    (model,) = shown["measurement"]["models"]
    for metric, figure in model["metrics"].items():
        assert figure == side_by_side.figure(scored.items, metric).model_dump()
    assert model["weights_digest"] == job.result.checkpoint_digest


def test_a_threshold_that_is_not_reached_is_not_met_on_sealed_rows_with_exit_status_3(ended):
    bench, runs = ended
    assert runs[1].returncode == 3, runs[1].stderr
    shown = bench.show("s2")
    assert (shown["outcome"], shown["seal"]["opened"]) == ("NOT_MET", True)
    assert (shown["claims"][0]["n"], shown["claims"][0]["met"]) == (30, False)
    assert "is not reached" in (bench.workspace / "reports" / "s2" / "report.md").read_text()


def test_the_same_sealed_rows_are_not_looked_at_twice_and_the_way_out_is_named(ended):
    bench, runs = ended
    assert runs[2].returncode == 3
    assert bench.show("s3")["outcome"] == "STOPPED"
    assert "leave the threshold out" in bench.show("s3")["reason"]
    assert jobrows.rows(open_workspace(bench.workspace), "s3") == []


def test_no_threshold_is_proven_on_rows_whose_figures_are_known(ended):
    bench, runs = ended
    assert runs[4].returncode == 3
    assert "were evaluated already, first by job" in bench.show("s5")["reason"]
    assert jobrows.rows(open_workspace(bench.workspace), "s5") == []


def test_a_difference_with_a_threshold_is_claimed_by_the_paired_bound_on_sealed_rows(ended):
    bench, runs = ended
    shown = bench.show("s6")
    (claim,) = shown["claims"]
    outcome = "PROVEN" if claim["bound"] <= -0.01 else "MET" if claim["estimate"] <= -0.01 else "NOT_MET"
    assert claim["estimate"] == pytest.approx(shown["measurement"]["differences"][0]["estimate"])
    assert (shown["outcome"], runs[5].returncode) == (outcome, 3 if outcome == "NOT_MET" else 0), runs[5].stderr
    assert shown["seal"]["opened"]


def test_two_models_are_compared_row_by_row_and_the_verdict_follows_from_the_interval(ended):
    bench, runs = ended
    assert runs[3].returncode == 0, runs[3].stderr + runs[3].stdout
    shown, ws = bench.show("s4"), open_workspace(bench.workspace)
    second, first = sorted(jobrows.rows(ws, "s4"), key=lambda row: row.trial)
    items = [read_scored(ws.run_dir(row.key), row.result.evaluation).items for row in (first, second)]
    effect = stats.fixed_effect([items[0]], items[1], "bits_per_byte")
    told = shown["measurement"]["differences"][0]
    assert [model["name"] for model in shown["measurement"]["models"]] == ["./tiny-llama", "./tiny-qwen"]
    assert (told["estimate"], tuple(told["interval"])) == (effect.estimate, effect.interval(0.05))
    low, high = told["interval"]
    assert told["better"] == (None if low <= 0 <= high else "first" if high < 0 else "second")
    said = "is better than" if told["better"] else "no difference between"
    assert said in shown["reason"]
    for name in ("report.md", "index.html"):
        page = (bench.workspace / "reports" / "s4" / name).read_text()
        assert "paired by row" in page
        assert "No trial was proposed" not in page


def test_both_sides_ran_as_jobs_under_the_approval_and_mlflow_shows_their_figures(ended):
    bench, _ = ended
    ws = open_workspace(bench.workspace)
    for study in ("s1", "s2", "s4"):
        assert tracking.differences(ws, study) == []
        with ws.read() as db:
            row = db.execute("SELECT approval FROM approvals WHERE study = ?", (study,)).fetchone()
        assert json.loads(row["approval"])["envelope"]["kinds"] == ["evaluate"]
    assert audit.verify(ws) is None
