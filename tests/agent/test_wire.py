"""The wire form: it can say everything that a GoalSpec can, and nothing that the goal does not say."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from nightsmith.agent import labels, literals, wire, wire_schema
from nightsmith.agent import wire_fields as wf
from nightsmith.agent.goal import GoalSpec
from nightsmith.agent.questions import ASKS, REASONS
from nightsmith.agent.wire_error import WireError

RICH = (
    "Every weeknight at 22:00 (Europe/Zurich) until 7:00, by 2026-12-01: fine-tune Qwen3-0.6B on tickets.parquet and "
    "./notes, 16 experts, 3 layers, a context of 512 tokens, 5M tokens in all, lr 3e-3, exact match at least 85 %, "
    "lose at most 1.5 points on MMLU, at most 6 trials, 9 minutes, 90 seconds each, 40 GPU-hours, $20, 8 GPUs on "
    "2 nodes; dedupe by customer_id; call it support-v2."
)
FOUND = literals.find(RICH)
EXAMPLES = Path(__file__).parents[2] / "examples" / "planner"


def gold_goals(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (EXAMPLES / name).read_text().splitlines()]


def wires(node: wf.Node) -> st.SearchStrategy[Any]:
    match node:
        case wf.Choice(values):
            return st.sampled_from(values)
        case wf.Index():
            return st.integers(0, 3)
        case wf.Flag():
            return st.just(True)
        case wf.Many(item, most):
            return st.lists(wires(item), min_size=1, max_size=min(most, 3))
        case wf.Pick():
            ids = [c.id for c in FOUND if c.kind in node.kinds and (not node.whole or float(c.value).is_integer())]
            return st.sampled_from([*ids, *node.names])
        case wf.Record(fields):
            required = {f.key: wires(f.node) for f in fields if f.required}
            return st.fixed_dictionaries(required, optional={f.key: wires(f.node) for f in fields if not f.required})


@settings(max_examples=150, deadline=None)
@given(wires(wf.SPEC))
def test_every_spec_survives_the_way_to_the_wire_and_back(body: dict[str, Any]):
    head = {"s": "ask", "ask": ["targets"]}
    try:
        meaning = wire.expand({**head, **body}, RICH, FOUND)
    except WireError:
        assume(False)
        return
    again = wire.expand(wire.compress(meaning, FOUND), RICH, FOUND)
    assert again.spec == meaning.spec
    assert again.questions == meaning.questions


@settings(max_examples=150, deadline=None)
@given(wires(wf.SPEC))
def test_every_spec_that_labels_can_say_survives_the_way_to_an_answer_and_back(body: dict[str, Any]):
    try:
        answer = labels.labelled({"s": "ready", **body}, FOUND)
        again = labels.unlabelled(answer, FOUND)
        once = labels.unlabelled(labels.labelled(again, FOUND), FOUND)
    except WireError:
        assume(False)
        return
    assert once == again
    assert all(len(again.get(key, [])) == len(body.get(key, [])) for key in ("data", "want", "keep", "set", "avoid"))


GOLD_GOALS = sorted(path.name for path in EXAMPLES.glob("handwritten*.jsonl") if "converse" not in path.name)
GOLD_GOALS += ["heldout.jsonl", "heldout_second.jsonl", "heldout_tuning.jsonl"]
"""The later held-out goals are held out for the finder of literals too."""


@pytest.mark.parametrize("name", GOLD_GOALS)
def test_the_gold_answers_of_the_corpus_can_be_said_and_come_back(name: str):
    for case in gold_goals(name):
        found = literals.find(case["goal"])
        meaning = wire.expand(wire.ground(case["gold"], found), case["goal"], found)
        answer = labels.labelled(wire.compress(meaning, found), found)
        again = wire.expand(labels.unlabelled(answer, found), case["goal"], found)
        assert (again.status, again.reasons, again.questions) == (meaning.status, meaning.reasons, meaning.questions)
        assert in_text_order(again.spec) == in_text_order(meaning.spec)
        jsonschema.validate(answer, wire_schema.SCHEMA)


def in_text_order(spec: GoalSpec | None) -> Any:
    """A spec as JSON; data and settings, whose order means nothing, sorted."""
    fields = {} if spec is None else spec.model_dump(mode="json")
    return {key: sorted(map(str, part)) if key in ("data", "settings") else part for key, part in fields.items()}


def leaves(model: type[BaseModel], prefix: str = "") -> set[str]:
    names: set[str] = set()
    for name, info in model.model_fields.items():
        inner = [part for part in _types(info.annotation) if isinstance(part, type) and issubclass(part, BaseModel)]
        nested = {f"{prefix}{info.alias or name}.{leaf}" for part in inner for leaf in leaves(part)}
        names |= nested or {f"{prefix}{info.alias or name}"}
    return names


def _types(annotation: Any) -> list[Any]:
    arguments = getattr(annotation, "__args__", ())
    return [annotation, *(inner for argument in arguments for inner in _types(argument))]


def said(record: wf.Record, prefix: str = "") -> set[str]:
    names: set[str] = set()
    for f in record.fields:
        node = f.node.item if isinstance(f.node, wf.Many) else f.node
        names |= said(node, f"{prefix}{f.name}.") if isinstance(node, wf.Record) else {f"{prefix}{f.name}"}
    return names


def test_the_wire_form_has_a_place_for_every_field_of_the_goal_spec():
    money = {"budget.cost.amount", "budget.cost.currency"}
    assert leaves(GoalSpec) - {"schema", "goal"} - money == said(wf.SPEC) - {"budget.cost"}


def test_an_id_that_is_not_listed_is_refused_with_the_ids_that_are():
    with pytest.raises(WireError, match=r"'L63' is not a literal of this goal \(there are: L0 to L"):
        wire.expand({"s": "ready", "do": "evaluate", "model": "L63"}, RICH, FOUND)


def test_a_number_typed_by_the_model_is_refused():
    answer = {"s": "ready", "do": "train", "data": [{"r": "L0"}], "want": [{"m": "loss", "op": "<", "v": 3}]}
    with pytest.raises(WireError):
        wire.expand(answer, RICH, FOUND)


def test_a_literal_of_the_wrong_kind_is_refused_by_name():
    path = next(c for c in FOUND if c.value == "tickets.parquet")
    with pytest.raises(WireError, match="is a text, here must be a duration"):
        wire.expand({"s": "ready", "do": "evaluate", "max": {"time": path.id}}, RICH, FOUND)


def test_a_share_cannot_be_a_number_of_trials():
    share = next(c for c in FOUND if c.value == 0.85)
    with pytest.raises(WireError, match="not a whole number"):
        wire.expand({"s": "ready", "do": "evaluate", "max": {"trials": share.id}}, RICH, FOUND)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({}, "s: None"),
        ({"s": "ready"}, "do: missing"),
        ({"s": "ready", "do": "train"}, "needs a target"),
        ({"s": "ready", "do": "build_data"}, "data: missing"),
        ({"s": "ask", "ask": []}, "one to three"),
        ({"s": "blocked", "why": ["because"]}, "one to three"),
        ({"s": "ready", "do": "evaluate", "x": 1}, "unknown key 'x'"),
        ({"s": "ready", "do": "evaluate", "want": [{"m": "loss", "op": ">="}]}, "needs one"),
        ({"s": "ready", "do": "dance"}, "not one of train"),
    ],
)
def test_answers_that_cannot_stand_are_refused_with_the_reason(answer: dict[str, Any], error: str):
    with pytest.raises(WireError, match=error):
        wire.expand(answer, RICH, FOUND)


def test_sources_say_where_each_literal_comes_from():
    goal = "Pre-train on ./notes until perplexity is 1.5 below the baseline"
    found = literals.find(goal)
    target = {"m": "perplexity", "op": "<=", "v": -1.5, "to": "baseline"}
    answer = wire.ground(
        {"s": "ready", "do": "train", "how": ["pretrain"], "data": [{"r": "./notes"}], "want": [target]}, found
    )
    sources = wire.expand(answer, goal, found).sources
    assert sources == {"/data/0/ref": {"span": [13, 20]}, "/targets/0/value": {"rule": "downwards"}}


BASE = {"s": "ready", "do": "train", "how": ["sft"], "model": "./m", "data": [{"r": "a.csv"}]}


@pytest.mark.parametrize(
    ("words", "key", "target", "value"),
    [
        ("score higher in accuracy than ./tutor", "want", {"m": "accuracy", "op": ">", "to": "./tutor"}, 0),
        ("fewer output tokens than now", "want", {"m": "output_tokens", "op": "<", "to": "baseline"}, 0),
        ("accuracy may go 2 points", "keep", {"m": "accuracy", "op": ">=", "v": 0.02, "to": "baseline"}, -0.02),
        ("accuracy 2 points", "want", {"m": "accuracy", "op": ">=", "v": 0.02, "to": "baseline"}, 0.02),
        ("perplexity by 3", "want", {"m": "perplexity", "op": "<=", "v": 3, "to": "baseline"}, -3),
        ("perplexity by 3", "keep", {"m": "perplexity", "op": "<=", "v": 3, "to": "baseline"}, 3),
    ],
)
def test_a_difference_needs_no_amount_and_goes_the_way_that_its_kind_goes(
    words: str, key: str, target: dict[str, Any], value: float
):
    goal = f"Fine-tune ./m on a.csv, loss as low as you can, {words}"
    found = literals.find(goal)
    body = {**BASE, "want": [{"m": "loss", "op": "min"}]}
    body[key] = [*body.get(key, []), target]
    spec = wire.expand(wire.ground(body, found), goal, found).spec
    assert spec is not None
    settled = spec.targets[-1] if key == "want" else spec.guardrails[-1]
    assert settled.value == value
    assert (
        f"/{'targets' if key == 'want' else 'guardrails'}/{1 if key == 'want' else 0}/value"
        in wire.expand(wire.ground(body, found), goal, found).sources
    )


def test_blocked_answers_carry_reasons_in_words_and_no_spec():
    meaning = wire.expand({"s": "blocked", "why": ["seed_hunting"]}, f"{RICH} Reseed it until it passes.", FOUND)
    assert meaning.spec is None
    assert "selects luck" in meaning.reason_texts()[0]


def test_the_schema_has_no_free_text_and_puts_required_keys_first():
    text = json.dumps(wire_schema.SCHEMA)
    assert [word for word in ("maxLength", "pattern", "null", '"string"', '"number"') if word in text] == []

    def check(schema: Any) -> None:
        for part in schema.values() if isinstance(schema, dict) else schema:
            if isinstance(part, (dict, list)):
                check(part)
        if isinstance(schema, dict) and "properties" in schema:
            keys = list(schema["properties"])
            assert keys[: len(schema["required"])] == schema["required"]
            assert schema["additionalProperties"] is False

    check(wire_schema.SCHEMA)


def test_every_label_but_nothing_has_a_place_in_the_wire_form():
    assert [label for label in labels.LABELS if labels.node(label) is None] == [labels.NOTHING]
    assert len(set(labels.LABELS)) == len(labels.LABELS)


ANSWER = {"s": "read", **{c.id: "-" for c in FOUND}, "do": "evaluate", "ask": []}
PATH = next(c.id for c in FOUND if c.value == "tickets.parquet")
OTHER = next(c.id for c in FOUND if c.value == "./notes")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"s": "ready"}, "not one of read, blocked"),
        ({PATH: "dataset"}, "'dataset' is no label"),
        ({PATH: "model", OTHER: "model"}, "a goal has one"),
        ({PATH: "want.data"}, "want has 0"),
        ({PATH: "dedup:by"}, "steps has no dedup"),
        ({PATH: "setting"}, "no literal is its value"),
        ({"also": [{"l": PATH}]}, "also: each is an object"),
        ({"L63": "model"}, "unknown key 'L63'"),
    ],
)
def test_answers_whose_labels_do_not_fit_are_refused_with_the_reason(change: dict[str, Any], error: str):
    with pytest.raises(WireError, match=error):
        labels.unlabelled(ANSWER | change, FOUND)


def test_an_answer_that_leaves_a_literal_out_is_refused_by_name():
    short = {key: part for key, part in ANSWER.items() if key != PATH}
    with pytest.raises(WireError, match=f"{PATH}: no label"):
        labels.unlabelled(short, FOUND)


def test_every_question_and_reason_has_words():
    assert len(ASKS) == 10
    assert len(REASONS) == 6


def test_the_narrow_schema_offers_each_literal_only_labels_that_suit_it():
    found = literals.find("Pre-train on ./notes until perplexity is below 12.5; 3 trials, 9 minutes")
    read = wire_schema.narrowed(found, without=("steps",))["anyOf"][0]["properties"]
    offered = {c.value: set(read[c.id]["enum"]) for c in found}
    some = {"train", "time", "trials"}
    told = [offered[value] & some for value in ("./notes", 540.0, 3.0, 12.5)]
    assert told == [{"train"}, {"time"}, {"trials"}, set()]
    assert not any("sample:rows" in found for found in offered.values())
    assert "steps" not in read


def test_the_narrow_schema_of_a_goal_without_literals_asks_for_no_label():
    assert wire_schema.narrowed(())["anyOf"][0]["required"] == ["s"]
