"""Several processes that train together: real torchrun, real kills. What one process does is in test_worker."""

import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import every_plan
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from small_runs import TINY, prepare, pretrain_spec

from nightsmith.model.capacity.sharding import ParallelPlan
from nightsmith.model.files import WEIGHTS, weights_digest
from nightsmith.record.digest import canonical_json, file_digest
from nightsmith.record.errors import NightsmithError
from nightsmith.trainer import ranks, runfolder
from nightsmith.trainer.attempt import Attempt
from nightsmith.trainer.checkpoint import MANIFEST, latest
from nightsmith.trainer.journal import JOURNAL, Journal, read_journal
from nightsmith.trainer.pretrain import Pretraining
from nightsmith.trainer.ranks import Rank
from nightsmith.trainer.spec import PretrainSpec, RunResult, RunStatus
from nightsmith.trainer.text import Windows, read_tokens

torch.set_num_threads(1)
FSDP_AND_EP = ParallelPlan(fsdp=2, ep=2)
BALANCED = {"balance_mode": "bias", "router_aux_loss_coef": 0.01, "router_z_loss_coef": 0.01}


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


# What the worker sees of a rank


@pytest.fixture
def rank(tmp_path: Path) -> Iterator[tuple[Rank, int]]:
    """A rank as the worker sees it, and the process that plays it: it lives, and says so, until it is killed."""
    seen = Rank(tmp_path, 0)
    seen.clear()
    program = (
        "import os, sys, time; from pathlib import Path; from nightsmith.trainer import runfolder;"
        "lock = runfolder.take_lock(Path(sys.argv[1]), 0, 'rank-0.lock'); os.write(lock, str(os.getpid()).encode())\n"
        "while True: os.utime(lock); time.sleep(0.05)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], start_new_session=True)
    wait_until(lambda: (tmp_path / "rank-0.lock").read_text())
    yield seen, process.pid
    process.kill()
    process.wait()


def test_a_rank_that_lives_neither_hangs_nor_vanished_and_one_that_is_killed_vanished(rank) -> None:
    seen, pid = rank
    assert not seen.vanished()
    assert not seen.hangs()
    os.kill(pid, signal.SIGKILL)
    wait_until(seen.vanished)


def test_a_rank_that_is_frozen_hangs_though_it_still_holds_its_lock(rank, monkeypatch) -> None:
    seen, pid = rank
    monkeypatch.setattr(ranks, "HUNG_AFTER_S", 0.5)
    os.kill(pid, signal.SIGSTOP)
    wait_until(seen.hangs)
    assert not seen.vanished()
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not seen.hangs())


def test_an_attempt_does_not_begin_while_a_rank_of_an_earlier_one_lives(rank, monkeypatch) -> None:
    seen, pid = rank
    monkeypatch.setattr(ranks, "GONE_WITHIN_S", 0.2)
    with pytest.raises(NightsmithError, match=f"Rank 0 of an earlier attempt still runs \\(process {pid}\\)"):
        seen.clear()
    os.kill(pid, signal.SIGKILL)
    monkeypatch.setattr(ranks, "GONE_WITHIN_S", 10.0)
    seen.clear()
    assert not seen.vanished()


# Layouts


@pytest.mark.parametrize(
    ("plan", "problem"),
    [
        ({"fsdp": 3}, "a batch of 4 cannot be split evenly among 3 processes"),
        ({"fsdp": 2, "ep": 4}, "divide fsdp"),
        ({"fsdp": 16, "ep": 16}, "a batch of 4"),
        ({"pp": 2}, "not trained from scratch"),
    ],
)
def test_a_layout_that_cannot_be_is_refused_with_those_that_can(tmp_path, plan, problem) -> None:
    with pytest.raises(ValidationError, match=problem) as refused:
        pretrain_spec(tmp_path, parallel=plan)
    assert f"Layouts over {ParallelPlan(**plan).world} processes" in str(refused.value)


def test_refused_layouts_name_the_ones_that_would_train(tmp_path) -> None:
    with pytest.raises(ValidationError, match=r'\{"fsdp":2\} or \{"ep":2,"fsdp":2\}'):
        pretrain_spec(tmp_path, parallel={"pp": 2})


