"""Recipes: presets with overrides, changes at equal tokens, friendly refusals, and the jobs they become."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightsmith.model.presets import PRESETS
from nightsmith.record.workspace import Workspace, open_workspace
from nightsmith.tools.base import ToolError
from nightsmith.tools.data.build import BuildDataset, build_dataset
from nightsmith.tools.data.manifest import Manifest
from nightsmith.tools.evaluation import Evaluate, evaluate_spec
from nightsmith.tools.training import Pretrain, apply_change, architecture, num_tokens, pretrain_spec, recipe

SEARCH_SPACE = (
    "learning_rate batch_size warmup_share weight_decay beta2 schedule router_aux_loss_coef num_experts top_k"
    " num_layers hidden_size num_steps seed"
)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Manifest]:
    ws = open_workspace(tmp_path_factory.mktemp("recipes") / "ws")
    args = BuildDataset(sources=("reasoning-gym:chain_sum",), num_generated=400)
    return ws, build_dataset(args, ws)


def test_every_setting_of_the_search_space_is_a_field():
    assert set(SEARCH_SPACE.split()) <= Pretrain.model_fields.keys()
    assert set(SEARCH_SPACE.split()) <= recipe(Pretrain()).keys()


def test_a_recipe_shows_the_values_that_are_really_used():
    settings = recipe(Pretrain(preset="micro", num_experts=8))
    assert (settings["num_experts"], settings["hidden_size"], settings["learning_rate"]) == (8, 128, 1e-3)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (Pretrain(top_k=16), "top_k 16 is above num_experts 8"),
        (Pretrain(num_experts=1), "Set top_k to at most 1, or num_experts to at least 2"),
        (Pretrain(hidden_size=66), "not divisible by the 4 heads of 'nano'. Set it to 64 or 68"),
        (Pretrain(preset="small4"), "Use nano, micro or mini"),
    ],
)
def test_a_shape_that_cannot_be_built_is_refused_with_a_remedy(args: Pretrain, said: str):
    with pytest.raises(ToolError) as caught:
        architecture(args)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"balance_mode": "aux"}, "router_aux_loss_coef 0: set it above 0, e.g. to 0.01."),
        ({"balance_mode": "none", "router_aux_loss_coef": 0.1}, "set the coefficient to 0, or the mode to 'aux'."),
        ({"balance_mode": "even"}, "'balance_mode' is 'even'"),
        ({"router_bias_update_rate": 0}, "'router_bias_update_rate' is 0"),
    ],
)
def test_balancing_that_contradicts_itself_is_refused_with_a_remedy(change: dict[str, float | str], said: str):
    with pytest.raises(ToolError) as caught:
        apply_change(Pretrain(), change)
    assert said in str(caught.value)
    assert not str(caught.value).endswith("..")


def test_balancing_reaches_the_job(published: tuple[Workspace, Manifest]):
    ws, manifest = published
    changed = apply_change(Pretrain(), {"balance_mode": "bias", "router_z_loss_coef": 0.001})
    spec = pretrain_spec(changed, manifest, ws)
    assert (spec.balance_mode, spec.router_z_loss_coef, spec.router_bias_update_rate) == ("bias", 0.001, 1e-3)
    unnamed = apply_change(Pretrain.model_validate(recipe(Pretrain())), {"router_aux_loss_coef": 0.02})
    assert pretrain_spec(unnamed, manifest, ws).routing["router_aux_loss_coef"] == 0.02


def test_a_change_leaves_all_other_settings():
    before = Pretrain(preset="micro", seed=3)
    after = apply_change(before, {"learning_rate": 3e-3, "num_layers": 2})
    assert after == before.model_copy(update={"learning_rate": 3e-3, "num_layers": 2})


@given(batch_size=st.integers(1, 64), num_steps=st.integers(100, 5000))
def test_a_change_of_batch_size_keeps_the_training_tokens(batch_size: int, num_steps: int):
    before = Pretrain(num_steps=num_steps)
    after = apply_change(before, {"batch_size": batch_size})
    assert abs(num_tokens(after) - num_tokens(before)) <= batch_size * PRESETS["nano"].seq_len / 2


def test_a_change_that_names_the_steps_is_taken_as_it_is():
    assert apply_change(Pretrain(), {"batch_size": 16, "num_steps": 900}).num_steps == 900


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"learning_rat": 1e-3}, "Did you mean 'learning_rate'"),
        ({"preset": "mini"}, "There is no setting 'preset'"),
        ({"num_layers": 2.5}, "'num_layers' is 2.5"),
        ({"top_k": 9}, "top_k 9 is above num_experts 8"),
        ({"schedule": 3}, "'schedule' is 3"),
    ],
)
def test_a_bad_change_is_refused_with_a_remedy(change: dict[str, float | int | str], said: str):
    with pytest.raises(ToolError) as caught:
        apply_change(Pretrain(), change)
    assert said in str(caught.value)


def test_a_whole_float_from_a_sampler_is_an_integer_setting():
    assert apply_change(Pretrain(), {"num_layers": 3.0}).num_layers == 3


def test_a_recipe_becomes_a_job_on_published_files(published: tuple[Workspace, Manifest]):
    ws, manifest = published
    spec = pretrain_spec(Pretrain(dataset=manifest.name, num_experts=4, seed=7), manifest, ws, dev_items=32)
    assert (spec.architecture.num_experts, spec.seed) == (4, 7)
    assert Path(spec.data) == ws.data / manifest.name / "train.parquet"
    assert spec.data_digest == manifest.split("train").data_digest
    assert spec.dev_suite is not None
    assert (spec.dev_suite.split, spec.dev_suite.max_items) == ("dev", 32)


def test_trials_of_one_study_share_a_dev_suite_whatever_their_window(published: tuple[Workspace, Manifest]):
    ws, manifest = published
    suites = [pretrain_spec(Pretrain(seq_len=seq_len), manifest, ws).dev_suite for seq_len in (None, 64)]
    assert suites[0] == suites[1]


def test_another_dataset_than_the_named_one_is_refused(published: tuple[Workspace, Manifest]):
    ws, manifest = published
    with pytest.raises(ToolError, match=f"{manifest.name} was given"):
        pretrain_spec(Pretrain(dataset="0" * 12), manifest, ws)


def test_a_sealed_evaluation_reads_its_fold_only(published: tuple[Workspace, Manifest], tmp_path: Path):
    ws, manifest = published
    args = Evaluate(job="a" * 12, split="sealed")
    spec = evaluate_spec(args, manifest, ws, checkpoint=tmp_path, checkpoint_digest="d")
    assert Path(spec.suite.data) == ws.sealed / manifest.name / "fold0.parquet"
    with pytest.raises(ToolError, match=r"has no split 'fold3'\. Splits: train, dev, fold0"):
        evaluate_spec(
            Evaluate(job="a" * 12, split="sealed", fold=3), manifest, ws, checkpoint=tmp_path, checkpoint_digest="d"
        )
    with pytest.raises(ToolError, match="no checkpoint folder"):
        evaluate_spec(args, manifest, ws, checkpoint=tmp_path / "gone", checkpoint_digest="d")
