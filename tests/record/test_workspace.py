import multiprocessing
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from nightsmith.record import audit, events, schema
from nightsmith.record.errors import Busy, Damaged, NightsmithError
from nightsmith.record.workspace import Workspace, open_workspace

# Forked children die by _exit: nothing of the test session runs in them.
FORK = multiprocessing.get_context("fork")
NOBODY = 65534


def test_a_new_workspace_is_made_complete_and_opened_again(tmp_path: Path) -> None:
    ws = open_workspace(tmp_path / "deep" / ".nightsmith")
    events.append(ws, "s1", "study_started")
    again = open_workspace(ws.root)
    assert (again.root, again.notes) == (tmp_path / "deep" / ".nightsmith", ())
    assert len(events.read(again)) == 1
    assert (ws.root / ".gitignore").read_text() == "*\n"


def test_the_workspace_is_the_given_the_named_the_nearest_upwards_or_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "project" / "src"
    inner.mkdir(parents=True)
    monkeypatch.delenv("NIGHTSMITH_WORKSPACE", raising=False)
    monkeypatch.chdir(tmp_path / "project")
    assert open_workspace().root == tmp_path / "project" / ".nightsmith"
    monkeypatch.chdir(inner)
    assert open_workspace().root == tmp_path / "project" / ".nightsmith"
    monkeypatch.setenv("NIGHTSMITH_WORKSPACE", str(tmp_path / "named"))
    assert open_workspace().root == tmp_path / "named"
    assert open_workspace(Path("given")).root == inner / "given"


def test_places_are_made_on_demand(ws: Workspace) -> None:
    places = [ws.runs, ws.data, ws.models, ws.reports, ws.sealed, ws.studies, ws.run_dir("0a"), ws.study_dir("s1")]
    assert all(place.is_dir() and place.is_relative_to(ws.root) for place in places)
    assert ws.run_dir("0a") == ws.runs / "0a"
    assert ws.tracking_uri == f"sqlite:///{ws.root}/mlflow.db"


def test_a_write_is_all_or_nothing_and_a_read_cannot_see_half_of_it(ws: Workspace) -> None:
    with ws.write() as db:
        events.insert(db, "s1", "study_started")
        assert events.read(ws) == []
    with suppress(RuntimeError), ws.write() as db:
        events.insert(db, "s1", "outcome")
        raise RuntimeError
    assert [event.kind for event in events.read(ws)] == ["study_started"]


def test_a_read_sees_one_moment_only(ws: Workspace) -> None:
    with ws.read() as db:
        count = "SELECT COUNT(*) FROM events"
        assert db.execute(count).fetchone()[0] == 0
        events.append(ws, "s1", "study_started")
        assert db.execute(count).fetchone()[0] == 0


def test_an_error_in_sql_stays_what_it_is(ws: Workspace) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"), ws.read() as db:
        db.execute("SELECT * FROM absent")


def test_a_healthy_workspace_opens_within_50_ms(ws: Workspace) -> None:
    with ws.write() as db:
        for number in range(5000):
            events.insert(db, "s1", "job_progress", data={"step": number, "text": "x" * 200})
    open_workspace(ws.root)

    def opening_s() -> float:
        start = time.perf_counter()
        open_workspace(ws.root)
        return time.perf_counter() - start

    assert min(opening_s() for _ in range(5)) < 0.05


def test_a_record_of_a_newer_version_is_refused_untouched(ws: Workspace) -> None:
    newer = len(schema.MIGRATIONS) + 1
    with ws.write() as db:
        db.execute("UPDATE schema_version SET version = ?", (newer,))
    before = ws.record.read_bytes()
    with pytest.raises(NightsmithError, match=f"schema version {newer}.*Update Nightsmith"):
        open_workspace(ws.root)
    assert ws.record.read_bytes() == before


def test_a_migration_keeps_what_is_there_and_a_failing_one_changes_nothing(ws: Workspace) -> None:
    events.append(ws, "s1", "study_started")
    with closing(sqlite3.connect(ws.record, isolation_level=None)) as db:
        with pytest.raises(sqlite3.OperationalError):
            schema.migrate(db, (*schema.MIGRATIONS, "CREATE TABLE half (a); SELECT * FROM absent"))
        db.rollback()
        assert schema.version(db) == len(schema.MIGRATIONS)
        assert db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'half'").fetchone() is None
        schema.migrate(db, (*schema.MIGRATIONS, "ALTER TABLE events ADD COLUMN host TEXT"))
        assert schema.version(db) == len(schema.MIGRATIONS) + 1
        assert db.execute("SELECT kind, host FROM events").fetchall() == [("study_started", None)]


