"""The generating source `reasoning-gym:<task>?<parameter>=<value>&…`: its tasks, their parameters, checked by name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import metadata
from typing import Any, get_args, get_origin, get_type_hints

from nightsmith.tools.arguments import did_you_mean
from nightsmith.tools.base import ToolError
from nightsmith.tools.data.sources import Generator, Parameter, Source

GYM = "reasoning-gym"
OWN_SETTINGS = {"size": "num_generated", "seed": "seed"}
"""Parameters of a generator that the build sets by fields of its own."""
_REFERENCE = re.compile(r"reasoning[-_ ]gym:(?P<task>[^?]*)(?:\?(?P<query>.*))?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class GymReference:
    """A reference taken apart."""

    task: str
    """Task as it was given, words joined by underscores."""
    parameters: dict[str, str]
    """Parameter -> value as it was given."""


def parse(ref: str) -> GymReference | None:
    """Take a reference apart; None where it does not name this generator.

    Raises:
        ToolError: the part after the question mark is no list of `parameter=value`.
    """
    found = _REFERENCE.fullmatch(ref.strip())
    if found is None or not found["task"].strip():
        return None
    parameters: dict[str, str] = {}
    for part in (found["query"] or "").split("&"):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if part.strip() and not (name and equals and value):
            raise ToolError(
                f"{ref!r}: {part!r} is no parameter. Write them as "
                f"{GYM}:{found['task']}?max_terms=2&max_digits=1 (name=value, joined by &)."
            )
        if name in parameters:
            raise ToolError(f"{ref!r} gives {name!r} twice. Give it once.")
        if name:
            parameters[name] = value
    return GymReference(re.sub(r"[\s-]+", "_", found["task"].strip().lower()), parameters)


@cache
def gym_tasks() -> tuple[str, ...]:
    """Tasks that the installed reasoning-gym can generate."""
    from reasoning_gym.factory import DATASETS  # type: ignore[import-untyped]

    return tuple(sorted(str(name) for name in DATASETS))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def load_gym(ref: str, task: str, given: Mapping[str, str] | None = None) -> Source:
    """Seeded generator of one task.

    Args:
        ref: the reference as it was given.
        task: name of the task.
        given: parameter -> value as text.

    Raises:
        ToolError: no such task or parameter (with near names), or a value that the task does not allow.
    """
    if task not in gym_tasks():
        raise ToolError(
            f"reasoning-gym has no task {task!r}.{did_you_mean(task, gym_tasks())} Some: {', '.join(gym_tasks()[:6])}."
        )
    parameters = _checked(task, given or {})
    generator = Generator(task=task, version=metadata.version("reasoning-gym"), parameters=parameters)
    query = "&".join(f"{name}={_written(value)}" for name, value in parameters)
    source_id = f"{GYM}:{task}" + (f"?{query}" if query else "")
    return Source(ref=ref, id=source_id, label=source_id, kind="generator", generator=generator,
                  note=f"reasoning-gym {generator.version}")  # fmt: skip


def _checked(task: str, given: Mapping[str, str]) -> tuple[tuple[str, Parameter], ...]:
    """Parameters with typed values, ordered by name."""
    if not given:
        return ()
    from reasoning_gym.factory import DATASETS  # type: ignore[import-untyped]

    config: Any = DATASETS[task][1]  # pyright: ignore[reportUnknownVariableType]
    types = get_type_hints(config)
    known = [field.name for field in fields(config) if field.name not in OWN_SETTINGS]
    values = tuple((name, _value(task, name, text, types, known)) for name, text in sorted(given.items()))
    try:
        config(**dict(values)).validate()
    except (AssertionError, ValueError, TypeError) as error:
        reason = str(error) or "these values do not go together"
        raise ToolError(
            f"{GYM}:{task} cannot be generated so: {reason}. Parameters: {_shown(config, known)}."
        ) from error
    return values


def _value(task: str, name: str, text: str, types: dict[str, Any], known: list[str]) -> Parameter:
    from pydantic import TypeAdapter, ValidationError
    from pydantic.errors import PydanticSchemaGenerationError

    if name in OWN_SETTINGS:
        raise ToolError(f"{GYM}:{task}: {name!r} is set by the build. Leave it out, set {OWN_SETTINGS[name]!r} there.")
    if name not in known:
        have = ", ".join(known) or "none"
        raise ToolError(f"{GYM}:{task} has no parameter {name!r}.{did_you_mean(name, known)} Parameters: {have}.")
    listed = any((get_origin(kind) or kind) in (list, tuple) for kind in (types[name], *get_args(types[name])))
    try:
        found = TypeAdapter(types[name]).validate_python(text.strip("[]()").split(",") if listed else text)
    except (ValidationError, PydanticSchemaGenerationError) as error:
        kind = getattr(types[name], "__name__", str(types[name]))
        raise ToolError(f"{GYM}:{task}: {name!r} is {text!r}, which is no {kind}. Give another value.") from error
    return tuple(found) if isinstance(found, list) else found  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _shown(config: Any, known: list[str]) -> str:
    defaults = {field.name: field.default for field in fields(config)}
    return ", ".join(f"{name} ({defaults[name]})" if _is_plain(defaults[name]) else name for name in known)


def _is_plain(value: object) -> bool:
    return isinstance(value, (bool, int, float, str))


def _written(value: Parameter) -> str:
    if isinstance(value, tuple):
        return ",".join(str(each) for each in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
