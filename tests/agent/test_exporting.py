"""Exports: whole or absent, nothing replaced unasked, a card that says only what is known."""

import errno
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from study_factory import StudyFactory, workspace_in_memory
from transformers.models.mistral4.modeling_mistral4 import Mistral4ForCausalLM

from nightsmith.agent import exporting, history
from nightsmith.agent.ancestry import Ancestor, ancestors
from nightsmith.agent.model_card import Subject, card
from nightsmith.model.export import Exported, ExportFailed
from nightsmith.model.files import WEIGHTS, weights_digest
from nightsmith.model.presets import PRESETS
from nightsmith.model.small4 import build
from nightsmith.record.errors import Damaged, NightsmithError
from nightsmith.record.workspace import Workspace
from nightsmith.trainer.spec import RunResult

WRITTEN = Exported(
    model_type="llama", num_parameters=1234, precision="float16", evaluated_as="float32", files={WEIGHTS: "d" * 64}
)


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nano")
    torch.set_num_threads(1)
    build(PRESETS["nano"], seed=0).save_pretrained(folder)
    return folder


@pytest.fixture
def ws() -> Iterator[Workspace]:
    with workspace_in_memory() as ws:
        yield ws


class TrainedFactory(StudyFactory):
    """Studies whose jobs left a real checkpoint."""

    def __init__(self, ws: Workspace, checkpoint: Path) -> None:
        super().__init__(ws)
        self._checkpoint = checkpoint

    def _result(self, key: str, *args: Any, **kwargs: Any) -> RunResult:
        result = super()._result(key, *args, **kwargs)
        shutil.copytree(self._checkpoint, str(result.checkpoint))
        return result.model_copy(update={"checkpoint_digest": weights_digest(self._checkpoint)})


def put(ws: Workspace, what: str, to: Path, **options: Any) -> int:
    return exporting.export_model(what, to, ws.root, **options)


def test_a_studys_winner_is_exported_with_its_claims_lineage_and_serve_line(ws, nano, tmp_path, capsys):
    study = TrainedFactory(ws, nano).proven()
    assert put(ws, study, tmp_path / "out", as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["serve"] == f"vllm serve {tmp_path / 'out'} --model-impl transformers"
    assert Mistral4ForCausalLM.from_pretrained(tmp_path / "out").num_parameters() == told["num_parameters"]
    text = (tmp_path / "out" / "README.md").read_text()
    view = history.load(ws, study)
    for said in (study, view.winner_key, view.lineage.data_digest, "0.3074 below the baseline", "| 96 |", "PROVEN"):
        assert str(said) in text
    assert told["files"][WEIGHTS] in text
    assert "trained from scratch" in text
    assert "Mistral4ForCausalLM.from_pretrained" in text
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_changed_checkpoint_is_not_exported(ws, nano, tmp_path):
    study = TrainedFactory(ws, nano).proven()
    weights = Path(str(history.load(ws, study).lineage.checkpoint)) / WEIGHTS
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(Damaged, match="changed since"):
        put(ws, study, tmp_path / "out")
    weights.unlink()
    with pytest.raises(ExportFailed, match="no longer at"):
        put(ws, study, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_job_of_a_trial_is_chosen_and_what_is_absent_is_told(ws, nano):
    factory = TrainedFactory(ws, nano)
    view = history.load(ws, factory.proven())
    assert exporting.chosen_job(view, None).key == view.winner_key
    assert exporting.chosen_job(view, 1).trial == 1
    with pytest.raises(ExportFailed, match=r"no checkpoint of trial 9\. Name one with --trial: 0, 1, 2, 3, 4"):
        exporting.chosen_job(view, 9)
    unfinished = history.load(ws, factory.planned())
    with pytest.raises(ExportFailed, match=r"no winner yet \(trials\)\. Nothing was trained"):
        exporting.chosen_job(unfinished, None)


@pytest.mark.parametrize(
    ("what", "options", "told"),
    [
        ("s99", {}, "s99"),
        ("0123456789ab", {}, "no job '0123456789ab'"),
        (".", {"trial": 1}, "is a folder"),
        ("s1", {"form": "onnx"}, "no format 'onnx'. Possible: safetensors, gguf, gguf-lora"),
        ("s1", {"precision": "q8_0"}, "safetensors has no precision 'q8_0'"),
    ],
)
def test_wrong_requests_are_told_apart(ws, tmp_path, what, options, told):
    with pytest.raises(NightsmithError, match=told.replace(".", r"\.")):
        put(ws, what, tmp_path / "out", **options)


def test_only_a_models_folder_is_replaced_and_only_when_asked(ws, nano, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    with pytest.raises(ExportFailed, match="is there already"):
        put(ws, str(nano), full)
    with pytest.raises(ExportFailed, match="something else than a model"):
        put(ws, str(nano), full, force=True)
    with pytest.raises(ExportFailed, match="is no folder"):
        put(ws, str(nano), full / "notes.txt", force=True)
    assert (full / "notes.txt").read_text() == "mine"
    for place in (nano, nano / "inside"):
        with pytest.raises(ExportFailed, match="lie in one another"):
            put(ws, str(nano), place, force=True)


def test_what_was_there_stays_when_the_disk_is_full_and_goes_when_all_is_written(tmp_path):
    to = tmp_path / "out"
    to.mkdir()
    (to / "config.json").write_text("old")
    with pytest.raises(ExportFailed, match="intact"), exporting.staged(to) as folder:
        _write_on_a_full_disk(folder / "config.json")
    assert (to / "config.json").read_text() == "old"
    with exporting.staged(to) as folder:
        (folder / "config.json").write_text("new")
    assert (to / "config.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def _write_on_a_full_disk(path: Path) -> None:
    path.write_text("half")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_card_of_another_trial_claims_nothing_and_escapes_what_is_strange(ws, nano):
    goal = "Reach 0.9 </script> [click](javascript:alert(1)) on tickets"
    view = history.load(ws, TrainedFactory(ws, nano).proven(goal))
    job = exporting.chosen_job(view, 1)
    text = card(Subject("m", "safetensors", WRITTEN, nano, view=view, job=job))
    assert "not the model that the study chose" in text
    assert "Claimed on the sealed split" not in text
    assert "[click](javascript" not in text


def test_the_licence_comes_from_the_model_at_the_root(tmp_path):
    root, run = tmp_path / "root", tmp_path / "runs" / "k"
    for folder in (root, run / "model", tmp_path / "adapter"):
        folder.mkdir(parents=True)
    (root / "README.md").write_text("---\ntags: [x]\nlicense: mit\n---\n# Root\nlicense: evil\n")
    (run / "spec.json").write_text(json.dumps({"kind": "sft", "model": {"path": str(root), "weights_digest": "a1"}}))
    base = {"path": str(run / "model"), "weights_digest": "b2"}
    (tmp_path / "adapter" / "base.json").write_text(json.dumps(base))
    found = ancestors(tmp_path / "adapter")
    assert found == (Ancestor(str(run / "model"), "b2", None, job="k"), Ancestor(str(root), "a1", "mit"))
    text = card(Subject("m", "safetensors", WRITTEN, tmp_path / "adapter", found))
    assert text.startswith("---\nlicense: mit\n")
    assert "The base model names mit" in text
    assert "trained by job `k`" in text
    unknown = card(Subject("m", "safetensors", WRITTEN, tmp_path / "adapter", found[:1]))
    assert "names no licence" in unknown
