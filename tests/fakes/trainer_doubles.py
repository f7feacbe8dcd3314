"""Doubles of axolotl and NeMo AutoModel as executables on PATH: what a job meets at its process boundary.

They take the real tools' command lines, refuse a configuration that the published schema (axolotl 0.19.0, NeMo
AutoModel 0.7.0) would refuse, print logs in the real form and leave folders in the real layout. They train nothing:
weights are changed by a constant. How one behaves is read from `behaviour.json` beside it: `crash_at`, `hang_at`,
`nan_at`, `oom_at` (steps from 1), `step_s`, `torn_at` (killed while it saves that step).
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def install(folder: Path, *names: str) -> Path:
    """Put doubles into a folder for PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        script = folder / name
        script.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(HERE)!r})\n"
            f"from {name}_double import main\nsys.exit(main(sys.argv[1:]))\n"
        )
        script.chmod(0o755)
    return folder


def install_gpus(folder: Path, *, name: str = "NVIDIA H100 80GB HBM3", mib: int = 81_559) -> Path:
    """Put an nvidia-smi there that reports such GPUs."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "nvidia-smi"
    script.write_text(f"#!/bin/sh\necho '{name}, {mib}'\n")
    script.chmod(0o755)
    return folder


def behave(folder: Path, **behaviour: Any) -> None:
    """What the doubles in a folder do from now on."""
    (folder / "behaviour.json").write_text(json.dumps(behaviour))


def behaviour() -> dict[str, Any]:
    """What this double was told to do."""
    path = Path(sys.argv[0]).parent / "behaviour.json"
    return json.loads(path.read_text()) if path.is_file() else {}


class Refused(Exception):
    """The configuration is not what the published schema allows."""


def check(where: str, found: dict[str, Any], schema: dict[str, Any]) -> None:
    """Every key is known and of its type. A dict as type: of these keys; a list of one dict: items of these keys."""
    for key, value in found.items():
        if key not in schema:
            raise Refused(f"{where}{key}: unknown key")
        kind = schema[key]
        if isinstance(kind, dict):
            _require(isinstance(value, dict), where + key, "a mapping", value)
            check(f"{where}{key}.", value, kind)
        elif isinstance(kind, list):
            _require(isinstance(value, list), where + key, "a list", value)
            for item in value:
                check(f"{where}{key}.", item, kind[0])
        elif isinstance(kind, set):
            _require(value in kind, where + key, f"one of {sorted(map(str, kind))}", value)
        else:
            kinds = kind if isinstance(kind, tuple) else (kind,)
            # YAML 1.1 reads 1e-05 as text; a bool is no number for pydantic's strict readers here
            fits = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
            _require(fits, where + key, " or ".join(each.__name__ for each in kinds), value)


def _require(condition: bool, where: str, wanted: str, value: Any) -> None:
    if not condition:
        raise Refused(f"{where}: Input should be {wanted}, got {value!r}")


ROWS = ("input_ids", "attention_mask", "labels")
"""Columns of rows that are tokenised already."""


class Run:
    """Steps of a pretended training."""

    def __init__(self, rows: Path, columns: tuple[str, ...] = ROWS) -> None:
        import pyarrow.parquet as pq

        table = pq.read_table(rows)
        assert tuple(table.column_names) == columns, table.column_names
        self.rows = table.to_pylist()
        self.told = behaviour()

    def step(self, number: int) -> float:
        """The loss of a step, or whatever else was asked to happen there."""
        import time

        time.sleep(self.told.get("step_s", 0.0))
        if number == self.told.get("hang_at"):
            time.sleep(3600)
        if number == self.told.get("crash_at"):
            raise RuntimeError("expected scalar type BFloat16 but found Float")
        if number == self.told.get("oom_at"):
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.15 GiB. GPU 0 has 79.10 GiB in all.")
        return float("nan") if number == self.told.get("nan_at") else 2.0 / number

    def tear(self, number: int) -> None:
        """Vanish in the middle of a save, where that was asked for."""
        if number == self.told.get("torn_at"):
            os.kill(os.getpid(), 9)


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


def write_weights(source: Path, folder: Path, *, full: bool, rank: int = 0, alpha: int = 0) -> None:
    """A trained model in Hugging Face's form: whole weights, or an adapter on every attention projection."""
    import shutil

    import numpy as np
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    folder.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.name.startswith("tokenizer") or (full and file.name == "config.json"):
            shutil.copyfile(file, folder / file.name)
    if full:
        weights = load_file(source / "model.safetensors")
        save_file(
            {name: each + np.float32(0.01) for name, each in weights.items()},
            folder / "model.safetensors",
            {"format": "pt"},
        )
        return
    with safe_open(source / "model.safetensors", "np") as base:
        names = [name for name in list(base.keys()) if "self_attn" in name and name.endswith("_proj.weight")]
        shapes = {name: base.get_slice(name).get_shape() for name in names}
    adapter = {}
    for name, (rows, columns) in shapes.items():
        key = "base_model.model." + name.removesuffix(".weight")
        adapter[f"{key}.lora_A.weight"] = np.full((rank, columns), 0.01, np.float32)
        adapter[f"{key}.lora_B.weight"] = np.full((rows, rank), 0.01, np.float32)
    save_file(adapter, folder / "adapter_model.safetensors", {"format": "pt"})
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": alpha, "lora_dropout": 0.0,
        "bias": "none", "base_model_name_or_path": str(source), "target_modules": r"model\.layers\.\d+\..*",
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