def test_a_spec_of_one_process_keeps_its_digest(tmp_path) -> None:
    spec = pretrain_spec(tmp_path)
    assert "parallel" not in json.loads(spec.canonical())
    assert pretrain_spec(tmp_path, parallel={"fsdp": 2}).digest() != spec.digest()


# Real ranks


def command(run_dir: Path, attempt: int, *, hung_after_s: float = 60.0) -> list[str]:
    program = (
        "import sys; from nightsmith.trainer import ranks, worker;"
        f"ranks.HUNG_AFTER_S = {hung_after_s};"
        f"sys.exit(worker.main([{str(run_dir)!r}, '--attempt', '{attempt}']))"
    )
    return [sys.executable, "-c", program]


def run(run_dir: Path, attempt: int = 1) -> RunResult:
    """A whole attempt; its result."""
    subprocess.run(command(run_dir, attempt), check=False, timeout=100)
    return end_of(run_dir, attempt)


def end_of(run_dir: Path, attempt: int) -> RunResult:
    result = runfolder.read_end(run_dir, attempt)
    assert result is not None
    return result


def disturb(run_dir: Path, attempt: int, how: Callable[[int], None], hung_after_s: float = 60.0) -> None:
    """Start an attempt and, once it has left some checkpoints, disturb it: `how` is given the worker's process id."""
    process = subprocess.Popen(command(run_dir, attempt, hung_after_s=hung_after_s), start_new_session=True)
    try:
        wait_until(lambda: num_checkpoints(run_dir, attempt) >= 2 or process.poll() is not None)
        assert process.poll() is None
        how(process.pid)
        process.wait(100)
    finally:
        process.kill()
        process.wait()


def num_checkpoints(run_dir: Path, attempt: int) -> int:
    lines = read_journal(run_dir / JOURNAL)
    return sum(line["attempt"] == attempt and line["kind"] == "checkpoint" for line in lines)


def pid_of(run_dir: Path, number: int) -> int:
    return int((run_dir / f"rank-{number}.lock").read_text())


def has_ended(run_dir: Path) -> bool:
    return not any(runfolder.is_locked(run_dir, f"rank-{number}.lock") for number in (0, 1))


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_run_on_two_ranks_that_froze_and_was_killed_twice_ends_bit_equal_to_an_undisturbed_one(tmp_path) -> None:
    spec = pretrain_spec(tmp_path, num_steps=40, parallel=FSDP_AND_EP, **BALANCED)
    calm = prepare(tmp_path / "calm", spec, time_limit_s=600)
    torn = prepare(tmp_path / "torn", spec.model_copy(update={"checkpoint_every_s": 0.05}), time_limit_s=600)
    undisturbed = run(calm)
    assert undisturbed.status == RunStatus.FINISHED

    disturb(torn, 1, lambda _: os.kill(pid_of(torn, 1), signal.SIGSTOP), hung_after_s=20.0)
    frozen = end_of(torn, 1)
    assert (frozen.status, frozen.reason.partition(" gave")[0]) == (RunStatus.HUNG, "Rank 1")
    wait_until(lambda: has_ended(torn), seconds=5)

    disturb(torn, 2, lambda _: os.kill(pid_of(torn, 0), signal.SIGKILL))
    killed = end_of(torn, 2)
    assert (killed.status, killed.reason.partition(" vanished")[0]) == (RunStatus.KILLED, "Rank 0")
    wait_until(lambda: has_ended(torn), seconds=5)

    disturb(torn, 3, lambda worker: os.kill(worker, signal.SIGKILL))
    assert runfolder.read_end(torn, 3) is None
    wait_until(lambda: has_ended(torn), seconds=5)

    resumed = run(torn, 4)
    assert resumed.checkpoint_digest == undisturbed.checkpoint_digest
    assert resumed.initial_digest == undisturbed.initial_digest
    assert resumed.metrics["train/loss"] == undisturbed.metrics["train/loss"]
    assert losses(torn) == losses(calm)
    assert undisturbed.evaluation is not None
    assert resumed.evaluation.items_digest == undisturbed.evaluation.items_digest
    assert_trained_like_one_process(calm, spec, tmp_path / "one")


def losses(run_dir: Path) -> list[float]:
    found = latest(run_dir)
    assert found is not None
    return torch.load(found / "trainer.pt", weights_only=True)["state"]["losses"]


