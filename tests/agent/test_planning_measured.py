"""Plans of goals that only measure, and what they refuse."""

import csv

import pytest
from tiny_models import write_model

from nightsmith.agent.fitting import Blocked, Machine
from nightsmith.agent.goal import DataRef, GoalSpec, PipelineRequest, Setting
from nightsmith.agent.planning import study_plan
from nightsmith.agent.preflight import preflight
from nightsmith.evals.types import Target
from nightsmith.record.budget import Budget
from nightsmith.record.errors import NightsmithError
from nightsmith.record.workspace import open_workspace

MATCH = Target(metric="exact_match", op=">=", value=0.8)


@pytest.fixture
def here(tmp_path):
    write_model(tmp_path / "tiny-llama")
    with (tmp_path / "faq.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["question", "answer"])
        table.writerows([f"What is {number} plus one?", str(number + 1)] for number in range(40))
    return tmp_path


def asked(**more) -> GoalSpec:
    known = {"intent": "evaluate", "model": "./tiny-llama", "data": (DataRef(ref="./faq.csv", role="eval"),)}
    return GoalSpec(goal="x", **(known | more))


def planned(here, **more):
    return preflight(asked(**more), open_workspace(here / ".nightsmith"), here)


def test_without_a_metric_answers_are_measured_by_exact_match_and_the_plan_says_so(here):
    plan = planned(here)
    assert "No metric is named: exact match is told first." in plan.assumptions
    assert plan.calls[-1].args | {"split": "dev", "kind": "chat", "answers": True} == plan.calls[-1].args
    assert plan.stages == ()


def test_a_plan_of_data_that_nobody_looked_at_says_that_its_rows_are_a_guess():
    plan = study_plan(asked(targets=(MATCH,)), Machine())
    assert any("Nobody has looked at the data" in said for said in plan.assumptions)
    assert plan.calls[-1].args["kind"] == "chat"


def test_a_threshold_makes_the_rows_sealed(here):
    plan = planned(here, targets=(MATCH,))
    assert plan.calls[-1].args["split"] == "sealed"
    assert plan.calls[1].args["sealed_sources"] == ["./faq.csv"]


def test_a_sample_that_the_goal_asks_for_is_what_is_evaluated(here):
    plan = planned(here, pipeline=(PipelineRequest(step="sample", amount=10, unit="rows"),))
    assert plan.calls[-1].args["max_items"] == 10
    assert any("Of about 40 rows 10 are evaluated" in said for said in plan.assumptions)


def test_more_rows_than_the_time_holds_are_not_evaluated(here):
    plan = study_plan(asked(budget=Budget(wall_clock_s=60)), Machine())
    assert plan.calls[-1].args["max_items"] < 2000
    assert plan.estimate.total_s <= 60
    with pytest.raises(Blocked, match="do not hold an evaluation"):
        planned(here, budget=Budget(wall_clock_s=20))


def test_few_texts_are_cut_and_every_row_of_them_is_evaluated(here):
    (here / "notes").mkdir()
    for number in range(10):
        (here / "notes" / f"{number}.txt").write_text(f"page {number} says nothing new\n" * 100)
    plan = planned(here, data=(DataRef(ref="./notes", role="eval"),))
    assert plan.calls[1].args["chunk_bytes"] >= 256
    assert plan.calls[-1].args["max_items"] >= 10 * 3000 / plan.calls[1].args["chunk_bytes"]
    assert "Of each text at most 4,096 bytes are scored, from its beginning." in plan.assumptions


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"data": ()}, "Benchmarks are not built in"),
        ({"targets": (Target(metric="accuracy", op="max", task="mmlu"),)}, "'mmlu' is a benchmark by name"),
        ({"targets": (Target(metric="win_rate", op="max"),)}, "use bits_per_byte, perplexity, loss, exact_match"),
        ({"targets": (Target(metric="accuracy", op="max"),)}, "prompts and answers; use"),
        ({"targets": (Target(metric="exact_match", op=">=", value=0.0, relative_to="./b"),)}, "Ask for a comparison"),
        ({"guardrails": (MATCH,)}, "a guardrail too"),
        ({"methods": ("sft",)}, "training too"),
        ({"settings": (Setting(name="epochs", value=3),)}, "settings too"),
        ({"pipeline": (PipelineRequest(step="redact_pii"),)}, "possible are dedup and sample"),
        ({"model": "./tiny-lama"}, "Did you mean 'tiny-llama'"),
        ({"intent": "compare"}, "needs two models"),
        ({"intent": "compare", "targets": (MATCH,)}, "the goal names ./tiny-llama"),
        (
            {"intent": "compare", "targets": (Target(metric="loss", op="min", relative_to="./tiny-llama"),)},
            "hold the same weights",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_with_a_way_out(here, more, said):
    with pytest.raises(NightsmithError, match=said):
        planned(here, **more)
