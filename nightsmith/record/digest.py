"""Canonical JSON and digests: how specs, data and results are named by their content."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict


class Contract(BaseModel):
    """Base of every contract type: closed, frozen, each field described by the docstring beneath it."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        serialize_by_alias=True,
        validate_by_name=True,
        validate_by_alias=True,
    )

    def canonical(self) -> str:
        """Canonical JSON: keys sorted, no white space, null and default fields left out."""
        return canonical_json(self.model_dump(mode="json", exclude_none=True, exclude_defaults=True))

    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hex."""
        return sha256(self.canonical())


def canonical_json(value: Any) -> str:
    """Serialise plain JSON data so that equal values give equal text. NaN and infinities raise ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256(content: str | bytes) -> str:
    """SHA-256 in hex of text (UTF-8) or bytes."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 in hex of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
