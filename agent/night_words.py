"""What `night add` is told beside the goal: clock times, days, a budget a night, a time zone. Pure parsing."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

from nightsmith.record.errors import NightsmithError
from nightsmith.record.recurrence import DAYS, Day
from nightsmith.tools.arguments import did_you_mean

BUDGET = ("trials", "time", "time_per_trial", "tokens", "gpu_hours")
"""Limits that `--budget` may name, as plans are edited by them."""
_DAY_SETS: Mapping[str, tuple[Day, ...]] = {
    "daily": DAYS, "every day": DAYS, "weekdays": DAYS[:5], "weeknights": DAYS[:5], "weekends": DAYS[5:],
}  # fmt: skip
_ABBREVIATED: Mapping[str, str] = {
    "CET": "Europe/Brussels", "CEST": "Europe/Brussels", "EST": "America/New_York", "EDT": "America/New_York",
    "PST": "America/Los_Angeles", "PDT": "America/Los_Angeles", "GMT": "Etc/GMT",
}  # fmt: skip
"""Abbreviations that goals use; as fixed offsets they would miss the clock changes that people mean."""
_CLOCK = re.compile(r"([01]?\d|2[0-3])[:.h]([0-5]\d)")
_OFFSET = re.compile(r"UTC([+-])(\d{1,2})")
_NUMBER = r"\d+(?:\.\d+)?(?:e\d+)?[kKmMgG]?"
_COUNTED = re.compile(rf"({_NUMBER})\s*(trials?|tokens?|gpu[ _-]?h(?:ours?)?)", re.IGNORECASE)
_NAMED = re.compile(r"(\w+)\s*[= ]\s*(.+)")
_WORD_AFTER = re.compile(rf"{_NUMBER}\s+([A-Za-z_-]+)")
_UNITS = ("trials", "tokens", "GPU-hours", "hours", "minutes", "seconds")


class CannotSchedule(NightsmithError):
    """A schedule that cannot be made as asked; says what can."""


def clock(text: str, option: str) -> str:
    """`22:00`, `7:30` as HH:MM."""
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        raise CannotSchedule(f"{option} {text!r} is not a time of day; give 24-hour HH:MM, e.g. 22:00.")
    return f"{int(match[1]):02d}:{match[2]}"


def days(text: str) -> tuple[Day, ...]:
    """`mon-fri`, `sat,sun`, `fri-mon`, `daily`, `weekdays`: days of the week, Monday first."""
    found: set[int] = set()
    for part in text.lower().split(","):
        if (named := _DAY_SETS.get(part.strip())) is not None:
            found |= {DAYS.index(day) for day in named}
            continue
        first, _, last = (end.strip() for end in part.partition("-"))
        start, end = _day(first, text), _day(last or first, text)
        found |= {number % 7 for number in range(start, end + 1 if end >= start else end + 8)}
    return tuple(DAYS[number] for number in sorted(found))


def _day(word: str, text: str) -> int:
    for number, name in enumerate(("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")):
        if len(word) >= 3 and name.startswith(word):
            return number
    raise CannotSchedule(f"--days {text!r}: {word!r} is no day. Give e.g. mon-fri, sat,sun, daily, weekdays, weekends.")


def days_told(chosen: tuple[Day, ...]) -> str:
    """`mon-fri`, `sat, sun`, `daily`: the shortest way to say days."""
    if chosen == DAYS:
        return "daily"
    if len(chosen) > 2 and DAYS[DAYS.index(chosen[0]) :][: len(chosen)] == chosen:
        return f"{chosen[0]}-{chosen[-1]}"
    return ", ".join(chosen)


def from_cron(cron: str) -> tuple[str, tuple[Day, ...]]:
    """Time and days of a goal's own schedule. Sunday is 0 (and 7)."""
    fields = cron.split()
    plain = len(fields) == 5 and fields[0].isdecimal() and fields[1].isdecimal() and fields[2:4] == ["*", "*"]
    if not plain:
        raise CannotSchedule(
            f"The goal's schedule ({cron!r}) is not a time of day on days of the week. Give --at and --days instead."
        )
    return clock(f"{int(fields[1]):02d}:{int(fields[0]):02d}", "The goal's schedule"), _cron_days(fields[4])


def _cron_days(field: str) -> tuple[Day, ...]:
    if field == "*":
        return DAYS
    if not re.fullmatch(r"[0-7](-[0-7])?(,[0-7](-[0-7])?)*", field):
        raise CannotSchedule(f"The goal's schedule names days that cannot be read ({field!r}). Give --days instead.")
    sunday_first = ("sun", *DAYS[:6], "sun")
    named = [[sunday_first[int(end)] for end in part.split("-")] for part in field.split(",")]
    return days(",".join("-".join(ends) for ends in named))


def budget(text: str) -> dict[str, str]:
    """`5 trials, 8h` or `trials=5,time=8h,gpu_hours=40` as names and values, as plans are edited by them."""
    changes: dict[str, str] = {}
    for part in (part.strip() for part in re.split(r"[,;]", text) if part.strip()):
        name, value = _limit(part)
        if name not in BUDGET:
            raise CannotSchedule(f"--budget {part!r}:{did_you_mean(name, BUDGET)} Possible: {', '.join(BUDGET)}.")
        changes[name] = value
    if not changes:
        raise CannotSchedule("--budget is empty. Give e.g. '5 trials, 8h' or trials=5,time=8h.")
    return changes


def _limit(part: str) -> tuple[str, str]:
    if counted := _COUNTED.fullmatch(part):
        unit = counted[2].lower()
        return "gpu_hours" if unit.startswith("gpu") else unit.rstrip("s") + "s", counted[1]
    word = _WORD_AFTER.fullmatch(part)
    if word and word[1][0].lower() not in "smh":
        raise CannotSchedule(
            f"--budget {part!r}: {word[1]!r} is no unit.{did_you_mean(word[1], _UNITS)} Give e.g. '5 trials, 8h'."
        )
    if part[0].isdigit():
        return "time", part
    named = _NAMED.fullmatch(part)
    return (named[1], named[2].strip()) if named else (part, "")


def timezone(named: str | None) -> str:
    """A time zone of the tz database: as named, of an abbreviation or offset, else the machine's own."""
    name = named.strip() if named else local_timezone()
    if offset := _OFFSET.fullmatch(name):  # POSIX counts west of Greenwich
        name = f"Etc/GMT{'-' if offset[1] == '+' else '+'}{int(offset[2])}"
    name = _ABBREVIATED.get(name, name)
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError):
        near = did_you_mean(name, sorted(available_timezones()))
        raise CannotSchedule(f"{name!r} is no time zone.{near} Give an IANA name, e.g. Europe/Paris.") from None


def local_timezone(root: Path = Path("/")) -> str:
    """The machine's time zone by name, as `TZ`, /etc/localtime or /etc/timezone give it; UTC where none does."""
    if named := os.environ.get("TZ", "").lstrip(":"):
        return named
    link = root / "etc/localtime"
    _, found, name = str(link.resolve()).partition("zoneinfo/")
    if link.is_symlink() and found:
        return name.removeprefix("posix/")
    file = root / "etc/timezone"
    return (file.read_text().strip() if file.is_file() else "") or "UTC"
