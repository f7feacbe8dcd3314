"""A plan is edited by names and values before it is approved: `trials 2, time 5m, learning_rate 3e-4`.

Pure: a GoalSpec in, a GoalSpec out, its changed places marked in `sources`. Whether the machine can do it is the next
preflight's question; what can be said without it is said here, with what is allowed.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Any

from nightsmith.agent import figures
from nightsmith.agent.goal import GoalSpec
from nightsmith.record.errors import NightsmithError
from nightsmith.tools.arguments import did_you_mean

EDITED = {"rule": "edited at the console"}
"""Source of an edited value."""
NONE = "none"
"""Value that takes a limit away."""
Changes = Mapping[str, str]
"""Name -> value, as typed."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(seconds?|sec|s|minutes?|min|m|hours?|h)")
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_COUNT = re.compile(r"(\d+(?:\.\d+)?(?:e\d+)?)\s*([kKmMgG]?)")
_SCALE = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9}
_DEADLINE = re.compile(r"(?:(\d{4}-\d{2}-\d{2})[ T])?(([01]\d|2[0-3]):[0-5]\d)")
_ALIASES = {
    "steps": "num_steps", "lr": "learning_rate", "layers": "num_layers", "experts": "num_experts", "rank": "lora_rank",
}  # fmt: skip
"""Names that goals use -> the recipe's."""
_UNBOUNDED = {"time", "time_per_trial", "tokens", "gpu_hours", "deadline"}


class CannotEdit(NightsmithError):
    """A name or a value that a plan cannot be given; says what it can."""


def parse(text: str) -> dict[str, str]:
    """Names and values of a line: pairs one after the other, commas and `=` at will. Raises CannotEdit."""
    words = re.sub(r"[=,;]", " ", text).split()
    changes: dict[str, str] = {}
    while words:
        name = words.pop(0)
        if not words:
            raise CannotEdit(f"{name!r} has no value. Give names and values, e.g.: trials 2, time 5m.")
        changes[name] = words.pop(0)
        if name == "deadline" and words and _DEADLINE.fullmatch(f"{changes[name]} {words[0]}"):
            changes[name] += f" {words.pop(0)}"
    if not changes:
        raise CannotEdit("Nothing to edit. Give names and values, e.g.: trials 2, time 5m.")
    return changes


def edited(
    spec: GoalSpec, sources: Mapping[str, Any], changes: Changes, settings: Iterable[str]
) -> tuple[GoalSpec, dict[str, Any]]:
    """The spec with the changes in it, and its sources. Raises CannotEdit for a name or value that it cannot have.

    Args:
        spec: the goal as understood.
        sources: JSON pointer -> where a value came from.
        changes: names and values as typed.
        settings: settings that the plan's recipe has.
    """
    values, marked = spec.model_dump(mode="json"), dict(sources)
    for name, text in changes.items():
        pointer = _put(values, name, text, tuple(settings))
        for below in [other for other in marked if other == pointer or other.startswith(f"{pointer}/")]:
            del marked[below]
        marked[pointer] = EDITED
    return GoalSpec.model_validate(values), marked


def names(settings: Iterable[str]) -> tuple[str, ...]:
    """Everything that can be edited."""
    return (*_BUDGET, "target", *settings, "seeds")


def _put(values: dict[str, Any], name: str, text: str, settings: tuple[str, ...]) -> str:
    """Put one value in its place. Returns its JSON pointer."""
    if name in _BUDGET:
        field, read = _BUDGET[name]
        taken = text.lower() == NONE and name in _UNBOUNDED
        values["budget"][field] = None if taken else read(text)
        return f"/budget/{field}"
    if name == "target":
        return _put_target(values, text)
    if (setting := _ALIASES.get(name, name)) in (*settings, "seeds"):
        return _put_setting(values, setting, text)
    known = names(settings)
    raise CannotEdit(f"There is no {name!r} to edit.{did_you_mean(name, known)} Possible: {', '.join(known)}.")


def _put_setting(values: dict[str, Any], name: str, text: str) -> str:
    setting = {"name": name, "value": _number_or_word(text), "how": "fixed"}
    found = values["settings"]
    index = next((i for i, one in enumerate(found) if _ALIASES.get(one["name"], one["name"]) == name), len(found))
    found[index : index + 1] = [setting]
    return f"/settings/{index}"


def _put_target(values: dict[str, Any], text: str) -> str:
    """A new threshold for the first target. A size is on the side that the goal named: 0.2 below stays below."""
    target = next(iter(values["targets"]), None)
    if target is None or target["value"] is None:
        raise CannotEdit("The goal names no threshold, so there is none to edit; say one in a new goal.")
    value = _share(text) if text.endswith("%") else _number(text, "target", "a number, e.g. 0.2, or a share, e.g. 85%")
    if target["metric"] in figures.SHARES and abs(value) > 1:
        raise CannotEdit(f"target {text!r}: {target['metric']} is a share, from 0 to 1 or in per cent (85%).")
    is_size = target["relative_to"] is not None and target["relation"] == "difference"
    target["value"] = -value if is_size and target["value"] < 0 < value else value
    return "/targets/0/value"


def _share(text: str) -> float:
    return round(_number(text.removesuffix("%"), "target", "a share, e.g. 85%") / 100, 10)


def _trials(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,3}", text):
        raise CannotEdit(f"trials {text!r}: a whole number from 1 to 9999.")
    return int(text)


def _duration(text: str) -> float:
    found = _DURATION.findall(text)
    seconds = sum(float(number) * _SECONDS[unit[0]] for number, unit in found)
    if not found or seconds <= 0 or _DURATION.sub("", text).strip():
        raise CannotEdit(f"{text!r} is no duration: 300s, 5m, 1.5h, 1h30m, or {NONE} for no limit.")
    return seconds


def _tokens(text: str) -> float:
    match = _COUNT.fullmatch(text)
    if match is None or float(match[1]) <= 0:
        raise CannotEdit(f"tokens {text!r}: a number above 0, e.g. 500k, 2M, 1e7, or {NONE} for no limit.")
    return float(match[1]) * _SCALE[match[2].lower()]


def _gpu_hours(text: str) -> float:
    hours = _number(text, "gpu_hours", f"a number of hours, e.g. 0.5, or {NONE} for no limit")
    if hours < 0:
        raise CannotEdit(f"gpu_hours {text!r}: 0 or more, or {NONE} for no limit.")
    return hours


def _deadline(text: str) -> dict[str, str | None]:
    match = _DEADLINE.fullmatch(text)
    if match is None or not _is_day(match[1]):
        raise CannotEdit(f"deadline {text!r}: HH:MM, a day before it at will (2026-11-30 07:00), or {NONE}.")
    return {"time": match[2], "date": match[1]}


def _is_day(text: str | None) -> bool:
    try:
        return text is None or bool(date.fromisoformat(text))
    except ValueError:
        return False


def _number(text: str, name: str, allowed: str) -> float:
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
        raise CannotEdit(f"{name} {text!r}: {allowed}.")
    return float(text)


def _number_or_word(text: str) -> float | int | str:
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    try:
        return _number(text, "", "")
    except CannotEdit:
        return text


_BUDGET: dict[str, tuple[str, Callable[[str], Any]]] = {
    "trials": ("max_trials", _trials),
    "time": ("wall_clock_s", _duration),
    "time_per_trial": ("per_trial_s", _duration),
    "tokens": ("tokens", _tokens),
    "gpu_hours": ("gpu_hours", _gpu_hours),
    "deadline": ("deadline", _deadline),
}
"""Name -> field of the budget, and how its value is read."""
