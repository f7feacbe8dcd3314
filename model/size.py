"""How large a model folder is, from its headers and its configuration alone: no weight is read. Torch-free."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightsmith.model.capacity.families import known_shape
from nightsmith.model.files import NoTokenizer, has_tokenizer, weight_files
from nightsmith.model.headers import read_object, require_whole, tensor_shapes

SMALL4 = "small4"
"""Model type that needs no tokenizer of its own."""

BYTE_LEVEL_VOCABULARY = 1024
"""Tokenizers with fewer tokens than this write little more than a byte with each."""
BYTES_PER_TOKEN = 3.5
"""Of a tokenizer with tens of thousands of tokens: more in English prose, fewer in names and figures."""


@dataclass(frozen=True)
class ModelSize:
    """What planning asks of a model."""

    num_params: float
    """Weights that a token is multiplied with; of a family that is not known, those of all experts."""
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
    """The size of a model, of an adapter's base where the folder is an adapter.

    Raises NightsmithError, also where the folder could not be used: no tokenizer, a file that is damaged or cut off.
    """
    base, config = _base(folder), base_config(folder)
    if config.get("model_type") != SMALL4 and not has_tokenizer(folder) and not has_tokenizer(base):
        raise NoTokenizer(base)
    for place in dict.fromkeys((folder, base)):
        read_object(place / "tokenizer.json")
        for file in weight_files(place):
            require_whole(file)
    vocabulary, longest = config.get("vocab_size"), config.get("max_position_embeddings")
    return ModelSize(
        num_params=_passed_params(base, config),
        is_byte_level=isinstance(vocabulary, int) and vocabulary < BYTE_LEVEL_VOCABULARY,
        has_chat_template=_has_chat_template(folder) or _has_chat_template(base),
        max_len=longest if isinstance(longest, int) else None,
    )


def base_config(folder: Path) -> dict[str, Any]:
    """A model's config, of an adapter's base where the folder is an adapter; empty where it has none."""
    return read_object(_base(folder) / "config.json")


def _passed_params(base: Path, config: dict[str, Any]) -> int:
    held = sum(math.prod(shape) for file in weight_files(base) for shape in tensor_shapes(file).values())
    shape = known_shape(config)
    return shape.count_active() if shape and shape.count() == held else held


def _base(folder: Path) -> Path:
    named = read_object(folder / "adapter_config.json").get("base_model_name_or_path")
    return Path(named) if isinstance(named, str) and Path(named).is_dir() else folder


def _has_chat_template(folder: Path) -> bool:
    return (folder / "chat_template.jinja").is_file() or "chat_template" in read_object(
        folder / "tokenizer_config.json"
    )
