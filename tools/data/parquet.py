"""Parquet through pyarrow, batch by batch."""
# pyarrow ships no type stubs, so its members are unknown to the checker; they stay inside this file.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nightsmith.tools.base import ToolError

BATCH_ROWS = 1024
"""Rows that are read at once."""


def read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row number from 1, column -> value).

    Raises:
        ToolError: the file is not parquet, or is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=BATCH_ROWS):
            for record in batch.to_pylist():
                yield (number := number + 1), record
    except (pa.ArrowException, OSError) as error:
        raise ToolError(f"{path} is not a readable parquet file: {error}. Write it again or leave it out.") from error


class TextTableWriter:
    """Writes a table of text columns in batches; the file is complete once closed."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._schema: Any = pa.schema([(name, pa.string()) for name in columns])
        self._writer: Any = pq.ParquetWriter(path, self._schema, compression="zstd", compression_level=1)

    def write(self, *columns: list[str]) -> None:
        """Append one batch, given column by column."""
        import pyarrow as pa

        self._writer.write_table(pa.table(list(columns), schema=self._schema))

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()
