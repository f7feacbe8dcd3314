"""Fine-tuning jobs by real workers: what TRL's steps compute, what is kept, killed and resumed."""

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_runs import PAIRS, chat_suite, end_of, kill_after, prepare, sft_spec, steps_of, trained, write_pairs
from tiny_models import FAMILIES, TEMPLATE, write_model
from torch.nn import functional as F
from zygote import Zygote

from nightsmith.evals.suite import read_items
from nightsmith.model.arithmetic import multiplies_bfloat16
from nightsmith.model.chat_rows import ChatFormat
from nightsmith.model.files import WEIGHTS, weights_digest
from nightsmith.model.load import load, load_tokenizer
from nightsmith.trainer.journal import JOURNAL
from nightsmith.trainer.spec import ModelRef, RunStatus, SftSpec
from nightsmith.trainer.trl_job import STEPS

torch.set_num_threads(1)
ALL = [(family, adaptation) for family in FAMILIES for adaptation in ("lora", "full")]
WHOLE_BATCHES: dict[str, Any] = {
    "batch_size": len(PAIRS), "learning_rate": 0.002, "schedule": "constant", "warmup_share": 0.0,
    "precision": "float32",
}  # fmt: skip
"""Every step on all rows, at one rate, to be compared with what float32 gives."""
SLOW = [pytest.param(*each, marks=[] if each == ("llama", "lora") else pytest.mark.slow) for each in ALL]
"""Every combination; all but one are left to the longer tests."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "llama")


def losses(run_dir: Path) -> list[float]:
    """Of the first and the last step, and of those between about every second."""
    return [line["loss"] for line in steps_of(run_dir)]


def turns(pair: tuple[str, str]) -> list[Any]:
    return [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]


@torch.inference_mode()
def loss_of_answers(folder: Path, pairs: list[tuple[str, str]]) -> float:
    """Mean nats per token of the answers, their ends included: row by row, without padding, by torch alone."""
    model, chat = load(folder), ChatFormat(load_tokenizer(folder))
    nats, count = 0.0, 0
    for (row,) in chat.render([turns(pair) for pair in pairs]):
        logits = model(input_ids=torch.tensor([row.ids])).logits[0, :-1]
        targets = torch.tensor(row.ids[1:])
        answer = torch.tensor(row.trained[1:])
        nats += F.cross_entropy(logits[answer], targets[answer], reduction="sum").item()
        count += int(answer.sum())
    return nats / count


@pytest.mark.parametrize(("family", "adaptation"), SLOW)
def test_the_first_steps_loss_is_that_of_answers_and_their_ends_alone(trl, tmp_path, family, adaptation) -> None:
    folder = write_model(tmp_path / family, family)
    spec = sft_spec(tmp_path, folder, adaptation=adaptation, num_steps=2, **WHOLE_BATCHES)
    before = loss_of_answers(folder, PAIRS)
    result = trained(trl, tmp_path / "run", spec)
    assert losses(tmp_path / "run")[0] == pytest.approx(before, rel=2e-4)  # logged with four digits after the point
    assert loss_of_answers(Path(str(result.checkpoint)), PAIRS) < before


@pytest.mark.parametrize(("family", "adaptation"), SLOW)
def test_the_weights_that_are_kept_are_those_that_were_trained(trl, tmp_path, family, adaptation) -> None:
    folder = write_model(tmp_path / family, family)
    spec = sft_spec(tmp_path, folder, adaptation=adaptation, num_steps=3, dev_suite=None, **WHOLE_BATCHES)
    short = trained(trl, tmp_path / "short", spec)
    trained(trl, tmp_path / "long", spec.model_copy(update={"num_steps": 4}))
    kept = loss_of_answers(Path(str(short.checkpoint)), PAIRS)
    assert losses(tmp_path / "long")[-1] == pytest.approx(kept, rel=2e-4)


@pytest.mark.parametrize(("family", "adaptation"), SLOW)
def test_a_run_ends_with_weights_digests_and_answers_that_match_its_files(trl, tmp_path, family, adaptation) -> None:
    folder = write_model(tmp_path / family, family)
    base = weights_digest(folder)
    result = trained(trl, tmp_path / "run", sft_spec(tmp_path, folder, adaptation=adaptation))
    checkpoint = Path(str(result.checkpoint))
    assert (result.status, result.num_steps) == (RunStatus.FINISHED, 3)
    assert result.checkpoint_digest == weights_digest(checkpoint)
    assert result.initial_digest not in (None, result.checkpoint_digest)
    assert weights_digest(folder) == base
    assert (checkpoint / "adapter_config.json").is_file() == (adaptation == "lora")
    assert result.metrics["data/trained_tokens"] == sum(len(answer.encode()) + 1 for _, answer in PAIRS)
    assert result.evaluation is not None
    items = read_items(tmp_path / "run" / result.evaluation.items, result.evaluation.items_digest)
    assert len(items) == 3
    assert items.answer is not None
    assert {"exact_match", "token_f1", "output_tokens", "loss"} <= result.evaluation.metrics.keys()
    assert not (tmp_path / "run" / STEPS).exists()
    assert settings_of(checkpoint) == settings_of(folder)


def test_products_are_bfloat16_where_the_cpu_has_them_and_the_loss_is_that_of_float32(trl, tmp_path, model) -> None:
    spec = sft_spec(tmp_path, model, num_steps=2, dev_suite=None)
    lean = trained(trl, tmp_path / "auto", spec)
    full = trained(trl, tmp_path / "float32", spec.model_copy(update={"precision": "float32"}))
    assert losses(tmp_path / "auto") == pytest.approx(losses(tmp_path / "float32"), rel=1e-2)
    assert (lean.checkpoint_digest != full.checkpoint_digest) == multiplies_bfloat16()


@pytest.mark.parametrize(("family", "adaptation"), SLOW)
def test_a_run_that_was_killed_twice_ends_with_equal_weights(trl, tmp_path, family, adaptation) -> None:
    folder = write_model(tmp_path / family, family)
    spec = sft_spec(tmp_path, folder, adaptation=adaptation, num_steps=16, checkpoint_every_s=0.01)
    calm = trained(trl, tmp_path / "calm", spec.model_copy(update={"checkpoint_every_s": 60.0}))
    torn = prepare(tmp_path / "torn", spec)
    for attempt, step in ((1, 2), (2, 7)):
        kill_after(trl, torn, attempt, step)
    assert trl.run(torn, attempt=3) == 0
    resumed = end_of(torn, attempt=3)
    assert resumed.num_steps == 16
    assert resumed.checkpoint_digest == calm.checkpoint_digest
    assert resumed.initial_digest == calm.initial_digest
    assert resumed.metrics["train/loss"] == calm.metrics["train/loss"]
    assert (resumed.num_tokens, resumed.evaluation.items_digest) == (calm.num_tokens, calm.evaluation.items_digest)


@pytest.mark.parametrize(
    "limit", [pytest.param(100_000, id="weights"), pytest.param(300_000, id="optimizer", marks=pytest.mark.slow)]
)
def test_a_disk_that_is_full_at_a_checkpoint_is_named_and_the_last_good_one_stays(trl, tmp_path, model, limit) -> None:
    spec = sft_spec(tmp_path, model, adaptation="full", num_steps=6, checkpoint_every_s=0.001, dev_suite=None)
    run_dir = prepare(tmp_path / "run", spec)
    kill_after(trl, run_dir, 1, 2)
    assert trl.run(run_dir, attempt=2, file_limit=limit) == 1
    result = end_of(run_dir, attempt=2)
    assert (result.status, "Free space" in result.reason) == (RunStatus.DISK_FULL, True)
    assert trl.run(run_dir, attempt=3) == 0
    resumed = end_of(run_dir, attempt=3)
    assert steps_of(run_dir)[-1]["attempt_tokens"] < resumed.num_tokens
    assert resumed.num_steps == 6


def test_a_loss_that_is_not_finite_ends_the_run_before_anything_is_kept(trl, tmp_path, model) -> None:
    tensors = load_file(model / WEIGHTS)
    name = next(name for name in tensors if "down_proj" in name)
    tensors[name][0, 0] = torch.nan
    save_file(tensors, model / WEIGHTS, metadata={"format": "pt"})
    run_dir = prepare(tmp_path / "run", sft_spec(tmp_path, model, num_steps=3, checkpoint_every_s=0.001))
    assert trl.run(run_dir) == 1
    result = end_of(run_dir)
    assert (result.status, result.checkpoint) == (RunStatus.NOT_FINITE, None)
    assert "Lower the learning rate" in result.reason
    assert not list((run_dir / STEPS).glob("checkpoint-*"))


@pytest.mark.slow
@pytest.mark.parametrize("adaptation", ["full", "lora"])
def test_micro_batches_take_the_steps_of_the_whole_batch(trl, tmp_path, model, adaptation) -> None:
    spec = sft_spec(tmp_path, model, adaptation=adaptation, num_steps=5, precision="float32", dev_suite=None)
    whole = trained(trl, tmp_path / "whole", spec)
    assert trl.run(prepare(tmp_path / "parts", spec, micro_batch_size=2)) == 0
    parts = end_of(tmp_path / "parts")
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)
    assert (parts.num_steps, parts.num_tokens) == (whole.num_steps, whole.num_tokens)


def settings_of(folder: Path) -> dict[str, Any]:
    """A model's config but for the token that it pads with, which TRL takes from the tokenizer."""
    return {name: value for name, value in load(folder).config.to_diff_dict().items() if name != "pad_token_id"}


