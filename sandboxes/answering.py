"""The program of a Worker: loads one file's functions and answers a JSON line a call. Standard library only.

This file's text is handed to `python -I -S -c`. What the loaded code prints is cut off and sent along; the pipe that
answers go through is out of its way, though not out of its reach: an answer is never more than that code's word.
"""

import io
import json
import linecache
import os
import sys
import time
import traceback
import types
from collections.abc import Callable
from typing import IO, Any

PRINTED_CHARS = 4096
TOLD_CHARS = 4096


class Printed(io.TextIOBase):
    """Standard output and error of the loaded code: its first characters."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = ""

    def write(self, text: str) -> int:
        """Keep what fits."""
        self.kept += text[: max(0, PRINTED_CHARS - len(self.kept))]
        return len(text)

    def take(self) -> str:
        """What was kept since it was taken last."""
        kept, self.kept = self.kept, ""
        return kept


def serve(asked: IO[str], answered: IO[str]) -> None:
    """Load the file of the first line, then answer every further line."""
    printed = Printed()
    sys.stdout = sys.stderr = printed  # type: ignore[assignment]
    function: Callable[..., Any] | None = None
    for line in asked:
        call = json.loads(line)
        begun = time.perf_counter()
        try:
            if function is None:
                function, value = load(**call["load"]), None
            else:
                value = function(**call["arguments"])
            answer = {"value": value}
            told = json.dumps(_answer(call, answer, printed, begun), default=plain)
        except Missing as missing:
            told = json.dumps(_answer(call, {"missing": str(missing)}, printed, begun))
        except BaseException as error:  # also SystemExit and KeyboardInterrupt of the loaded code
            told = json.dumps(_answer(call, {"raised": tell(error)}, printed, begun))
        answered.write(told + "\n")
        answered.flush()


class Missing(Exception):
    """The file does not define the function."""


def load(source: str, filename: str, function: str, path: list[str]) -> Callable[..., Any]:
    """Run the file as a module and take its function. Raises Missing, and whatever the file raises."""
    sys.path[:] = [*path, *(entry for entry in sys.path if entry)]
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    module = types.ModuleType("loaded")
    module.__file__ = filename
    sys.modules["loaded"] = module
    exec(compile(source, filename, "exec"), module.__dict__)
    found = getattr(module, function, None)
    if not callable(found):
        defined = [name for name, value in vars(module).items() if isinstance(value, types.FunctionType)]
        raise Missing(f"{filename} has no function {function!r}; it defines: {', '.join(defined) or 'none'}")
    return found


def plain(value: Any) -> Any:
    """JSON of what is not: arrays and numbers of numpy, sets, tuples of them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"it returned a {type(value).__name__}, which JSON cannot hold")


def tell(error: BaseException) -> str:
    """The end of the traceback, without this file's own frames."""
    own = error.__traceback__.tb_next if error.__traceback__ else None
    text = "".join(traceback.format_exception(type(error), error, own))
    return text[-TOLD_CHARS:]


def _answer(call: dict[str, Any], answer: dict[str, Any], printed: Printed, begun: float) -> dict[str, Any]:
    used = {"wall_s": time.perf_counter() - begun, "cpu_s": time.process_time()}
    return {"id": call["id"], **answer, **used, "printed": printed.take()}


def main() -> None:
    """Keep the pipes for answers, give the loaded code /dev/null."""
    asked, answered = (os.fdopen(os.dup(number), mode, encoding="utf-8") for number, mode in ((0, "r"), (1, "w")))
    nowhere = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    serve(asked, answered)


if __name__ == "__main__":
    main()
