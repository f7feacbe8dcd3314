"""Word stock of the corpus grammar (`wording.json`): what goals are about, and how people say it."""

import json
from pathlib import Path
from typing import Any


def stock(name: str) -> dict[str, Any]:
    """Words and sentences of one file."""
    return json.loads((Path(__file__).parent / name).read_text())


_STOCK = stock("wording.json")

PHRASES: list[str] = _STOCK["PHRASES"]
FOLDERS: list[str] = _STOCK["FOLDERS"]
PARENTS: list[str] = _STOCK["PARENTS"]
FILES: list[str] = _STOCK["FILES"]
URIS: list[str] = _STOCK["URIS"]
GLOBS: list[str] = _STOCK["GLOBS"]
PRETRAIN_OBJECTS: list[str] = _STOCK["PRETRAIN_OBJECTS"]
PRETRAIN_VERBS: list[str] = _STOCK["PRETRAIN_VERBS"]
DATA_LEADS: list[str] = _STOCK["DATA_LEADS"]
METRICS: dict[str, list[str]] = _STOCK["METRICS"]
LOWER: list[str] = _STOCK["LOWER"]
SHARES: list[str] = _STOCK["SHARES"]
MODELS: list[str] = _STOCK["MODELS"]
BENCHMARKS: list[str] = _STOCK["BENCHMARKS"]
DISTRACTIONS: list[str] = _STOCK["DISTRACTIONS"]
ABSOLUTE: dict[str, list[str]] = _STOCK["ABSOLUTE"]
DIFFERENCE: dict[str, list[str]] = _STOCK["DIFFERENCE"]
WRAPS: list[str] = _STOCK["WRAPS"]
SFT_VERBS: list[str] = _STOCK["SFT_VERBS"]
