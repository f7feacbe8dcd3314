"""Run folders of trainings that take seconds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nightsmith.evals.types import SuiteSpec
from nightsmith.model.files import weights_digest
from nightsmith.model.presets import PRESETS, Architecture
from nightsmith.record.digest import file_digest
from nightsmith.trainer import runfolder
from nightsmith.trainer.launch import local
from nightsmith.trainer.spec import ModelRef, PretrainSpec, RunSpec, SftSpec

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


def prepare(run_dir: Path, spec: RunSpec, *, time_limit_s: float = 60, attempt: int = 1) -> Path:
    """A run folder ready for its worker."""
    run_dir.mkdir(exist_ok=True)
    runfolder.prepare(run_dir, spec, local.worker(run_dir, attempt, ("cpu:0",), time_limit_s), attempt)
    return run_dir
