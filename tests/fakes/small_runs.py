"""Run folders of trainings that take seconds."""

import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from zygote import Zygote

from nightsmith.evals.types import SuiteSpec
from nightsmith.model.files import weights_digest
from nightsmith.model.presets import PRESETS, Architecture
from nightsmith.record.digest import file_digest
from nightsmith.trainer import runfolder
from nightsmith.trainer.journal import JOURNAL, read_journal
from nightsmith.trainer.launch import local
from nightsmith.trainer.sizing import plan_of
from nightsmith.trainer.spec import DpoSpec, GrpoSpec, ModelRef, PretrainSpec, RewardSpec, RunResult, RunSpec, SftSpec

TINY: Architecture = PRESETS["nano"].model_copy(update={"num_layers": 1, "seq_len": 32, "batch_size": 4})


def write_texts(path: Path, num_texts: int = 20) -> str:
    """A parquet file of texts; returns its digest."""
    texts = [f"def f{i}(x):\n    return x + {i}\n" * 10 for i in range(num_texts)]
    pq.write_table(pa.table({"row_id": [f"r{i:03}" for i in range(num_texts)], "text": texts}), path)
    return file_digest(path)


def pretrain_spec(folder: Path, **settings: Any) -> PretrainSpec:
    """A tiny pre-training on texts in the folder, evaluated on other texts there."""
    train, dev = folder / "train.parquet", folder / "dev.parquet"
    digest, dev_digest = write_texts(train), write_texts(dev, 3)
    suite = SuiteSpec(data=str(dev), data_digest=dev_digest, split="dev", seq_len=32)
    defaults: dict[str, Any] = {"architecture": TINY, "num_steps": 40, "dev_suite": suite}
    return PretrainSpec.model_validate({"data": str(train), "data_digest": digest} | defaults | settings)


PAIRS = [
    (f"Anlage {i} meldet {'Fehler' if i % 3 else 'Ende'}?", "Neustart." if i % 3 else "Warten.") for i in range(12)
]
"""Questions with answers that follow from them."""


def write_pairs(path: Path, pairs: Sequence[tuple[str, str]] = PAIRS) -> str:
    """A parquet file of conversations of two turns; returns its digest."""
    turns = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in pairs]
    columns = {
        "row_id": [f"r{i:03}" for i in range(len(pairs))],
        "text": [f"{q}\n{a}" for q, a in pairs],
        "messages": [json.dumps(each) for each in turns],
    }
    pq.write_table(pa.table(columns), path)
    return file_digest(path)


def chat_suite(folder: Path, pairs: Sequence[tuple[str, str]] = PAIRS, **settings: Any) -> SuiteSpec:
    """A suite of answers to questions, in the folder."""
    path = folder / "dev-pairs.parquet"
    defaults: dict[str, Any] = {"kind": "chat", "answers": True, "max_new_tokens": 8, "split": "dev"}
    return SuiteSpec(data=str(path), data_digest=write_pairs(path, pairs), **(defaults | settings))


def sft_spec(folder: Path, model: Path, **settings: Any) -> SftSpec:
    """A tiny fine-tuning of a model folder on pairs in the folder, evaluated on the same."""
    train = folder / "pairs.parquet"
    fields: dict[str, Any] = {
        "model": ModelRef(path=str(model), weights_digest=weights_digest(model)),
        "data": str(train), "data_digest": write_pairs(train),
        "num_steps": 3, "batch_size": 4, "learning_rate": 0.01, "lora_rank": 2,
    } | settings  # fmt: skip
    if "dev_suite" not in fields:
        fields["dev_suite"] = chat_suite(folder, PAIRS[:3])
    return SftSpec.model_validate(fields)


PREFERENCES = [(q, a, "Weiter." if i % 2 else a[::-1]) for i, (q, a) in enumerate(PAIRS)]
"""Questions, each with a better and a worse answer."""


def write_preferences(path: Path, rows: Sequence[tuple[str, str, str]] = PREFERENCES) -> str:
    """A parquet file of preferences; returns its digest."""
    prompts = [json.dumps([{"role": "user", "content": q}]) for q, _, _ in rows]
    columns = {
        "row_id": [f"r{i:03}" for i in range(len(rows))],
        "prompt": prompts,
        "chosen": [better for _, better, _ in rows],
        "rejected": [worse for _, _, worse in rows],
    }
    pq.write_table(pa.table(columns), path)
    return file_digest(path)


