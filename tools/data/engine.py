"""A DuckDB connection for one build: locked to one folder, without network, extensions or Python objects."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

MEMORY_LIMIT = "1GB"
SPILL_LIMIT = "64GB"
LOCKS = (
    "enable_external_access = false",
    "autoinstall_known_extensions = false",
    "autoload_known_extensions = false",
    "allow_community_extensions = false",
    "python_enable_replacements = false",
    "enable_progress_bar = false",
    f"max_temp_directory_size = '{SPILL_LIMIT}'",
    "preserve_insertion_order = true",
    "lock_configuration = true",
)
"""Set last, in this order: after them nothing outside the folder can be opened, and no setting changed.

The progress bar would be printed to stdout.
"""


@contextmanager
def locked_connection(folder: Path, *, memory_limit: str = MEMORY_LIMIT) -> Generator["duckdb.DuckDBPyConnection"]:
    """Open an in-memory database that may read and write in `folder` only, and spills there.

    One thread: the bytes of an ordered parquet file then depend on its rows alone.
    """
    import duckdb

    spill = folder / "spill"
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": memory_limit, "threads": 1, "temp_directory": str(spill),
    }  # fmt: skip
    with duckdb.connect(":memory:", config=config) as connection:
        quoted = str(folder).replace("'", "''")
        connection.execute(f"SET allowed_directories = ['{quoted}/']")
        for lock in LOCKS:
            connection.execute(f"SET {lock}")
        yield connection


def version() -> str:
    """Name and version of the engine."""
    import duckdb

    return f"duckdb {duckdb.__version__}"
