"""Look at a source without building anything: kind, size, columns, samples, about how many tokens."""

from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from pydantic import Field

from nightsmith.record.digest import Contract
from nightsmith.tools.base import ToolArgs, ToolError
from nightsmith.tools.data.conversations import OVERFLOW
from nightsmith.tools.data.inspect_chat import NUM_SAMPLES, SAMPLE_CHARS, ChatLook, Sample, look_at_chat, sample
from nightsmith.tools.data.readers import Record, choose_text_columns, decode, records
from nightsmith.tools.data.sources import Source

SCAN_BYTES = 64 * 2**20
"""Bytes of a table that are read; of a larger one the rest is estimated."""
NUM_GENERATED = 200
"""Rows of a generator that are looked at."""


class InspectData(ToolArgs):
    """Look at a data source without changing anything."""

    source: str = Field(min_length=1)
    """Folder, file, glob, built-in source, or the words a goal uses for it."""


class Column(Contract):
    """One column of a table; a text folder has the one column `text`."""

    name: str
    """Name."""
    types: tuple[str, ...]
    """Types of its values: text, integer, number, boolean, list, object, null, other."""
    samples: tuple[Sample, ...]
    """First values."""


class Inspection(Contract):
    """What a source looks like."""

    source: str
    """Catalogue id, absolute path or glob."""
    kind: Literal["text", "jsonl", "csv", "parquet", "generator"]
    """How it would be read."""
    num_files: int = Field(ge=0)
    """Files that would be read."""
    num_bytes: int = Field(ge=0)
    """Bytes of these files; of a generator: of the rows looked at."""
    num_rows: int = Field(ge=0)
    """Rows (documents)."""
    exact: bool
    """False: rows and tokens are extrapolated from the part that was read."""
    columns: tuple[Column, ...]
    """Columns."""
    text_columns: tuple[str, ...]
    """Columns that would make the text; empty: it cannot be told, see `problem`."""
    problem: str = ""
    """Why the text columns cannot be told."""
    chat: ChatLook | None = None
    """The table as conversations; null: it is none, see `chat_problem`."""
    chat_problem: str = ""
    """Why prompt and answer cannot be told; empty for a folder of texts, which has none."""
    estimated_tokens: int = Field(ge=0)
    """Tokens of a byte-level model: bytes of text."""
    skipped: dict[str, int] = {}
    """Reason -> files that would be left out."""
    note: str = ""
    """How the files were selected."""


def inspect_data(source: Source) -> Inspection:
    """Inspect what `resolve` found.

    Raises:
        ToolError: a line, table or file is malformed; names file and line.
    """
    return _inspect_text(source) if source.kind == "text" else _inspect_table(source)


def _inspect_text(source: Source) -> Inspection:
    samples = tuple(_file_samples(source))
    column = Column(name="text", types=("text",), samples=samples)
    return Inspection(
        source=source.id, kind=source.kind, num_files=len(source.files), num_bytes=source.num_bytes,
        num_rows=len(source.files), exact=True, columns=(column,), text_columns=("text",),
        estimated_tokens=source.num_bytes, skipped=source.skipped, note=source.note,
    )  # fmt: skip


def _file_samples(source: Source) -> list[Sample]:
    found: list[Sample] = []
    for file in source.files[:NUM_SAMPLES]:
        with file.path.open("rb") as opened:
            text, _ = decode(opened.read(4 * SAMPLE_CHARS))
        found.append(sample(f"{source.label}/{file.name}:0", text, more=file.num_bytes > 4 * SAMPLE_CHARS))
    return found


@dataclass
class _Scan:
    """What has been seen of a table so far."""

    head: list[tuple[str, Record]]
    num_rows: int = 0
    num_chars: dict[str, int] | None = None
    complete: bool = True


def _inspect_table(source: Source) -> Inspection:
    scan = _scan(source)
    columns = tuple(_columns(scan.head))
    problem, text_columns = "", tuple[str, ...]()
    try:
        text_columns = choose_text_columns(source, (), [record for _, record in scan.head])
    except ToolError as error:
        problem = str(error)
    chat, chat_problem = _as_chat(source, scan)
    text_bytes = sum((scan.num_chars or {}).get(name, 0) for name in text_columns)
    factor = 1.0 if scan.complete else source.num_bytes / max(1, sum((scan.num_chars or {}).values()))
    return Inspection(
        source=source.id, kind=source.kind, num_files=len(source.files),
        num_bytes=source.num_bytes or sum((scan.num_chars or {}).values()), num_rows=round(scan.num_rows * factor),
        exact=scan.complete and not source.generator, columns=columns, text_columns=text_columns, problem=problem,
        chat=chat, chat_problem=chat_problem,
        estimated_tokens=round(text_bytes * factor), skipped=source.skipped, note=source.note,
    )  # fmt: skip


def _as_chat(source: Source, scan: _Scan) -> tuple[ChatLook | None, str]:
    try:
        return look_at_chat(source, scan.head), ""
    except ToolError as error:
        return None, str(error)


def _scan(source: Source) -> _Scan:
    """Read up to SCAN_BYTES of values; count all, keep the first thousand records."""
    scan = _Scan(head=[], num_chars={})
    sizes: dict[str, int] = {}
    total = 0
    for name, index, record in records(source, num_generated=NUM_GENERATED, seed=0):
        if total > SCAN_BYTES:
            scan.complete = False
            break
        scan.num_rows += 1
        if len(scan.head) < 1000:
            scan.head.append((f"{name}:{index}", record))
        for column, value in record.items():
            size = len(value.encode("utf-8", "replace")) if isinstance(value, str) else 8
            sizes[column] = sizes.get(column, 0) + size
            total += size
    scan.num_chars = sizes
    return scan


def _columns(head: list[tuple[str, Record]]) -> list[Column]:
    names = dict.fromkeys(name for _, record in head for name in record if name != OVERFLOW)
    return [_column(name, head) for name in islice(names, 64)]


def _column(name: str, head: list[tuple[str, Record]]) -> Column:
    found = [(row, record[name]) for row, record in head if name in record]
    types = tuple(sorted({_type(value) for _, value in found}))
    return Column(name=name, types=types, samples=tuple(sample(row, value) for row, value in found[:NUM_SAMPLES]))


_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "boolean"), (int, "integer"), (float, "number"), (str, "text"), (list, "list"), (dict, "object"),
    (type(None), "null"),
)  # fmt: skip


def _type(value: Any) -> str:
    return next((name for kind, name in _TYPES if isinstance(value, kind)), "other")
