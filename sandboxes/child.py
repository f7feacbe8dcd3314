"""A confined process and its pipes, with a deadline on everything that is written to it or read from it."""

import os
import selectors
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import IO, Self

from nightsmith.record.errors import NightsmithError
from nightsmith.sandboxes.base import Completed, Ending, Sandbox, SandboxSpec

_BLOCK = 65536


class Late(Exception):
    """The deadline passed; what was read so far is its argument."""


class Overlong(Exception):
    """More was written than is allowed; what was read so far is its argument."""


class Child:
    """A program in a sandbox; leaving the context kills it and all that it started."""

    def __init__(self, sandbox: Sandbox, spec: SandboxSpec, argv: tuple[str, ...]):
        """Start it. Raises NightsmithError where it cannot be started."""
        self.spec = spec
        self._process = _start(sandbox.command(spec, argv))
        self._stdin, self._stdout = _pipe(self._process.stdin), _pipe(self._process.stdout)
        self._unread = b""

    def __enter__(self) -> Self:
        """The child."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it."""
        self.kill()

    def ask(self, line: bytes, deadline: float) -> bytes | None:
        """Write one line, read one line, without its end. None: the child closed its output before the end.

        Raises:
            Late: the deadline (time.monotonic) passed.
            Overlong: the answer is longer than `output_bytes`.
        """
        read = self._exchange(line + b"\n", deadline, b"\n")
        answer, end, self._unread = read.partition(b"\n")
        return answer if end else None

    def converse(self, given: bytes, deadline: float) -> bytes:
        """Write all that is given, read all until the child ends. Raises Late, Overlong."""
        return self._exchange(given, deadline, b"", close=True)

    def wait(self, deadline: float) -> int:
        """Exit status of a child that closed its output. Raises Late where it stays."""
        try:
            return self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise Late(b"") from None

    def kill(self) -> None:
        """Kill it, its process group, and with bubblewrap every process inside. Can be called again."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._stdin.close()
        self._stdout.close()

    def _exchange(self, given: bytes, deadline: float, end: bytes, *, close: bool = False) -> bytes:
        """Write and read at once, so that neither side waits for the other, up to an end or the child's."""
        read, unwritten = bytearray(self._unread), memoryview(given)
        with selectors.DefaultSelector() as ready:
            ready.register(self._stdout, selectors.EVENT_READ)
            ready.register(self._stdin, selectors.EVENT_WRITE)
            while not (end and end in read[-_BLOCK:]):
                left = deadline - time.monotonic()
                events = {key.fileobj for key, _ in ready.select(max(0.0, left))}
                if left <= 0 or not events:
                    raise Late(bytes(read))
                if self._stdin in events:
                    unwritten = _written(self._stdin, unwritten)
                    if not unwritten:
                        ready.unregister(self._stdin)
                        if close:
                            self._stdin.close()
                if self._stdout in events:
                    block = os.read(self._stdout.fileno(), _BLOCK)
                    read += block
                    if not block:
                        break
                if len(read) > self.spec.limits.output_bytes:
                    raise Overlong(bytes(read))
        return bytes(read)


def run(sandbox: Sandbox, spec: SandboxSpec, argv: tuple[str, ...], given: bytes = b"") -> Completed:
    """Run a program to its end. A program that fails, is late or writes too much is a value.

    Args:
        sandbox: backend.
        spec: what the program may see and use.
        argv: absolute path of the program, as inside, and its arguments.
        given: standard input.

    Raises:
        NightsmithError: the backend cannot give what the spec asks for, or cannot be started.
    """
    begun = time.monotonic()
    with Child(sandbox, spec, argv) as child:
        ending, status, output = Ending.EXITED, None, b""
        try:
            output = child.converse(given, begun + spec.limits.wall_s)
            status = child.wait(begun + spec.limits.wall_s)
        except Late as late:
            ending, output = Ending.TIMED_OUT, output or late.args[0]
        except Overlong as overlong:
            ending, output = Ending.OUTPUT_LIMIT, overlong.args[0][: spec.limits.output_bytes]
    wall_s = time.monotonic() - begun
    return Completed(ending=ending, exit_status=status, output=output, wall_s=wall_s, sandbox=sandbox.name)


def _written(pipe: IO[bytes], unwritten: memoryview) -> memoryview:
    """Write what fits. A child that has ended takes the rest as well; its output tells."""
    try:
        return unwritten[os.write(pipe.fileno(), unwritten[:_BLOCK]) :]
    except BlockingIOError:
        return unwritten
    except BrokenPipeError:
        return unwritten[len(unwritten) :]


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    os.set_blocking(pipe.fileno(), False)
    return pipe


def _start(command: tuple[str, ...]) -> subprocess.Popen[bytes]:
    try:
        return _starter(os.getpid()).submit(_open, command).result()
    except OSError as error:
        raise NightsmithError(f"{command[0]} cannot be started: {error}.") from error


def _open(command: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """Of this process's files only three pipes are handed down, of its variables none."""
    return subprocess.Popen(
        command,
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={},
        cwd="/",
        start_new_session=True,
    )


@cache
def _starter(process_id: int) -> ThreadPoolExecutor:  # noqa: ARG001  (a forked process needs a thread of its own)
    """The thread that starts children: the kernel kills them when the thread that started them ends, so it stays."""
    return ThreadPoolExecutor(1, thread_name_prefix="sandbox")
