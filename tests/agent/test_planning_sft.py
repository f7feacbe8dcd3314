import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightsmith.agent.goal import ArchitectureRequest, DataRef, GoalSpec, RewardRequest, Setting
from nightsmith.agent.looking import DataLook, Look, ModelLook
from nightsmith.agent.planning import Blocked, Machine, study_plan
from nightsmith.evals.types import Target
from nightsmith.model.size import ModelSize
from nightsmith.record.budget import Budget
from nightsmith.record.errors import NightsmithError
from nightsmith.tools import registry
from nightsmith.tools.data.conversations import ChatColumns
from nightsmith.trainer.spec import ModelRef

TARGET = Target(metric="exact_match", op=">=", value=0.5)
PAIRS = DataLook(
    num_rows=1000, num_bytes=100_000, longest_bytes=300, answer_bytes=20, why="prompt = 'q', completion = 'a'",
    columns=ChatColumns(prompt="q", completion="a"),
)  # fmt: skip
TEXTS = DataLook(num_rows=50, num_bytes=200_000, longest_bytes=9000, answer_bytes=0, is_text=True)
MODEL = ModelLook(
    "SmolLM2", ModelRef(path="/m", weights_digest="d"), ModelSize(1.35e8, is_byte_level=False, has_chat_template=True)
)


def goal(**changes) -> GoalSpec:
    fields = {"goal": "x", "methods": ("sft",), "data": (DataRef(ref="faq.csv"),), "targets": (TARGET,)}
    return GoalSpec(**(fields | changes))


def seen(*, model: ModelLook = MODEL, **data: DataLook) -> Look:
    named = {name.replace("_", "."): look for name, look in data.items()}
    return Look(model, {"faq.csv": PAIRS, "tickets.csv": PAIRS, "notes": TEXTS} | named)


def planned(spec: GoalSpec, machine: Machine | None = None, look: Look | None = None):
    return study_plan(spec, machine or Machine(devices=2), look or seen())


def call(plan, tool: str, index: int = 0):
    return [each for each in plan.calls if each.tool == tool][index]


def test_every_planned_call_is_valid_for_its_tool():
    plan = planned(goal())
    assert [each.tool for each in plan.calls] == ["inspect_data", "build_dataset", "sft", "evaluate"]
    assert all(isinstance(registry.validate(each), registry.TOOLS[each.tool].args) for each in plan.calls)


def test_what_the_settings_say_of_fine_tuning_is_in_the_call_that_is_approved_where_adapters_are_trained():
    look = dataclasses.replace(seen(), sft={"backend": "fused", "first_layer": 6})
    trained = call(planned(goal(), look=look), "sft").args
    assert (trained["backend"], trained["first_layer"]) == ("fused", 6)
    assert "backend" not in call(planned(goal(adaptation="full"), look=look), "sft").args


def test_the_unmodified_model_is_the_reference_by_its_weights():
    assert planned(goal()).model == MODEL.ref


def test_columns_are_in_the_build_that_is_approved_and_in_words_among_the_assumptions():
    plan = planned(goal())
    assert call(plan, "build_dataset").args["columns"] == {"faq.csv": {"prompt": "q", "completion": "a"}}
    assert "faq.csv: prompt = 'q', completion = 'a'." in plan.assumptions


def test_a_goal_that_names_no_model_says_which_one_is_taken():
    assert "No model is named: SmolLM2 is fine-tuned." in planned(goal()).assumptions
    assert not any("No model is named" in said for said in planned(goal(model="SmolLM2")).assumptions)


def test_adapters_are_trained_of_large_models_and_every_weight_of_small_ones():
    tiny = dataclasses.replace(MODEL, size=ModelSize(1e5, is_byte_level=False, has_chat_template=False))
    assert planned(goal()).recipe["adaptation"] == "lora"
    assert planned(goal(), look=seen(model=tiny)).recipe["adaptation"] == "full"
    assert planned(goal(adaptation="full")).recipe["adaptation"] == "full"
    assert planned(goal(avoid=("lora",))).recipe["adaptation"] == "full"


def test_epochs_become_steps_over_the_rows_that_are_not_held_out():
    plan = planned(goal(settings=(Setting(name="epochs", value=2), Setting(name="batch_size", value=10))))
    build = call(plan, "build_dataset").args
    rows = 1000 * (1 - build["dev_share"] - build["sealed_share"])
    assert plan.recipe["num_steps"] == pytest.approx(2 * rows / 10, abs=1)


@pytest.mark.parametrize(
    ("name", "value", "setting"),
    [("steps", 70, "num_steps"), ("lr", 0.002, "learning_rate"), ("rank", 4, "lora_rank"), ("seq_len", 200, "max_len")],
)
def test_a_goals_words_for_settings_are_used_and_never_searched(name, value, setting):
    plan = planned(goal(settings=(Setting(name=name, value=value),)))
    assert plan.recipe[setting] == value
    assert setting not in {tunable.name for tunable in plan.space}


def test_rank_is_searched_only_where_there_are_adapters():
    assert "lora_rank" in {tunable.name for tunable in planned(goal()).space}
    assert "lora_rank" not in {tunable.name for tunable in planned(goal(adaptation="full")).space}


def test_rows_of_evaluation_and_test_files_go_to_dev_and_to_the_sealed_fold():
    data = (DataRef(ref="faq.csv"), DataRef(ref="tickets.csv", role="test"), DataRef(ref="more.csv", role="eval"))
    build = call(planned(goal(data=data)), "build_dataset").args
    assert build["dev_sources"] == ["more.csv"]
    assert build["sealed_sources"] == ["tickets.csv"]


def test_two_stages_train_on_their_own_files_and_never_on_rows_that_judge_the_last():
    data = (DataRef(ref="faq.csv", stage=0), DataRef(ref="tickets.csv", stage=1))
    plan = planned(goal(methods=("sft", "sft"), data=data))
    assert call(plan, "build_dataset", 0).args["sources"] == ["tickets.csv"]
    assert call(plan, "build_dataset", 1).args["without"] == ["$dataset"]
    assert [stage.args["dataset"] for stage in plan.stages] == ["$dataset2", "$dataset"]
    assert [stage.args["model"] for stage in plan.stages] == ["SmolLM2", "$previous"]


def test_stages_with_the_same_data_share_one_dataset():
    plan = planned(goal(methods=("sft", "sft")))
    assert [stage.args["dataset"] for stage in plan.stages] == ["$dataset", "$dataset"]


def test_a_chain_from_scratch_trains_its_baseline_and_has_no_fixed_reference():
    data = (DataRef(ref="notes", stage=0), DataRef(ref="faq.csv", stage=1))
    plan = planned(goal(methods=("pretrain", "sft"), data=data))
    assert plan.model is None
    assert [stage.tool for stage in plan.stages] == ["pretrain", "sft"]
    assert plan.stages[1].args["adaptation"] == "full"


def test_pretraining_a_named_model_goes_on_with_every_token_of_the_texts():
    target = Target(metric="perplexity", op="<=", value=0.9, relative_to="baseline", relation="ratio")
    plan = planned(goal(methods=("pretrain",), model="SmolLM2", data=(DataRef(ref="notes"),), targets=(target,)))
    assert plan.stages[0].args["rows"] == "text"
    assert call(plan, "evaluate").args.get("kind", "text") == "text"


def test_text_without_prompts_cannot_be_fine_tuned_on_and_the_plan_says_so():
    with pytest.raises(Blocked, match="text without prompts"):
        planned(goal(data=(DataRef(ref="notes"),)))


def test_a_budget_without_room_for_a_confirmation_claims_the_checkpoint_alone_and_says_so():
    plan = planned(goal(budget=Budget(wall_clock_s=660, max_trials=2)))
    assert plan.max_confirmations == 0
    assert any("does not fit into the budget" in said for said in plan.assumptions)
    assert planned(goal()).max_confirmations == 3


def test_speed_that_was_measured_for_the_same_weights_replaces_the_assumption():
    machine = Machine(devices=2, tokens_per_s={"d": 1e5}, num_measured={"d": 3})
    assert planned(goal(), machine).estimate.total_s < planned(goal()).estimate.total_s
    assert planned(goal(), machine).estimate.basis == "measured on this machine (3 runs)"


