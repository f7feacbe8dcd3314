import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightsmith.agent.goal import ArchitectureRequest, DataRef, GoalSpec, Setting
from nightsmith.agent.planning import Blocked, Machine, seeds_per_side, study_plan
from nightsmith.evals.types import Target
from nightsmith.record.budget import Budget
from nightsmith.record.errors import NightsmithError
from nightsmith.tools import registry

TARGET = Target(metric="bits_per_byte", op="<=", value=-0.15, relative_to="baseline")


def goal(**changes) -> GoalSpec:
    fields = {"goal": "x", "methods": ("pretrain",), "data": (DataRef(ref="./notes"),), "targets": (TARGET,)}
    return GoalSpec(**(fields | changes))


def test_every_planned_call_is_valid_for_its_tool():
    calls = study_plan(goal(), Machine(devices=2)).calls
    assert [call.tool for call in calls] == ["inspect_data", "build_dataset", "pretrain", "evaluate"]
    assert all(isinstance(registry.validate(call), registry.TOOLS[call.tool].args) for call in calls)


def test_seeds_are_at_least_three_and_leave_no_device_idle_in_the_last_round():
    assert [seeds_per_side(goal(), devices) for devices in (1, 2, 3, 4, 8)] == [3, 4, 3, 3, 3]


def test_a_goal_that_asks_for_more_seeds_gets_them():
    assert seeds_per_side(goal(settings=(Setting(name="seeds", value=5),)), 1) == 5


def test_the_study_that_is_planned_fits_the_budget_that_the_goal_names():
    plan = study_plan(goal(budget=Budget(wall_clock_s=540, max_trials=4)), Machine(devices=2))
    assert plan.max_trials == 4
    assert plan.estimate.total_s <= 540


def test_runs_are_shortened_only_where_the_budget_asks_for_it_and_the_plan_says_so():
    free = study_plan(goal(), Machine(devices=2))
    tight = study_plan(goal(budget=Budget(wall_clock_s=300, max_trials=4)), Machine(devices=2))
    assert tight.recipe["num_steps"] < free.recipe["num_steps"]
    assert any("steps per run instead of" in said for said in tight.assumptions)
    assert not any("instead of" in said for said in free.assumptions)


def test_a_budget_too_small_for_one_trial_is_blocked_and_says_how_much_would_do():
    with pytest.raises(Blocked, match=r"too small.*About \d+ s would"):
        study_plan(goal(budget=Budget(wall_clock_s=20)), Machine(devices=2))


def test_a_setting_that_the_goal_fixes_is_used_and_never_searched():
    plan = study_plan(goal(settings=(Setting(name="learning_rate", value=0.002),)), Machine())
    assert plan.recipe["learning_rate"] == 0.002
    assert "learning_rate" not in {tunable.name for tunable in plan.space}


def test_a_setting_that_the_goal_only_starts_from_is_searched():
    plan = study_plan(goal(settings=(Setting(name="lr", value=0.002, how="start"),)), Machine())
    assert plan.recipe["learning_rate"] == 0.002
    assert "learning_rate" in {tunable.name for tunable in plan.space}


def test_what_the_goal_avoids_is_not_searched():
    plan = study_plan(goal(avoid=("batch_size",)), Machine())
    assert "batch_size" not in {tunable.name for tunable in plan.space}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": ("dpo", "grpo")}, "trains by: pretrain, sft"),
        ({"targets": (Target(metric="exact_match", op=">=", value=0.8),)}, "bits_per_byte"),
        ({"gpus": 4}, "Leave GPUs out"),
        ({"settings": (Setting(name="learning_rat", value=1.0),)}, "learning_rate"),
        ({"settings": (Setting(name="lora_rank", value=8),)}, "no setting 'lora_rank'"),
        ({"architecture": ArchitectureRequest(preset="nanno")}, "nano"),
        ({"architecture": ArchitectureRequest(experts=2, top_k=4)}, "top_k"),
        ({"intent": "evaluate"}, "training too"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_way_out(changes, said):
    with pytest.raises(NightsmithError, match=said):
        study_plan(goal(**changes), Machine())


@given(
    wall=st.floats(min_value=30, max_value=1e6),
    trials=st.integers(min_value=1, max_value=50),
    devices=st.integers(min_value=1, max_value=16),
)
def test_a_plan_never_promises_more_than_its_wall_clock(wall, trials, devices):
    try:
        plan = study_plan(goal(budget=Budget(wall_clock_s=wall, max_trials=trials)), Machine(devices=devices))
    except Blocked:
        return
    assert plan.estimate.total_s <= wall
    assert plan.job_limit_s <= wall
    assert plan.seeds >= 3
