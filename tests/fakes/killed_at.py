"""Runs a function in a process of its own that kills itself at the n-th line of Nightsmith's code it comes to."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

_OWN_CODE = f"{os.sep}nightsmith{os.sep}"


def killed_at(line: int, function: Callable[[], object]) -> bool:
    """Whether the process was killed; False: the function ended before that line."""
    pid = os.fork()
    if pid == 0:
        sys.settrace(_count_down(line))
        try:
            function()
        finally:
            sys.settrace(None)
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def count_lines(function: Callable[[], object]) -> int:
    """How many lines of Nightsmith's code the function comes to, counted where it runs: here."""
    seen = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal seen
        del argument
        seen += event == "line"
        return trace if _OWN_CODE in frame.f_code.co_filename else None

    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(None)
    return seen


def _count_down(line: int) -> Any:
    left = line

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        del argument
        if _OWN_CODE not in frame.f_code.co_filename:
            return None
        left -= event == "line"
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace
