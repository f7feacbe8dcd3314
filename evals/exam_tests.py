"""The program of an exam that runs the tests, and says how they ended. See `exam_data`.

Objects of the code are handles here. They are never equal to data, and operators between the two are refused: else an
object could agree to whatever it is compared with.
"""

import ast
import builtins
import importlib
import io
import json
import sys
from collections.abc import Callable
from typing import IO, Any

from nightsmith.evals.exam_data import Side, Told, pack, pipes, tell, unpack


class Unsendable(BaseException):
    """The tests give the code something that cannot be sent: they cannot be run this way. No test may catch it."""


class Held:
    """An object of the code, in its process."""

    __slots__ = ("_number_there", "_side_there")
    _number_there: int
    _side_there: "TestsSide"

    def __init__(self, side: "TestsSide", number: int) -> None:
        object.__setattr__(self, "_side_there", side)
        object.__setattr__(self, "_number_there", number)

    def __getattr__(self, name: str) -> Any:
        """An attribute of the object."""
        return self._side_there.ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute of the object."""
        self._side_there.ask("setattr", self, name, value)

    def __delattr__(self, name: str) -> None:
        """Delete an attribute of the object."""
        self._side_there.ask("delattr", self, name)

    def __instancecheck__(self, instance: Any) -> bool:
        """Whether an object of the code is one of this class of the code's."""
        return isinstance(instance, Held) and bool(self._side_there.ask("isinstance", instance, self))

    def __eq__(self, other: object) -> bool:
        """Whether the code calls two of its objects equal; no object is equal to data."""
        return other is self or (isinstance(other, Held) and self._side_there.ask("eq", self, other) is True)

    def __ne__(self, other: object) -> bool:
        """The opposite."""
        return not self == other

    def __exit__(self, *_: object) -> None:
        """Leave the object's context, as if nothing had been raised."""
        self._side_there.ask("exit", self, None, None, None)

    def __hash__(self) -> int:
        """Of the handle, which is one for each object."""
        return self._number_there


def _unary(name: str) -> Callable[..., Any]:
    def asked(self: Held, *args: Any, **named: Any) -> Any:
        return self._side_there.ask(name, self, *args, **named)

    return asked


def _binary(name: str) -> Callable[..., Any]:
    def asked(self: Held, other: Any) -> Any:
        if not isinstance(other, Held):
            raise TypeError(f"the code gave an object of its own, and {name} of it and data is not possible")
        return self._side_there.ask(name, self, other)

    return asked


UNARY = (
    *("call", "getitem", "setitem", "delitem", "len", "iter", "next", "bool", "int", "float", "index", "str", "repr"),
    *("abs", "neg", "pos", "invert", "round", "reversed", "enter"),
)
_ARITHMETIC = ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow", "and", "or", "xor")
BINARY = ("lt", "le", "gt", "ge", "contains", *_ARITHMETIC, *(f"r{name}" for name in _ARITHMETIC))
for _name in UNARY:
    setattr(Held, f"__{_name}__", _unary(_name))
for _name in BINARY:
    setattr(Held, f"__{_name}__", _binary(_name))


