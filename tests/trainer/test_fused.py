"""Fine-tuning jobs by fused layers, by real workers: what their steps compute, what is kept, killed and resumed."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftConfig
from pydantic import ValidationError
from safetensors.torch import load_file
from small_runs import PAIRS, end_of, kill_after, prepare, sft_spec, steps_of, trained
from test_sft import loss_of_answers
from tiny_models import write_model

from nightsmith.model.files import weights_digest
from nightsmith.trainer.spec import RunStatus, SftSpec

torch.set_num_threads(1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "llama")


def test_the_first_steps_loss_is_that_of_answers_and_their_ends_and_the_kept_adapter_is_what_was_trained(
    trl, tmp_path, model
) -> None:
    spec = sft_spec(
        tmp_path, model, backend="fused", batch_size=len(PAIRS), num_steps=20, schedule="constant", first_layer=1
    )
    before = loss_of_answers(model, PAIRS)
    result = trained(trl, tmp_path / "run", spec)
    steps = steps_of(tmp_path / "run")
    assert steps[0]["loss"] == pytest.approx(before, rel=2e-2)  # bfloat16
    kept = Path(str(result.checkpoint))
    assert loss_of_answers(kept, PAIRS) == pytest.approx(steps[-1]["loss"], rel=0.1)
    assert result.checkpoint_digest == weights_digest(kept)
    assert result.initial_digest not in (None, result.checkpoint_digest)
    assert result.evaluation is not None
    assert {name.split(".")[4] for name in load_file(kept / "adapter_model.safetensors")} == {"1"}
    assert PeftConfig.from_pretrained(str(kept)).r == 2
    read = sum(len(f"{asked}{said}".encode()) + 2 for asked, said in PAIRS)  # line break, EOS
    assert result.num_tokens == 20 * read


def test_a_run_that_was_killed_ends_with_equal_weights(trl, tmp_path, model) -> None:
    spec = sft_spec(tmp_path, model, backend="fused", num_steps=16, dev_suite=None, checkpoint_every_s=0.01)
    calm = trained(trl, tmp_path / "calm", spec.model_copy(update={"checkpoint_every_s": 60.0}))
    torn = prepare(tmp_path / "torn", spec)
    kill_after(trl, torn, 1, 3)
    assert trl.run(torn, attempt=2) == 0
    assert end_of(torn, 2).checkpoint_digest == calm.checkpoint_digest
    assert end_of(torn, 2).num_tokens == calm.num_tokens


def test_another_architecture_fails_with_what_would_do(trl, tmp_path) -> None:
    spec = sft_spec(tmp_path, write_model(tmp_path / "moe", "qwen3_moe"), backend="fused", dev_suite=None)
    assert trl.run(prepare(tmp_path / "run", spec)) == 1
    result = end_of(tmp_path / "run")
    assert result.status == RunStatus.FAILED
    assert "model_type 'qwen3_moe'" in result.reason
    assert "Set backend to 'trl'" in result.reason


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"backend": "fused", "adaptation": "full"}, "trains LoRA adapters"),
        ({"backend": "fused", "rows": "text"}, "rows 'chat'"),
        ({"backend": "fused", "precision": "float32"}, "bfloat16"),
        ({"backend": "fused", "micro_batch": 2}, "only external trainers"),
        ({"first_layer": 2}, "first_layer: only backend 'fused'"),
        ({"lead_tokens": 4}, "lead_tokens: only backend 'fused'"),
    ],
)
def test_settings_without_meaning_are_refused(tmp_path, settings, told) -> None:
    fields = {"model": {"path": str(tmp_path), "weights_digest": "0"}, "data": "x", "data_digest": "0", "num_steps": 1}
    with pytest.raises(ValidationError, match=told):
        SftSpec.model_validate_json(json.dumps(fields | settings))
