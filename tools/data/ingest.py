"""The first step of a build: sources are fingerprinted, then streamed row by row into one parquet file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nightsmith.record.digest import file_digest, sha256
from nightsmith.tools.base import ToolError
from nightsmith.tools.data.manifest import FileRecord, GeneratorRecord, SourceRecord
from nightsmith.tools.data.parquet import TextTableWriter
from nightsmith.tools.data.preferences import PreferenceColumns
from nightsmith.tools.data.readers import Row, RowColumns, rows
from nightsmith.tools.data.sources import Source, SourceFile

BATCH_CHARS = 4 * 2**20
"""Text that is held in memory before it is written."""
BATCH_ROWS = 8192
"""Rows that are held in memory before they are written."""
ROW_ID_DIGITS = 20
"""80 bits of SHA-256: two of a hundred million rows share an id with a chance below one in 10^8."""

OF_CONVERSATIONS = (
    ("messages", "messages"), ("key", "opening"), ("answer", "answer"),
    ("rejected", "rejected"), ("rejected_messages", "rejected_messages"),
)  # fmt: skip
"""Column -> field of a row, empty where rows are texts."""


@dataclass(frozen=True)
class BuildProgress:
    """How far a build is."""

    phase: Literal["hash", "read", "step", "publish", "reused"]
    """What it does."""
    done: int
    """Files (hash), rows (read; the total is then not known: 0), steps or splits done."""
    total: int
    """Of how many."""


OnProgress = Callable[[BuildProgress], None]


@dataclass(frozen=True)
class Reading:
    """A source and how it is read."""

    source: Source
    """What is read."""
    text_columns: tuple[str, ...]
    """Columns whose values make the text."""
    chunk_bytes: int | None
    """Longest row that text files are cut into."""
    num_generated: int
    """Rows of a generator."""
    seed: int
    """Seed of a generator."""
    chat_columns: RowColumns | None = None
    """Columns whose values make conversations, or pairs of answers; None: rows are texts."""
    columns_why: str = ""
    """How these were found."""
    role: Literal["train", "dev", "sealed"] = "train"
    """What its rows are for."""

    def rows(self) -> Iterator[Row | None]:
        """The rows; None stands for a record without text."""
        return rows(
            self.source, text_columns=self.text_columns, chat_columns=self.chat_columns,
            chunk_bytes=self.chunk_bytes, num_generated=self.num_generated, seed=self.seed,
        )  # fmt: skip


def fingerprint(readings: tuple[Reading, ...], say: OnProgress) -> tuple[SourceRecord, ...]:
    """Hash all files, so that the dataset's digest is known before anything is read."""
    total = sum(len(reading.source.files) for reading in readings)
    done = 0
    records: list[SourceRecord] = []
    for reading in readings:
        files: list[FileRecord] = []
        for file in reading.source.files:
            files.append(FileRecord(name=file.name, data_digest=_digest(file), num_bytes=file.num_bytes))
            say(BuildProgress("hash", done := done + 1, total))
        records.append(_record(reading, tuple(files)))
    return tuple(records)


def _digest(file: SourceFile) -> str:
    try:
        return file_digest(file.path)
    except OSError as error:
        raise ToolError(
            f"{str(file.path)!r} cannot be read ({error.strerror}). Make it readable or remove it."
        ) from error


def _record(reading: Reading, files: tuple[FileRecord, ...]) -> SourceRecord:
    source = reading.source
    drawn = f", {reading.num_generated} rows, seed {reading.seed}" if source.generator else ""
    made = source.generator and GeneratorRecord(
        task=source.generator.task, parameters=source.generator.parameters, seed=reading.seed,
        num_generated=reading.num_generated,
    )  # fmt: skip
    return SourceRecord(
        generator=made, ref=source.ref, id=source.id, label=source.label, kind=source.kind, note=source.note + drawn,
        text_columns=reading.text_columns, chat_columns=reading.chat_columns, columns_why=reading.columns_why,
        role=reading.role, files=files, skipped=source.skipped,
    )  # fmt: skip


def ingest(
    readings: tuple[Reading, ...], records: tuple[SourceRecord, ...], path: Path, say: OnProgress
) -> tuple[SourceRecord, ...]:
    """Write all rows to a parquet file: `row_id, source, text, role`, of conversations also `messages, key, answer`,
    of pairs also `rejected, rejected_messages`.

    Returns the records with their counts.

    Raises:
        ToolError: no row was found, or a file changed between hashing and reading.
    """
    with _RowWriter(path, say) as writer:
        counted = tuple(_counted(reading, record, writer) for reading, record in zip(readings, records, strict=True))
    for reading, record in zip(readings, counted, strict=True):
        if not record.num_rows:
            raise ToolError(_no_rows(record))
        _require_unchanged(reading, record)
    return counted


def _no_rows(record: SourceRecord) -> str:
    if record.chat_columns is None:
        return f"{record.id!r} has no row of text. Name a source that has some."
    names = " and ".join(repr(name) for name in record.chat_columns.names())
    what = "a prompt and an answer"
    if isinstance(record.chat_columns, PreferenceColumns):
        what = "a prompt and two different answers to it"
    return (
        f"{record.id!r} has no row with {what} in {names} ({record.num_without_text} rows without). "
        "Name other columns, or a source that has some."
    )


def _counted(reading: Reading, record: SourceRecord, writer: "_RowWriter") -> SourceRecord:
    num_rows = num_replaced = num_without_text = 0
    for row in reading.rows():
        if row is None:
            num_without_text += 1
            continue
        num_rows += 1
        num_replaced += row.replaced
        writer.add(row, reading.role)
    counts = {"num_rows": num_rows, "num_replaced": num_replaced, "num_without_text": num_without_text}
    return record.model_copy(update=counts)


def _require_unchanged(reading: Reading, record: SourceRecord) -> None:
    """Hash once more: rows must be those of the files that the manifest names."""
    for file, hashed in zip(reading.source.files, record.files, strict=True):
        if _digest(file) != hashed.data_digest:
            raise ToolError(f"{str(file.path)!r} changed while it was read. Run it again when nothing writes there.")


def row_id(source: str) -> str:
    """Stable id of a row: the beginning of the SHA-256 of its name `label/file:index`."""
    return sha256(source)[:ROW_ID_DIGITS]


class _RowWriter:
    """Writes rows in batches, so that memory does not grow with the source."""

    def __init__(self, path: Path, say: OnProgress) -> None:
        self._table = TextTableWriter(
            path, ("row_id", "source", "text", "role", *(name for name, _ in OF_CONVERSATIONS))
        )
        self._batch: list[Row] = []
        self._roles: list[str] = []
        self._chars = 0
        self._written = 0
        self._say = say

    def __enter__(self) -> "_RowWriter":
        return self

    def __exit__(self, failure: object, *rest: object) -> None:
        try:
            if failure is None:
                self._flush()
        finally:
            self._table.close()

    def add(self, row: Row, role: str) -> None:
        self._batch.append(row)
        self._roles.append(role)
        self._chars += len(row.text)
        if self._chars >= BATCH_CHARS or len(self._batch) >= BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        rows = self._batch
        self._table.write(
            [row_id(row.source) for row in rows], [row.source for row in rows], [row.text for row in rows], self._roles,
            *([getattr(row, field) for row in rows] for _, field in OF_CONVERSATIONS),
        )  # fmt: skip
        self._written += len(self._batch)
        self._say(BuildProgress("read", self._written, 0))
        self._batch, self._roles, self._chars = [], [], 0
