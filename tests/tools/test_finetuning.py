"""The tool sft: recipes, changes at equal rows, and the jobs and suites they become."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightsmith.record.workspace import Workspace, open_workspace
from nightsmith.tools.base import ToolError
from nightsmith.tools.data.build import BuildDataset, build_dataset
from nightsmith.tools.data.manifest import Manifest
from nightsmith.tools.evaluation import (
    Evaluate,
    answer_tokens,
    chat_suite,
    evaluate_model_spec,
    evaluate_spec,
    text_suite,
)
from nightsmith.tools.finetuning import SETTINGS, Sft, apply_change, num_rows, recipe, sft_spec
from nightsmith.trainer.spec import ModelRef, SftSpec

MODEL = ModelRef(path="/models/tiny", weights_digest="d" * 64)
Published = tuple[Workspace, Manifest, Manifest]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A workspace with a dataset of conversations and one of texts."""
    ws = open_workspace(tmp_path_factory.mktemp("finetuning") / "ws")
    source = ("reasoning-gym:chain_sum",)
    chat = build_dataset(BuildDataset(sources=source, rows="chat", num_generated=200), ws)
    return ws, chat, build_dataset(BuildDataset(sources=source, num_generated=400), ws)


def test_every_setting_is_a_field_of_the_job_too():
    assert set(SETTINGS) <= SftSpec.model_fields.keys()
    assert recipe(Sft()).keys() == set(SETTINGS)


def test_the_default_rate_follows_the_adaptation():
    assert recipe(Sft())["learning_rate"] == 5e-4
    assert recipe(Sft(adaptation="full"))["learning_rate"] == 5e-5
    assert recipe(Sft(adaptation="full", learning_rate=1e-4))["learning_rate"] == 1e-4


def test_a_recipe_of_every_weight_has_no_rank():
    assert not {"lora_rank", "lora_alpha"} & recipe(Sft(adaptation="full")).keys()


@given(batch_size=st.integers(1, 64), num_steps=st.integers(100, 5000))
def test_a_change_of_batch_size_keeps_the_rows_trained(batch_size: int, num_steps: int):
    before = Sft(num_steps=num_steps)
    after = apply_change(before, {"batch_size": batch_size})
    assert abs(num_rows(after) - num_rows(before)) <= batch_size / 2


@given(rank=st.integers(1, 1024))
def test_a_change_of_rank_keeps_the_scale_of_the_adapters(rank: int):
    after = apply_change(Sft(lora_rank=8, lora_alpha=16), {"lora_rank": rank})
    assert after.lora_alpha / after.lora_rank == pytest.approx(2)
    assert apply_change(Sft(), {"lora_rank": rank, "lora_alpha": 5}).lora_alpha == 5


def test_a_change_leaves_all_other_settings():
    before = Sft(seed=3, max_len=64)
    assert apply_change(before, {"learning_rate": 1e-3}) == before.model_copy(update={"learning_rate": 1e-3})
    assert apply_change(before, {"batch_size": 16, "num_steps": 9}).num_steps == 9


def test_another_adaptation_starts_from_its_own_rate():
    after = apply_change(Sft(learning_rate=1e-3), {"adaptation": "full"})
    assert recipe(after)["learning_rate"] == 5e-5
    assert apply_change(Sft(), {"adaptation": "full", "learning_rate": 1e-4}).learning_rate == 1e-4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"learning_rat": 1e-3}, "There is no setting 'learning_rat'. Did you mean 'learning_rate'"),
        ({"model": "other"}, "There is no setting 'model'"),
        ({"lora_rank": 0}, "'lora_rank' is 0"),
        ({"schedule": "wsd"}, "'schedule' is 'wsd'"),
        ({"adaptation": "full", "lora_rank": 4}, "'lora_rank' has no meaning where every weight is trained"),
    ],
)
def test_a_bad_change_is_refused_with_a_remedy(change: dict[str, float | int | str], said: str):
    with pytest.raises(ToolError) as caught:
        apply_change(Sft(), change)
    assert said in str(caught.value)


def test_a_recipe_becomes_a_job_on_published_files(published: Published):
    ws, chat, _ = published
    suite = chat_suite(chat, ws, "dev", max_items=16, max_new_tokens=answer_tokens(chat))
    args = Sft(dataset=chat.name, lora_rank=4, seed=7)
    spec = sft_spec(args, chat, ws, model=MODEL, suite=suite, checkpoint_every_s=5)
    assert (spec.model, spec.rows, spec.lora_rank, spec.learning_rate, spec.seed) == (MODEL, "chat", 4, 5e-4, 7)
    assert Path(spec.data) == ws.data / chat.name / "train.parquet"
    assert (spec.data_digest, spec.dev_suite) == (chat.split("train").data_digest, suite)
    assert spec.checkpoint_every_s == 5


def test_texts_are_trained_whole_and_refused_as_conversations(published: Published):
    ws, chat, text = published
    for manifest in (chat, text):
        assert sft_spec(Sft(rows="text"), manifest, ws, model=MODEL, suite=None).rows == "text"
    with pytest.raises(ToolError, match="has rows of text, no conversations"):
        sft_spec(Sft(), text, ws, model=MODEL, suite=None)
    with pytest.raises(ToolError, match=f"{text.name} was given"):
        sft_spec(Sft(dataset="0" * 12), text, ws, model=MODEL, suite=None)


def test_suites_of_conversations_need_conversations(published: Published):
    ws, chat, text = published
    suite = chat_suite(chat, ws, "sealed", max_new_tokens=20)
    assert (suite.kind, suite.answers, suite.max_new_tokens, suite.split) == ("chat", True, 20, "sealed")
    assert Path(suite.data) == ws.sealed / chat.name / "fold0.parquet"
    assert text_suite(chat, ws, "dev").kind == "text"
    with pytest.raises(ToolError, match="Build it with rows='chat'"):
        chat_suite(text, ws, "dev")
    with pytest.raises(ToolError, match="no split 'fold1'"):
        chat_suite(chat, ws, "sealed", fold=1)


def test_answers_are_as_long_as_the_longest_reference_and_bounded(published: Published):
    _, chat, text = published
    assert answer_tokens(chat) == answer_tokens(text) == 16
    train = chat.split("train").model_copy(update={"max_answer_bytes": 100})
    long = chat.model_copy(update={"splits": (train, *chat.splits[1:])})
    assert answer_tokens(long) == 108
    assert answer_tokens(long, at_most=64) == 64


def test_an_evaluation_of_answers_passes_its_settings_on(published: Published, tmp_path: Path):
    ws, chat, _ = published
    args = Evaluate(job="$winner", split="sealed", kind="chat", answers=True, max_new_tokens=9, seq_len=256)
    spec = evaluate_spec(args, chat, ws, checkpoint=tmp_path, checkpoint_digest="d")
    assert spec.suite == chat_suite(chat, ws, "sealed", max_new_tokens=9, seq_len=256)
    with pytest.raises(ToolError, match="Texts have nothing to answer"):
        evaluate_spec(Evaluate(job="$winner", answers=True), chat, ws, checkpoint=tmp_path, checkpoint_digest="d")


def test_a_model_as_it_is_is_evaluated_by_its_folder(published: Published):
    ws, chat, _ = published
    suite = chat_suite(chat, ws, "dev")
    spec = evaluate_model_spec(MODEL, suite)
    assert (spec.checkpoint, spec.checkpoint_digest, spec.suite) == (MODEL.path, MODEL.weights_digest, suite)
