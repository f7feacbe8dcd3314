"""From a reference, as a goal words it, to a source: a path, a catalogue id, or words. Never a silent substitute."""

import glob
import os
import re
from collections import Counter
from pathlib import Path

from nightsmith.tools.arguments import did_you_mean
from nightsmith.tools.base import ToolError
from nightsmith.tools.data import catalogue, gym
from nightsmith.tools.data.sources import Source, from_file, from_files, from_folder, source_file


def resolve(ref: str, *, cwd: Path | None = None) -> Source:
    """Find what a reference points at.

    In this order: an existing path, a catalogue id, a glob, words that name one catalogue entry.

    Args:
        ref: path, glob, catalogue id or phrase, as the goal has it.
        cwd: folder that relative paths start from; the current one by default.

    Raises:
        ToolError: nothing is called so (with near names), it is empty, or several sources are meant.
    """
    text = ref.strip()
    if not text:
        raise ToolError("The data source is empty. Name a folder, a file, a glob or a built-in source.")
    if "\0" in text or len(text) > 4096:
        raise ToolError(f"{text[:80]!r} cannot be a path. Name a folder, a file, a glob or a built-in source.")
    if re.match(r"[a-z][a-z0-9+.-]*://", text):
        raise ToolError(f"{text!r} is remote, and nothing is downloaded. Fetch it first and name the local folder.")
    path = _absolute(text, cwd or Path.cwd())
    return _existing(text, path) or _by_id(text) or _globbed(text, path) or _by_words(text, path)


def _absolute(text: str, cwd: Path) -> Path:
    return Path(os.path.normpath(cwd / Path(text).expanduser()))


def _existing(ref: str, path: Path) -> Source | None:
    try:
        if not path.exists():
            return None
        return from_folder(ref, path.resolve()) if path.is_dir() else from_file(ref, path.resolve())
    except PermissionError as error:
        raise ToolError(f"{str(path)!r} cannot be read: no permission. Change its mode or name another one.") from error
    except OSError:
        return None


def _globbed(ref: str, pattern: Path) -> Source | None:
    if not glob.has_magic(str(pattern)):
        return None
    root = next(parent for parent in pattern.parents if not glob.has_magic(str(parent)))
    matches = root.glob(str(pattern.relative_to(root)))
    paths = [path for path in matches if path.is_file() and path.resolve().is_relative_to(root.resolve())]
    if not paths:
        raise ToolError(f"No file matches {ref!r}.{_siblings(root / pattern.parts[len(root.parts)])}")
    found = [source_file(path, root, path.stat().st_size) for path in paths]
    return from_files(ref, str(pattern), root, found, Counter())


def _by_id(ref: str) -> Source | None:
    if ref == "python-stdlib":
        return catalogue.entries(with_gym=False)[0].load(ref)
    found = gym.parse(ref)
    return gym.load_gym(ref, found.task, found.parameters) if found else None


def _by_words(ref: str, path: Path) -> Source:
    if _is_path_like(ref):
        raise ToolError(f"There is no file or folder {str(path)!r}.{_siblings(path)}")
    if catalogue.means(stdlib := catalogue.entries(with_gym=False)[0], ref):
        return stdlib.load(ref)
    entries = catalogue.entries()
    meant = [entry for entry in entries if catalogue.means(entry, ref)]
    if len(meant) == 1:
        return meant[0].load(ref)
    raise ToolError(_unclear(ref, meant or _nearest(ref, entries), path))


def _is_path_like(ref: str) -> bool:
    return "/" in ref or ref.startswith((".", "~")) or (" " not in ref and bool(Path(ref).suffix))


def _nearest(ref: str, entries: tuple[catalogue.Entry, ...]) -> list[catalogue.Entry]:
    best = max(catalogue.nearness(entry, ref) for entry in entries)
    return [entry for entry in entries if catalogue.nearness(entry, ref) == best] if best else []


def _unclear(ref: str, candidates: list[catalogue.Entry], path: Path) -> str:
    if len(candidates) > 1:
        names = " and ".join(repr(entry.id) for entry in candidates[:6])
        return f"{ref!r} could be {names}. Name one of them."
    if not candidates and {"reasoning", "gym"} <= catalogue.words_of(ref):
        return f"{ref!r} names no task of reasoning-gym. Tasks: {', '.join(gym.gym_tasks())}."
    hint = (
        f" The nearest is {candidates[0].id!r} ({candidates[0].title}): name it if it is meant." if candidates else ""
    )
    return (
        f"No data source is called {ref!r}: no file or folder of this name is in {str(path.parent)!r}, and no built-in "
        f"source has just these words.{hint or _siblings(path)} Built in: 'python-stdlib', 'reasoning-gym:<task>'."
    )


def _siblings(path: Path) -> str:
    parent = path.parent
    while not parent.is_dir():
        path, parent = parent, parent.parent
    try:
        names = [entry.name for entry in os.scandir(parent) if not entry.name.startswith(".")]
    except OSError:
        return f" {str(parent)!r} cannot be listed."
    return did_you_mean(path.name, sorted(names)) or f" {str(parent)!r} has nothing of a similar name."
