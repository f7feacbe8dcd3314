"""The tool `dpo`: the job that its arguments become, and the suites of pairs."""

import json
from pathlib import Path
from typing import Any

import pytest

from nightsmith.record.workspace import Workspace, open_workspace
from nightsmith.tools import registry
from nightsmith.tools.base import ToolCall, ToolError
from nightsmith.tools.data.build import BuildDataset, build_dataset
from nightsmith.tools.data.manifest import Manifest, read_manifest
from nightsmith.tools.evaluation import Evaluate, suite_of
from nightsmith.tools.finetuning import Sft, apply_change, recipe, settings_of, sft_spec
from nightsmith.tools.preference import Dpo, dpo_spec
from nightsmith.tools.reinforcement import Grpo, grpo_spec
from nightsmith.trainer.spec import DpoSpec, ModelRef

MODEL = ModelRef(path="/m", weights_digest="d")


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return open_workspace(tmp_path_factory.mktemp("preference") / ".nightsmith")


def built(ws: Workspace, rows: Any = "preference", **args: Any) -> Manifest:
    source = ws.root.parent / "prefs.jsonl"
    pairs = [{"prompt": f"Frage {i}?", "chosen": f"Ja {i}.", "rejected": "Nein."} for i in range(60)]
    source.write_text("\n".join(map(json.dumps, pairs)))
    made = build_dataset(BuildDataset.model_validate({"sources": (str(source),), "rows": rows, **args}), ws)
    return read_manifest(ws, made.dataset)


def test_every_setting_is_a_field_of_the_job_too() -> None:
    assert set(settings_of(Dpo)) <= DpoSpec.model_fields.keys()
    assert recipe(Dpo()).keys() == set(settings_of(Dpo))


def test_pairs_become_a_job_whose_rate_follows_the_adaptation(ws: Workspace) -> None:
    manifest = built(ws)
    spec = dpo_spec(Dpo(beta=0.3, num_steps=7), manifest, ws, model=MODEL, suite=None)
    assert (spec.beta, spec.num_steps, spec.learning_rate, spec.loss_type) == (0.3, 7, 5e-5, "sigmoid")
    assert (Path(spec.data), spec.data_digest) == (manifest.path(ws, "train"), manifest.split("train").data_digest)
    assert recipe(apply_change(Dpo(), {"adaptation": "full"}))["learning_rate"] == 5e-6
    assert apply_change(Dpo(batch_size=8, num_steps=100), {"batch_size": 16}).num_steps == 50


def test_other_methods_read_the_chosen_answers_and_only_pairs_are_preferred(ws: Workspace) -> None:
    manifest = built(ws)
    assert sft_spec(Sft(), manifest, ws, model=MODEL, suite=None).data == str(manifest.path(ws, "train"))
    assert grpo_spec(Grpo(), manifest, ws, model=MODEL, suite=None).data == str(manifest.path(ws, "train"))
    with pytest.raises(ToolError, match=r"rows of kind 'chat', no pairs.*rows='preference'"):
        dpo_spec(Dpo(), built(ws, "chat"), ws, model=MODEL, suite=None)
    with pytest.raises(ToolError, match="needs a label_smoothing above 0"):
        registry.validate(ToolCall(tool="dpo", args={"loss_type": "exo_pair"}))


def test_suites_of_pairs_need_held_out_pairs(ws: Workspace) -> None:
    asked = Evaluate(job="$winner", kind="chat", answers=True, pairs=True)
    suite = suite_of(asked, built(ws), ws)
    assert (suite.kind, suite.pairs, suite.answers) == ("chat", True, True)
    faq = ws.root.parent / "faq.csv"
    faq.write_text("question,answer\n" + "\n".join(f"Was {i}?,Das {i}." for i in range(20)))
    with pytest.raises(ToolError, match=r"The dev rows of dataset .* are no pairs"):
        suite_of(asked, built(ws, dev_sources=(str(faq),)), ws)
    with pytest.raises(ToolError, match="Texts have nothing to answer"):
        suite_of(Evaluate(job="$winner", pairs=True), built(ws), ws)
