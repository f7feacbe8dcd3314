"""Which models a checkpoint descends from, by what lies beside it: adapters name their base, runs their start."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from nightsmith.model.export import licence_of
from nightsmith.model.files import ADAPTER_CONFIG
from nightsmith.trainer.lineage import job_of
from nightsmith.trainer.runfolder import SPEC

_BASE = "base.json"
_MOST = 50
"""Generations that are followed."""


@dataclass(frozen=True)
class Ancestor:
    """A model that was trained further."""

    path: str
    """Its folder, or its name where it is not here."""
    weights_digest: str | None
    """Digest of its weights, as the next generation recorded it."""
    licence: str | None
    """The licence that it names."""
    job: str | None = None
    """Key of the job that trained it; null: it came from elsewhere."""


def ancestors(checkpoint: Path) -> tuple[Ancestor, ...]:
    """Parent first; empty for a model that was trained from scratch, or that does not say."""
    found: list[Ancestor] = []
    parent = _parent(checkpoint)
    while parent is not None and len(found) < _MOST:
        folder = Path(parent[0])
        found.append(Ancestor(parent[0], parent[1], licence_of(folder), job_of(folder)))
        parent = _parent(Path(parent[0]))
    return tuple(found)


def _parent(folder: Path) -> tuple[str, str | None] | None:
    """Path and weights digest of the model that a folder's model was made of."""
    if base := _object(folder / _BASE):
        return str(base.get("path")), str(base.get("weights_digest"))
    if named := _object(folder / ADAPTER_CONFIG).get("base_model_name_or_path"):
        return str(named), None
    start = _as_object(_object(folder.parent / SPEC).get("model"))
    return (str(start["path"]), str(start.get("weights_digest"))) if "path" in start else None


def _object(path: Path) -> dict[str, object]:
    try:
        return _as_object(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def _as_object(value: object) -> dict[str, object]:
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}
