"""The program of an exam that runs the code, and does with its objects what the tests ask. See `exam_data`."""

import builtins
import io
import json
import sys
from collections.abc import Callable
from typing import Any

from nightsmith.evals.exam_data import Side, Told, pack, pipes, tell, unpack

PRINTED_CHARS = 65_536


class Printed(io.StringIO):
    """Standard output of the code: its first characters."""

    def write(self, text: str) -> int:
        """Keep what fits."""
        return super().write(text[: max(0, PRINTED_CHARS - self.tell())])

    def take(self) -> str:
        """What was kept since it was taken last."""
        kept = self.getvalue()
        self.seek(0)
        self.truncate()
        return kept


class Callback:
    """A function of the tests that the code was given."""

    def __init__(self, side: "CodeSide", number: int) -> None:
        self._side, self.number = side, number

    def __call__(self, *args: Any) -> Any:
        """Have the tests call it."""
        side = self._side
        side.say({"callback": self.number, "args": [side.pack(each) for each in args], "printed": side.printed.take()})
        while "op" in (told := side.hear()):
            side.answer(told)
        if "raised" in told:
            kind = getattr(builtins, told["raised"], RuntimeError)
            raise kind(told["text"])
        return side.unpack(told["value"])


ASKED: dict[str, Callable[..., Any]] = {
    "getattr": getattr, "setattr": setattr, "delattr": delattr, "isinstance": isinstance, "iter": iter, "next": next,
    "len": len, "bool": bool, "int": int, "float": float, "str": str, "repr": repr,
    "call": lambda function, *args, **named: function(*args, **named),
}  # fmt: skip
"""What is asked of an object of the code by its own name; all else is one of the object's special methods."""


class CodeSide(Side):
    """Runs the code, and does with its objects what the tests ask."""

    printed: Printed

    def serve(self) -> None:
        """Answer until nobody asks any more."""
        self.printed = Printed()
        sys.stdout = sys.stderr = self.printed
        for line in self._heard:
            self.answer(json.loads(line))

    def answer(self, asked: dict[str, Any]) -> None:
        """One line for one question."""
        try:
            told = self._done(asked)
        except BaseException as error:  # also SystemExit and KeyboardInterrupt
            told = {"raised": self.pack(type(error)), "args": _texts(error), "trace": tell(error)}
        self.say({**told, "printed": self.printed.take()})

    def _done(self, asked: dict[str, Any]) -> dict[str, Any]:
        op, given = asked["op"], asked["args"]
        if op == "load":
            return {"value": self._load(given[0])}
        args = [self.unpack(each) for each in given]
        named = {name: self.unpack(each) for name, each in asked.get("named", {}).items()}
        value = ASKED[op](*args, **named) if op in ASKED else getattr(type(args[0]), f"__{op}__")(*args)
        told = {"value": ["NotImplemented"] if value is NotImplemented else self.pack(value)}
        after = [self.pack(each) for each in args]
        changed = {place: each for place, each in enumerate(after) if each != given[place] and isinstance(each, list)}
        return {**told, "changed": changed} if changed else told

    def _load(self, source: str) -> Told:
        """Run the code; its names and their values."""
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(source, "code", "exec"), names)
        return [[name, self.pack(value)] for name, value in names.items() if not name.startswith("__")]

    def pack(self, value: Any) -> Told:
        """A value for the tests."""
        return pack(value, self._other)

    def unpack(self, told: Told) -> Any:
        """A value of the tests."""
        return unpack(told, self._made)

    def _other(self, value: Any) -> Told:
        if isinstance(value, Callback):
            return ["callback", value.number]
        if isinstance(value, type) and issubclass(value, BaseException):
            return self._exception(value)
        return ["held", self.keep(value)]

    def _exception(self, kind: type[BaseException]) -> Told:
        """A class of exceptions: a builtin one by its name, one of the code with those that it is derived from."""
        if getattr(builtins, kind.__name__, None) is kind:
            return ["exception", kind.__name__]
        bases = [self._exception(base) for base in kind.__bases__ if issubclass(base, BaseException)]
        return ["exception", kind.__name__, self.keep(kind), bases]

    def _made(self, tag: str, parts: list[Any]) -> Any:
        if tag == "held":
            return self.kept[parts[0]]
        return Callback(self, parts[0]) if tag == "callback" else getattr(builtins, parts[0])


def _texts(error: BaseException) -> list[Any]:
    return [each if isinstance(each, bool | int | float | str) or each is None else str(each) for each in error.args]


if __name__ == "__main__":
    CodeSide(*pipes()).serve()
