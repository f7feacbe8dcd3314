"""The chat console: one loop that reads lines while a study is driven beside it; everything shown is text.

A line is a command (`/status`), the answer to an open question, or something said, which the planner takes for a goal,
a question or a wish. Ctrl-C once drains the study, twice ends it now; nothing on disk is left half either way.
"""

import asyncio
import os
import shutil
import signal
import textwrap
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightsmith.agent import console_commands, console_study, console_talk
from nightsmith.agent.console_input import CannotRead, command_of, with_files
from nightsmith.agent.console_line import SPINNER, Face, Line, restore_terminal
from nightsmith.agent.console_status import Track
from nightsmith.agent.escape import visible
from nightsmith.agent.planner import Planner
from nightsmith.record.errors import NightsmithError
from nightsmith.record.workspace import Workspace

if TYPE_CHECKING:
    from nightsmith.agent.study import Driver

TICK_S = 0.5
LEAVE_S = 2.0
"""Within which a second Ctrl-C leaves, where nothing is driven."""
WELCOME = "Type a goal in English, or /help. @file inserts a file."


@dataclass
class Asked:
    """A question that is open at the prompt."""

    prompt: str
    """What stands before the cursor."""
    words: Sequence[tuple[str, str]]
    """Completions: (word, meaning)."""
    answer: asyncio.Future[str]
    """The next line that is no command."""


