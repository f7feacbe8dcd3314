"""The published parquet file that a job trains on: its bytes checked, its columns as texts. Torch-free."""

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from nightsmith.evals.suite import EvidenceAltered
from nightsmith.record.digest import file_digest
from nightsmith.record.errors import NightsmithError

NAMED_ROWS = 5
"""Row ids that an error names."""


def read_columns(
    data: str, digest: str, columns: tuple[str, ...], *, optional: tuple[str, ...] = (), hint: str = ""
) -> dict[str, list[str]]:
    """Column -> its values in the order of the file; nulls and absent optional columns are "", nested values JSON.

    Args:
        data: path of the file.
        digest: its SHA-256.
        columns: columns that it must have.
        optional: columns that it may have.
        hint: how such a file is made, for the error.

    Raises:
        EvidenceAltered: the bytes are others.
        NightsmithError: a column is missing.
    """
    path = Path(data)
    if (found := file_digest(path)) != digest:
        raise EvidenceAltered(
            f"The training data {path} has SHA-256 {found[:12]}, the spec names {digest[:12]}: it was changed. Build "
            "the dataset again and start with its digest."
        )
    parquet: Any = import_module("pyarrow.parquet")
    table = parquet.read_table(path)
    if absent := [column for column in columns if column not in table.column_names]:
        raise NightsmithError(
            f"{path} has no column {absent[0]!r} (columns: {', '.join(table.column_names)}). {hint}".rstrip()
        )
    return {
        column: _texts(table[column].to_pylist()) if column in table.column_names else [""] * len(table)
        for column in (*columns, *optional)
    }


def _texts(values: list[Any]) -> list[str]:
    return ["" if value is None else value if isinstance(value, str) else json.dumps(value) for value in values]


def longest_row(data: str) -> int | None:
    """Bytes of the longest row of a file, all of its columns together; None where it cannot be read."""
    parquet: Any = import_module("pyarrow.parquet")
    try:
        table = parquet.read_table(data)
    except (OSError, ValueError):
        return None
    columns = [_texts(table[name].to_pylist()) for name in table.column_names if name != "row_id"]
    return max((sum(len(value.encode()) for value in row) for row in zip(*columns, strict=True)), default=None)


def named(row_ids: Sequence[str]) -> str:
    """`2 row(s) (a, b)`, for an error about them."""
    more = f" and {len(row_ids) - NAMED_ROWS} more" if len(row_ids) > NAMED_ROWS else ""
    return f"{len(row_ids)} row(s) ({', '.join(row_ids[:NAMED_ROWS])}{more})"
