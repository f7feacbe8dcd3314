"""What the two programs of an exam have in common: how values are sent, a line at a time. Standard library only.

The text of this file, then that of `exam_code` or `exam_tests`, is handed to `python -I -S -c`. The sides speak in
turn, through whoever started them. Data go by value: they are built anew, of a closed list of kinds. Whatever else the
code makes stays in its process, and the tests have a handle on it. So nothing of the code runs beside the tests: it can
neither read them, nor replace what they use, nor say that they passed.
"""

import collections
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import IO, Any

TOLD_CHARS = 2000
Told = Any
"""What stands for a value in JSON: a scalar as it is, else a list of a tag and its parts."""

SEQUENCES = {kind.__name__: kind for kind in (list, tuple, set, frozenset, collections.deque)}
MAPPINGS = {kind.__name__: kind for kind in (dict, collections.OrderedDict, collections.Counter)}
MADE: dict[str, tuple[str, Callable[[Any], list[Any]]]] = {
    "complex": ("builtins", lambda v: [v.real, v.imag]),
    "bytes": ("builtins", lambda v: [list(v)]),
    "bytearray": ("builtins", lambda v: [list(v)]),
    "range": ("builtins", lambda v: [v.start, v.stop, v.step]),
    "slice": ("builtins", lambda v: [v.start, v.stop, v.step]),
    "Decimal": ("decimal", lambda v: [str(v)]),
    "Fraction": ("fractions", lambda v: [v.numerator, v.denominator]),
    "date": ("datetime", lambda v: [v.year, v.month, v.day]),
    "datetime": ("datetime", lambda v: [*v.timetuple()[:6], v.microsecond] if v.tzinfo is None else []),
    "timedelta": ("datetime", lambda v: [v.days, v.seconds, v.microseconds]),
}
"""Kind -> its module, and the plain arguments that make a value again."""
BASES: dict[type, Callable[[Any], Any]] = {
    int: int.__int__, float: float.__float__, str: str.__str__, bytes: bytes.__bytes__,
    **{kind: kind for kind in (bytearray, list, tuple, set, frozenset, dict)},
}  # fmt: skip
"""What is of a class that is derived from one of these goes as that, without what the class adds."""


def pack(value: Any, other: Callable[[Any], Told]) -> Told:
    """A value as JSON; `other` packs what is no data."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if SEQUENCES.get(kind.__name__) is kind:
        return [kind.__name__, [pack(each, other) for each in value]]
    if MAPPINGS.get(kind.__name__) is kind:
        return [kind.__name__, [[pack(key, other), pack(each, other)] for key, each in value.items()]]
    module, parts = MADE.get(kind.__name__, ("", list))
    if kind is getattr(sys.modules.get(module), kind.__name__, None) and (made := parts(value)):
        return [kind.__name__, *made]
    if isinstance(value, tuple) and (fields := getattr(value, "_fields", None)):
        return ["namedtuple", kind.__name__, list(fields), [pack(each, other) for each in value]]
    plain = next((plain for base, plain in BASES.items() if isinstance(value, base)), None)
    return other(value) if plain is None else pack(plain(value), other)


def unpack(told: Told, other: Callable[[str, list[Any]], Any]) -> Any:
    """The value that JSON stands for; `other` makes what is no data. Raises ValueError for what stands for nothing."""
    if told is None or isinstance(told, bool | int | float | str):
        return told
    if not isinstance(told, list) or not told:
        raise ValueError("it answered what is not an answer")
    tag, *parts = told
    if tag in SEQUENCES:
        return SEQUENCES[tag](unpack(each, other) for each in parts[0])
    if tag in MAPPINGS:
        return MAPPINGS[tag]({unpack(key, other): unpack(each, other) for key, each in parts[0]})
    if tag == "namedtuple":
        return collections.namedtuple(parts[0], parts[1])(*(unpack(each, other) for each in parts[2]))
    if tag in MADE:
        return getattr(importlib.import_module(MADE[tag][0]), tag)(*parts)
    return other(tag, parts)


class Side:
    """One of the two."""

    def __init__(self, heard: IO[str], said: IO[str], begins: str = "") -> None:
        self._heard, self._said, self._begins = heard, said, begins
        self.kept: list[Any] = []
        """What the other side has a handle on, by number."""
        self._numbers: dict[int, int] = {}

    def say(self, told: dict[str, Any]) -> None:
        """Send a line."""
        self._said.write(f"{self._begins}{json.dumps(told)}\n")
        self._said.flush()

    def hear(self) -> dict[str, Any]:
        """The next line. Raises ValueError where it is none."""
        line = json.loads(self._heard.readline() or "null")
        if not isinstance(line, dict):
            raise ValueError("it answered what is not an answer")
        return line

    def keep(self, value: Any) -> int:
        """The number of a value, the same whenever it is sent."""
        number = self._numbers.setdefault(id(value), len(self.kept))
        if number == len(self.kept):
            self.kept.append(value)
        return number


def tell(error: BaseException) -> str:
    """The end of the traceback."""
    return "".join(traceback.format_exception(error))[-TOLD_CHARS:]


def pipes() -> tuple[IO[str], IO[str]]:
    """What the other side says, and where to speak to it. Whatever else runs here has /dev/null in their place."""
    sys.set_int_max_str_digits(0)
    heard, said = (os.fdopen(os.dup(number), mode, encoding="utf-8") for number, mode in ((0, "r"), (1, "w")))
    nowhere = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    return heard, said
