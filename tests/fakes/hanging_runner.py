"""Runners that never come back."""

import ctypes
import time
from types import SimpleNamespace
from typing import Any


def _sleep(attempt: Any, spec: Any) -> None:
    del attempt, spec
    time.sleep(60)


def _hold_the_interpreter(attempt: Any, spec: Any) -> None:
    """PyDLL calls do not release the interpreter's lock: no other thread and no signal handler runs."""
    del attempt, spec
    ctypes.PyDLL(None).sleep(60)


WAYS: dict[str, Any] = {
    "sleeps": SimpleNamespace(run=_sleep),
    "holds_the_interpreter": SimpleNamespace(run=_hold_the_interpreter),
}
