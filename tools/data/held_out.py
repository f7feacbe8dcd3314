"""Held-out rows of other datasets, written where a build can compare its own rows with them."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nightsmith.record.workspace import Workspace
from nightsmith.tools.data.conversations import Conversation, turns_of
from nightsmith.tools.data.manifest import Manifest
from nightsmith.tools.data.parquet import TextTableWriter, read_parquet

HELD_OUT = "held_out.parquet"
"""File of a staging folder, with the one column `text`."""
BATCH_ROWS = 8192


def write_held_out(ws: Workspace, others: Iterable[Manifest], folder: Path, *, chat: bool) -> None:
    """Write what may not be trained on: every row of the others' dev and sealed splits; of conversations its opening.

    Args:
        ws: workspace in which the others are published.
        others: datasets whose held-out rows are meant.
        folder: staging folder.
        chat: whether the rows that are compared are conversations; texts are compared with whole texts.
    """
    manifests = tuple(others)
    if not manifests:
        return
    table = TextTableWriter(folder / HELD_OUT, ("text",))
    batch: list[str] = []
    for text in _texts(ws, manifests, chat):
        batch.append(text)
        if len(batch) >= BATCH_ROWS:
            table.write(batch)
            batch = []
    table.write(batch)
    table.close()


def _texts(ws: Workspace, manifests: tuple[Manifest, ...], chat: bool) -> Iterator[str]:
    for manifest in manifests:
        for split in manifest.splits:
            if split.name != "train":
                for _, record in read_parquet(manifest.path(ws, split.name)):
                    yield _opening(record) if chat else str(record["text"])


def _opening(record: dict[str, Any]) -> str:
    turns = turns_of(record.get("messages"))
    return Conversation(turns).opening if turns else str(record["text"])