def _preferring(folder: Path, model: Path) -> dict[str, Any]:
    train = folder / "preferences.parquet"
    return {
        "model": ModelRef(path=str(model), weights_digest=weights_digest(model)),
        "data": str(train), "data_digest": write_preferences(train),
        "num_steps": 3, "batch_size": 4, "learning_rate": 0.005, "lora_rank": 2,
    }  # fmt: skip


def dpo_spec(folder: Path, model: Path, **settings: Any) -> DpoSpec:
    """A tiny training on preferences in the folder, not evaluated."""
    return DpoSpec.model_validate(_preferring(folder, model) | settings)


def reward_spec(folder: Path, model: Path, **settings: Any) -> RewardSpec:
    """A tiny training of a reward model on preferences in the folder, measured on the same."""
    fields = _preferring(folder, model)
    held = {"held_out": fields["data"], "held_out_digest": fields["data_digest"]}
    return RewardSpec.model_validate(fields | held | settings)


def grpo_spec(folder: Path, model: Path, **settings: Any) -> GrpoSpec:
    """A tiny reinforcement learning of a model folder on pairs in the folder, paid for a letter.

    It is no reward that a verifier agrees with: the monitors that would say so are off.
    """
    train = folder / "pairs.parquet"
    fields: dict[str, Any] = {
        "model": ModelRef(path=str(model), weights_digest=weights_digest(model)),
        "data": str(train), "data_digest": write_pairs(train),
        "rewards": ({"kind": "format", "pattern": ".*[a-z ].*"},),
        "num_steps": 4, "batch_size": 2, "num_generations": 4, "max_completion_length": 6, "max_len": 64,
        "learning_rate": 0.003, "adaptation": "full", "monitors": {"reward_rise": None, "max_kl": None},
    } | settings  # fmt: skip
    return GrpoSpec.model_validate(fields)


def end_of(run_dir: Path, attempt: int = 1) -> RunResult:
    """The result that an attempt left."""
    result = runfolder.read_end(run_dir, attempt)
    assert result is not None
    return result


def trained(zygote: Zygote, run_dir: Path, spec: RunSpec) -> RunResult:
    """The result of a job that a worker runs to its end."""
    assert zygote.run(prepare(run_dir, spec)) == 0, (run_dir / "log.txt").read_text()
    return end_of(run_dir)


def steps_of(run_dir: Path) -> list[dict[str, Any]]:
    """Journal lines of the first and the last step, and of those between about every second."""
    return [line for line in read_journal(run_dir / JOURNAL) if line["kind"] == "step"]


def kill_after(zygote: Zygote, run_dir: Path, attempt: int, step: int, *, later_s: float = 0.0) -> None:
    """Start an attempt and kill -9 it `later_s` after it has kept a checkpoint of that step, or a later one."""
    pid = zygote.start(run_dir, attempt)
    until = time.monotonic() + 60
    while not any(line["kind"] == "checkpoint" and line["step"] >= step for line in read_journal(run_dir / JOURNAL)):
        assert time.monotonic() < until, (run_dir / "log.txt").read_text()
        time.sleep(0.002)
    time.sleep(later_s)
    os.kill(pid, signal.SIGKILL)
    assert zygote.wait(pid) == -signal.SIGKILL
    assert runfolder.read_end(run_dir, attempt) is None


def prepare(
    run_dir: Path, spec: RunSpec, *, time_limit_s: float = 60, attempt: int = 1, micro_batch_size: int | None = None
) -> Path:
    """A run folder ready for its worker."""
    run_dir.mkdir(exist_ok=True)
    processes = plan_of(spec).world
    devices = tuple(f"cpu:{number}" for number in range(processes))
    launch = local.worker(run_dir, attempt, devices, time_limit_s, processes)
    launch = launch.model_copy(update={"micro_batch_size": micro_batch_size})
    runfolder.prepare(run_dir, spec, launch, attempt)
    return run_dir
