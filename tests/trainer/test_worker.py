"""Real worker processes: killed, stopped, cut off, starved of disk."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_runs import TINY, prepare, pretrain_spec
from zygote import Zygote

from nightsmith.evals.types import EvaluateSpec
from nightsmith.model.files import weights_digest
from nightsmith.trainer import runfolder
from nightsmith.trainer.checkpoint import latest
from nightsmith.trainer.journal import JOURNAL, read_journal
from nightsmith.trainer.spec import RunResult, RunStatus
from nightsmith.trainer.worker import TAKEN, classify

FAKES = Path(__file__).parents[1] / "fakes"
ENDLESS = 1_000_000


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    process = Zygote()
    yield process
    process.close()


def end_of(run_dir: Path, attempt: int = 1) -> RunResult:
    result = runfolder.read_end(run_dir, attempt)
    assert result is not None
    return result


def wait_for(run_dir: Path, kind: str, attempt: int, count: int = 1) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        lines = [line for line in read_journal(run_dir / JOURNAL) if line["attempt"] == attempt]
        if sum(line["kind"] == kind for line in lines) >= count:
            return
        time.sleep(0.005)
    raise AssertionError(f"no {kind} event in {run_dir}")


def test_a_run_ends_with_digests_metrics_and_an_evaluation_that_match_its_files(zygote, tmp_path) -> None:
    run_dir = prepare(tmp_path / "run", pretrain_spec(tmp_path))
    assert zygote.run(run_dir) == 0
    result = end_of(run_dir)
    assert (result.status, result.reason, result.num_steps) == (RunStatus.FINISHED, "", 40)
    assert result.num_tokens == 40 * 4 * 32
    assert result.checkpoint_digest == weights_digest(Path(str(result.checkpoint)))
    assert result.initial_digest not in (None, result.checkpoint_digest)
    assert result.evaluation is not None
    assert result.evaluation.checkpoint_digest == result.checkpoint_digest
    assert 0 < result.train_s < result.wall_s
    assert result.metrics["train/loss"] < 5.5
    assert 0 < result.metrics["router/entropy"] <= 1
    assert result.metrics["router/max_vio"] > 0
    assert result.metrics["router/logit_norm"] > 0
    steps = [line for line in read_journal(run_dir / JOURNAL) if line["kind"] == "step" and line["router"]]
    assert {len(line["router"]) for line in steps} == {TINY.num_layers}
    assert max(layer["max_vio"] for layer in steps[-1]["router"]) > 0
    phases = [line["phase"] for line in read_journal(run_dir / JOURNAL) if line["kind"] == "phase"]
    assert phases == ["start", "data", "build", "train", "evaluate"]


def test_a_run_that_was_killed_three_times_ends_bit_equal_to_an_undisturbed_one(zygote, tmp_path) -> None:
    routing = {"balance_mode": "bias", "router_aux_loss_coef": 0.01, "router_z_loss_coef": 0.01}
    spec = pretrain_spec(tmp_path, num_steps=60, **routing)
    calm = prepare(tmp_path / "calm", spec)
    torn = prepare(tmp_path / "torn", spec.model_copy(update={"checkpoint_every_s": 0.02}))
    assert zygote.run(calm) == 0
    for attempt in (1, 2, 3):
        pid = zygote.start(torn, attempt)
        wait_for(torn, "checkpoint", attempt, count=2)
        os.kill(pid, signal.SIGKILL)
        assert zygote.wait(pid) == -signal.SIGKILL
        assert runfolder.read_end(torn, attempt) is None
    assert zygote.run(torn, attempt=4) == 0
    undisturbed, resumed = end_of(calm), end_of(torn, attempt=4)
    assert resumed.checkpoint_digest == undisturbed.checkpoint_digest
    assert resumed.initial_digest == undisturbed.initial_digest
    assert resumed.metrics["train/loss"] == undisturbed.metrics["train/loss"]
    assert resumed.evaluation.items_digest == undisturbed.evaluation.items_digest


def test_a_stopped_run_leaves_a_checkpoint_and_goes_on_to_the_same_end(zygote, tmp_path) -> None:
    spec = pretrain_spec(tmp_path, num_steps=60)
    calm, stopped = prepare(tmp_path / "calm", spec), prepare(tmp_path / "stopped", spec)
    assert zygote.run(calm) == 0
    pid = zygote.start(stopped)
    wait_for(stopped, "step", 1)
    os.kill(pid, signal.SIGTERM)
    assert zygote.wait(pid) == 1
    result = end_of(stopped)
    assert (result.status, result.evaluation) == (RunStatus.STOPPED, None)
    assert 0 < result.num_steps < 60
    assert result.checkpoint == str(latest(stopped))
    assert zygote.run(stopped, attempt=2) == 0
    assert end_of(stopped, attempt=2).checkpoint_digest == end_of(calm).checkpoint_digest


def test_the_time_limit_binds_without_anybody_watching(zygote, tmp_path) -> None:
    run_dir = prepare(tmp_path / "run", pretrain_spec(tmp_path, num_steps=ENDLESS), time_limit_s=1.0)
    assert zygote.run(run_dir) == 1
    result = end_of(run_dir)
    assert result.status == RunStatus.TIMED_OUT
    assert 1.0 <= result.wall_s < 4.0
    assert latest(run_dir) is not None


@pytest.mark.parametrize(("how", "status"), [("sleeps", 1), ("holds_the_interpreter", -signal.SIGALRM)])
def test_a_run_that_hangs_is_cut_off_after_its_time_limit(tmp_path, how: str, status: int) -> None:
    run_dir = prepare(tmp_path / "run", pretrain_spec(tmp_path), time_limit_s=0.5)
    program = (
        "import sys; import nightsmith.trainer.worker as worker;"
        "worker.HARD_AFTER_S, worker.KILL_AFTER_S = 0.3, 1.0;"
        f"worker.RUNNERS['pretrain'] = 'hanging_runner.{how}';"
        "import hanging_runner; sys.modules.update({f'hanging_runner.{n}': c for n, c in hanging_runner.WAYS.items()});"
        f"sys.exit(worker.main([{str(run_dir)!r}]))"
    )
    started = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(FAKES)}, check=False)
    assert ended.returncode == status
    assert time.monotonic() - started < 8
    record = runfolder.read_end(run_dir, 1)
    assert (record is None) if status < 0 else record.status == RunStatus.TIMED_OUT


def test_two_processes_on_one_attempt_run_it_once(zygote, tmp_path) -> None:
    run_dir = prepare(tmp_path / "run", pretrain_spec(tmp_path))
    pids = [zygote.start(run_dir) for _ in range(3)]
    assert sorted(zygote.wait(pid) for pid in pids) == [0, TAKEN, TAKEN]
    assert zygote.run(run_dir) == TAKEN
    starts = [line for line in read_journal(run_dir / JOURNAL) if line.get("phase") == "start"]
    assert len(starts) == 1


def test_a_full_disk_ends_the_run_in_order_and_the_last_good_checkpoint_stays(zygote, tmp_path) -> None:
    spec = pretrain_spec(tmp_path, num_steps=60)
    run_dir = prepare(tmp_path / "run", spec)
    pid = zygote.start(run_dir)
    wait_for(run_dir, "step", 1)
    os.kill(pid, signal.SIGTERM)
    zygote.wait(pid)
    good = latest(run_dir)
    assert good is not None
    digest = weights_digest(good)
    assert zygote.run(run_dir, attempt=2, file_limit=100_000) == 1
    result = end_of(run_dir, attempt=2)
    assert result.status == RunStatus.DISK_FULL
    assert "Free space" in result.reason
    assert latest(run_dir) == good
    assert weights_digest(good) == digest
    assert list(run_dir.glob(".*.tmp")) == []
    assert zygote.run(run_dir, attempt=3) == 0
    assert end_of(run_dir, attempt=3).num_steps == 60


def test_changed_and_absent_data_fail_the_run_with_what_mends_it(zygote, tmp_path) -> None:
    spec = pretrain_spec(tmp_path)
    changed = prepare(tmp_path / "changed", spec.model_copy(update={"data_digest": "0" * 64}))
    absent = prepare(tmp_path / "absent", spec.model_copy(update={"data": str(tmp_path / "gone.parquet")}))
    assert (zygote.run(changed), zygote.run(absent)) == (1, 1)
    assert (end_of(changed).status, end_of(absent).status) == (RunStatus.FAILED, RunStatus.FAILED)
    assert "was changed" in end_of(changed).reason
    assert "gone.parquet is absent" in end_of(absent).reason


def test_an_evaluation_job_scores_the_checkpoint_it_names_and_no_other(zygote, tmp_path) -> None:
    spec = pretrain_spec(tmp_path)
    trained = prepare(tmp_path / "trained", spec)
    assert zygote.run(trained) == 0
    source = end_of(trained)
    evaluation = EvaluateSpec(
        checkpoint=str(source.checkpoint), checkpoint_digest=str(source.checkpoint_digest), suite=spec.dev_suite
    )
    asked = prepare(tmp_path / "asked", evaluation)
    other = prepare(tmp_path / "other", evaluation.model_copy(update={"checkpoint_digest": "0" * 64}))
    assert (zygote.run(asked), zygote.run(other)) == (0, 1)
    assert end_of(asked).evaluation.items_digest == source.evaluation.items_digest
    assert "were changed" in end_of(other).reason


def test_micro_batches_take_the_steps_of_the_whole_batch(zygote, tmp_path) -> None:
    routing = {"balance_mode": "bias", "router_aux_loss_coef": 0.01}
    spec = pretrain_spec(tmp_path, num_steps=20, precision="float32", **routing)
    whole = prepare(tmp_path / "whole", spec)
    parts = prepare(tmp_path / "parts", spec, micro_batch_size=1)
    assert (zygote.run(whole), zygote.run(parts)) == (0, 0)
    one, other = end_of(whole), end_of(parts)
    assert (other.num_steps, other.num_tokens, other.spec_digest) == (one.num_steps, one.num_tokens, one.spec_digest)
    assert other.metrics["train/loss"] == pytest.approx(one.metrics["train/loss"], rel=1e-3)


@pytest.mark.slow
def test_a_run_that_runs_out_of_memory_fits_in_micro_batches_with_the_same_loss(zygote, tmp_path) -> None:
    large = TINY.model_copy(update={"batch_size": 1024})
    spec = pretrain_spec(tmp_path, architecture=large, num_steps=1, precision="float32", dev_suite=None)
    free, tight = prepare(tmp_path / "free", spec), prepare(tmp_path / "tight", spec)
    limit = 700 * 2**20
    assert (zygote.run(free), zygote.run(tight, memory_limit=limit)) == (0, 1)
    assert end_of(tight).status == RunStatus.OUT_OF_MEMORY
    prepare(tight, spec, attempt=2, micro_batch_size=64)
    assert zygote.run(tight, attempt=2, memory_limit=limit) == 0
    loss = end_of(free).metrics["train/loss"]
    assert end_of(tight, attempt=2).metrics["train/loss"] == pytest.approx(loss, rel=1e-5)


def test_exhausted_memory_is_told_from_other_failures() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**55)
    assert classify(refused.value)[0] == RunStatus.OUT_OF_MEMORY
    assert classify(MemoryError())[0] == RunStatus.OUT_OF_MEMORY
    assert classify(ValueError("shape"))[0] == RunStatus.FAILED
