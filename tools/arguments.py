"""Arguments from outside made typed, or refused in sentences that say how to mend them."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from nightsmith.tools.base import ToolArgs, ToolError

Args = TypeVar("Args", bound=ToolArgs)


def validated(kind: type[Args], values: Mapping[str, Any], *, what: str) -> Args:
    """Make arguments of a kind.

    Args:
        kind: the arguments' type.
        values: their values by name.
        what: whose arguments they are, for the message.

    Raises:
        ToolError: one sentence for each thing that is wrong.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        found = cast("list[dict[str, Any]]", error.errors(include_url=False, include_context=False))
        raise ToolError(f"{what}: " + " ".join(_sentence(kind, each) for each in found[:8])) from error


def _sentence(kind: type[ToolArgs], error: dict[str, Any]) -> str:
    name = ".".join(str(part) for part in error["loc"])
    match error["type"]:
        case "extra_forbidden":
            known = list(kind.model_fields)
            return f"It has no argument {name!r}.{did_you_mean(name, known)} Arguments: {', '.join(known)}."
        case "missing":
            return f"{name!r} is missing{_described(kind, name)}."
        case "value_error":
            return f"{str(error['msg']).removeprefix('Value error, ')}."
        case _:
            return f"{name!r} is {_shown(error['input'])}: {_lower_first(str(error['msg']))}{_described(kind, name)}."


def _described(kind: type[ToolArgs], name: str) -> str:
    field = kind.model_fields.get(name.split(".")[0])
    return f" ({field.description.rstrip('.')})" if field and field.description else ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def require_known(given: Iterable[str], known: Iterable[str], *, what: str) -> None:
    """Refuse a name that is not among the known ones.

    Args:
        given: names that were given.
        known: names that there are.
        what: what they are names of, such as `setting`.

    Raises:
        ToolError: says which name, near names, and all that there are.
    """
    names = list(known)
    for name in given:
        if name not in names:
            raise ToolError(f"There is no {what} {name!r}.{did_you_mean(name, names)} {_plural(what)}: {_list(names)}.")


def _plural(what: str) -> str:
    return f"{what[:1].upper()}{what[1:]}s"


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The names most like a misspelt one, as a sentence with a leading space; empty if none is like it."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.55)
    return f" Did you mean {' or '.join(repr(match) for match in close)}?" if close else ""
