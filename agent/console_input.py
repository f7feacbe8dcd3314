"""What is typed at the console before it means anything: long pastes held whole, `@file` put in its place."""

import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path

from nightsmith.agent import figures
from nightsmith.record.errors import NightsmithError

LONG_LINES, LONG_CHARS = 4, 600
"""A paste of more than this is shown by its size alone."""
FILE_BYTES = 65_536
"""Largest text file that `@file` inserts."""
TEXT_SUFFIXES = ("", ".txt", ".md", ".rst", ".text", ".goal")
"""Files whose text is inserted; any other file or folder is data, and named by its path."""
_PASTED = re.compile(r"\[pasted (?:\d+ lines|\d+ characters)(?: #\d+)?\]")
_FILE = re.compile(r'(?<!\S)@(?:"(?P<quoted>[^"\n]+)"|(?P<bare>[^\s"@,;]+))')
_COMMAND = re.compile(r"/[a-z]*(?=\s|$)")


class CannotRead(NightsmithError):
    """A file or paste that a line names cannot be put in its place; says why."""


@dataclass
class Pastes:
    """Long pasted texts of this session, by what the line shows in their place."""

    held: dict[str, str] = field(default_factory=dict[str, str])

    def shown(self, text: str) -> str:
        """What goes into the line: the text itself, or for a long one its size. The text is held whole."""
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        lines = text.count("\n") + 1
        if lines <= LONG_LINES and len(text) <= LONG_CHARS:
            return text
        size = f"{lines} lines" if lines > 1 else f"{len(text)} characters"
        names = [f"[pasted {size}]", *(f"[pasted {size} #{number}]" for number in range(2, len(self.held) + 3))]
        name = next(name for name in names if self.held.get(name, text) == text)
        self.held[name] = text
        return name

    def whole(self, line: str) -> str:
        """The line with every paste in its place. Raises CannotRead for one of an earlier session."""
        lost = [name for name in _PASTED.findall(line) if name not in self.held]
        if lost:
            raise CannotRead(f"{lost[0]} is from an earlier session and no longer held; paste it again.")
        return _PASTED.sub(lambda match: self.held[match.group()], line)


def command_of(line: str) -> tuple[str, str] | None:
    """Name and rest of a command line; None for anything else, a path such as `/data/x.csv` included."""
    match = _COMMAND.match(line.strip())
    return (match.group()[1:], line.strip()[match.end() :].strip()) if match else None


def with_files(line: str, folder: Path) -> tuple[str, list[str]]:
    """The line with each `@file` replaced: text files by their text, data by their path. And what was done, in words.

    Raises CannotRead for a file that is not there, is not text or is too large.
    """
    done: list[str] = []

    def put(match: re.Match[str]) -> str:
        name = match["quoted"] or match["bare"].rstrip(".?!:)")
        tail = "" if match["quoted"] else match["bare"][len(name) :]
        text, told = _put(name, folder)
        done.append(told)
        return f"{text}{tail}"

    return _FILE.sub(put, line), done


def _put(name: str, folder: Path) -> tuple[str, str]:
    path = folder / Path(name).expanduser()
    if not path.exists():
        raise CannotRead(f"There is no file {name!r}.{_near(path)} Leave the @ out where no file is meant.")
    if path.is_dir() or path.suffix.lower() not in TEXT_SUFFIXES:
        return name, f"{name}: named by its path"
    text = _text(path, name)
    return text, f"{name}: {figures.counted(text.count(chr(10)) + 1, 'line')} inserted"


def _text(path: Path, name: str) -> str:
    try:
        size = path.stat().st_size
        if size > FILE_BYTES:
            raise CannotRead(
                f"{name} has {size:,} bytes; at most {FILE_BYTES:,} are inserted. Name it by its path, without the @."
            )
        return path.read_text().strip()
    except UnicodeDecodeError:
        raise CannotRead(f"{name} is not text in UTF-8. Name it by its path, without the @.") from None
    except OSError as error:
        raise CannotRead(f"{name} cannot be read: {error.strerror}.") from None


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return f" There is no folder {str(path.parent)!r} either."
    names = [other.name for other in path.parent.iterdir()]
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def paths_like(typed: str, folder: Path, most: int = 50) -> list[str]:
    """Paths that begin with what is typed; folders end in a slash. Hidden ones only where a dot was typed."""
    head, _, tail = typed.rpartition("/")
    base = folder / Path(f"{head}/" if head or typed.startswith("/") else ".").expanduser()
    try:
        entries = sorted(base.iterdir(), key=lambda path: path.name)
    except OSError:
        return []
    prefix = f"{head}/" if head or typed.startswith("/") else ""
    fitting = [path for path in entries if path.name.startswith(tail) and (tail or not path.name.startswith("."))]
    return [f"{prefix}{path.name}{'/' if path.is_dir() else ''}" for path in fitting[:most]]
