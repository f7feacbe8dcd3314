"""Records of JSON Lines and CSV files, one at a time, as people really write them."""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO, cast

from nightsmith.tools.base import ToolError
from nightsmith.tools.data.conversations import OVERFLOW
from nightsmith.tools.data.sources import MAX_TEXT_FILE_BYTES, SNIFF_BYTES

Record = dict[str, Any]

DELIMITERS = ",;\t|"
NO_DELIMITER = "\x1f"
"""Occurs in no text: a table of one column is not cut at its commas."""
SNIFFED_LINES = 200
"""Lines from which the delimiter is found."""
_END = "\x00end of the file\x00"
"""A line put after the last one: if a quote is still open there, the reader takes it into the last value."""


def decode(data: bytes) -> tuple[str, bool]:
    """Decode UTF-8 (a byte order mark is dropped), replacing what is not UTF-8; tells whether it had to."""
    try:
        return data.decode("utf-8-sig"), False
    except UnicodeDecodeError:
        return data.decode("utf-8-sig", "replace"), True


def read_jsonl(path: Path) -> Iterator[tuple[int, Record]]:
    """Yield (line number from 1, object). Blank lines are passed over; a file that is one list gives its elements.

    Raises:
        ToolError: a line is not a JSON object; names file and line, and shows what was found.
    """
    with path.open("rb") as file:
        if path.suffix.lower() == ".json" and file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
            yield from _json_list(path)
            return
        file.seek(0)
        for number, line in enumerate(file, start=1):
            text, _ = decode(line) if number == 1 else (line.decode("utf-8", "replace"), False)
            if not text.strip():
                continue
            yield number, _json_object(path, number, text)


def _json_list(path: Path) -> Iterator[tuple[int, Record]]:
    """Elements of one list, numbered from 1. It is held in memory whole, hence the limit."""
    if path.stat().st_size > MAX_TEXT_FILE_BYTES:
        raise ToolError(
            f"{path} is one JSON list of more than {MAX_TEXT_FILE_BYTES >> 20} MiB. Write one object a line (.jsonl)."
        )
    try:
        found = json.loads(decode(path.read_bytes())[0])
    except (ValueError, RecursionError) as error:
        raise ToolError(f"{path} begins like a JSON list but is none: {error}. Mend it.") from None
    for number, value in enumerate(cast("list[object]", found), start=1):
        if not isinstance(value, dict):
            raise _not_an_object(
                path, number, repr(value), f"is a JSON {type(value).__name__}, not an object", "element"
            )
        yield number, cast("Record", value)


def _json_object(path: Path, number: int, text: str) -> Record:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = (
            error.msg if isinstance(error, json.JSONDecodeError) else "it is nested too deeply or a number too long"
        )
        raise _not_an_object(path, number, text, f"is not JSON ({reason})") from None
    if not isinstance(value, dict):
        raise _not_an_object(path, number, text, f"is a JSON {type(value).__name__}, not an object")
    return cast("Record", value)


def _not_an_object(path: Path, number: int, text: str, what: str, unit: str = "line") -> ToolError:
    found = text.strip()
    shown = repr(found[:60]) + ("…" if len(found) > 60 else "")
    return ToolError(
        f"{path}, {unit} {number} {what}: {shown}. Each {unit} must be one JSON object; mend or remove it."
    )


def read_csv(path: Path) -> Iterator[tuple[int, Record]]:
    """Yield (row number from 1, header -> value); blank lines are passed over.

    Values beyond the header come as a list under `OVERFLOW`, missing ones are None. Names that come twice are numbered,
    empty ones called after their place: `answer (2)`, `column 3`.

    Raises:
        ToolError: the file has no header, or a quote that never ends; names file and line.
    """
    csv.field_size_limit(MAX_TEXT_FILE_BYTES)
    with path.open(encoding=_encoding(path), errors="replace", newline="") as file:
        delimiter = _delimiter(list(islice(file, SNIFFED_LINES)))
        file.seek(0)
        yield from enumerate(_csv_records(path, file, delimiter), start=1)


def _encoding(path: Path) -> str:
    """UTF-8, or UTF-16 where its byte order mark says so: spreadsheets export "Unicode text" like that.

    Raises ToolError for a binary file.
    """
    with path.open("rb") as file:
        head = file.read(SNIFF_BYTES)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if b"\0" in head:
        raise ToolError(f"{path} is no CSV: it holds binary data. Export the table as CSV (UTF-8), JSONL or parquet.")
    return "utf-8-sig"


def _csv_records(path: Path, file: TextIO, delimiter: str) -> Iterator[Record]:
    reader = csv.reader(chain(file, (_END,)), delimiter=delimiter)
    names: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            values = next(reader)
        except csv.Error as error:
            raise ToolError(f"{path}, line {line} is not CSV: {error}. Mend or remove it.") from error
        if values and values[-1].endswith(_END):
            if values != [_END]:
                raise ToolError(f"{path}, line {line} opens a quote that never ends. Mend or remove it.")
            return
        if names is None and values:
            names = _unique(values)
        elif names is not None and values:
            yield _csv_record(names, values)


def _csv_record(names: list[str], values: list[str]) -> Record:
    record: Record = dict.fromkeys(names)
    record.update(zip(names, values, strict=False))
    if beyond := values[len(names) :]:
        record[OVERFLOW] = beyond
    return record


def _unique(header: list[str]) -> list[str]:
    """Names of columns as they are, so far as each is there and different from those before it."""
    names: list[str] = []
    seen: Counter[str] = Counter()
    for place, given in enumerate(header, start=1):
        name = base = given.strip() or f"column {place}"
        while name in names:
            seen[base] += 1
            name = f"{base} ({seen[base] + 1})"
        names.append(name)
    return names


def _delimiter(lines: list[str]) -> str:
    """The character that cuts the header into most columns, for as many rows as any other."""
    ranked = [(*_fits(lines, delimiter), delimiter) for delimiter in DELIMITERS]
    fits, columns, delimiter = max(ranked, key=lambda rank: rank[:2])
    return delimiter if fits and columns > 1 else NO_DELIMITER


def _fits(lines: Iterable[str], delimiter: str) -> tuple[float, int]:
    """Share of rows with as many values as the header has names (0 if it has one), and that number."""
    try:
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
    except csv.Error:
        return 0.0, 0
    if not rows or len(rows[0]) < 2:
        return 0.0, 0
    if len(rows) == 1:
        return 0.5, len(rows[0])
    return sum(len(row) == len(rows[0]) for row in rows[1:]) / (len(rows) - 1), len(rows[0])
