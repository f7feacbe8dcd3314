"""How lines are typed and said: a prompt that stays below what is printed, or plain input() on a dumb terminal."""

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nightsmith.agent.console_input import Pastes, paths_like
from nightsmith.agent.escape import visible

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.formatted_text import StyleAndTextTuples
    from prompt_toolkit.history import History
    from prompt_toolkit.input import Input
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.key_binding.key_processor import KeyPressEvent
    from prompt_toolkit.output import Output

REFRESH_S = 0.25
GATHER_S = 0.02
"""What is printed within so long is drawn at once."""
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
PLAIN_STATUS_S = 20.0
"""How often a terminal without moving lines is told how things stand."""


@dataclass(frozen=True)
class Face:
    """What a line asks of the console that it belongs to."""

    prompt: Callable[[], str]
    """What stands before the cursor now."""
    status: Callable[[], Sequence[str]]
    """Lines below it."""
    words: Callable[[str], Sequence[tuple[str, str]]]
    """Completions of what was typed so far: (whole word, meaning)."""
    interrupt: Callable[[], None]
    """Ctrl-C."""
    folder: Path
    """Folder that `@file` starts from."""


class Line(Protocol):
    """Where a person types."""

    keys: str
    """Keys that do something, for the welcome."""

    def open(self) -> AbstractContextManager[Any]:
        """For as long as lines are read."""
        ...

    async def read(self) -> str:
        """The next line, pastes whole. Raises EOFError at the end of input."""
        ...

    def offer(self, text: str) -> None:
        """What the next line begins with, to be mended."""
        ...

    def say(self, text: str) -> None:
        """Print text above the prompt."""
        ...

    def refresh(self) -> None:
        """Prompt or status have changed."""
        ...


def is_plain() -> bool:
    """Whether no escape codes are wanted: a dumb terminal, or NO_COLOR."""
    return os.environ.get("TERM", "dumb") in ("", "dumb") or bool(os.environ.get("NO_COLOR"))


@dataclass
class PlainLine:
    """input() in a thread of its own: lines can be printed while nobody types. No escape codes."""

    face: Face
    keys: str = "Ctrl-D leaves."

    def __post_init__(self) -> None:
        """Nothing is read before the first `read`."""
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._shown: str = ""
        self._told: str = ""
        self._told_at = 0.0
        self._reader: threading.Thread | None = None

    def open(self) -> AbstractContextManager[Any]:
        """Nothing to set up."""
        return nullcontext()

    async def read(self) -> str:
        """The next line of standard input."""
        if self._reader is None:
            loop = asyncio.get_running_loop()
            self._reader = threading.Thread(target=self._pump, args=(loop,), daemon=True)
            self._reader.start()
        self.refresh()
        line = await self._lines.get()
        self._shown = ""  # Enter has ended the prompt's line
        if line is None:
            raise EOFError
        return line

    def _pump(self, loop: asyncio.AbstractEventLoop) -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(self._lines.put_nowait, line.rstrip("\n"))
        loop.call_soon_threadsafe(self._lines.put_nowait, None)

    def offer(self, text: str) -> None:
        """Nothing can be put into a plain line."""

    def say(self, text: str) -> None:
        """Print it, below a prompt at which nothing was typed yet."""
        print(f"\n{text}" if self._shown else text, flush=True)
        self._shown = ""

    def refresh(self) -> None:
        """Print the prompt where it has changed, and now and then the status."""
        status, now = next(iter(self.face.status()), ""), asyncio.get_running_loop().time()
        if status and status != self._told and now - self._told_at > PLAIN_STATUS_S:
            print(f"\n[{visible(status)}]", flush=True)
            self._told, self._told_at, self._shown = status, now, ""
        if (prompt := self.face.prompt()) != self._shown:
            print(prompt, end="", flush=True)
            self._shown = prompt


