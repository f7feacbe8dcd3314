"""Sources: the files (or the seeded generator) behind a reference, listed but not yet read."""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nightsmith.tools.base import ToolError

Kind = Literal["text", "jsonl", "csv", "parquet", "generator"]

MAX_TEXT_FILE_BYTES = 64 * 2**20
"""A text file is read as one piece; larger ones are skipped and counted."""
SNIFF_BYTES = 8192
"""A zero byte within the first 8 KiB marks a file as binary."""
KIND_OF_SUFFIX: dict[str, Kind] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}


@dataclass(frozen=True)
class SourceFile:
    """One file of a source."""

    path: Path
    """Where it lies."""
    name: str
    """Path relative to the source, POSIX, always printable: bytes that are not UTF-8 are shown as escapes."""
    num_bytes: int
    """Size when it was listed."""


Parameter = bool | int | float | str | tuple[float | str, ...] | None


@dataclass(frozen=True)
class Generator:
    """A seeded generator of rows, instead of files."""

    task: str
    """Task of reasoning-gym."""
    version: str
    """Version of the package; another version may give other rows."""
    parameters: tuple[tuple[str, Parameter], ...] = ()
    """What differs from the task's defaults, ordered by name."""


@dataclass(frozen=True)
class Source:
    """What a reference resolved to."""

    ref: str
    """The reference as it was given."""
    id: str
    """Catalogue id, absolute path or glob."""
    label: str
    """First part of the names of its rows: `label/file:index`."""
    kind: Kind
    """How its rows are read."""
    files: tuple[SourceFile, ...] = ()
    """Its files, ordered by name."""
    skipped: dict[str, int] = field(default_factory=dict[str, int])
    """Reason -> number of files that were left out for it."""
    generator: Generator | None = None
    """Set where `kind` is `generator`."""
    note: str = ""
    """How the files were selected, where a rule selected them."""

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.num_bytes for file in self.files)


def printable(name: str) -> str:
    r"""Show a file name whatever its bytes are: what is not UTF-8 becomes an escape such as `\xff`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def why_unreadable(path: Path) -> str | None:
    """Say why a file cannot be read as text, or None if it can."""
    try:
        with path.open("rb") as file:
            head = file.read(SNIFF_BYTES)
    except OSError:
        return "unreadable"
    if not head:
        return "empty"
    return "binary" if b"\0" in head else None


def walk(root: Path, skipped: Counter[str], left_out: frozenset[str] = frozenset()) -> Iterator[SourceFile]:
    """Yield the regular files below a folder, without the subfolders called one of `left_out`.

    Hidden names, links and special files are counted, never opened.
    """
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            skipped["unreadable"] += 1
            continue
        for entry in entries:
            if entry.is_symlink():
                skipped["link"] += 1
            elif entry.name.startswith("."):
                skipped["hidden"] += 1
            elif entry.is_dir(follow_symlinks=False):
                if entry.name not in left_out:
                    pending.append(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield source_file(Path(entry.path), root, entry.stat(follow_symlinks=False).st_size)
            else:
                skipped["special"] += 1


def source_file(path: Path, root: Path, num_bytes: int) -> SourceFile:
    """Describe one file relative to its source's root."""
    return SourceFile(path=path, name=printable(path.relative_to(root).as_posix()), num_bytes=num_bytes)


def from_folder(ref: str, root: Path) -> Source:
    """List a folder recursively.

    A folder of which at least half of the bytes are JSONL, CSV or parquet is read as that, its other files are
    skipped; any other folder is text, one row a file.
    """
    skipped: Counter[str] = Counter()
    return from_files(ref, str(root), root, list(walk(root, skipped)), skipped)


def from_files(ref: str, source_id: str, root: Path, found: list[SourceFile], skipped: Counter[str]) -> Source:
    """Make a source of files that were found: choose the kind, then keep what can be read as that kind."""
    kind = _kind_of(found)
    kept = tuple(sorted(_usable(found, kind, skipped), key=lambda file: file.name))
    if not kept:
        raise ToolError(f"{source_id!r} has no file with rows{_because(skipped)}. Name a folder that has data in it.")
    return Source(ref=ref, id=source_id, label=printable(root.name) or "root", kind=kind, files=kept,
                  skipped=dict(sorted(skipped.items())))  # fmt: skip


def _kind_of(found: list[SourceFile]) -> Kind:
    sizes: Counter[Kind] = Counter()
    for file in found:
        sizes[KIND_OF_SUFFIX.get(file.path.suffix.lower(), "text")] += file.num_bytes
    for kind in ("parquet", "jsonl", "csv"):
        if sizes[kind] and 2 * sizes[kind] >= sizes.total():
            return kind
    return "text"


def _usable(found: list[SourceFile], kind: Kind, skipped: Counter[str]) -> Iterator[SourceFile]:
    for file in found:
        reason = _why_skipped(file, kind)
        if reason is None:
            yield file
        else:
            skipped[reason] += 1


def _why_skipped(file: SourceFile, kind: Kind) -> str | None:
    if kind != "text":
        return None if KIND_OF_SUFFIX.get(file.path.suffix.lower()) == kind else f"not {kind}"
    if file.num_bytes > MAX_TEXT_FILE_BYTES:
        return "too large"
    return why_unreadable(file.path)


def _because(skipped: Counter[str]) -> str:
    if not skipped:
        return ": it is empty"
    return " (skipped: " + ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items())) + ")"


def from_file(ref: str, path: Path) -> Source:
    """A single file: JSONL (also `.json` with one object a line), CSV, parquet, else text."""
    info = path.stat()
    if not stat.S_ISREG(info.st_mode):
        raise ToolError(f"{str(path)!r} is neither a file nor a folder. Name a text, JSONL, CSV or parquet file.")
    suffix = path.suffix.lower()
    kind: Kind = "jsonl" if suffix == ".json" else KIND_OF_SUFFIX.get(suffix, "text")
    reason = "empty" if info.st_size == 0 else why_unreadable(path) if kind == "text" else None
    if kind == "text" and info.st_size > MAX_TEXT_FILE_BYTES:
        reason = f"larger than {MAX_TEXT_FILE_BYTES >> 20} MiB, the most for one text file"
    if reason:
        raise ToolError(f"{str(path)!r} is {reason}. Name a file of rows: text, JSONL, CSV or parquet.")
    file = source_file(path, path.parent, info.st_size)
    return Source(ref=ref, id=str(path), label=printable(path.parent.name) or "root", kind=kind, files=(file,))
