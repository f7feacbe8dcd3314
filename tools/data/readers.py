"""Rows of a source, one at a time: nothing is held in memory beyond one file of text or one batch of a table."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from nightsmith.tools.base import ToolError
from nightsmith.tools.data.conversations import SURROGATES, ChatColumns, Conversation, conversation
from nightsmith.tools.data.parquet import read_parquet
from nightsmith.tools.data.preferences import PreferenceColumns, pair
from nightsmith.tools.data.sources import MAX_TEXT_FILE_BYTES, Generator, Source, SourceFile
from nightsmith.tools.data.tables import Record, decode, read_csv, read_jsonl

TEXT_NAMES = ("text", "content", "body", "document", "code", "completion", "answer", "output", "response")
"""Column names that mean the text, best first."""
PAIRS = (("prompt", "completion"), ("question", "answer"), ("instruction", "output"), ("prompt", "response"))
"""Column pairs that make one text together, joined by a newline."""
SAMPLE_RECORDS = 1000
"""Records from which the text columns are chosen."""
RowColumns = ChatColumns | PreferenceColumns
"""Columns that conversations are made of: those of pairs give the ones with the better answer."""


@dataclass(frozen=True)
class Row:
    """One row of text on its way into a build."""

    source: str
    """`label/file:index`; the index is the piece of a text file, the line of a JSONL file, else the row."""
    text: str
    """Valid Unicode."""
    replaced: bool
    """Bytes or surrogates that are not UTF-8 were replaced by U+FFFD."""
    messages: str = ""
    """JSON of a conversation's turns; empty: the row is a text."""
    opening: str = ""
    """What comes before a conversation's first answer: rows with the same are never in two splits."""
    answer: str = ""
    """A conversation's last turn."""
    rejected: str = ""
    """Of a pair, the worse answer; all else is of the conversation with the better one."""
    rejected_messages: str = ""
    """JSON of the turns that end with the worse answer."""


def rows(source: Source, *, text_columns: tuple[str, ...] = (), chat_columns: RowColumns | None = None,
         chunk_bytes: int | None = None, num_generated: int = 1000, seed: int = 0) -> Iterator[Row | None]:  # fmt: skip
    """Yield the rows of a source; None stands for a record without text, or without prompt or answer.

    Args:
        source: what `resolve` found.
        text_columns: columns whose values make the text, joined by newlines (tables and generators only).
        chat_columns: columns whose values make a conversation, or a pair of answers; None: rows are texts.
        chunk_bytes: cut texts at line ends into rows of at most so many bytes; None: a document is a row.
        num_generated: rows of a generator.
        seed: seed of a generator.
    """
    if source.kind == "text":
        for file in source.files:
            text, replaced = decode(_bytes_of(file))
            yield from _pieces(f"{source.label}/{file.name}", text, replaced, chunk_bytes)
        return
    for name, index, record in records(source, num_generated=num_generated, seed=seed):
        place = f"{name}:{index}"
        yield _chat_row(place, record, chat_columns) if chat_columns else _row(place, record, text_columns)


def _bytes_of(file: SourceFile) -> bytes:
    try:
        with file.path.open("rb") as opened:
            return opened.read(MAX_TEXT_FILE_BYTES + 1)
    except OSError as error:
        raise ToolError(f"{str(file.path)!r} can no longer be read ({error.strerror}). Run it again.") from error


def _pieces(name: str, text: str, replaced: bool, chunk_bytes: int | None) -> Iterator[Row]:
    pieces = [text] if chunk_bytes is None else chunks(text, chunk_bytes)
    for index, piece in enumerate(pieces):
        yield Row(source=f"{name}:{index}", text=piece, replaced=replaced)


def chunks(text: str, max_bytes: int) -> Iterator[str]:
    """Cut a text at line ends into pieces of at most `max_bytes` UTF-8 bytes; longer lines are cut at a character."""
    piece, size = list[str](), 0
    for line in text.splitlines(keepends=True):
        for part in _cut(line, max_bytes):
            num_bytes = len(part.encode())
            if piece and size + num_bytes > max_bytes:
                yield "".join(piece)
                piece, size = [], 0
            piece.append(part)
            size += num_bytes
    if piece:
        yield "".join(piece)


def _cut(line: str, max_bytes: int) -> Iterator[str]:
    data = line.encode()
    while len(data) > max_bytes:
        head = data[:max_bytes].decode("utf-8", "ignore")
        yield head
        data = data[len(head.encode()) :]
    yield data.decode()