class PromptLine:
    """prompt_toolkit: completion, history, pastes as a whole, status below; what is printed goes above."""

    keys = "Tab completes; Alt-Enter begins a new line; Ctrl-D leaves."

    def __init__(self, face: Face, history: "History", *, feed: "Input | None" = None, to: "Output | None" = None):
        """Draw nothing yet. `feed` and `to` stand in for the terminal in tests."""
        self.face, self.pastes = face, Pastes()
        self._next = ""
        self._session = self._made(history, feed, to)

    def _made(self, history: "History", feed: "Input | None", to: "Output | None") -> "PromptSession[str]":
        from prompt_toolkit import PromptSession
        from prompt_toolkit.styles import Style

        return PromptSession(
            self._prompt,
            history=history,
            completer=completer(self.face),
            complete_while_typing=True,
            key_bindings=self._keys(),
            bottom_toolbar=self._toolbar,
            refresh_interval=REFRESH_S,
            style=Style.from_dict({"bottom-toolbar": "noreverse", "prompt": "bold"}),
            reserve_space_for_menu=6,
            input=feed,
            output=to,
        )

    @contextmanager
    def open(self) -> Generator[None]:
        """What is printed meanwhile goes above the prompt; colours of ours pass, strangers' were taken out before."""
        from prompt_toolkit.patch_stdout import StdoutProxy

        # prompt_toolkit's own patch_stdout gathers what is printed for 0.2 s: a person would wait for every card.
        above = StdoutProxy(sleep_between_writes=GATHER_S, raw=True)
        with above, redirect_stdout(above), redirect_stderr(above):
            yield

    async def read(self) -> str:
        """The next line. A held paste is put back whole; one that is lost raises CannotRead."""
        begin, self._next = self._next, ""
        return self.pastes.whole(await self._session.prompt_async(default=begin, handle_sigint=False))

    def offer(self, text: str) -> None:
        """Begin the next line with it."""
        self._next = text

    def say(self, text: str) -> None:
        """Print it above the prompt."""
        print(text, flush=True)

    def refresh(self) -> None:
        """Draw anew."""
        self._session.app.invalidate()

    def _prompt(self) -> "StyleAndTextTuples":
        return [("class:prompt", self.face.prompt())]

    def _toolbar(self) -> "StyleAndTextTuples":
        width = shutil.get_terminal_size().columns - 1
        return [("class:bottom-toolbar", "\n".join(_cut(visible(line), width) for line in self.face.status()))]

    def _keys(self) -> "KeyBindings":
        from prompt_toolkit.key_binding import KeyBindings
        from prompt_toolkit.keys import Keys

        keys = KeyBindings()

        @keys.add("c-c")
        def _interrupt(event: "KeyPressEvent") -> None:  # pyright: ignore[reportUnusedFunction]
            buffer = event.current_buffer
            if buffer.text:
                buffer.reset()
            else:
                self.face.interrupt()

        @keys.add(Keys.BracketedPaste)
        def _paste(event: "KeyPressEvent") -> None:  # pyright: ignore[reportUnusedFunction]
            event.current_buffer.insert_text(self.pastes.shown(event.data))

        @keys.add("escape", "enter")
        def _newline(event: "KeyPressEvent") -> None:  # pyright: ignore[reportUnusedFunction]
            event.current_buffer.insert_text("\n")

        return keys


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width - 1]}…"


def completer(face: Face) -> "Completer":
    """Commands and what an open question takes; paths after an @."""
    from prompt_toolkit.completion import Completer, Completion

    class ConsoleCompleter(Completer):
        """Asks the console; it knows what is possible now."""

        def get_completions(self, document: Any, complete_event: Any) -> Any:
            """Completions at the cursor."""
            del complete_event
            before: str = document.text_before_cursor
            word = before.rpartition(" ")[2].rpartition("\n")[2]
            if word.startswith("@"):
                for path in paths_like(word[1:].lstrip('"'), face.folder):
                    shown = f'@"{path}"' if " " in path else f"@{path}"
                    yield Completion(shown, start_position=-len(word))
                return
            for text, meaning in face.words(before):
                yield Completion(text, start_position=-len(word), display_meta=meaning)

    return ConsoleCompleter()


def history() -> "History":
    """What was typed before, in the user's state folder and readable by the user alone; never inside a repository."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    base = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    path = base / "nightsmith" / "chat_history"
    if not path.is_absolute() or any((folder / ".git").exists() for folder in path.parents):
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
        path.chmod(0o600)
    except OSError:  # a read-only home: the session has a history of its own
        return InMemoryHistory()
    return FileHistory(path)


def restore_terminal() -> None:
    """Out of raw mode, with a cursor, nothing below it. Written at once: what stands in for stdout may never write."""
    if sys.stdin.isatty():
        subprocess.run(["stty", "sane"], check=False, stdin=sys.stdin)
    if os.isatty(1) and not is_plain():
        os.write(1, b"\x1b[?25h\x1b[?2004l\x1b[0m\x1b[J")
