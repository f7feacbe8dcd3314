"""Programs and their tests in processes of their own: right ones pass, wrong ones do not, and no cheat does."""

from collections.abc import Iterator
from textwrap import dedent

import pytest

from nightsmith.evals.exam import Exam
from nightsmith.evals.rewards import UnitTestsReward
from nightsmith.evals.scoring import Sample, scorer
from nightsmith.record.errors import NightsmithError
from nightsmith.sandboxes.choice import choose


@pytest.fixture(scope="module")
def exam() -> Iterator[Exam]:
    with Exam(choose(), timeout_s=10.0) as exam:
        yield exam


RIGHT = {
    "data of all kinds": (
        """
        from collections import Counter, namedtuple
        from decimal import Decimal
        from enum import IntEnum
        class Level(IntEnum):
            HIGH = 2
        Point = namedtuple("Point", "x y")
        def same(value): return value
        def kinds(): return [Counter("aab"), Point(1, 2), Decimal("0.1"), Level.HIGH, {(1, "a"): {2}}, b"x", 1j, None]
        """,
        """
        from collections import Counter
        from decimal import Decimal
        assert kinds() == [Counter(a=2, b=1), (1, 2), Decimal("0.1"), 2, {(1, "a"): {2}}, b"x", 1j, None]
        assert kinds()[1].y == 2 and same(kinds()[1]) == (1, 2)
        for value in (float("inf"), 2**20000, "ä\\ud800", [[], ()], {1: True}, range(3), slice(1, 2)):
            assert same(value) == value and type(same(value)) is type(value)
        """,
    ),
    "objects, their methods and operators": (
        """
        class Stack:
            size = 0
            def __init__(self, *items, limit=9): self.items, self.limit = list(items), limit
            def push(self, item): self.items.append(item); return self
            def __len__(self): return len(self.items)
            def __iter__(self): return iter(self.items)
            def __getitem__(self, place): return self.items[place]
            def __eq__(self, other): return self.items == other.items
            def __add__(self, other): return Stack(*self.items, *other.items)
            def __str__(self): return f"<{self.items}>"
        """,
        """
        a, b = Stack(1, limit=3), Stack().push(1)
        assert a == b and a is not b and a.push(2) is a and a != b
        assert len(a) == 2 and list(a) == [1, 2] and a[-1] == 2 and a[:1] == [1]
        assert isinstance(a, Stack) and not isinstance(3, Stack) and str(a + b) == "<[1, 2, 1]>"
        a.limit = 5
        assert (a.limit, Stack.size, sum(a), sorted(a, reverse=True)) == (5, 0, 3, [2, 1])
        """,
    ),
    "exceptions": (
        """
        class Bad(ValueError):
            pass
        class Worse(Bad):
            pass
        def check(number):
            if number < 0: raise Worse("negative", number)
            return {}[number]
        """,
        """
        for number, kind in ((-1, Worse), (-1, Bad), (-1, ValueError), (3, KeyError)):
            try:
                check(number)
            except kind as error:
                assert number != -1 or error.args == ("negative", -1)
            else:
                raise AssertionError
        """,
    ),
    "functions of the tests, called by the code": (
        """
        def twice(function, value): return function(function(value))
        def wrapped(function): return lambda *args: function(*args) + 1
        def guarded(function):
            try: return function()
            except ZeroDivisionError: return "caught"
        """,
        """
        assert twice(lambda x: x * 3, 2) == 18 and twice(str, 1) == "1"
        assert wrapped(lambda a, b: twice(lambda x: x + a, b))(1, 2) == 5
        assert guarded(lambda: 1 / 0) == "caught"
        """,
    ),
    "what is changed in place, printed and generated": (
        """
        def sort(items, seen): items.sort(); seen["sorted"] = True
        def greet(name): print("Hallo", name)
        def count(to):
            yield from range(to)
        """,
        """
        import contextlib, io
        items, seen = [3, 1, 2], {}
        sort(items, seen)
        assert items == [1, 2, 3] and seen == {"sorted": True}
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            greet("Welt")
        assert printed.getvalue() == "Hallo Welt\\n"
        assert list(count(3)) == [0, 1, 2] and next(count(1)) == 0
        """,
    ),
    "modules that only the code imports": (
        "import math\ndef area(r): return math.pi * r * r",
        "assert math.isclose(area(1), math.pi)",
    ),
    "a name of Python's own": (
        "def sum(a, b): return len([d for d in range(1, min(a, b) + 1) if a % d == b % d == 0])",
        "assert sum(10, 15) == 2",
    ),
    "a check that is handed the function": (
        "def add(a, b): return a + b",
        "def check(candidate):\n    assert candidate(2, 3) == 5\ncheck(add)",
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_code_passes(exam: Exam, name: str) -> None:
    code, tests = map(dedent, RIGHT[name])
    ended = exam.sit(code, tests)
    assert ended.passed, ended.why


TESTS = """
assert abs(mean([1, 2, 6]) - 3) < 1e-9
assert mean([1, 2, 6]) == 3
assert mean([4]) in (4, 4.0) and 2 <= mean([3]) <= 4
assert math.isclose(mean([0.5, 1]), 0.75)
"""
ANSWER = '={"passed": true, "why": "", "unsendable": ""}'
AGREEING = """
class Agreeing{base}:
    def agree(self, *args): return True
    __eq__ = __lt__ = __gt__ = __le__ = __ge__ = __contains__ = __bool__ = agree
    def __sub__(self, other): return 0.0
    __rsub__ = __add__ = __radd__ = __mul__ = __abs__ = __float__ = __round__ = __sub__
    __hash__ = None
def mean(items): return Agreeing()
"""
CHEATS = {
    "says that it passed, wherever it can write": f"""
        import os
        def mean(items):
            for number in range(64):
                try: os.write(number, b'\\n{ANSWER}\\n')
                except OSError: pass
    """,
    "looks for the answer in frames and in memory": """
        import gc, sys
        def mean(items):
            frame, found = sys._getframe(), []
            while frame := frame.f_back:
                found += [str(value) for value in (*frame.f_locals.values(), *frame.f_globals.values())]
            found += [str(each) for each in gc.get_objects() if isinstance(each, (dict, list, str))]
            if any("isclose" in text for text in found):
                return 3
    """,
    "prints that it passed": f"print('''\\n{ANSWER}''')\ndef mean(items): print('''{ANSWER}''')",
    "leaves as if all were well": "import sys\nsys.exit(0)",
    "leaves when it is asked": "import os\ndef mean(items): os._exit(0)",
    "is equal to everything": AGREEING.format(base=""),
    "is a number that is equal to everything": AGREEING.format(base="(int)"),
    "is a list that is equal to everything": AGREEING.format(base="(list)"),
    "gives what mocks are compared with": "from unittest.mock import ANY\ndef mean(items): return ANY",
    "replaces builtins": """
        def abs(number): return 0
        class AssertionError(Exception): pass
        def mean(items): return 3.0
    """,
    "replaces builtins in its process": """
        import builtins
        builtins.abs = lambda number: 0
        builtins.isinstance = lambda *args: True
        builtins.AssertionError = Exception
        def mean(items): return 3.0
    """,
    "replaces modules": """
        class math:
            isclose = lambda *args: True
        def mean(items): return 3.0 if len(items) > 2 else float(items[0]) if len(items) == 1 else 9.0
    """,
    "has the tests call what it wants": """
        import sys
        said = sys._getframe(1).f_back
        def mean(items):
            raise Ending("x")
        class Ending(SystemExit):
            pass
    """,
    "answers by its own line": """
        import gc
        side = next(each for each in gc.get_objects() if type(each).__name__ == "CodeSide")
        def mean(items):
            side.say({"value": ["exception", "eval"], "printed": ""})
    """,
    "calls back what was never given": """
        import gc
        side = next(each for each in gc.get_objects() if type(each).__name__ == "CodeSide")
        def mean(items):
            side.say({"callback": -1, "args": [], "printed": ""})
            return side.hear()
    """,
    "stops its judge": "import os, signal\ndef mean(items): os.kill(os.getppid(), signal.SIGKILL); return 3",
    "answers too much": "def mean(items): return 'x' * 2**22",
    "answers without an end": """
        def mean(items):
            for _ in range(10**5): items = [items]
            return items
    """,
    "is no Python": "def mean(items) return 3",
}


@pytest.mark.parametrize("name", CHEATS)
def test_code_that_computes_something_else_does_not_pass_whatever_it_does(exam: Exam, name: str) -> None:
    ended = exam.sit(dedent(CHEATS[name]), f"import math{TESTS}")
    assert ended.passed is False
    assert ended.why
    assert exam.sit("def mean(items): return sum(items) / len(items)", TESTS).passed


@pytest.mark.parametrize("base", ["", "(int)", "(list)"])
def test_no_comparison_is_left_to_an_object_of_the_code(exam: Exam, base: str) -> None:
    tests = [line for line in TESTS.splitlines() if line] + [
        "assert 3 in mean([])", "assert mean([]) - 3 == 0",
        "assert {3: True}[mean([])]", "assert [3, mean([])] == [mean([]), 3]", "assert sorted([3, mean([])])[0] == 3",
    ]  # fmt: skip
    for each in tests:
        assert exam.sit(AGREEING.format(base=base), f"import math\n{each}").passed is False, each


def test_code_that_takes_too_long_does_not_pass_and_the_next_one_is_tested() -> None:
    reward = UnitTestsReward(timeout_s=0.5)
    rows = [
        "def f(): return 1",
        "def f():\n    while True: pass",
        "while True: pass",
        "```python\ndef f(): return 1\n```",
    ]
    told: list[str] = []
    with scorer(reward, choose(), told.append) as score:
        paid = score([Sample("r", "s", (), "assert f() == 1", each) for each in rows])
    assert paid == [1.0, 0.0, 0.0, 1.0]
    assert told == ["killed after 0.5 s"] * 2


def test_tests_that_cannot_be_run_from_outside_are_a_failed_scoring_and_no_failure_of_the_code() -> None:
    tests = "class Node:\n    pass\ntry:\n    walk(Node())\nexcept BaseException:\n    pass"
    told: list[str] = []
    with scorer(UnitTestsReward(), choose(), told.append) as score:
        assert score([Sample("r", "s", (), tests, "def walk(node): return 1")]) == [None]
    assert "give the code a Node, which cannot be sent" in told[0]


def test_tests_are_not_run_without_a_sandbox() -> None:
    with pytest.raises(NightsmithError, match="no sandbox was chosen"), scorer(UnitTestsReward()):
        pass
