"""A server that a command starts, waits for and ends: it lives as long as the command does, and no longer.

The server is a child in a session of its own: Ctrl-C reaches the command alone, which ends the server in order. Should
the command be killed, the kernel tells the child.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO

import psutil

STOP_S = 15.0
_PR_SET_PDEATHSIG = 1


def start(argv: Sequence[str], env: Mapping[str, str], cwd: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a server that writes to `log`."""
    libc = ctypes.CDLL(None)  # before the fork
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=cwd,
        env=env,
        start_new_session=True,
        preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) if sys.platform == "linux" else None,
    )


def stop(process: subprocess.Popen[bytes], wait_s: float = STOP_S) -> None:
    """In order, else by force: the server's own process and its workers form one group."""
    process.terminate()
    try:  # a second Ctrl-C ends the waiting, not the stopping
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=wait_s)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens there."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError):
            return False
    return True


def listens(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether it is this server, not a stranger's, that listens there."""
    with suppress(psutil.Error):
        family = [top := psutil.Process(process.pid), *top.children(recursive=True)]
        found = [each for member in family for each in member.net_connections("tcp4")]
        return any(each.laddr.port == port and each.status == psutil.CONN_LISTEN for each in found if each.laddr)
    return False


def tail(log: IO[bytes], num_bytes: int = 800) -> str:
    """The server's last words, on one line."""
    log.seek(0)
    return " ".join(log.read()[-num_bytes:].decode(errors="replace").split()) or "none."


@contextmanager
def stoppable() -> Generator[None]:
    """End the block without a traceback at Ctrl-C, SIGTERM or the end of the terminal."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Said:
    """One moving line on standard error of a terminal; nothing elsewhere."""

    def __call__(self, text: str) -> None:
        """Replace the line; an empty text takes it away."""
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[2K{text}{'…' if text else ''}")
            sys.stderr.flush()


@contextmanager
def progress() -> Generator[Said]:
    """A moving line, gone when the block ends."""
    said = Said()
    try:
        yield said
    finally:
        said("")
