"""What a text cannot mean is refused, whoever reads it so; what it can mean passes."""

import json
from pathlib import Path
from typing import Any

import pytest

from nightsmith.agent import grounds, literals, questions, wire, wire_schema
from nightsmith.agent.goal import GoalSpec
from nightsmith.agent.wire_error import Missing, WireError

WORK = {"do": "train", "how": ["sft"]}


def spec(goal: str, want: dict[str, Any], **more: Any) -> GoalSpec:
    """What becomes of a reading given by values; the first text is the data."""
    found = literals.find(goal)
    data = next(candidate for candidate in found if candidate.kind == "text")
    rest = {"s": "ready", **WORK, "data": [{"r": data.value}], **more}
    answer = wire.ground(rest, found) | {"want": [{**want, "v": literal(goal, want["v"])} if "v" in want else want]}
    meaning = wire.expand(answer, goal, found)
    assert meaning.spec is not None
    return meaning.spec


def literal(goal: str, value: float) -> str:
    return next(candidate.id for candidate in literals.find(goal) if candidate.value == value)


@pytest.mark.parametrize(
    ("goal", "want"),
    [
        ("Tune SmolLM2 on t.csv, 2 trials, 6 minutes", {"m": "exact_match", "op": ">=", "v": 360.0}),
        ("Tune on t.csv, exact match matters, 6 minutes", {"m": "exact_match", "op": ">=", "v": 360.0}),
        ("Tune on t.csv with 40 steps; the loss counts", {"m": "loss", "op": "<=", "v": 40.0}),
        ("Tune on t.csv for two epochs, watch the loss", {"m": "loss", "op": "<=", "v": 2.0}),
        ("Tune on t.csv, 500k tokens at most, watch the loss", {"m": "loss", "op": "<=", "v": 5e5}),
        ("Tune on t.csv, learning rate 2e-4", {"m": "loss", "op": "<=", "v": 2e-4}),
        ("Tune on t.csv, rank 8, watch accuracy", {"m": "accuracy", "op": ">=", "v": 8.0}),
        ("Tune on t.csv, at most 2 trials", {"m": "loss", "op": "min"}),
        ("Tune on t.csv, no more than 2 trials", {"m": "loss", "op": "min"}),
        ("Tune on t.csv with 5 % warmup", {"m": "accuracy", "op": ">=", "v": 0.05}),
    ],
)
def test_a_target_that_the_text_cannot_mean_asks_for_one(goal: str, want: dict[str, Any]):
    with pytest.raises(Missing) as refused:
        spec(goal, want)
    assert refused.value.asks == "targets"


@pytest.mark.parametrize(
    ("goal", "want"),
    [
        ("Tune on t.csv until exact match is 0.4", {"m": "exact_match", "op": ">=", "v": 0.4}),
        ("Tune on t.csv until 85 % of the answers are right", {"m": "exact_match", "op": ">=", "v": 0.85}),
        ("Tune on t.csv, perplexity below 360, 6 minutes", {"m": "perplexity", "op": "<", "v": 360.0}),
        ("Tune on t.csv until at least 0.6 token F1", {"m": "token_f1", "op": ">=", "v": 0.6}),
        ("Tune on t.csv, at least 2 bits per byte lower", {"m": "bits_per_byte", "op": "<=", "v": 2.0}),
        (
            "Tune on t.csv, answers of at most 400 tokens in output tokens",
            {"m": "output_tokens", "op": "<=", "v": 400.0},
        ),
        ("Tune on t.csv, lower it as far as you can, 2 trials", {"m": "loss", "op": "min"}),
        ("Tune on t.csv, 3x better than now", {"m": "accuracy", "op": ">=", "v": 3.0, "to": "baseline", "by": "ratio"}),
        ("Tune on t.csv until p95 latency is 2 s", {"m": "custom", "op": "<=", "v": 2.0}),
    ],
)
def test_a_target_that_the_text_can_mean_passes(goal: str, want: dict[str, Any]):
    assert spec(goal, want).targets[0].metric == want["m"]


