"""Times, dates, time zones and recurrences in a goal's text."""

import re
from collections.abc import Iterator
from datetime import date

from nightsmith.agent import lexicon
from nightsmith.agent.reading import Reading

_CLOCK_RE = re.compile(
    r"(?<![\w.:])(?:(?P<h>[01]?\d|2[0-4])[:.h](?P<m>[0-5]\d)\s?(?P<ap>[ap]\.?m\b\.?)?(?!\w|:\d)"
    r"|(?P<h2>1[0-2]|0?[1-9])\s?(?P<ap2>[ap]\.?m\b\.?)|(?P<word>noon|midnight)\b"
    r"|(?P<h3>[01]?\d|2[0-4])\s?o'?clock\b)",
    re.IGNORECASE,
)
_HOUR_RE = re.compile(
    r"\b(?:before|by|until|till|at|til)\s(?P<h>[01]?\d|2[0-3])(?=\s*(?:$|[.,;)](?!\d)|in the|tomorrow|tonight|"
    r"sharp|and\b))",
    re.IGNORECASE,
)
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DATE_RE = re.compile(
    rf"\b(?:(?P<iso>20\d\d-\d\d-\d\d)|(?P<d>\d{{1,2}})\.?\s(?P<mon>{'|'.join(_MONTHS)})[a-z]*\.?,?\s(?P<y>20\d\d)"
    rf"|(?P<mon2>{'|'.join(_MONTHS)})[a-z]*\.?\s(?P<d2>\d{{1,2}})(?:st|nd|rd|th)?,?\s(?P<y2>20\d\d))\b",
    re.IGNORECASE,
)
_ZONE_RE = re.compile(
    r"\b(?:(?:Europe|America|Asia|Africa|Australia|Pacific|Atlantic|Indian)/[A-Z]\w+(?:/[A-Z]\w+)?|"
    r"UTC(?:[+-]\d{1,2})?|GMT|CET|CEST|EST|PST|EDT|PDT)\b"
)
_DAY = "(?:" + "|".join(lexicon.DAYS) + ")s?"
_EVERY_RE = re.compile(
    r"\b(?:(?:every|each)\s(?:weekday|weeknight|work ?day|working day|night|evening|day|morning|weekend|hour|week|"
    rf"{_DAY}(?:(?:,\s?|\sand\s|,\sand\s){_DAY})*)s?"
    r"|nightly|daily|hourly|weekly|weeknights|weekdays|weekends"
    rf"|on\s(?:{_DAY}(?<=s)|weeknights|weekdays)"
    r"|(?:monday|mon)\s?(?:to|through|till|until|-|–)\s?(?P<range>friday|fri|thursday|saturday))\b",
    re.IGNORECASE,
)


def times(text: str) -> Iterator[Reading]:
    """Clock times as HH:MM: "22:00", "7am", "noon", "before 7"."""
    for match in _CLOCK_RE.finditer(text):
        if "." in match.group()[:3] and not match["ap"]:
            continue
        yield Reading("time", _clock(match), match.span(), None, None, match.group())
    for match in _HOUR_RE.finditer(text):
        yield Reading("time", f"{int(match['h']):02d}:00", match.span("h"), "full hour", None, f"{match['h']}:00")


def _clock(match: re.Match[str]) -> str:
    if match["word"]:
        return "12:00" if match["word"].lower() == "noon" else "00:00"
    hour, minute = int(match["h"] or match["h2"] or match["h3"]), int(match["m"] or 0)
    half = (match["ap"] or match["ap2"] or "").lower()
    if half.startswith("p") and hour < 12:
        hour += 12
    if half.startswith("a") and hour == 12:
        hour = 0
    return f"{hour % 24:02d}:{minute:02d}"


def dates(text: str) -> Iterator[Reading]:
    """Dates with a year as YYYY-MM-DD."""
    for match in _DATE_RE.finditer(text):
        if match["iso"]:
            value = match["iso"]
        else:
            month = _MONTHS.index(str(match["mon"] or match["mon2"]).lower()[:3]) + 1
            value = f"{match['y'] or match['y2']}-{month:02d}-{int(match['d'] or match['d2']):02d}"
        if _exists(value):
            yield Reading("date", value, match.span(), None, None, match.group())


def _exists(day: str) -> bool:
    try:
        date.fromisoformat(day)
    except ValueError:
        return False
    return True


def zones(text: str) -> Iterator[Reading]:
    """Time zones as named."""
    for match in _ZONE_RE.finditer(text):
        yield Reading("timezone", match.group(), match.span(), None, None, match.group())


def recurrences(text: str, clock: list[Reading]) -> Iterator[Reading]:
    """Cron lines for recurrences, with each time of the text (without one: 22:00)."""
    for match in _EVERY_RE.finditer(text):
        days = _days(match)
        hours = [reading for reading in clock if reading.kind == "time" and abs(reading.span[0] - match.end()) < 80][:3]
        if "hour" in match.group().lower():
            yield Reading("cron", "0 * * * *", match.span(), "recurrence", None, "cron 0 * * * *")
        for reading in hours:
            hour, minute = str(reading.value).split(":")
            line = f"{int(minute)} {int(hour)} * * {days}"
            yield Reading("cron", line, match.span(), f"recurrence with {reading.value}", None, f"cron {line}")
        if not hours and "hour" not in match.group().lower():
            yield Reading(
                "cron", f"0 22 * * {days}", match.span(), "recurrence, at 22:00", None, f"cron 0 22 * * {days}"
            )


def _days(match: re.Match[str]) -> str:
    text = match.group().lower()
    if match["range"]:
        return f"1-{[day[:3] for day in lexicon.DAYS].index(match['range'].lower()[:3])}"
    if re.search(r"weekday|weeknight|work", text):
        return "1-5"
    if "weekend" in text:
        return "0,6"
    named = [str(number) for number, day in enumerate(lexicon.DAYS) if day in text]
    return ",".join(named) or ("0" if "week" in text else "*")