@pytest.mark.slow
def test_a_stopped_run_goes_on_from_its_checkpoint_to_the_same_weights(trl, tmp_path, model) -> None:
    spec = sft_spec(tmp_path, model, num_steps=40)
    calm = trained(trl, tmp_path / "calm", spec)
    stopped = prepare(tmp_path / "stopped", spec)
    pid = trl.start(stopped)
    while not (stopped / JOURNAL).is_file() or not losses(stopped):
        time.sleep(0.002)
    os.kill(pid, signal.SIGTERM)
    assert trl.wait(pid) == 1
    assert end_of(stopped).status == RunStatus.STOPPED
    assert 0 < end_of(stopped).num_steps < 40
    assert trl.run(stopped, attempt=2) == 0
    assert end_of(stopped, attempt=2).checkpoint_digest == calm.checkpoint_digest


@pytest.mark.slow
def test_a_checkpoint_that_was_cut_off_while_it_was_written_is_passed_over(trl, tmp_path, model) -> None:
    spec = sft_spec(tmp_path, model, num_steps=24, checkpoint_every_s=0.01)
    calm = trained(trl, tmp_path / "calm", spec)
    torn = prepare(tmp_path / "torn", spec)
    kill_after(trl, torn, 1, 4)
    half = torn / STEPS / "checkpoint-23"
    half.mkdir()
    (half / WEIGHTS).write_bytes(b"half of it")
    assert trl.run(torn, attempt=2) == 0
    assert end_of(torn, attempt=2).checkpoint_digest == calm.checkpoint_digest