def assert_trained_like_one_process(run_dir: Path, spec: PretrainSpec, alone: Path) -> None:
    training = pretraining(spec.model_copy(update={"parallel": ParallelPlan(), "precision": "float32"}), alone)
    training.train()
    assert losses(run_dir) == pytest.approx(training.losses, rel=2e-2)
    assert losses(run_dir)[0] == pytest.approx(training.losses[0], rel=1e-3)
    result = json.loads((run_dir / runfolder.RESULT).read_text())
    assert result["initial_digest"] == training._attempt.facts.initial_digest


def pretraining(spec: PretrainSpec, run_dir: Path) -> Pretraining:
    """In this process."""
    run_dir.mkdir()
    attempt = Attempt(run_dir, ("cpu:0",), Journal(run_dir / JOURNAL, 1), ending=lambda: None)
    tokens = read_tokens(Path(spec.data), spec.data_digest)
    return Pretraining(attempt, spec, Windows(tokens, TINY.seq_len, TINY.batch_size, spec.seed))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "optimizer", "rounding"),
    [
        (2, "adamw", 1e-5),
        (2, "muon", 1e-3),  # turns gradients in bfloat16
        pytest.param(4, "adamw", 1e-5, marks=pytest.mark.skipif(len(os.sched_getaffinity(0)) < 4, reason="few cores")),
    ],
)
def test_every_layout_trains_like_one_process_and_goes_on_from_its_checkpoints_bit_by_bit(
    tmp_path, processes, optimizer, rounding
) -> None:
    steady = {"schedule": "constant", "warmup_share": 0.0, "precision": "float32", "optimizer": optimizer}
    spec = pretrain_spec(tmp_path, num_steps=4, **steady, **BALANCED)
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run([*torchrun, every_plan.__file__, tmp_path], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-4000:]
    alone = pretraining(spec, tmp_path / "alone")
    alone.train()
    found = json.loads((tmp_path / "found.json").read_text())
    assert found.keys() == every_plan.plans(spec, processes).keys()
    for name, (straight, resumed) in found.items():
        assert resumed == straight, name
        assert straight[0] == pytest.approx(alone.losses, rel=rounding), name


@pytest.fixture
def begun(tmp_path: Path) -> tuple[Path, PretrainSpec]:
    """A run folder with a good checkpoint of step 5, made by one process, and the spec of two that go on from it."""
    spec = pretrain_spec(tmp_path, num_steps=30, parallel=FSDP_AND_EP)
    training = pretraining(spec.model_copy(update={"num_steps": 5, "parallel": ParallelPlan()}), tmp_path / "run")
    training.train()
    return prepare(tmp_path / "run", spec, time_limit_s=600), spec


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_loss_that_becomes_nan_on_two_ranks_ends_both_before_it_reaches_a_checkpoint(begun) -> None:
    run_dir, _ = begun
    good = latest(run_dir)
    assert good is not None
    weights = load_file(good / WEIGHTS)
    weights["lm_head.weight"][0, 0] = math.nan
    save_file(weights, good / WEIGHTS, metadata={"format": "pt"})
    manifest = json.loads((good / MANIFEST).read_text())
    (good / MANIFEST).write_text(canonical_json({**manifest, WEIGHTS: file_digest(good / WEIGHTS)}))
    result = run(run_dir)
    assert (result.status, result.num_steps) == (RunStatus.NOT_FINITE, 5)
    assert result.reason.startswith("Loss nan with gradient norm nan at step 5")
    assert latest(run_dir) == good


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_full_disk_at_the_first_checkpoint_of_two_ranks_is_told_and_the_good_one_stays(begun) -> None:
    run_dir, _ = begun
    good = latest(run_dir)
    assert good is not None
    digest = weights_digest(good)
    subprocess.run(
        command(run_dir, 1), check=False, timeout=100,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY)),
    )  # fmt: skip
    result = end_of(run_dir, 1)
    assert result.status == RunStatus.DISK_FULL
    assert result.reason.startswith("Rank 0: OSError")
    assert "Free space" in result.reason
    assert latest(run_dir) == good
    assert weights_digest(good) == digest
    assert has_ended(run_dir)
