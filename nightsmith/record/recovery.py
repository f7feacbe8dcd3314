"""A damaged record is restored from its last good copy, or refused; it is never replaced by an empty one.

The copy is `record.db.good`, made with SQLite's backup API, one file without write-ahead log. A damaged file is kept
beside as `record.db.damaged-<time>`. Callers hold the workspace's `open` lock.
"""

import os
import shutil
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

from nightsmith.record import schema
from nightsmith.record.database import CORRUPT, connect, primary_code
from nightsmith.record.errors import Damaged

NAME = "record.db"
FULL_CHECK_BYTES = 16 * 2**20
"""Above this size only the header, the schema and the page count are checked: quick_check reads every page."""
_UNFINISHED = (f"{NAME}.new", f"{NAME}.good.new")
"""Files that get their final name once they are complete; SQLite puts its journals beside them."""


def _synced_replace(source: Path, target: Path) -> None:
    """Rename so that the new file survives a power cut: contents first, then the folder's entry."""
    for path, move in ((source, True), (target.parent, False)):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        if move:
            source.replace(target)


def _stat(path: Path) -> os.stat_result | None:
    """SQLite removes its log when the last connection closes: between two questions it may be gone."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def flaw(path: Path) -> str | None:
    """Why a record cannot be trusted; None when it is sound. Other errors, such as a full disk, pass through.

    The file is never opened directly: closing such a descriptor would drop this process's SQLite locks on it.
    """
    size, log = path.stat().st_size, _stat(path.with_name(f"{path.name}-wal"))
    if size == 0:
        return "the file is empty"
    # Only a checkpoint that a power cut ended may leave half a page, and the log still has that page.
    is_settled = log is None or log.st_size == 0
    try:
        with closing(connect(path)) as db:
            if schema.version(db) is None:
                return "the file has no schema version"
            if is_settled and size % int(db.execute("PRAGMA page_size").fetchone()[0]) != 0:
                return "the file ends inside a page"
            if path.stat().st_size > FULL_CHECK_BYTES:
                return None
            verdict = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
            return None if verdict == "ok" else verdict
    except sqlite3.Error as error:
        if primary_code(error) not in CORRUPT:
            raise
        return str(error)


def create(root: Path) -> None:
    """Make a new record, complete before it gets its name."""
    (root / ".gitignore").write_text("*\n")
    fresh = root / f"{NAME}.new"
    _discard(fresh)
    with closing(sqlite3.connect(fresh, isolation_level=None)) as db:
        schema.migrate(db)
    _synced_replace(fresh, root / NAME)


def _discard(unfinished: Path) -> None:
    """Remove what an interrupted process left: an old journal would be rolled back into a new file of its name."""
    for suffix in ("-journal", "-wal", "-shm", ""):
        unfinished.with_name(unfinished.name + suffix).unlink(missing_ok=True)


def refuse_foreign(root: Path) -> None:
    """Refuse a folder with files but without a record: it is somebody's folder, or a workspace that lost its record.

    Raises:
        Damaged: nothing in the folder was changed.
    """
    names = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
    foreign = [name for name in names if name not in ("locks", ".gitignore") and not name.startswith(_UNFINISHED)]
    # Asked after the listing: another process may just have made the workspace and its first folders.
    if not foreign or (root / NAME).exists() or (root / f"{NAME}.good").exists():
        return
    inner = root / ".nightsmith"
    hint = f"Did you mean {inner}?" if inner.is_dir() else "Put the record back, or give a new folder with --workspace."
    raise Damaged(
        f"{root} has files ({', '.join(foreign[:5])}) but no {NAME}: it is not a workspace, or its record was lost. "
        f"Nothing was changed. {hint}"
    )


def ensure(root: Path, at: datetime) -> str | None:
    """Leave a sound record in place, made or restored where needed.

    Returns:
        What was restored and why; None where nothing was.

    Raises:
        Damaged: the record is damaged or missing, and there is no good copy.
    """
    record, good = root / NAME, root / f"{NAME}.good"
    if record.exists():
        reason = flaw(record)
        return None if reason is None else _restore(root, reason, at)
    if good.exists():
        return _restore(root, "the file is missing", at)
    refuse_foreign(root)
    create(root)
    return None


def _restore(root: Path, reason: str, at: datetime) -> str:
    record, good = root / NAME, root / f"{NAME}.good"
    copy_reason = flaw(good) if good.exists() else "there is none"
    if copy_reason is not None:
        raise Damaged(
            f"{record} is damaged ({reason}) and cannot be restored from {good.name} ({copy_reason}). Both were left "
            "as they are. Put a backup in their place, or start a new workspace with --workspace."
        )
    kept = _set_aside(root, at)
    fresh = root / f"{NAME}.new"
    _discard(fresh)
    shutil.copyfile(good, fresh)
    _synced_replace(fresh, record)
    made = datetime.fromtimestamp(good.stat().st_mtime).astimezone()
    return (
        f"{record} was damaged ({reason}) and was restored to its state of {made:%Y-%m-%d %H:%M:%S}; what was recorded "
        f"after that is missing. {kept}"
    )


def _set_aside(root: Path, at: datetime) -> str:
    """Keep the damaged files. The log goes first: it must never be applied to the restored file."""
    stamp = f"{NAME}.damaged-{at:%Y%m%dT%H%M%S%f}"
    for suffix in ("-wal", "-shm", "-journal", ""):
        path = root / f"{NAME}{suffix}"
        if path.exists():
            path.rename(root / f"{stamp}{suffix}")
    return f"The damaged file is kept as {stamp}." if (root / stamp).exists() else "No damaged file was left to keep."


def keep_good(root: Path) -> None:
    """Copy the record to `record.db.good`, atomically: when it fails, the copy before it stands."""
    fresh = root / f"{NAME}.good.new"
    _discard(fresh)
    try:
        with closing(connect(root / NAME)) as db, closing(sqlite3.connect(fresh, isolation_level=None)) as copy:
            db.backup(copy)
            # A copy in WAL mode would need its log beside it.
            copy.execute("PRAGMA journal_mode = DELETE")
        _synced_replace(fresh, root / f"{NAME}.good")
    except BaseException:
        _discard(fresh)
        raise


def is_due(root: Path, at: datetime, age_s: float) -> bool:
    """Whether the record changed since the last good copy, and that copy is older than `age_s`."""
    good = _stat(root / f"{NAME}.good")
    if good is None:
        return True
    files = (_stat(root / name) for name in (NAME, f"{NAME}-wal"))
    changed = any(file is not None and file.st_mtime > good.st_mtime for file in files)
    return changed and at.timestamp() - good.st_mtime > age_s
