"""Models and tables of one's own that cannot be fine-tuned on: refused before anything starts, with a remedy."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import write_model
from tuning_study import write_table

from nightsmith.agent.goal import DataRef, GoalSpec
from nightsmith.agent.planning import Blocked
from nightsmith.agent.preflight import preflight
from nightsmith.evals.types import Target
from nightsmith.model.catalogue import ModelNotFound
from nightsmith.model.files import WEIGHTS
from nightsmith.record.errors import NightsmithError
from nightsmith.record.workspace import open_workspace

TUNED = Target(metric="exact_match", op=">=", value=0.5)


@pytest.fixture
def ws(tmp_path):
    return open_workspace(tmp_path / ".nightsmith")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A folder with a model and a table that fit."""
    folder = tmp_path_factory.mktemp("tuned")
    write_model(folder / "llama")
    write_table(folder / "faq.csv", ("kundenanliegen", "antw_text"))
    return folder


def fine_tuning(model: str = "./llama", ref: str = "faq.csv", target: Target = TUNED) -> GoalSpec:
    return GoalSpec(goal="x", methods=("sft",), model=model, data=(DataRef(ref=ref),), targets=(target,))


def test_a_model_folder_and_a_table_that_fit_are_planned(ws, tuned):
    assert preflight(fine_tuning(), ws, tuned).model is not None


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (b"", "is empty"),
        (b"frage,antwort\n", "has no rows below its header"),
        (b"frage\n" + b"was?\n" * 40, "no column is left to be the answer beside 'frage'"),
        (b"frage,antwort\n" + b"was?,\n" * 40, "no column is left to be the answer beside 'frage'"),
        (b"frage,antwort\n" + b"was?,das\n" * 5, "5 rows are too few.*24 rows or more"),
        (b'frage,antwort\n"was?,das\nund?,dies\n', "line 2 opens a quote that never ends"),
        (b"frage,antwort\n\x00\x01\x02", "holds binary data.*Export"),
    ],
)
def test_a_table_that_cannot_be_trained_on_is_refused_with_a_remedy(ws, tuned, table, told):
    (tuned / "bad.csv").write_bytes(table)
    with pytest.raises(NightsmithError, match=told):
        preflight(fine_tuning(ref="bad.csv"), ws, tuned)


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (no_tokenizer, r"has no tokenizer.*tokenizer\.save_pretrained"),
        (pickled, "a pickle file.*is refused"),
        (lambda folder: os.truncate(folder / WEIGHTS, 20_000), "has 20000 bytes; its header describes .* Copy"),
        (lambda folder: (folder / WEIGHTS).write_text("no weights at all"), "is no safetensors file"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), r"tokenizer\.json is not valid JSON"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json is not valid JSON"),
        (without("config.json"), "is no model: it has no config"),
    ],
)
def test_a_model_folder_that_cannot_be_used_is_refused_with_a_remedy(ws, tuned, tmp_path, spoil, told):
    shutil.copytree(tuned / "llama", tmp_path / "spoilt")
    spoil(tmp_path / "spoilt")
    with pytest.raises(NightsmithError, match=told):
        preflight(fine_tuning(str(tmp_path / "spoilt")), ws, tuned)


@pytest.mark.parametrize(("name", "told"), [("./lama", "Did you mean 'llama'"), ("faq.csv", "is not a folder")])
def test_a_model_that_is_not_there_is_named_with_near_names(ws, tuned, name, told):
    with pytest.raises(ModelNotFound, match=told):
        preflight(fine_tuning(name), ws, tuned)


def test_a_target_that_no_model_can_reach_is_refused(ws, tuned):
    with pytest.raises(Blocked, match="between 0 and 100 %; 150% cannot be its target"):
        preflight(fine_tuning(target=Target(metric="exact_match", op=">=", value=1.5)), ws, tuned)


def test_a_file_that_the_goal_names_and_its_reading_leaves_out_is_told_of(ws, tuned):
    write_table(tuned / "tickets.csv", ("frage", "antwort"))
    text = "Fine-tune ./llama on faq.csv, then on tickets.csv, then on nothing.csv; '" + "x" * 300 + "'."
    plan = preflight(fine_tuning().model_copy(update={"goal": text}), ws, tuned)
    assert [said for said in plan.assumptions if "not used" in said] == [
        "The goal names tickets.csv, which is here; it is not used."
    ]


def test_rows_that_the_models_context_cannot_hold_are_left_out_and_the_plan_says_so(ws, tuned):
    rows = "".join(f"{'was ' * 80}{i}?,das\n" if i % 2 else f"was {i}?,das\n" for i in range(80))
    (tuned / "long.csv").write_text("frage,antwort\n" + rows)
    plan = preflight(fine_tuning(ref="long.csv"), ws, tuned)
    assert "Rows of more than 192 bytes are left out: ./llama reads 256 tokens at once." in plan.assumptions
    assert next(call for call in plan.calls if call.tool == "build_dataset").args["max_bytes"] == 192
