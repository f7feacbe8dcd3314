"""A LoRA adapter of a Llama, as PEFT wrote it, as the GGUF file that llama.cpp applies to a base with `--lora`."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nightsmith.model.export import ExportFailed
from nightsmith.model.files import ADAPTER_CONFIG, weight_files
from nightsmith.model.load import read_config
from nightsmith.model.lora import base_of
from nightsmith.model.lora_gguf import write_lora_gguf
from nightsmith.record.errors import Damaged

NAME = "adapter.gguf"
"""File in the exported folder."""
TYPE = "llama"
"""Kind of base whose adapters llama.cpp permutes as `lora_gguf` does."""
UNLIKE = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "target_parameters", "modules_to_save")
"""Settings of PEFT under which an adapter is more than alpha / rank times two matrices a layer."""


def export_adapter(checkpoint: Path, folder: Path) -> int:
    """Write NAME into `folder`, in float16; returns how many parameters it has.

    Raises:
        ExportFailed: the checkpoint is no plain adapter of a Llama; says what to export instead.
    """
    described = _described(checkpoint)
    base = _base(checkpoint)
    state = {name: weight.float().numpy() for name, weight in _weights(checkpoint).items()}
    heads = int(base["num_attention_heads"])
    write_lora_gguf(
        folder / NAME,
        state,
        alpha=float(described["lora_alpha"]),
        num_heads=heads,
        num_key_value_heads=int(base.get("num_key_value_heads") or heads),
    )
    return sum(array.size for array in state.values())


def _described(checkpoint: Path) -> dict[str, Any]:
    """PEFT's description of the adapter."""
    if not (checkpoint / ADAPTER_CONFIG).is_file():
        raise ExportFailed(f"{checkpoint} is a whole model and no adapter. Export it with --format gguf.")
    try:
        described = json.loads((checkpoint / ADAPTER_CONFIG).read_text())
    except ValueError as error:
        raise Damaged(f"{checkpoint / ADAPTER_CONFIG} is not JSON: {error}. Fine-tune again.") from error
    if unlike := [name for name in UNLIKE if described.get(name)]:
        raise ExportFailed(
            f"the adapter has {', '.join(unlike)}, which llama.cpp's adapters cannot say. Export it with --format gguf."
        )
    return described


def _weights(checkpoint: Path) -> dict[str, Tensor]:
    try:
        return load_file(weight_files(checkpoint)[0])
    except SafetensorError as error:
        raise Damaged(f"The adapter {checkpoint} cannot be read: {error}. Fine-tune again.") from error


def _base(checkpoint: Path) -> dict[str, Any]:
    """Config of the model that the adapter belongs to."""
    folder = base_of(checkpoint)
    if (folder / ADAPTER_CONFIG).is_file():
        raise ExportFailed(f"its base {folder} is an adapter too, and a server applies one. Export with --format gguf.")
    config = read_config(folder)
    if config["model_type"] != TYPE:
        raise ExportFailed(f"its base is of type {config['model_type']!r}; adapters of type {TYPE!r} can be written.")
    return config