@pytest.mark.slow
def test_a_second_stage_goes_on_from_the_firsts_adapters_and_a_template_is_used(trl, tmp_path) -> None:
    folder = write_model(tmp_path / "llama", chat_template=TEMPLATE)
    first = trained(trl, tmp_path / "first", sft_spec(tmp_path, folder, num_steps=20, dev_suite=None))
    checkpoint = Path(str(first.checkpoint))
    ref = ModelRef(path=str(checkpoint), weights_digest=weights_digest(checkpoint))
    spec = sft_spec(tmp_path, folder, num_steps=20, batch_size=len(PAIRS)).model_copy(update={"model": ref})
    after_first = loss_of_answers(checkpoint, PAIRS)
    second = trained(trl, tmp_path / "second", spec)
    assert losses(tmp_path / "second")[0] == pytest.approx(after_first, rel=2e-4)
    assert loss_of_answers(Path(str(second.checkpoint)), PAIRS) < after_first < loss_of_answers(folder, PAIRS)


@pytest.mark.slow
def test_a_model_that_has_learned_its_answers_scores_by_what_it_says(trl, tmp_path, model) -> None:
    spec = sft_spec(
        tmp_path, model, adaptation="full", num_steps=200, batch_size=12, learning_rate=0.01,
        dev_suite=chat_suite(tmp_path, [*PAIRS[:6], (PAIRS[7][0], "Nie gesagt.")], max_new_tokens=16),
    )  # fmt: skip
    result = trained(trl, tmp_path / "run", spec)
    assert result.evaluation is not None
    items = read_items(tmp_path / "run" / result.evaluation.items)
    assert items.answer == (*(answer for _, answer in PAIRS[:6]), "Neustart.")
    assert result.evaluation.metrics["exact_match"] == pytest.approx(6 / 7)
    assert result.evaluation.metrics["token_f1"] == pytest.approx(6 / 7)


def refused(trl: Zygote, run_dir: Path, spec: SftSpec) -> str:
    assert trl.run(prepare(run_dir, spec)) == 1
    result = end_of(run_dir)
    assert (result.status, result.num_steps, result.checkpoint) == (RunStatus.FAILED, 0, None)
    return result.reason


def test_rows_that_could_teach_nothing_are_refused_by_their_ids_before_the_first_step(trl, tmp_path, model) -> None:
    spec = sft_spec(tmp_path, model)
    digest = write_pairs(Path(spec.data), [*PAIRS[:4], ("leer?", "")])
    told = refused(trl, tmp_path / "run", spec.model_copy(update={"data_digest": digest}))
    assert "r004" in told


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        ("data", "was changed"),
        ("weights", "are not those that the spec names"),
        ("gone", "is absent"),
        pytest.param("long", "Raise max_len", marks=pytest.mark.slow),
        pytest.param("huge", "Lower the learning rate", marks=pytest.mark.slow),
    ],
)
def test_what_cannot_be_trained_on_ends_the_run_with_a_remedy(trl, tmp_path, model, break_it, told) -> None:
    if break_it == "huge":
        scale_weights(model, 1e30)
    spec = sft_spec(tmp_path, model, max_len=8 if break_it == "long" else 64)
    if break_it == "data":
        write_pairs(Path(spec.data), PAIRS[:5])
    elif break_it == "weights":
        scale_weights(model, 2.0)
    elif break_it == "gone":
        shutil.rmtree(model)
    run_dir = prepare(tmp_path / "run", spec)
    assert trl.run(run_dir) == 1
    assert told in end_of(run_dir).reason


def scale_weights(folder: Path, factor: float) -> None:
    tensors = {name: tensor * factor for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