class TestsSide(Side):
    """Runs tests, each with names that stand for those of the code."""

    __test__ = False
    begins_asking, begins_end = ">", "="
    """First letters of its lines: for the code; the end of the tests."""

    def __init__(self, heard: IO[str], said: IO[str]) -> None:
        super().__init__(heard, said, self.begins_asking)
        self._handles: dict[int, Any] = {}
        self._unsendable = ""

    def run(self, code: str, tests: str) -> dict[str, Any]:
        """How the tests of a code end."""
        self.kept, self._numbers, self._handles, self._unsendable = [], {}, {}, ""
        try:
            parsed = ast.parse(tests, "tests")
            exec(compile(parsed, "tests", "exec"), {"__name__": "__main__", **self._names(code, parsed)})
        except BaseException as error:  # also SystemExit
            return {"passed": False, "why": tell(error), "unsendable": self._unsendable}
        return {"passed": not self._unsendable, "why": "", "unsendable": self._unsendable}

    def _names(self, code: str, tests: ast.AST) -> dict[str, Any]:
        """Names of the code, and modules that the tests use. What is Python's own, the code cannot replace.

        A code may have to define what is named like a builtin: it counts where the tests use nothing else of the code.
        """
        told = dict(self._heard_of({"op": "load", "args": [code]}))
        modules = {name: importlib.import_module(name) for name in _modules(tests)}
        used = {node.id for node in ast.walk(tests) if isinstance(node, ast.Name)} & told.keys()
        own = {name for name in used if name not in modules and not hasattr(builtins, name)} or used
        return modules | {name: self.unpack(told[name]) for name in own}

    def ask(self, op: str, *args: Any, **named: Any) -> Any:
        """Have the code do something with one of its objects, and take over what it changed in lists that it got."""
        given = [self.pack(each) for each in args]
        asked = {"op": op, "args": given, "named": {name: self.pack(each) for name, each in named.items()}}
        return self._heard_of(asked, args)

    def _heard_of(self, asked: dict[str, Any], args: tuple[Any, ...] = ()) -> Any:
        self.say(asked)
        while "callback" in (told := self._answered()):
            self.say(self._called(told["callback"], told["args"]))
        if "raised" in told:
            raise self._raised(told)
        for place, after in told.get("changed", {}).items():
            _assign(args[int(place)], self.unpack(after))
        if asked["op"] == "load":
            return told["value"]
        return NotImplemented if told["value"] == ["NotImplemented"] else self.unpack(told["value"])

    def _answered(self) -> dict[str, Any]:
        told = self.hear()
        sys.stdout.write(str(told.get("printed", "")))
        return told

    def _called(self, number: int, args: list[Told]) -> dict[str, Any]:
        """What one of the tests' functions says to the code."""
        try:
            return {"value": self.pack(self.kept[number](*(self.unpack(each) for each in args)))}
        except Exception as error:
            return {"raised": type(error).__name__, "text": str(error)}

    def _raised(self, told: dict[str, Any]) -> Exception:
        """What the code raised: only what is caught by `except Exception`."""
        kind, args = self.unpack(told["raised"]), told["args"]
        if isinstance(kind, type) and issubclass(kind, Exception):
            try:
                error = kind(*args)
            except Exception:  # some want other arguments
                error = RuntimeError(*args)
            error.add_note(str(told["trace"]))
            return error
        return RuntimeError(f"the code ended: {told['trace']}")

    def pack(self, value: Any) -> Told:
        """A value for the code. Raises Unsendable."""
        return pack(value, self._other)

    def unpack(self, told: Told) -> Any:
        """A value of the code. Raises ValueError."""
        return unpack(told, self._made)

    def _other(self, value: Any) -> Told:
        if isinstance(value, Held):
            return ["held", value._number_there]
        if value is getattr(builtins, getattr(value, "__name__", ""), self):
            return ["builtin", value.__name__]
        if isinstance(value, type) and hasattr(value, "_number_there"):
            return ["held", value._number_there]
        if callable(value) and not isinstance(value, type):
            return ["callback", self.keep(value)]
        self._unsendable = f"the tests give the code a {type(value).__name__}, which cannot be sent to it"
        raise Unsendable(self._unsendable)

    def _made(self, tag: str, parts: list[Any]) -> Any:
        if tag == "held":
            return self._handles.setdefault(int(parts[0]), Held(self, int(parts[0])))
        if tag == "callback":
            return self.kept[parts[0]]
        if tag != "exception":
            raise ValueError("it answered what is not an answer")
        if len(parts) == 1:
            return _builtin_exception(parts[0])
        name, number, bases = parts
        if number not in self._handles:
            derived = tuple(self._made(*_split(each)) for each in bases)
            self._handles[number] = type(str(name), derived, {"_number_there": number})
        return self._handles[number]


def _builtin_exception(name: str) -> type[BaseException]:
    found = getattr(builtins, name, None)
    if not isinstance(found, type) or not issubclass(found, BaseException):
        raise ValueError("it answered what is not an answer")
    return found


def _split(told: Told) -> tuple[str, list[Any]]:
    return told[0], told[1:]


def _modules(tests: ast.AST) -> list[str]:
    """Modules of the standard library that the tests use by name: `math` where they say `math.isclose`."""
    used = [node.value for node in ast.walk(tests) if isinstance(node, ast.Attribute)]
    names = dict.fromkeys(node.id for node in used if isinstance(node, ast.Name))
    return [name for name in names if name in sys.stdlib_module_names]


def _assign(value: Any, after: Any) -> None:
    """Make a list, set, dict or bytearray what it is after the code had it."""
    if isinstance(value, list | bytearray):
        value[:] = after
    elif isinstance(value, set | dict):
        value.clear()
        value.update(after)


def examine(heard: IO[str], said: IO[str]) -> None:
    """Run the tests of each line, until nobody sends any more. A line without tests asks whether it has come up."""
    side = TestsSide(heard, said)
    for line in heard:
        asked = json.loads(line)
        sys.stdout = io.StringIO()
        ended = asked and side.run(asked["code"], asked["tests"])
        said.write(f"{side.begins_end}{json.dumps(ended)}\n")
        said.flush()


if __name__ == "__main__":
    examine(*pipes())