def _row(source: str, record: Record, text_columns: tuple[str, ...]) -> Row | None:
    values = [record.get(column) for column in text_columns]
    if not all(isinstance(value, str) for value in values):
        return None
    text = "\n".join(value for value in values if isinstance(value, str))
    clean = SURROGATES.sub("\ufffd", text)
    return Row(source=source, text=clean, replaced="\ufffd" in clean)


def _chat_row(source: str, record: Record, columns: RowColumns) -> Row | None:
    if isinstance(columns, ChatColumns):
        found = conversation(record, columns)
        return _of_conversation(source, found) if found else None
    both = pair(record, columns)
    if both is None:
        return None
    worse = both.rejected
    row = _of_conversation(source, both.chosen)
    return replace(
        row, rejected=worse.answer, rejected_messages=worse.json, replaced=row.replaced or "\ufffd" in worse.answer
    )


def _of_conversation(source: str, found: Conversation) -> Row:
    return Row(
        source=source, text=found.text, replaced="\ufffd" in found.text, messages=found.json, opening=found.opening,
        answer=found.answer,
    )  # fmt: skip


def records(source: Source, *, num_generated: int, seed: int) -> Iterator[tuple[str, int, Record]]:
    """Yield (file name, index, record) of a table or generator, in order."""
    if source.generator:
        for index, record in enumerate(generated(source.generator, num_generated, seed)):
            yield source.label, index, record
        return
    for file in source.files:
        for index, record in READERS[source.kind](file.path):
            yield f"{source.label}/{file.name}", index, record


def generated(generator: Generator, num_rows: int, seed: int) -> Iterator[Record]:
    """Yield question and answer of each generated problem; equal seeds give equal rows."""
    import reasoning_gym  # type: ignore[import-untyped]

    given = {name: list(value) if isinstance(value, tuple) else value for name, value in generator.parameters}
    dataset: Any = reasoning_gym.create_dataset(generator.task, seed=seed, size=num_rows, **given)  # pyright: ignore
    for index in range(num_rows):
        item = dataset[index]
        yield {"question": str(item["question"]), "answer": str(item["answer"])}


READERS: dict[str, Callable[[Path], Iterator[tuple[int, Record]]]] = {
    "jsonl": read_jsonl,
    "csv": read_csv,
    "parquet": read_parquet,
}


def choose_text_columns(source: Source, asked: tuple[str, ...], sample: list[Record]) -> tuple[str, ...]:
    """Choose the columns that make the text: those asked for, else known names, else the one long text column.

    Raises:
        ToolError: a column does not exist, none holds text, or several might be meant.
    """
    lengths = text_lengths(sample)
    if missing := [name for name in asked if name not in lengths]:
        raise ToolError(f"{source.id} has no text column {missing[0]!r}. Text columns: {_names(lengths)}.")
    if asked:
        return asked
    if "text" not in lengths:
        for pair in PAIRS:
            if lengths.keys() >= set(pair):
                return pair
    for name in TEXT_NAMES:
        if name in lengths:
            return (name,)
    return (_longest(source, lengths),)


def text_lengths(sample: list[Record]) -> dict[str, float]:
    """Column -> characters per record in the mean, of the columns with text in the sample."""
    totals: dict[str, int] = {}
    for record in sample:
        for name, value in record.items():
            if isinstance(value, str):
                totals[name] = totals.get(name, 0) + len(value)
    return {name: total / len(sample) for name, total in totals.items()}


def _longest(source: Source, lengths: dict[str, float]) -> str:
    ranked = sorted(lengths, key=lambda name: -lengths[name])
    if not ranked:
        raise ToolError(f"{source.id} has no column with text. Give each record a string field `text`.")
    if len(ranked) > 1 and lengths[ranked[1]] * 2 > lengths[ranked[0]]:
        raise ToolError(
            f"{source.id}: {ranked[0]!r} or {ranked[1]!r} could be the text. Set text_columns to one of them."
        )
    return ranked[0]


def _names(lengths: dict[str, float]) -> str:
    return ", ".join(lengths) or "none"


def sample_records(source: Source, *, seed: int = 0) -> list[Record]:
    """The first records of a table or generator."""
    found = records(source, num_generated=3 if source.generator else SAMPLE_RECORDS, seed=seed)
    return [record for _, _, record in islice(found, SAMPLE_RECORDS)]
