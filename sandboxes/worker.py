"""A long-lived worker in a sandbox: one file's function, called with a limit on each call.

    with Worker.of_file(Path("reward.py"), "reward", choose(), SandboxSpec()) as worker:
        reply = worker.call({"completions": ["4"], "answers": ["4"]}, timeout_s=5.0)

A call that raises, is late, crashes or answers too long is a Reply too, and the next call finds a new process.
"""

import json
import secrets
import time
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Self

from nightsmith.record.digest import Contract
from nightsmith.record.errors import NightsmithError
from nightsmith.sandboxes.base import Sandbox, SandboxSpec
from nightsmith.sandboxes.child import Child, Late, Overlong
from nightsmith.sandboxes.runtime import ISOLATED

LOAD_S = 30.0
"""Seconds in which the file must be loaded."""
_WORN = 0.8
"""Share of the processor seconds after which a process is replaced before the next call."""


class ReplyStatus(StrEnum):
    """How a call ended."""

    OK = "OK"
    """The function returned."""
    RAISED = "RAISED"
    """It raised, or returned what JSON cannot hold."""
    TIMED_OUT = "TIMED_OUT"
    """It was killed at its time limit."""
    CRASHED = "CRASHED"
    """Its process ended, or answered what is not an answer."""
    OUTPUT_LIMIT = "OUTPUT_LIMIT"
    """It was killed for an answer longer than `output_bytes`."""


class Reply(Contract):
    """One call's end. Whatever it holds is the word of the code inside."""

    status: ReplyStatus
    """How it ended."""
    value: Any = None
    """What the function returned, as JSON; null where it did not."""
    detail: str = ""
    """What went wrong: end of the traceback, or a sentence."""
    printed: str = ""
    """The first characters that it printed."""
    wall_s: float = 0.0
    """Seconds from the call to its reply, with those for a new process where one was needed."""


class Worker:
    """One function of one file, in one process that lives until it has to be replaced."""

    def __init__(self, source: str, function: str, sandbox: Sandbox, spec: SandboxSpec, *, filename: str = "code.py"):
        """Start the process and load the source.

        Raises:
            NightsmithError: the source cannot be loaded, has no such function, or the sandbox cannot be started.
        """
        self.sandbox, self.spec = sandbox, spec
        self._file = {"source": source, "filename": filename, "function": function, "path": list(spec.python_path)}
        self._child: Child | None = None
        self.starts = 0
        """Processes started so far."""
        loaded = self._replace(time.monotonic() + LOAD_S)
        if loaded.status is not ReplyStatus.OK:
            self.close()
            raise NightsmithError(_unloadable(filename, function, loaded))

    @classmethod
    def of_file(cls, path: Path, function: str, sandbox: Sandbox, spec: SandboxSpec) -> Self:
        """A worker for a function of a file. The file is read here; inside only its text is known."""
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise NightsmithError(f"{path} cannot be read as Python: {error}.") from error
        return cls(source, function, sandbox, spec, filename=path.name)

    def __enter__(self) -> Self:
        """The worker."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill its process."""
        self.close()

    def call(self, arguments: dict[str, Any], timeout_s: float) -> Reply:
        """Call the function with these arguments by name.

        Args:
            arguments: JSON data. ValueError and TypeError where they are not.
            timeout_s: seconds until its process is killed.
        """
        asked, begun = json.dumps(arguments), time.monotonic()
        if self._child is None:
            loaded = self._replace(begun + LOAD_S)
            if loaded.status is not ReplyStatus.OK:
                return loaded
        reply = self._ask(f'"arguments": {asked}', time.monotonic() + timeout_s)
        return reply.model_copy(update={"wall_s": time.monotonic() - begun})

    def close(self) -> None:
        """Kill the process. A later call starts a new one."""
        if self._child is not None:
            self._child.kill()
        self._child = None

    def _replace(self, deadline: float) -> Reply:
        """A new process with the file loaded."""
        self.close()
        self._child = Child(self.sandbox, self.spec, (*ISOLATED, "-c", _source()))
        self.starts += 1
        return self._ask(f'"load": {json.dumps(self._file)}', deadline)

    def _ask(self, asked: str, deadline: float) -> Reply:
        """One line and its answer; after anything but an answer, or a worn process, the process is gone."""
        assert self._child is not None
        name = secrets.token_hex(8)
        try:
            line = self._child.ask(f'{{"id": "{name}", {asked}}}'.encode(), deadline)
            status = None if line is not None else self._child.wait(deadline)
        except Late:
            return self._ended(ReplyStatus.TIMED_OUT, "killed at its time limit")
        except Overlong:
            limit = self.spec.limits.output_bytes
            return self._ended(ReplyStatus.OUTPUT_LIMIT, f"killed for an answer of more than {limit} bytes")
        if line is None:
            return self._ended(ReplyStatus.CRASHED, f"its process ended with status {status}")
        answer = _parsed(line)
        if answer.get("id") != name:
            return self._ended(ReplyStatus.CRASHED, "it answered what is not an answer")
        if answer["cpu_s"] > _WORN * self.spec.limits.cpu_s:
            self.close()
        if "value" in answer:
            return Reply(status=ReplyStatus.OK, value=answer["value"], printed=answer["printed"])
        detail = str(answer.get("raised") or answer.get("missing"))
        return Reply(status=ReplyStatus.RAISED, detail=detail, printed=answer["printed"])

    def _ended(self, status: ReplyStatus, detail: str) -> Reply:
        self.close()
        return Reply(status=status, detail=detail)


def _parsed(line: bytes) -> dict[str, Any]:
    """An answer, or nothing of it where it is malformed."""
    try:
        answer: Any = json.loads(line)
        return {**answer, "cpu_s": float(answer["cpu_s"]), "printed": str(answer["printed"])}
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}


def _unloadable(filename: str, function: str, loaded: Reply) -> str:
    told = loaded.detail.strip() or loaded.status
    return (
        f"{filename} cannot give the function {function!r} in the sandbox: {told}. "
        "Only Python's standard library and the folders of python_path can be imported there."
    )


@cache
def _source() -> str:
    return Path(__file__).with_name("answering.py").read_text()