def test_somebodys_folder_is_not_made_a_workspace(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    open_workspace(tmp_path / ".nightsmith")
    with pytest.raises(Damaged, match=r"thesis\.tex.*not a workspace.*Did you mean .*\.nightsmith"):
        open_workspace(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".nightsmith", "thesis.tex"]


def test_a_file_in_the_place_of_the_workspace_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(NightsmithError, match=r"file cannot be made or written"):
        open_workspace(tmp_path / "file")


# ---------------------------------------------------------------- permission and space


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that other users can enter; pytest's own cannot be."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def in_child(work: Callable[[], None]) -> str:
    """Run in a forked child; returns the text of the NightsmithError that it ended with."""
    reader, writer = FORK.Pipe(duplex=False)

    def child() -> None:
        try:
            work()
            writer.send("no error")
        except NightsmithError as error:
            writer.send(str(error))

    process = FORK.Process(target=child)
    process.start()
    text = reader.recv() if reader.poll(30) else "no answer"
    process.join()
    return text


def without_permission(folder: Path) -> None:
    """Root may write everywhere: become somebody else. Others just lose the permission."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    else:
        for path in (*folder.rglob("*"), folder):
            path.chmod(0o555 if path.is_dir() else 0o444)


def test_a_folder_without_write_permission_is_said_with_what_to_do(public_folder: Path) -> None:
    def work() -> None:
        without_permission(public_folder)
        open_workspace(public_folder / ".nightsmith")

    text = in_child(work)
    assert "cannot be made or written (Permission denied)" in text
    assert "--workspace" in text


def test_a_workspace_without_write_permission_is_said_when_it_is_opened_and_when_it_is_written(
    public_folder: Path,
) -> None:
    ws = open_workspace(public_folder / ".nightsmith")

    def opening() -> None:
        without_permission(public_folder)
        open_workspace(ws.root)

    def writing() -> None:
        without_permission(public_folder)
        events.append(ws, "s1", "study_started")

    assert "Permission denied" in in_child(opening)
    assert "write permission" in in_child(writing)


def overfill(ws: Workspace) -> None:
    with ws.write() as db:
        events.insert(db, "s1", "study_started")
        db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
        events.insert(db, "s1", "warning", data={"text": "x" * 100_000})


def test_a_full_disk_is_said_and_nothing_is_half_written(ws: Workspace) -> None:
    with pytest.raises(NightsmithError, match=r"disk is full.*Free space"):
        overfill(ws)
    assert events.read(ws) == []
    events.append(ws, "s1", "outcome")


def test_a_file_size_limit_is_said_and_the_workspace_still_works(ws: Workspace) -> None:
    def work() -> None:
        # Python ignores SIGXFSZ, so that writing beyond the limit is an error as on a full disk.
        size = ws.record.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        for _ in range(100):
            with ws.write() as db:
                events.insert(db, "s1", "warning", data={"text": "x" * 10_000})
                audit.append(db, "warning", {})

    assert "Check free space, quota and file size limit" in in_child(work)
    assert open_workspace(ws.root).notes == ()
    assert len(events.read(ws)) == len(audit.read(ws))
    assert audit.verify(ws) is None
    events.append(ws, "s1", "outcome")


def test_a_workspace_opens_where_no_good_copy_can_be_made(ws: Workspace) -> None:
    (ws.root / "record.db.good").unlink()
    (ws.root / "record.db.good.new").mkdir()
    (note,) = open_workspace(ws.root).notes
    assert "No good copy of the record could be made" in note


# ---------------------------------------------------------------- locks and kills

HOLDER = """
import sys, time
from pathlib import Path
from nightsmith.record.workspace import Workspace
with Workspace(Path(sys.argv[1])).lock("study-s1"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_names_its_holder_and_kill_9_frees_it(ws: Workspace) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(ws.root)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(Busy, match=f"'study-s1' is held by process {holder.pid}"), ws.lock("study-s1"):
        pass
    with ws.lock("study-s2"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with ws.lock("study-s1"):
        pass


def test_a_lock_is_waited_for_no_longer_than_asked(ws: Workspace) -> None:
    with ws.lock("a"):
        start = time.monotonic()
        with pytest.raises(Busy, match=f"process {os.getpid()}"), ws.lock("a", wait_s=0.1):
            pass
        assert 0.1 <= time.monotonic() - start < 5
    with ws.lock("a"):
        pass


def test_a_lock_name_stays_inside_the_locks_folder(ws: Workspace) -> None:
    with pytest.raises(ValueError, match="Lock name"), ws.lock("../a"):
        pass


def killed_after(seconds: float, work: Callable[[], None], has_begun: Callable[[], bool] = lambda: True) -> None:
    process = FORK.Process(target=work)
    process.start()
    while not has_begun():
        time.sleep(0.001)
    time.sleep(seconds)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def test_a_workspace_whose_making_was_killed_is_made_by_the_next_opener(tmp_path: Path) -> None:
    for number in range(20):
        root = tmp_path / str(number)
        killed_after(number * 0.001, lambda root=root: open_workspace(root) and None)
        ws = open_workspace(root)
        assert ws.notes == ()
        events.append(ws, "s1", "study_started")


def test_killed_writers_leave_whole_transactions_only(ws: Workspace) -> None:
    def work() -> None:
        while True:
            with ws.write() as db:
                events.insert(db, "s1", "warning")
                audit.append(db, "warning", {})

    for number in range(10):
        before = len(audit.read(ws))
        killed_after(number * 0.001, work, has_begun=lambda before=before: len(audit.read(ws)) > before)
        assert open_workspace(ws.root, good_age_s=0).notes == ()
        assert len(events.read(ws)) == len(audit.read(ws)) > before
        assert audit.verify(ws) is None
