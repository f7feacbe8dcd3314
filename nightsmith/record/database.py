"""Connections to `record.db`: short-lived, one transaction each, SQLite's errors said so that they can be mended."""

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from nightsmith.record.errors import Busy, Damaged, NightsmithError

BUSY_TIMEOUT_S = 30.0
"""How long a transaction waits for another process's transaction; these last milliseconds."""

# Result codes of https://sqlite.org/rescode.html; the low byte of an extended code is its primary code.
CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_UNWRITABLE = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH})


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; -1 for errors that Python's module raises itself."""
    code = getattr(error, "sqlite_errorcode", None)
    return -1 if code is None else int(code) & 0xFF


def mended(error: sqlite3.Error, path: Path) -> NightsmithError | None:
    """The error as a person can act on it; None where it is a bug of the caller's SQL."""
    code = primary_code(error)
    if code in CORRUPT or (code == sqlite3.SQLITE_CANTOPEN and not path.exists()):
        return Damaged(
            f"{path} is damaged or gone ({error}). It was left as it is. Run any nightsmith command: "
            "opening the workspace restores the last good copy."
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Busy(f"{path} was held by another process for {BUSY_TIMEOUT_S:.0f} s. Try again, or end that process.")
    if code == sqlite3.SQLITE_FULL:
        return NightsmithError(f"The disk is full: {path} was not changed. Free space on its disk, then try again.")
    if code == sqlite3.SQLITE_IOERR:
        return NightsmithError(
            f"{path} could not be read or written ({error}); nothing was changed. "
            "Check free space, quota and file size limit (ulimit -f) of its disk, then try again."
        )
    if code in _UNWRITABLE:
        return NightsmithError(
            f"{path} cannot be written ({error}). Give your user write permission on it and its folder, "
            "or use another workspace with --workspace."
        )
    return None


def connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    """Connect to an existing database. `mode=rw` never makes one: an empty record must not replace a lost one."""
    db = sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    db.row_factory = sqlite3.Row
    return db


@contextmanager
def transaction(path: Path, begin: str) -> Generator[sqlite3.Connection]:
    """One transaction: committed at the end of the block, rolled back by any exception in it."""
    try:
        with closing(connect(path)) as db:
            db.execute(begin)
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
    except sqlite3.Error as error:
        mendable = mended(error, path)
        if mendable is None:
            raise
        raise mendable from error
