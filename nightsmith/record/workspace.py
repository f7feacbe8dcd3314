"""The workspace: the folder `.nightsmith/` with the record, its locks, and the places of everything else."""

import fcntl
import os
import re
import sqlite3
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from nightsmith.record import audit, events, recovery, schema
from nightsmith.record.clock import Clock, utc_now
from nightsmith.record.database import connect, mended, transaction
from nightsmith.record.errors import Busy, NightsmithError

FOLDER = ".nightsmith"
GOOD_AGE_S = 300.0
"""An opener copies a changed record once its last good copy is older than this."""
OPEN_WAIT_S = 30.0
"""How long an opener waits for another one, which may be restoring a large record."""


@dataclass(frozen=True)
class Workspace:
    """A workspace whose record was found sound, or was restored, when it was opened."""

    root: Path
    """Absolute path of the `.nightsmith` folder."""
    notes: tuple[str, ...] = ()
    """What the person should know about this opening, e.g. that the record was restored. Openers print them."""

    @property
    def record(self) -> Path:
        """The record's database file."""
        return self.root / recovery.NAME

    @property
    def runs(self) -> Path:
        """One folder a job."""
        return self._folder("runs")

    @property
    def data(self) -> Path:
        """Published datasets."""
        return self._folder("data")

    @property
    def models(self) -> Path:
        """Exported and pulled models."""
        return self._folder("models")

    @property
    def reports(self) -> Path:
        """Reports of studies."""
        return self._folder("reports")

    @property
    def sealed(self) -> Path:
        """Sealed folds; no job but a sealed evaluation receives a path in here."""
        return self._folder("sealed")

    @property
    def studies(self) -> Path:
        """One folder a study, with its graph checkpoints."""
        return self._folder("studies")

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking URI."""
        return f"sqlite:///{self.root / 'mlflow.db'}"

    def run_dir(self, key: str) -> Path:
        """The folder of one job."""
        return self._folder(f"runs/{key}")

    def study_dir(self, study: str) -> Path:
        """The folder of one study."""
        return self._folder(f"studies/{study}")

    def read(self) -> AbstractContextManager[sqlite3.Connection]:
        """A consistent view of the record: everything read inside the block is of one moment."""
        return transaction(self.record, "BEGIN")

    def write(self) -> AbstractContextManager[sqlite3.Connection]:
        """One transaction that excludes other writers from its first statement on; do nothing slow inside."""
        return transaction(self.record, "BEGIN IMMEDIATE")

    @contextmanager
    def lock(self, name: str, wait_s: float = 0.0) -> Generator[None]:
        """Hold the lock `name` for the block. The kernel frees it when the holder dies, however it dies.

        Raises:
            Busy: another process (or another block of this one) holds it after `wait_s` seconds; names its pid.
        """
        if not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(f"Lock name {name!r} is not made of letters, digits, '_', '.' and '-'.")
        path = self._folder("locks") / f"{name}.lock"
        with _unwritable_said(path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _flock(fd, name, path, time.monotonic() + wait_s)
            yield
        finally:
            os.close(fd)

    def _folder(self, name: str) -> Path:
        path = self.root / name
        with _unwritable_said(path):
            path.mkdir(parents=True, exist_ok=True)
        return path


def open_workspace(path: Path | None = None, *, now: Clock = utc_now, good_age_s: float = GOOD_AGE_S) -> Workspace:
    """Open a workspace, making it where there is none.

    It is the folder `path`, else `$NIGHTSMITH_WORKSPACE`, else the nearest `.nightsmith` upwards of the current folder,
    else a new `.nightsmith` in the current folder. A damaged record is restored from its last good copy; `notes`, an
    audit line and a `warning` event say so.

    Raises:
        Damaged: the record is damaged and there is no good copy.
        NightsmithError: no permission, a full disk, or a record written by a newer Nightsmith.
    """
    ws = Workspace(find_root(path))
    with _unwritable_said(ws.root):
        recovery.refuse_foreign(ws.root)
        ws.root.mkdir(parents=True, exist_ok=True)
    with ws.lock("open", wait_s=OPEN_WAIT_S):
        notes = _prepare(ws, now)
        if recovery.is_due(ws.root, now(), good_age_s):
            notes += _kept_good(ws)
    return replace(ws, notes=notes)


def _prepare(ws: Workspace, now: Clock) -> tuple[str, ...]:
    """Leave a sound record of the present schema. Returns what the person should know."""
    with _unwritable_said(ws.root), _sqlite_said(ws):
        restored = recovery.ensure(ws.root, now())
        with closing(connect(ws.record)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            schema.migrate(db)
        if restored is None:
            return ()
        _record_restoration(ws, restored)
    return (restored,)


def _kept_good(ws: Workspace) -> tuple[str, ...]:
    """Make a good copy. That it fails, e.g. on a full disk, must not keep anybody from reading the record."""
    try:
        with _unwritable_said(ws.root), _sqlite_said(ws):
            recovery.keep_good(ws.root)
    except NightsmithError as error:
        return (f"No good copy of the record could be made. {error}",)
    return ()


def keep_good(ws: Workspace) -> tuple[str, ...]:
    """Make a good copy of the record now, e.g. at the end of a study. Returns a note where that failed."""
    with ws.lock("open", wait_s=OPEN_WAIT_S), _sqlite_said(ws):
        return _kept_good(ws) if recovery.flaw(ws.record) is None else ()


def find_root(path: Path | None = None) -> Path:
    """Where the workspace is, or would be made: see `open_workspace`. Touches nothing."""
    if path is not None:
        return path.expanduser().absolute()
    if named := os.environ.get("NIGHTSMITH_WORKSPACE"):
        return Path(named).expanduser().absolute()
    here = Path.cwd()
    found = (folder / FOLDER for folder in (here, *here.parents) if (folder / FOLDER).is_dir())
    return next(found, here / FOLDER)


def _flock(fd: int, name: str, path: Path, until: float) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= until:
                raise _busy(name, path) from None
            time.sleep(0.01)
    # The pid only serves the message of those who wait; a full disk must not cost the lock itself.
    with suppress(OSError):
        os.truncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)


def _busy(name: str, path: Path) -> Busy:
    holder = path.read_text().strip() or "unknown"
    return Busy(f"The lock {name!r} is held by process {holder} ({path}). Wait for it to end, or end that process.")


def _record_restoration(ws: Workspace, note: str) -> None:
    """Say it where it is looked for: the audit, and the stream of every study that had not ended."""
    with ws.write() as db:
        audit.append(db, "record.restored", {"note": note})
        unfinished = [str(row["id"]) for row in db.execute("SELECT id FROM studies WHERE outcome IS NULL")]
        for study in unfinished or [""]:
            events.insert(db, study, "warning", data={"message": note})


@contextmanager
def _unwritable_said(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise NightsmithError(
            f"{path} cannot be made or written ({error.strerror or error}). Check permission and free space, or use "
            "another workspace with --workspace."
        ) from error


@contextmanager
def _sqlite_said(ws: Workspace) -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        mendable = mended(error, ws.record)
        if mendable is None:
            raise
        raise mendable from error