def test_a_plan_without_a_look_names_what_it_assumed():
    assert "nobody looked" in study_plan(goal(), Machine()).estimate.basis


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": ("dpo", "grpo")}, "trains by: pretrain, sft"),
        ({"targets": (Target(metric="macro_f1", op=">=", value=0.5),)}, "exact_match"),
        ({"adaptation": "qlora"}, "QLoRA"),
        ({"architecture": ArchitectureRequest(layers=3)}, "another shape"),
        ({"settings": (Setting(name="lora_rnk", value=8),)}, "Did you mean 'lora_rank'"),
        ({"data": (DataRef(ref="faq.csv", role="preference"),)}, "preference"),
        ({"data": (DataRef(ref="faq.csv", stage=3),)}, "stage 4"),
        ({"settings": (Setting(name="batch_size", value=0),)}, "batch_size"),
        ({"budget": Budget(wall_clock_s=60)}, r"too small.*About \d+ s would"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_way_out(changes, said):
    with pytest.raises(NightsmithError, match=said):
        planned(goal(**changes))


@given(
    wall=st.floats(min_value=100, max_value=1e6),
    trials=st.integers(min_value=1, max_value=30),
    devices=st.integers(min_value=1, max_value=8),
)
def test_a_plan_never_promises_more_than_its_wall_clock(wall, trials, devices):
    try:
        plan = planned(goal(budget=Budget(wall_clock_s=wall, max_trials=trials)), Machine(devices=devices))
    except Blocked:
        return
    assert plan.estimate.total_s <= wall
    assert plan.job_limit_s <= wall


REINFORCED = ("pretrain", "sft", "grpo")


def test_a_chain_of_three_stages_ends_with_rewards_on_the_data_and_settings_go_to_the_stage_that_has_them():
    asked = (Setting(name="group_size", value=16), Setting(name="kl", value=0.05), Setting(name="num_experts", value=4))
    tiny = dataclasses.replace(MODEL, size=ModelSize(1e5, is_byte_level=True, has_chat_template=False))
    plan = planned(goal(methods=REINFORCED, settings=asked), look=seen(model=tiny))
    stages = [(each.tool, each.args.get("model")) for each in plan.stages]
    assert stages == [("pretrain", None), ("sft", "$previous"), ("grpo", "$previous")]
    pretrain, sft, grpo = (registry.validate(each) for each in plan.stages)
    assert (pretrain.num_experts, grpo.num_generations, grpo.beta, grpo.adaptation) == (4, 16, 0.05, "full")
    assert plan.recipe["learning_rate"] == 1e-4
    assert sft.learning_rate == 5e-4
    assert {"learning_rate", "temperature"} <= {tunable.name for tunable in plan.space}
    assert not {"num_generations", "beta"} & {tunable.name for tunable in plan.space}
    assert plan.model is None


def test_rewards_on_a_named_model_are_compared_with_it_and_take_more_time_than_fine_tuning_it():
    reinforced, tuned = planned(goal(methods=("grpo",))), planned(goal())
    assert reinforced.model == tuned.model == MODEL.ref
    tokens = [plan.recipe["num_steps"] * plan.recipe["batch_size"] for plan in (reinforced, tuned)]
    assert reinforced.estimate.trial_s / tokens[0] > 4 * tuned.estimate.trial_s / tokens[1]


@pytest.mark.parametrize(
    ("reward", "args"),
    [
        (None, {}),
        (RewardRequest(kind="exact"), {"reward": "exact_match"}),
        (RewardRequest(kind="command", ref="r.py"), {"reward": "command", "reward_file": "r.py"}),
    ],
)
def test_the_reward_is_the_one_that_the_goal_asks_for(reward, args):
    plan = planned(goal(methods=("sft", "grpo"), reward=reward))
    assert {name: plan.stages[-1].args[name] for name in args} == args
    assert ("reward" in plan.stages[-1].args) == bool(args)


def test_a_reward_that_nothing_can_give_yet_is_refused():
    with pytest.raises(Blocked, match="'judge' cannot be given yet"):
        planned(goal(methods=("sft", "grpo"), reward=RewardRequest(kind="judge")))
    with pytest.raises(Blocked, match="a reward"):
        planned(goal(reward=RewardRequest(kind="exact")))
