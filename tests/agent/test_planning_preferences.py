"""Goals that train on preferences: whose data is what, which suite judges, what is refused, and what it takes."""

import dataclasses
import json
from pathlib import Path

import pytest

from nightsmith.agent import proposals
from nightsmith.agent.goal import DataRef, GoalSpec, Setting
from nightsmith.agent.looking import DataLook, Look, ModelLook, look_at
from nightsmith.agent.planning import Blocked, Machine, study_plan
from nightsmith.evals.types import Target
from nightsmith.model.size import ModelSize
from nightsmith.tools import registry
from nightsmith.tools.base import ToolCall
from nightsmith.tools.data.conversations import ChatColumns
from nightsmith.tools.data.preferences import PreferenceColumns
from nightsmith.tools.data.resolve import resolve
from nightsmith.tools.finetuning import Sft
from nightsmith.tools.preference import Dpo
from nightsmith.trainer.spec import ModelRef

TARGET = Target(metric="accuracy", op=">=", value=0.8)
LENGTHS = {"num_rows": 1000, "num_bytes": 100_000, "longest_bytes": 300, "answer_bytes": 20}
PAIRS = DataLook(
    **LENGTHS, columns=PreferenceColumns(prompt="q", chosen="a", rejected="b"), why="chosen = 'a', rejected = 'b'"
)
CHAT = DataLook(
    **LENGTHS, columns=ChatColumns(prompt="q", completion="a"), pairs_problem="faq.csv has no pairs: 'q', 'a'."
)
TEXTS = DataLook(num_rows=50, num_bytes=200_000, longest_bytes=9000, answer_bytes=0, is_text=True)
MODEL = ModelLook(
    "SmolLM2", ModelRef(path="/m", weights_digest="d"), ModelSize(1.35e8, is_byte_level=False, has_chat_template=True)
)
LOOK = Look(MODEL, {"prefs.jsonl": PAIRS, "more.jsonl": PAIRS, "faq.csv": CHAT, "notes": TEXTS})
PREFS = DataRef(ref="prefs.jsonl", role="preference")


def planned(*methods: str, data: tuple[DataRef, ...] = (PREFS,), look: Look | None = LOOK, **changes):
    fields = {"goal": "x", "methods": methods, "data": data, "targets": (TARGET,)}
    return study_plan(GoalSpec(**(fields | changes)), Machine(devices=2), look)


def calls(plan, tool: str) -> list[ToolCall]:
    return [each for each in plan.calls if each.tool == tool]


def test_preferences_on_a_named_model_are_compared_with_it_on_held_out_pairs():
    plan = planned("dpo")
    assert plan.model == MODEL.ref
    (build,), (stage,), (judged,) = (calls(plan, tool) for tool in ("build_dataset", "dpo", "evaluate"))
    assert build.args["rows"] == "preference"
    assert build.args["columns"] == {"prefs.jsonl": {"prompt": "q", "chosen": "a", "rejected": "b"}}
    assert (stage.args["model"], stage.args["dataset"]) == ("SmolLM2", "$dataset")
    assert (judged.args["kind"], judged.args["answers"], judged.args["pairs"]) == ("chat", True, True)
    assert all(registry.validate(each) for each in plan.calls)
    assert "prefs.jsonl: chosen = 'a', rejected = 'b'." in plan.assumptions
    assert {"learning_rate", "beta"} <= {tunable.name for tunable in plan.space} <= proposals.SETTINGS.keys()
    assert {"beta", "loss_type", "label_smoothing"} <= plan.recipe.keys()


def test_each_stage_trains_on_its_own_data_and_settings_go_to_the_last():
    data = (DataRef(ref="notes", stage=0), DataRef(ref="faq.csv", stage=1), PREFS.model_copy(update={"stage": 2}))
    asked = (Setting(name="beta", value=0.3), Setting(name="num_experts", value=4), Setting(name="steps", value=50))
    tiny = dataclasses.replace(MODEL, size=ModelSize(1e5, is_byte_level=True, has_chat_template=False))
    plan = planned("pretrain", "sft", "dpo", data=data, settings=asked, look=dataclasses.replace(LOOK, model=tiny))
    pretrain, sft, dpo = (registry.validate(each) for each in plan.stages)
    assert isinstance(sft, Sft)
    assert isinstance(dpo, Dpo)
    assert (pretrain.num_experts, dpo.beta, dpo.num_steps, dpo.learning_rate) == (4, 0.3, 50, 1e-4)
    assert (sft.model, dpo.model, plan.model) == ("$previous", "$previous", None)
    assert sft.num_steps != 50
    assert [each.args["rows"] for each in calls(plan, "build_dataset")[:1]] == ["preference"]
    assert all(each.args["without"] == ["$dataset"] for each in calls(plan, "build_dataset")[1:])
    assert not {"beta", "num_steps"} & {tunable.name for tunable in plan.space}


def test_fine_tuning_without_data_of_its_own_takes_the_chosen_answers_of_the_same_dataset():
    plan = planned("sft", "dpo")
    assert len(calls(plan, "build_dataset")) == 1
    assert {stage.args["dataset"] for stage in plan.stages} == {"$dataset"}
    assert "No data are named for fine-tuning: it trains on the chosen answers of prefs.jsonl." in plan.assumptions


def test_pairs_that_the_goal_only_calls_data_are_trained_on_and_others_are_refused_with_their_columns():
    assert planned("dpo", data=(DataRef(ref="prefs.jsonl"),)).stages[0].tool == "dpo"
    both = (DataRef(ref="faq.csv"), DataRef(ref="prefs.jsonl"))
    assert calls(planned("dpo", data=both), "build_dataset")[0].args["sources"] == ["prefs.jsonl"]
    with pytest.raises(Blocked, match=r"faq\.csv has no pairs: 'q', 'a'"):
        planned("dpo", data=(DataRef(ref="faq.csv"),))
    with pytest.raises(Blocked, match="'notes' is text without pairs of answers"):
        planned("dpo", data=(DataRef(ref="notes", role="preference"),))


def test_answers_to_held_out_prompts_judge_as_well_but_not_which_answer_is_preferred():
    match = Target(metric="exact_match", op=">=", value=0.5)
    data = (PREFS, DataRef(ref="faq.csv", role="test"))
    plan = planned("dpo", data=data, targets=(match,))
    assert calls(plan, "build_dataset")[0].args["sealed_sources"] == ["faq.csv"]
    assert "pairs" not in calls(plan, "evaluate")[0].args
    with pytest.raises(Blocked, match=r"accuracy is measured on held-out pairs of answers\. faq\.csv"):
        planned("dpo", data=data)
    held = planned("dpo", data=(PREFS, DataRef(ref="more.jsonl", role="test")))
    assert calls(held, "evaluate")[0].args["pairs"] is True


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"targets": (Target(metric="win_rate", op=">=", value=0.5),)}, "win_rate cannot be measured.*accuracy"),
        ({"settings": (Setting(name="bta", value=0.1),)}, "Training on preferences has no setting 'bta'.*'beta'"),
        ({"settings": (Setting(name="beta", value=0),)}, "beta"),
        ({"data": (PREFS, DataRef(ref="notes", role="test"))}, "text without prompts and answers"),
        ({"data": (PREFS.model_copy(update={"stage": 1}),)}, "belongs to stage 2"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_way_out(changes, said):
    with pytest.raises(Exception, match=said):
        planned("dpo", **changes)
    with pytest.raises(Blocked, match="accuracy cannot be measured"):
        planned("sft", data=(DataRef(ref="faq.csv"),))


def test_both_answers_are_counted_in_time_and_tokens():
    match = Target(metric="exact_match", op=">=", value=0.5)
    paired, tuned = planned("dpo"), planned("sft", data=(DataRef(ref="faq.csv"),), targets=(match,))
    assert paired.recipe["num_steps"] == tuned.recipe["num_steps"]
    assert paired.estimate.tokens == pytest.approx(2 * tuned.estimate.tokens, rel=0.01)
    assert paired.estimate.trial_s > 1.5 * tuned.estimate.trial_s


def test_a_plan_without_a_look_is_drawn_too():
    plan = planned("sft", "dpo", data=(DataRef(ref="faq.csv", stage=0), PREFS), look=None)
    assert [stage.tool for stage in plan.stages] == ["sft", "dpo"]
    assert calls(plan, "evaluate")[0].args["pairs"] is True


def test_a_table_is_looked_at_as_pairs_or_else_as_conversations_with_the_reason(tmp_path: Path):
    prefs, faq = tmp_path / "prefs.jsonl", tmp_path / "faq.csv"
    rows = [{"prompt": f"Frage {i}?", "chosen": "Ja.", "rejected": "Nein, niemals."} for i in range(30)]
    prefs.write_text("\n".join(map(json.dumps, rows)))
    faq.write_text("frage,antwort\n" + "\n".join(f"Was {i}?,Das {i}." for i in range(30)))
    seen = look_at(resolve(str(prefs)), conversations=True, pairs=True)
    assert seen.has_pairs
    assert (seen.num_rows, seen.answer_bytes, seen.longest_bytes) == (30, 3, len("Frage 10?\nNein, niemals."))
    other = look_at(resolve(str(faq)), conversations=True, pairs=True)
    assert isinstance(other.columns, ChatColumns)
    assert "its columns are 'frage', 'antwort'. Needed are a chosen and a rejected answer" in other.pairs_problem
    assert not look_at(resolve(str(prefs)), conversations=True).has_pairs
