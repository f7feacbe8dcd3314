"""Built-in sources: what can be trained on without bringing data, found by the words that a goal uses."""

import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from nightsmith.record.digest import sha256
from nightsmith.tools.data.gym import GYM, gym_tasks, load_gym
from nightsmith.tools.data.sources import Source, SourceFile, from_files, walk

STDLIB_MAX_BYTES = 16_000_000
"""Bytes of source text that `python-stdlib` takes at most."""
STDLIB_LEFT_OUT = frozenset({
    "site-packages", "dist-packages", "test", "tests", "idlelib", "idle_test", "lib2to3", "tkinter", "turtledemo",
    "pydoc_data", "distutils", "encodings", "ensurepip", "__pycache__",
})  # fmt: skip
"""Folders without prose-like source: third-party packages, tests, generated tables, what newer Pythons dropped."""

_SILENT = frozenset({
    "the", "a", "an", "of", "from", "in", "on", "and", "for", "by", "with", "this", "its", "own", "all", "s",
    "source", "sources", "code", "data", "dataset", "corpus", "text", "file", "files",
})  # fmt: skip
"""Words that say nothing about which source is meant."""


@dataclass(frozen=True)
class Entry:
    """A built-in source."""

    id: str
    """How the catalogue calls it."""
    title: str
    """One line that says what it is."""
    keys: tuple[frozenset[str], ...]
    """A phrase means this entry if it has all words of one key …"""
    words: frozenset[str]
    """… and, apart from words that say nothing, no word outside these."""
    telling: frozenset[str]
    """Words that make this entry worth suggesting."""
    load: Callable[[str], Source]
    """Reference -> source."""


def words_of(phrase: str) -> frozenset[str]:
    """Words of a phrase in lower case and singular, without those that say nothing about a source."""
    found = re.findall(r"[a-z0-9+#]+", phrase.lower())
    return frozenset(_singular(word) for word in found if word not in _SILENT) - _SILENT


def _singular(word: str) -> str:
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def means(entry: Entry, phrase: str) -> bool:
    """Whether a phrase names an entry: a whole key, and no word that the entry does not know."""
    words = words_of(phrase)
    return words <= entry.words and any(key <= words for key in entry.keys)


def nearness(entry: Entry, phrase: str) -> int:
    """Number of telling words in a phrase; 0 where the entry does not know as many words or more."""
    words = words_of(phrase)
    shared = len(words & entry.telling)
    return shared if shared > len(words - entry.words) else 0


def entries(*, with_gym: bool = True) -> tuple[Entry, ...]:
    """All built-in sources. Listing reasoning-gym's tasks imports the package (2 s), hence the switch."""
    return (_stdlib_entry(), *(_gym_entry(task) for task in gym_tasks())) if with_gym else (_stdlib_entry(),)


def _stdlib_entry() -> Entry:
    version = (str(sys.version_info.major), str(sys.version_info.minor), str(sys.version_info.micro))
    known = "python cpython standard library stdlib lib module py running interpreter installed machine built builtin"
    return Entry(
        id="python-stdlib",
        title="source code of the running Python's standard library",
        keys=(frozenset({"stdlib"}), frozenset({"standard", "library"})),
        words=frozenset({*known.split(), *version}),
        telling=frozenset({"stdlib", "standard", "library", "python", "cpython"}),
        load=_load_stdlib,
    )


def _load_stdlib(ref: str) -> Source:
    root = Path(sysconfig.get_paths()["stdlib"]).resolve()
    skipped: Counter[str] = Counter()
    found = [file for file in walk(root, skipped, STDLIB_LEFT_OUT) if _is_stdlib_source(file)]
    skipped.clear()
    kept = _capped(found, STDLIB_MAX_BYTES)
    skipped["beyond the size cap"] = len(found) - len(kept)
    source = from_files(ref, "python-stdlib", root, kept, +skipped)
    note = (
        f"Python {sys.version.split()[0]}: *.py without {', '.join(sorted(STDLIB_LEFT_OUT))}; "
        f"in the order of the SHA-256 of their paths up to {STDLIB_MAX_BYTES} bytes"
    )
    return replace(source, kind="text", label="python-stdlib", note=note)


def _is_stdlib_source(file: SourceFile) -> bool:
    path = PurePosixPath(file.name)
    return path.suffix == ".py" and file.num_bytes > 0 and not path.parts[0].startswith("config-")


def _capped(found: list[SourceFile], max_bytes: int) -> list[SourceFile]:
    kept: list[SourceFile] = []
    for file in sorted(found, key=lambda file: sha256(file.name)):
        max_bytes -= file.num_bytes
        if max_bytes < 0:
            break
        kept.append(file)
    return kept


def _gym_entry(task: str) -> Entry:
    key = words_of(task.replace("_", " "))
    known = (
        "reasoning gym problem task puzzle question answer pair exercise example generated generator synthetic"
        " arithmetic"
    )
    return Entry(
        id=f"{GYM}:{task}",
        title=f"generated {task.replace('_', ' ')} problems with answers",
        keys=(key,),
        words=key | frozenset(known.split()),
        telling=key,
        load=lambda ref: load_gym(ref, task),
    )
