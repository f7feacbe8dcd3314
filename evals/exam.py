"""Exams: a program passes tests, or not. It runs in one sandboxed process, its tests in another.

The tests' process alone says whether they passed (`evals.exam_data` says how it uses the code's), so that code is paid
for what it computes: it has no way to the tests, to what they use, or to the pipe that the result comes through.
"""

import json
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

from nightsmith.sandboxes.base import Limits, Sandbox, SandboxSpec
from nightsmith.sandboxes.child import Child, Late, Overlong
from nightsmith.sandboxes.runtime import ISOLATED

START_S = 30.0
"""Seconds in which the tests' process must have come up."""
TESTS_CPU_S = 36_000
"""Processor seconds of the tests' process over a whole job."""
FOR_THE_CODE = b">"
"""First letter of a line that the tests' process sends to the code's (`exam_tests.TestsSide`)."""


@dataclass(frozen=True)
class Ended:
    """How an exam ended."""

    passed: bool | None
    """None: the tests cannot be run this way, so that nothing is known of the code."""
    why: str = ""
    """Why it was not passed."""


class Exam:
    """A process for tests that lives as long as its context, beside a new one for each code."""

    def __init__(self, sandbox: Sandbox, timeout_s: float):
        """`timeout_s`: seconds for code and tests of one exam."""
        self._sandbox, self._timeout_s = sandbox, timeout_s
        self._tests: Child | None = None

    def __enter__(self) -> Self:
        """The exam."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the tests' process."""
        self._close()

    def sit(self, code: str, tests: str) -> Ended:
        """Have a code tested.

        Args:
            code: Python, run as a module.
            tests: statements that raise where the code is wrong. They see the code's names; no builtin of theirs and no
                module that they use can be one of the code's.

        Raises:
            NightsmithError: the sandbox cannot be started.
        """
        if self._tests is None:
            self._tests = self._start("tests", TESTS_CPU_S)
            _answer(self._tests, b"{}", time.monotonic() + START_S, "tests")
        deadline = time.monotonic() + self._timeout_s
        with self._start("code") as child:
            try:
                return _between(self._tests, child, json.dumps({"code": code, "tests": tests}), deadline)
            except Late:
                ended = Ended(False, f"killed after {self._timeout_s:g} s")
            except Overlong:
                ended = Ended(False, "killed for an answer that is too long")
            except EOFError as gone:
                ended = Ended(False, str(gone))
        self._close()  # it is in the middle of these tests
        return ended

    def _start(self, side: str, cpu_s: int | None = None) -> Child:
        limits = Limits() if cpu_s is None else Limits(cpu_s=cpu_s)
        return Child(self._sandbox, SandboxSpec(limits=limits), (*ISOLATED, "-c", _program(side)))

    def _close(self) -> None:
        if self._tests is not None:
            self._tests.kill()
        self._tests = None


def _between(tests: Child, code: Child, asked: str, deadline: float) -> Ended:
    """Carry lines between the two until the tests have ended. Raises Late, Overlong; EOFError where a process did."""
    line = _answer(tests, asked.encode(), deadline, "tests")
    while line.startswith(FOR_THE_CODE):
        line = _answer(tests, _answer(code, line[1:], deadline, "code"), deadline, "tests")
    told = json.loads(line[1:])
    return Ended(None, told["unsendable"]) if told["unsendable"] else Ended(told["passed"], told["why"])


def _answer(child: Child, line: bytes, deadline: float, whose: str) -> bytes:
    answer = child.ask(line, deadline)
    if answer is None:
        raise EOFError(f"the process of the {whose} ended with status {child.wait(deadline)}")
    return answer


@cache
def _program(side: str) -> str:
    """What both sides have in common, then the side: inside nothing of this project can be imported."""
    texts = (Path(__file__).with_name(f"exam_{part}.py").read_text() for part in ("data", side))
    return "\n".join(line for text in texts for line in text.splitlines() if not line.startswith("from nightsmith"))
