"""A model folder as files: where its weights are, and their digest. Torch-free."""

import json
from pathlib import Path

from nightsmith.record.digest import canonical_json, file_digest, sha256
from nightsmith.record.errors import NightsmithError

WEIGHTS = "model.safetensors"
"""Whole weights in one file."""
INDEX = "model.safetensors.index.json"
"""Names the files of sharded weights."""
ADAPTER = "adapter_model.safetensors"
"""LoRA weights, as PEFT writes them; `adapter_config.json` beside it names the base."""
ADAPTER_CONFIG = "adapter_config.json"
"""PEFT's description of an adapter."""


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that hold a folder's weights: an adapter's, else the whole model's, in the order of their names.

    Raises NightsmithError where there are none.
    """
    if (folder / ADAPTER).is_file():
        return (folder / ADAPTER,)
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    if (folder / INDEX).is_file():
        names = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
        return tuple(folder / name for name in names)
    raise NightsmithError(
        f"{folder} holds no weights: none of {ADAPTER}, {WEIGHTS} and {INDEX} is there. Give the folder of a model "
        "in safetensors form (`model.save_pretrained(folder)` writes one)."
    )


def weights_digest(folder: Path) -> str:
    """SHA-256 of a folder's weights; of several files, the digest of their digests by name."""
    files = weight_files(folder)
    if len(files) == 1:
        return file_digest(files[0])
    return sha256(canonical_json([[file.name, file_digest(file)] for file in files]))


def found_digest(folder: Path) -> str | None:
    """The digest of the weights that lie there now; None where they are absent."""
    try:
        return weights_digest(folder)
    except (NightsmithError, OSError):
        return None
