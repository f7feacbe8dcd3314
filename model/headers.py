"""What a model folder says of itself without a weight being read: JSON files, headers of safetensors. Torch-free."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from nightsmith.record.errors import Damaged, NightsmithError

HEADER_BYTES = 100 * 2**20
"""No header of a safetensors file is longer."""


@dataclass(frozen=True)
class Place:
    """Where the bytes of a tensor lie in its file."""

    dtype: str
    """As safetensors names it."""
    start: int
    """First byte."""
    end: int
    """After the last byte."""


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is absent. Raises NightsmithError where it holds none."""
    if not path.is_file():
        return {}
    try:
        value: Any = json.loads(path.read_text())
    except ValueError as error:
        raise NightsmithError(f"{path} is not valid JSON ({error}). Restore the model's folder.") from error
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def require_whole(path: Path) -> None:
    """Raises Damaged where a safetensors file is shorter or longer than its header says."""
    tensors, length = _header(path)
    wanted = 8 + length + max((each["data_offsets"][1] for each in tensors.values()), default=0)
    if (found := path.stat().st_size) != wanted:
        raise Damaged(f"{path} has {found} bytes; its header describes {wanted}. Copy the model again.")


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes by name in a safetensors file, by its header: eight bytes of length, then JSON. Raises NightsmithError."""
    return {name: tuple(each["shape"]) for name, each in _header(path)[0].items()}


def tensor_places(path: Path) -> dict[str, Place]:
    """Where each tensor of a safetensors file lies. Raises NightsmithError."""
    tensors, length = _header(path)
    return {
        name: Place(each["dtype"], *(8 + length + offset for offset in each["data_offsets"]))
        for name, each in tensors.items()
    }


def rename_tensors(source: Path, target: Path, names: Mapping[str, str]) -> None:
    """Copy a safetensors file under other names of its tensors; the values are copied as they are.

    Args:
        source: the file.
        target: the copy.
        names: new name of every tensor.

    Raises:
        NightsmithError: the source is no safetensors file.
    """
    tensors, length = _header(source)
    renamed = {names[name]: each for name, each in tensors.items()}
    header = json.dumps(renamed | {"__metadata__": {"format": "pt"}}).encode()
    header += b" " * (-len(header) % 8)
    with source.open("rb") as old, target.open("wb") as new:
        new.write(len(header).to_bytes(8, "little") + header)
        old.seek(8 + length)
        shutil.copyfileobj(old, new, 2**20)


def _header(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Shape and place of each tensor by its name, and the header's length in bytes. Raises NightsmithError."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header: Any = json.loads(file.read(length)) if length < HEADER_BYTES else None
        tensors = {name: each for name, each in header.items() if name != "__metadata__"}
        if all({"shape", "data_offsets"} <= each.keys() for each in tensors.values()):
            return tensors, length
        raise ValueError("a tensor without shape or place")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise NightsmithError(f"{path} is no safetensors file ({error}). Restore the model's folder.") from error
