"""What a model folder says of itself without a weight being read: JSON files, headers of safetensors. Torch-free."""

import json
from pathlib import Path
from typing import Any, cast

from nightsmith.record.errors import NightsmithError

HEADER_BYTES = 100 * 2**20
"""No header of a safetensors file is longer."""


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is absent. Raises NightsmithError where it holds none."""
    if not path.is_file():
        return {}
    try:
        value: Any = json.loads(path.read_text())
    except ValueError as error:
        raise NightsmithError(f"{path} is not valid JSON ({error}). Restore the model's folder.") from error
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes by name in a safetensors file, by its header: eight bytes of length, then JSON. Raises NightsmithError."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header: Any = json.loads(file.read(length)) if length < HEADER_BYTES else None
        tensors = cast("dict[str, dict[str, Any]]", header)
        return {name: tuple(each["shape"]) for name, each in tensors.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NightsmithError(f"{path} is no safetensors file ({error}). Restore the model's folder.") from error