@dataclass
class Console:
    """One conversation, about one study at a time."""

    ws: Workspace
    planner: Callable[[], Planner]
    folder: Path
    """Folder that goals and `@file` speak of."""
    make_line: Callable[[Face], Line]
    notice: str = ""
    """What is said at the start, such as that the planner is on another machine."""
    study: str | None = None
    """The study that is spoken of."""
    driver: "Driver | None" = None
    """What drives it, while this process does."""
    track: Track | None = None
    """Where it stands."""
    asked: Asked | None = None
    """The open question."""
    busy: str = ""
    """What is waited for, e.g. the planner."""
    busy_since: float = 0.0
    code: int = 0
    """Exit status."""
    leaving: bool = False
    tasks: set[asyncio.Task[None]] = field(default_factory=set["asyncio.Task[None]"])
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Questions are asked one at a time."""
    talking: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Things said are taken in their order."""

    def __post_init__(self) -> None:
        """The line knows this console by its face alone."""
        face = Face(self.prompt, self.status, self.words, self.interrupt, self.folder)
        self.line = self.make_line(face)
        self._bug: BaseException | None = None
        self._reading: asyncio.Task[None] | None = None
        self._lines: list[str] = []
        self._leaves_until = 0.0

    async def run(self) -> int:
        """Read lines until the person leaves. Returns the exit status; a bug in a task keeps its traceback."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.interrupt)
        with self.line.open():
            self.say_plain(f"{WELCOME} {self.line.keys}")
            if self.notice:
                self.say_plain(self.notice)
            loop.run_in_executor(None, console_study.warm)
            self.spawn(console_study.offer(self))
            ticking = asyncio.create_task(self._tick())
            self._reading = asyncio.create_task(self._read())
            await asyncio.wait({self._reading})
            ticking.cancel()
            await self._given_up()
        if self._bug is not None:
            raise self._bug
        return self.code

    async def _read(self) -> None:
        while not self.leaving:
            try:
                line = await self.line.read()
            except EOFError:
                return
            except CannotRead as lost:
                self.say_plain(str(lost))
                continue
            self.take(line)

    def take(self, line: str) -> None:
        """What a line is: a command, an answer, or something said."""
        if not line.strip() and self.asked is None:
            return
        if (command := command_of(line)) is not None and not self._is_path(line):
            self.spawn(console_commands.run(self, *command))
            return
        try:
            text, done = with_files(line, self.folder)
        except CannotRead as problem:
            self.say_plain(str(problem))
            self.line.offer(line)
            return
        for told in done:
            self.say_plain(f"({told})")
        if self.asked is not None and not self.asked.answer.done():
            self.asked.answer.set_result(text.strip())
        else:
            self.spawn(console_talk.said(self, text.strip()))

    def _is_path(self, line: str) -> bool:
        """Whether a line such as `/data` names something on disk and no command."""
        name = line.strip().removeprefix("/")
        return name != "" and name not in console_commands.COMMANDS and Path(line.strip()).exists()

    async def ask(self, prompt: str, words: Sequence[tuple[str, str]] = ()) -> str:
        """The next line that is no command. Commands work meanwhile."""
        async with self.turn:
            self.asked = Asked(f"{prompt} › ", words, asyncio.get_running_loop().create_future())
            self.line.refresh()
            try:
                return await self.asked.answer
            finally:
                self.asked = None
                self.line.refresh()

    def say(self, text: str) -> None:
        """Print lines of ours as they are; a line wider than the terminal is folded under its own beginning."""
        self.line.say(text)

    def say_plain(self, text: str) -> None:
        """Print text that may hold strangers' words: without control characters, folded to the terminal."""
        width = max(40, min(shutil.get_terminal_size().columns - 1, 119))
        for line in text.splitlines():
            shown = visible(line)
            indent = " " * (len(shown) - len(shown.lstrip()))
            folded = textwrap.wrap(shown, width, subsequent_indent=f"{indent}  ", break_on_hyphens=False)
            self.line.say("\n".join(folded) if len(shown) > width else shown)

    def spawn(self, work: Coroutine[Any, Any, None], name: str | None = None) -> None:
        """Do something beside the prompt. Expected failures are said; a bug ends the console with its traceback."""
        task = asyncio.create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, NightsmithError):
            self.say_plain(str(error))
            return
        self._bug = error
        self.close()

    def close(self, code: int = 0) -> None:
        """Read no further line."""
        self.leaving, self.code = True, code or self.code
        if self._reading is not None:
            self._reading.cancel()

    def interrupt(self) -> None:
        """Ctrl-C: drain the study and stay; again: end everything now. Without a study the second one leaves."""
        if self.driver is None:
            if time.monotonic() < self._leaves_until:
                self.close()
            self._leaves_until = time.monotonic() + LEAVE_S
            self.line.refresh()
        elif not self.driver.draining:
            self.drain()
        else:
            loop = asyncio.get_running_loop()
            loop.run_in_executor(None, self._stop_now, self.driver, loop)

    def drain(self) -> None:
        """Let the study finish its step and save; whoever drives it comes back."""
        if self.driver is not None and not self.driver.draining:
            self.driver.draining = True
            self.say("Finishing the step and saving; Ctrl-C again stops at once.")

    def _stop_now(self, driver: "Driver", loop: asyncio.AbstractEventLoop) -> None:
        """End the study's jobs, then leave: from the loop, between two drawings; where it hangs, from here."""
        try:
            driver.stop_now()
        finally:
            loop.call_soon_threadsafe(_leave_at_once, driver.study)
            time.sleep(LEAVE_S)
            _leave_at_once(driver.study)

    async def drained(self) -> None:
        """A driven study finishes its step and is saved."""
        self.drain()
        if driving := [task for task in self.tasks if task.get_name() == console_study.DRIVING]:
            await asyncio.wait(driving)

    async def _given_up(self) -> None:
        """At the end nothing is asked or said any more; a driven study is saved, none is begun."""
        self.leaving = True
        for task in self.tasks:
            if task.get_name() != console_study.DRIVING:
                task.cancel()
        await self.drained()

    async def _tick(self) -> None:
        """Keep the status lines fresh, off the loop: they read files."""
        while True:
            with suppress(NightsmithError):
                self._lines = await asyncio.to_thread(self._looked)
            self.line.refresh()
            await asyncio.sleep(TICK_S)

    def _looked(self) -> list[str]:
        track = self.track
        return track.lines() if track else []

    def prompt(self) -> str:
        """What stands before the cursor."""
        if self.asked is not None:
            return self.asked.prompt
        return "goal › " if self.study is None else "› "

    def status(self) -> Sequence[str]:
        """Lines below the prompt: where the study stands, its jobs, what is waited for."""
        now = time.monotonic()
        waits = [f"{SPINNER[int(now * 8) % len(SPINNER)]} {self.busy} ({now - self.busy_since:.0f} s)"]
        leaves = ["Ctrl-C again, or Ctrl-D, leaves."] if now < self._leaves_until else []
        return [*(waits if self.busy else []), *leaves, *self._lines]

    def words(self, typed: str) -> Sequence[tuple[str, str]]:
        """Completions of the word at the cursor."""
        last = typed.rpartition(" ")[2]
        if typed.startswith("/"):
            known = console_commands.words(self, typed)
        else:
            known = self.asked.words if self.asked is not None else ()
        return [(word, meaning) for word, meaning in known if word.startswith(last) and (last or self.asked is None)]


def _leave_at_once(study: str) -> None:
    """Give the terminal back and end the process: the graph is on disk, so there is nothing to unwind."""
    with suppress(Exception):
        restore_terminal()
    told = f"\nStopped. `nightsmith chat` goes on with {study} from the last checkpoints.\n"
    with suppress(OSError):
        os.write(1, told.encode())
    os._exit(130)
