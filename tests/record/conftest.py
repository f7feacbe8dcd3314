"""Workspaces for the tests of the record."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nightsmith.record.workspace import Workspace, open_workspace

MakeWorkspace = Callable[[], contextlib.AbstractContextManager[Workspace]]


@pytest.fixture(scope="session")
def fresh_workspace() -> MakeWorkspace:
    """Makes workspaces in memory where the machine has such a disk: SQLite syncs at every commit."""
    memory = Path("/dev/shm")

    @contextlib.contextmanager
    def make() -> Iterator[Workspace]:
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
            yield open_workspace(Path(folder) / ".nightsmith")

    return make


@pytest.fixture
def ws(fresh_workspace: MakeWorkspace) -> Iterator[Workspace]:
    with fresh_workspace() as workspace:
        yield workspace
