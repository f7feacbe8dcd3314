"""Run folders of trainings that take a second."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nightsmith.evals.types import SuiteSpec
from nightsmith.model.presets import PRESETS, Architecture
from nightsmith.record.digest import file_digest
from nightsmith.trainer import runfolder
from nightsmith.trainer.launch import local
from nightsmith.trainer.spec import PretrainSpec, RunSpec

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


def prepare(run_dir: Path, spec: RunSpec, *, time_limit_s: float = 60, attempt: int = 1) -> Path:
    """A run folder ready for its worker."""
    run_dir.mkdir(exist_ok=True)
    runfolder.prepare(run_dir, spec, local.worker(run_dir, attempt, ("cpu:0",), time_limit_s), attempt)
    return run_dir
