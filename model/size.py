"""How large a model folder is, from its headers and its configuration alone: no weight is read. Torch-free."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from nightsmith.model.files import weight_files
from nightsmith.record.errors import NightsmithError

BYTE_LEVEL_VOCABULARY = 1024
"""Tokenizers with fewer tokens than this write little more than a byte with each."""
BYTES_PER_TOKEN = 3.5
"""Of a tokenizer with tens of thousands of tokens: more in English prose, fewer in names and figures."""
HEADER_BYTES = 100 * 2**20
"""No header of a safetensors file is longer."""


@dataclass(frozen=True)
class ModelSize:
    """What planning asks of a model."""

    num_params: float
    """Weights that a token is multiplied with, or more: experts that it does not pass are counted too."""
    is_byte_level: bool
    """Whether a token stands for about one byte."""
    has_chat_template: bool
    """Whether conversations are rendered by a template of its own."""
    max_len: int | None = None
    """Longest input in tokens that its configuration names."""

    @property
    def bytes_per_token(self) -> float:
        """About how many bytes of text a token stands for."""
        return 1.0 if self.is_byte_level else BYTES_PER_TOKEN


def model_size(folder: Path) -> ModelSize:
    """The size of a model, of an adapter's base where the folder is an adapter. Raises NightsmithError."""
    base = _base(folder)
    config = _object(base / "config.json")
    vocabulary, longest = config.get("vocab_size"), config.get("max_position_embeddings")
    return ModelSize(
        num_params=sum(_num_values(file) for file in weight_files(base)),
        is_byte_level=isinstance(vocabulary, int) and vocabulary < BYTE_LEVEL_VOCABULARY,
        has_chat_template=_has_chat_template(folder) or _has_chat_template(base),
        max_len=longest if isinstance(longest, int) else None,
    )


def _base(folder: Path) -> Path:
    named = _object(folder / "adapter_config.json").get("base_model_name_or_path")
    return Path(named) if isinstance(named, str) and Path(named).is_dir() else folder


def _has_chat_template(folder: Path) -> bool:
    return (folder / "chat_template.jinja").is_file() or "chat_template" in _object(folder / "tokenizer_config.json")


def _object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is absent. Raises NightsmithError where it holds none."""
    if not path.is_file():
        return {}
    try:
        value: Any = json.loads(path.read_text())
    except ValueError as error:
        raise NightsmithError(f"{path} is not valid JSON ({error}). Restore the model's folder.") from error
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _num_values(path: Path) -> int:
    """Values in a safetensors file, from its header: eight bytes of length, then JSON of shapes."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header: Any = json.loads(file.read(length)) if length < HEADER_BYTES else {}
    except (OSError, ValueError) as error:
        raise NightsmithError(f"{path} is no safetensors file ({error}). Restore the model's folder.") from error
    tensors = cast("dict[str, Any]", header)
    return sum(math.prod(each["shape"]) for name, each in tensors.items() if name != "__metadata__")
