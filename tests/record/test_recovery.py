import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightsmith.record import audit, events, studies
from nightsmith.record.errors import Damaged
from nightsmith.record.workspace import Workspace, open_workspace

MakeWorkspace = Callable[[], AbstractContextManager[Workspace]]


def use(ws: Workspace) -> Workspace:
    """Three events, a good copy, two more events."""
    studies.create(ws, "goal")
    for _ in range(3):
        events.append(ws, "s1", "job_progress")
    open_workspace(ws.root, good_age_s=-1)
    for _ in range(2):
        events.append(ws, "s1", "job_finished")
    return ws


@pytest.fixture
def used(ws: Workspace) -> Workspace:
    return use(ws)


@pytest.fixture(scope="module")
def template(fresh_workspace: MakeWorkspace) -> Iterator[Path]:
    with fresh_workspace() as ws:
        yield use(ws).root


def kinds(ws: Workspace) -> list[str]:
    return [event.kind for event in events.read(ws)]


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\xff" * 100)


def fill_with_garbage(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def garble_a_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(b"\x5a" * 4096)


def empty(path: Path) -> None:
    os.truncate(path, 0)


DAMAGES = [truncate, overwrite_header, fill_with_garbage, garble_a_page, empty, Path.unlink]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_restored_from_its_good_copy_and_it_is_said(
    used: Workspace, damage: Callable[[Path], None]
) -> None:
    damage(used.record)
    left = used.record.read_bytes() if used.record.exists() else None
    ws = open_workspace(used.root)
    (note,) = ws.notes
    assert "was restored to its state of" in note
    assert kinds(ws) == ["job_progress"] * 3 + ["warning"]
    assert events.read(ws, study="s1")[-1].data == {"message": note}
    assert [(line.action, line.detail) for line in audit.read(ws)] == [("record.restored", {"note": note})]
    assert audit.verify(ws) is None
    kept = [path.read_bytes() for path in ws.root.glob("record.db.damaged-*")]
    assert kept == ([] if left is None else [left])
    assert open_workspace(used.root).notes == ()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_without_a_good_copy_is_refused_and_left_as_it_is(
    used: Workspace, damage: Callable[[Path], None]
) -> None:
    (used.root / "record.db.good").unlink()
    damage(used.record)
    used.run_dir("0a")
    files = {path.name: path.read_bytes() for path in used.root.iterdir() if path.is_file()}
    with pytest.raises(Damaged, match=r"--workspace"):
        open_workspace(used.root)
    assert {path.name: path.read_bytes() for path in used.root.iterdir() if path.is_file()} == files


def test_a_damaged_good_copy_is_not_restored(used: Workspace) -> None:
    truncate(used.root / "record.db.good")
    truncate(used.record)
    with pytest.raises(Damaged, match=r"cannot be restored from record\.db\.good"):
        open_workspace(used.root)


def test_damage_that_appears_while_the_workspace_is_open_is_said(used: Workspace) -> None:
    overwrite_header(used.record)
    with pytest.raises(Damaged, match="restores the last good copy"):
        events.append(used, "s1", "outcome")
    used.record.unlink()
    with pytest.raises(Damaged, match="gone"):
        events.append(used, "s1", "outcome")
    assert not used.record.exists()


def test_the_old_log_is_kept_aside_with_the_damaged_file(used: Workspace) -> None:
    empty(used.record)
    (used.root / "record.db-wal").write_bytes(b"log")
    open_workspace(used.root)
    assert [path.read_bytes() for path in used.root.glob("record.db.damaged-*-wal")] == [b"log"]


def test_a_large_record_that_was_cut_is_found_too(used: Workspace) -> None:
    events.append(used, "s1", "warning", data={"text": "x" * 20 * 2**20})
    open_workspace(used.root, good_age_s=-1)
    start = time.perf_counter()
    assert open_workspace(used.root).notes == ()
    assert time.perf_counter() - start < 1
    os.truncate(used.record, used.record.stat().st_size - 4096)
    assert len(open_workspace(used.root).notes) == 1


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_no_truncation_is_ever_taken_for_a_record(template: Path, share: float) -> None:
    with tempfile.TemporaryDirectory(dir=template.parent) as folder:
        root = Path(shutil.copytree(template, Path(folder) / ".nightsmith"))
        os.truncate(root / "record.db", int((root / "record.db").stat().st_size * share))
        ws = open_workspace(root)
        assert len(ws.notes) == 1
        assert kinds(ws)[:3] == ["job_progress"] * 3


def test_a_good_copy_is_made_when_the_record_changed_and_the_last_one_is_old(ws: Workspace) -> None:
    root, good = ws.root, ws.root / "record.db.good"
    first = good.stat().st_mtime_ns

    def later() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=301)

    open_workspace(root, now=later)
    assert good.stat().st_mtime_ns == first
    events.append(ws, "s1", "study_started")
    open_workspace(root)
    assert good.stat().st_mtime_ns == first
    open_workspace(root, now=later)
    assert good.stat().st_mtime_ns > first
