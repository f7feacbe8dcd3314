"""Publishing: a dataset appears whole, by rename, or not at all."""

import errno
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from nightsmith.record.errors import Busy, Damaged
from nightsmith.record.workspace import Workspace
from nightsmith.tools.base import ToolError
from nightsmith.tools.data.manifest import FILE, Manifest, damaged_splits, read_manifest

STAGING = ".build-"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ENGINE_SIGNS = ("No space left", "File too large", "quota", "max_temp_directory_size")
"""What DuckDB says when it cannot write or spill any more."""
SPACE_FACTOR = 2.5
"""Free space that a build asks for, in bytes a source byte: rows as read, splits, what the engine spills."""


def intact(ws: Workspace, dataset: str) -> Manifest | None:
    """The published dataset of this digest, if all its files still have the bytes that its manifest names."""
    try:
        manifest = read_manifest(ws, dataset)
    except (ToolError, Damaged):
        return None
    return manifest if manifest.dataset == dataset and not damaged_splits(ws, manifest) else None


@contextmanager
def staging(ws: Workspace, name: str, *, num_bytes: int) -> Generator[Path]:
    """A private folder for one build, gone afterwards whatever happens; sweeps what killed builds left.

    Raises:
        ToolError: the disk is full, would be, or cannot be written to.
    """
    _sweep(ws)
    folder = ws.data / f"{STAGING}{name}"
    with _disk_trouble_said(folder):
        _require_space(ws.data, num_bytes)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def publish(ws: Workspace, manifest: Manifest, folder: Path) -> None:
    """Move the splits of a staging folder to their places. The manifest's folder comes last: it is what publishes."""
    sealed = folder / "sealed"
    sealed.mkdir(mode=0o700)
    opened = folder / "data"
    opened.mkdir()
    for split in manifest.splits:
        target = (sealed if split.path.startswith("sealed/") else opened) / f"{split.name}.parquet"
        (folder / f"{split.name}.parquet").rename(target)
        target.chmod(0o600 if target.parent == sealed else 0o644)
        _sync(target)
    (opened / FILE).write_text(manifest.model_dump_json(indent=1))
    _sync(opened / FILE)
    _put(sealed, ws.sealed / manifest.name)
    _put(opened, ws.data / manifest.name)


def _put(folder: Path, target: Path) -> None:
    """Rename a folder into place; a damaged one that lies there is kept aside, under a name that nothing reads."""
    if target.exists():
        aside = target.with_name(f".damaged-{target.name}")
        shutil.rmtree(aside, ignore_errors=True)
        target.rename(aside)
    _sync(folder)
    folder.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sweep(ws: Workspace) -> None:
    """Remove staging folders whose builder is dead: the kernel has freed its lock."""
    for folder in ws.data.glob(f"{STAGING}*"):
        with suppress(Busy), ws.lock(f"data-{folder.name.removeprefix(STAGING)}"):
            shutil.rmtree(folder, ignore_errors=True)


def _require_space(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < SPACE_FACTOR * num_bytes:
        raise ToolError(
            f"The build needs about {SPACE_FACTOR * num_bytes / 2**30:.1f} GiB in {folder}; {free / 2**30:.1f} GiB are "
            "free. Free some space, or use another workspace with --workspace."
        )


@contextmanager
def _disk_trouble_said(folder: Path) -> Generator[None]:
    import duckdb

    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise _full(folder, error) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise ToolError(f"{folder.parent} cannot be written ({error.strerror}). Mend its permissions.") from error
        raise
    except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
        if any(sign in str(error) for sign in ENGINE_SIGNS):
            raise _full(folder, error) from error
        raise


def _full(folder: Path, error: Exception) -> ToolError:
    return ToolError(
        f"The disk of {folder.parent} is full or its quota is spent; nothing was published. Free some space, or use "
        f"another workspace with --workspace. ({str(error).splitlines()[0]})"
    )