def test_one_place_in_the_text_is_not_both_a_setting_and_a_target():
    goal = "Tune on t.csv, accuracy, batch size 1"
    with pytest.raises(WireError, match="is the value of /settings/0/value already"):
        spec(goal, {"m": "accuracy", "op": ">=", "v": 1.0}, set=[{"k": "batch_size", "v": 1.0}])


def test_whether_a_text_can_name_a_target_is_seen_without_reading_it():
    can = {
        goal: grounds.can_aim(goal, literals.find(goal)) for goal in ("t.csv, 2 trials", "t.csv, loss 2", "best loss")
    }
    assert list(can.values()) == [False, True, True]


def test_an_answer_joins_the_goal_under_the_name_of_what_was_asked_and_without_the_question():
    asked = [questions.question(code).model_dump() for code in ("targets", "data")]
    told = questions.named(asked, ["perplexity at most 9", "./notes"])
    text = questions.with_answers("Pre-train an MoE from scratch.", told)
    assert text == "Pre-train an MoE from scratch.\nTarget: perplexity at most 9\nData: ./notes"
    assert 12 not in [candidate.value for candidate in literals.find(text)]
    assert (
        questions.with_answers("A goal.", questions.named(asked, ["one answer for both"]))
        == "A goal.\none answer for both"
    )


def test_training_steps_are_no_amount_of_data():
    goal = "Pre-train on ./notes with 40 steps until the loss is below 2"
    found = {candidate.value: candidate.id for candidate in literals.find(goal)}
    body = {
        "s": "ready",
        "do": "train",
        "data": [{"r": found["./notes"]}],
        "steps": [{"do": "split", "n": found[40.0]}],
    }
    with pytest.raises(WireError, match="counts steps"):
        wire.expand(body, goal, literals.find(goal))
    with pytest.raises(WireError, match="nothing to be done to the data"):
        wire.expand(body | {"steps": [{"do": "split"}]}, goal, literals.find(goal))
    assert grounds.unspoken(goal) == ("steps",)
    assert grounds.unspoken(f"{goal}; dedupe first") == ()


DEMANDS: dict[str, list[str]] = json.loads((Path(__file__).parents[2] / "examples/planner/refusals.json").read_text())[
    "DEMANDS"
]


@pytest.mark.parametrize("reason", DEMANDS)
def test_a_demand_that_is_dishonest_may_be_blocked(reason: str):
    for demand in DEMANDS[reason]:
        assert wire.expand({"s": "blocked", "why": [reason]}, f"Tune ./m on t.csv, {demand}", ()).status == "blocked"


@pytest.mark.parametrize(
    ("goal", "reason"),
    [
        ("Pre-train on ./notes and lower the bits per byte as far as you can", "evaluator"),
        ("Tune ./m on t.csv until the loss is 1.5, 3 trials, 20 minutes", "own_budget"),
        ("Tune ./m on t.csv till ROUGE-L has gone up by 6 points", "missing_source"),
        ("Tune ./m on t.csv until the loss is 1.5", "seed_hunting"),
    ],
)
def test_a_goal_without_a_word_of_the_reason_is_not_blocked_for_it(goal: str, reason: str):
    with pytest.raises(WireError, match=reason):
        wire.expand({"s": "blocked", "why": [reason]}, goal, ())
    assert reason not in json.dumps(wire_schema.narrowed((), (), grounds.told_reasons(goal)))


def test_a_goal_that_only_says_what_must_not_get_worse_is_asked_for_its_target():
    goal = "Fine-tune ./a on t.csv; accuracy on old.csv must stay at 0.8"
    found = literals.find(goal)
    keep = {"m": "accuracy", "op": ">=", "v": 0.8, "data": "old.csv"}
    answer = wire.ground({"s": "ready", **WORK, "model": "./a", "data": [{"r": "t.csv"}], "keep": [keep]}, found)
    with pytest.raises(Missing) as refused:
        wire.expand(answer, goal, found)
    assert refused.value.asks == "targets"
