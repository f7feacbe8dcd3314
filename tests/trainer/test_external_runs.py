"""Jobs that an external trainer carries out, by real workers; the trainers are doubles on PATH."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file
from small_runs import PAIRS, dpo_spec, prepare, sft_spec, write_preferences
from tiny_models import write_model
from trainer_doubles import behave, install, install_gpus, write_weights
from zygote import Zygote

from nightsmith.model.capacity.subject import subject
from nightsmith.model.files import weights_digest
from nightsmith.model.load import load, load_tokenizer
from nightsmith.trainer import external_job, runfolder
from nightsmith.trainer.external.process import STDERR, STDOUT, NoTrainer, find
from nightsmith.trainer.external.publish import publish
from nightsmith.trainer.journal import JOURNAL, read_journal
from nightsmith.trainer.launch import local
from nightsmith.trainer.sft_rows import training_rows
from nightsmith.trainer.spec import RunResult, RunSpec, RunStatus

GPUS = ("cuda:0", "cuda:1")


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bin")
    install(folder, "axolotl", "automodel")
    return install_gpus(folder)


@pytest.fixture(scope="module")
def zygote(tools: Path) -> Iterator[Zygote]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
        process = Zygote(external_job.__name__)
    yield process
    process.close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "llama")


@pytest.fixture(autouse=True)
def _well_behaved(tools: Path) -> None:
    behave(tools)


def prepared(
    run_dir: Path, spec: RunSpec, devices: tuple[str, ...] = ("cpu:0",), attempt: int = 1, **limit: Any
) -> Path:
    if devices == ("cpu:0",):
        return prepare(run_dir, spec, attempt=attempt, **limit)
    run_dir.mkdir(exist_ok=True)
    runfolder.prepare(run_dir, spec, local.worker(run_dir, attempt, devices, 60), attempt)
    return run_dir


def end_of(run_dir: Path, attempt: int = 1) -> RunResult:
    result = runfolder.read_end(run_dir, attempt)
    assert result is not None
    return result


def events(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in read_journal(run_dir / JOURNAL) if line["kind"] == kind]


def alive(run_dir: Path) -> list[int]:
    """Processes that work in a run folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(run_dir) in (entry / "cmdline").read_text():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_for(condition: Any, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("adaptation", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_a_run_by_axolotl_is_followed_published_and_evaluated_like_any_other(
    tmp_path: Path, model: Path, zygote: Zygote, adaptation: str
):
    spec = sft_spec(tmp_path, model, backend="axolotl", adaptation=adaptation, num_steps=3, batch_size=4)
    run_dir = prepared(tmp_path / "run", spec)

    assert zygote.run(run_dir) == 0, (run_dir / "log.txt").read_text()

    result = end_of(run_dir)
    assert result.status is RunStatus.FINISHED
    assert result.num_steps == 3
    assert result.metrics["train/loss"] == pytest.approx(2 / 3, abs=1e-4)
    assert result.metrics["data/rows"] == len(PAIRS)
    assert result.num_tokens > 0
    assert result.initial_digest != result.checkpoint_digest == weights_digest(run_dir / "model")
    assert result.evaluation is not None
    assert result.evaluation.num_items == 3
    last = events(run_dir, "step")[-1]
    assert (last["step"], last["grad_norm"], last["epoch"]) == (3, 1.5, 1)
    assert not (run_dir / "output").exists(), "what the trainer wrote is not kept twice"


def test_preferences_are_trained_by_axolotl_on_the_tokens_of_our_own_audit(tmp_path: Path, model: Path, zygote: Zygote):
    spec = dpo_spec(tmp_path, model, backend="axolotl", num_steps=3, batch_size=4)
    run_dir = prepared(tmp_path / "run", spec)

    assert zygote.run(run_dir) == 0, (run_dir / "log.txt").read_text()

    result = end_of(run_dir)
    assert result.metrics["rewards/accuracies"] == pytest.approx(0.8)
    assert events(run_dir, "step")[-1]["metrics"]["rewards/chosen"] == 0.1
    first = pq.read_table(run_dir / "rows.parquet").to_pylist()[0]
    assert first == {"prompt": "Anlage 0 meldet Ende?\n", "chosen": "Warten.</s>", "rejected": ".netraW</s>"}


@pytest.mark.slow
def test_pairs_that_axolotl_would_cut_into_other_tokens_are_refused(tmp_path: Path, model: Path, zygote: Zygote):
    spec = dpo_spec(tmp_path, model, backend="axolotl", num_steps=1, batch_size=2)
    digest = write_preferences(Path(spec.data), [("Ende?", "Ja </s> nein.", "Nein."), ("Neu?", "Ja.", "Nein.")])
    run_dir = prepared(tmp_path / "run", spec.model_copy(update={"data_digest": digest}))

    assert zygote.run(run_dir) == 1
    assert "1 of 2 pairs would be cut into other tokens" in end_of(run_dir).reason


@pytest.mark.slow
def test_the_rows_that_are_trained_on_are_those_of_our_own_audit(tmp_path: Path, model: Path, zygote: Zygote):
    spec = sft_spec(tmp_path, model, backend="axolotl", dev_suite=None, num_steps=1)
    run_dir = prepared(tmp_path / "run", spec)
    assert zygote.run(run_dir) == 0

    wanted = training_rows(spec, load_tokenizer(model))
    written = pq.read_table(run_dir / "rows.parquet").to_pydict()
    assert (written["input_ids"], written["labels"]) == (list(wanted.ids), list(wanted.labels))


@pytest.mark.parametrize("adaptation", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_a_run_by_automodel_on_two_gpus_leaves_a_checkpoint_that_our_loader_reads(
    tmp_path: Path, model: Path, zygote: Zygote, adaptation: str
):
    spec = sft_spec(
        tmp_path, model, backend="automodel", adaptation=adaptation, num_steps=3, batch_size=4, dev_suite=None
    )
    run_dir = prepared(tmp_path / "run", spec, GPUS)

    assert zygote.run(run_dir) == 0, (run_dir / "log.txt").read_text()

    result = end_of(run_dir)
    assert result.status is RunStatus.FINISHED
    started = events(run_dir, "trainer")[0]
    assert started["argv"][-2:] == ["--nproc-per-node", "2"]
    assert started["plan"]["fsdp"] == 2
    assert events(run_dir, "step")[-1]["step"] == 3
    trained, before = load(run_dir / "model").state_dict(), load(model).state_dict()
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not trained[name].equal(before[name])


def test_adapters_of_a_wrapped_text_part_get_the_names_that_our_loader_has(tmp_path: Path, model: Path):
    spec = sft_spec(tmp_path, model, backend="axolotl", dev_suite=None)
    write_weights(model, tmp_path / "trained", full=False, rank=2, alpha=32)
    file = tmp_path / "trained" / "adapter_model.safetensors"
    wrapped = {
        name.replace("model.layers", "model.language_model.layers"): each for name, each in load_file(file).items()
    }
    save_file(wrapped, file)
    changes: list[bool] = []

    publish(
        tmp_path / "trained", tmp_path / "model", spec, subject(str(model), cwd=tmp_path).shape,
        lambda _, changed: changes.append(changed),
    )  # fmt: skip

    names = load_file(tmp_path / "model" / "adapter_model.safetensors").keys()
    assert all(name.startswith("base_model.model.model.layers.") for name in names)
    config = json.loads((tmp_path / "model" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], len(config["target_modules"])) == (str(model), 4)
    assert changes == [True]


@pytest.mark.parametrize(
    ("told", "status", "says"),
    [
        ({"crash_at": 2}, RunStatus.FAILED, "expected scalar type BFloat16 but found Float"),
        pytest.param({"oom_at": 2}, RunStatus.OUT_OF_MEMORY, "CUDA out of memory", marks=pytest.mark.slow),
        ({"nan_at": 2, "step_s": 0.05}, RunStatus.NOT_FINITE, "Lower the learning rate"),
    ],
)
def test_a_trainer_that_fails_is_a_result_with_its_last_lines(
    tmp_path: Path, model: Path, zygote: Zygote, tools: Path, told: dict[str, Any], status: RunStatus, says: str
):
    behave(tools, **told)
    spec = sft_spec(tmp_path, model, backend="axolotl", dev_suite=None, num_steps=4)
    run_dir = prepared(tmp_path / "run", spec)

    assert zygote.run(run_dir) == 1

    result = end_of(run_dir)
    assert result.status is status
    assert says in result.reason
    assert result.num_steps == 1
    assert not alive(run_dir)


@pytest.mark.slow
def test_a_trainer_that_hangs_is_ended_with_its_job_at_the_time_limit(
    tmp_path: Path, model: Path, zygote: Zygote, tools: Path
):
    behave(tools, hang_at=2)
    spec = sft_spec(tmp_path, model, backend="axolotl", dev_suite=None, num_steps=4)
    run_dir = prepared(tmp_path / "run", spec, time_limit_s=4)

    assert zygote.run(run_dir) == 1

    assert end_of(run_dir).status is RunStatus.TIMED_OUT
    assert not alive(run_dir)


def test_a_killed_job_takes_its_trainer_along_and_goes_on_from_the_newest_whole_checkpoint(
    tmp_path: Path, model: Path, zygote: Zygote, tools: Path
):
    behave(tools, step_s=0.1, torn_at=50)
    spec = sft_spec(tmp_path, model, backend="axolotl", dev_suite=None, num_steps=60, checkpoint_every_s=0.25)
    run_dir = prepared(tmp_path / "run", spec)
    pid = zygote.start(run_dir)
    wait_for(lambda: any((run_dir / "output").glob("checkpoint-*/trainer_state.json")))
    os.kill(pid, signal.SIGKILL)
    zygote.wait(pid)
    wait_for(lambda: not alive(run_dir))
    (run_dir / "output" / "checkpoint-59").mkdir()  # torn: it would be gone on from, by its number
    behave(tools)

    prepared(run_dir, spec, attempt=2)
    assert zygote.run(run_dir, 2) == 0, (run_dir / "log.txt").read_text()

    result = end_of(run_dir, 2)
    assert result.num_steps == 60
    assert "Using auto-resume" in (run_dir / STDOUT).read_text()
    steps = [line["step"] for line in events(run_dir, "step") if line["attempt"] == 2]
    assert steps[0] > 1, "the second attempt begins where the checkpoint was"
    assert result.metrics["train/loss"] == pytest.approx((2 / 58 + 2 / 59 + 2 / 60) / 3, abs=1e-4)


@pytest.mark.slow
def test_a_stopped_automodel_run_saves_and_goes_on_later(tmp_path: Path, model: Path, zygote: Zygote, tools: Path):
    behave(tools, step_s=0.1)
    spec = sft_spec(tmp_path, model, backend="automodel", dev_suite=None, num_steps=100, batch_size=4)
    run_dir = prepared(tmp_path / "run", spec, GPUS)
    pid = zygote.start(run_dir)
    wait_for(lambda: "| loss" in ((run_dir / STDERR).read_text() if (run_dir / STDERR).exists() else ""))
    os.kill(pid, signal.SIGTERM)
    zygote.wait(pid)
    stopped = end_of(run_dir)
    assert stopped.status is RunStatus.STOPPED
    assert 0 < stopped.num_steps < 100
    assert f"goes on from step {stopped.num_steps}" in stopped.reason
    behave(tools)

    prepared(run_dir, spec, GPUS, attempt=2)
    assert zygote.run(run_dir, 2) == 0, (run_dir / "log.txt").read_text()
    assert end_of(run_dir, 2).num_steps == 100


def test_an_absent_trainer_is_named_with_the_way_to_get_it():
    with pytest.raises(NoTrainer, match=r"pip install nemo-automodel==0\.7\.0"):
        find("automodel-of-elsewhere", "nemo-automodel", "0.7.0")


@pytest.mark.slow
def test_a_model_whose_weights_were_changed_is_not_trained(tmp_path: Path, model: Path, zygote: Zygote):
    spec = sft_spec(tmp_path, model, backend="axolotl", dev_suite=None)
    write_model(model, "qwen3_moe")
    run_dir = prepared(tmp_path / "run", spec)

    assert zygote.run(run_dir) == 1
    assert "they were changed" in end_of(run_dir).reason
