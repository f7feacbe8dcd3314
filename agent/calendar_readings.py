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
_AT_RE = re.compile(
    r"\b(?:at|by|before|after|until|till?|from|to|and|between|daily|nightly)\s$|[-–]\s?$", re.IGNORECASE
)
"""Words after which "1h30" is a time; after others it is a duration."""
_FROM_RE = re.compile(
    r"\b(?:between|from)\s(?P<h>1[0-2]|0?[1-9])\s?(?:and|to|until|till|-|–)\s?(?P<end>1[0-2]|0?[1-9])\s?(?P<ap>[ap])\.?m\b",
    re.IGNORECASE,
)
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DATE_RE = re.compile(
    rf"\b(?:(?P<iso>20\d\d-\d\d-\d\d)|(?P<d3>\d{{1,2}})\.(?P<m3>\d{{1,2}})\.(?P<y3>20\d\d)|(?P<d>\d{{1,2}})\.?\s(?P<mon>{'|'.join(_MONTHS)})[a-z]*\.?,?\s(?P<y>20\d\d)"
    rf"|(?P<mon2>{'|'.join(_MONTHS)})[a-z]*\.?\s(?P<d2>\d{{1,2}})(?:st|nd|rd|th)?,?\s(?P<y2>20\d\d))\b",
    re.IGNORECASE,
)
_ZONE_RE = re.compile(
    r"\b(?:(?:Europe|America|Asia|Africa|Australia|Pacific|Atlantic|Indian)/[A-Z]\w+(?:/[A-Z]\w+)?|"
    r"(?i:UTC(?:[+-]\d{1,2})?|GMT|CE[S]?T)|EST|PST|EDT|PDT)\b"
)
_DAY = "(?:" + "|".join(lexicon.DAYS) + ")s?"
_SHORT_DAY = "(?:mon|tue|tues|wed|thu|thur|thurs|fri|sat|sun)"
_EVERY_RE = re.compile(
    r"\b(?:(?:every|each)\s(?:weekday|weeknight|work ?day|working day|night|evening|day|morning|weekend|hour|week|"
    rf"{_DAY}(?:(?:,\s?|\sand\s|,\sand\s){_DAY})*)s?"
    r"|nightly|daily|hourly|weekly|weeknights|weekdays|weekends"
    r"|(?:mondays?|mon)\s?(?:to|thru|through|till|until|-|–)\s?(?P<range>(?:fri|thu(?:rs?)?|sat(?:ur)?)(?:days?)?)"
    rf"|{_DAY}(?:(?:,\s?|/|\s?&\s?|,?\sand\s){_DAY})+|{_DAY}(?<=s)|on\s(?:weeknights|weekdays)"
    rf"|{_SHORT_DAY}(?:(?:,\s?|/|\s?&\s?|,?\sand\s){_SHORT_DAY})+"
    rf"|{_DAY}\s(?:mornings|evenings|nights|afternoons)"
    r")\b",
    re.IGNORECASE,
)
_FIELD = r"(?:\*|\d{1,2}(?:-\d{1,2})?(?:,\d{1,2}(?:-\d{1,2})?)*)(?:/\d{1,2})?"
_LINE_RE = re.compile(rf"(?<![\w*/.-]){_FIELD}(?: {_FIELD}){{4}}(?![\w*/-])")
"""Five fields as cron has them."""
_HOURS_RE = re.compile(
    r"\bevery\s(?P<n>2|3|4|6|8|12|two|three|four|six|eight|twelve)\s(?:hours|hrs|h)\b", re.IGNORECASE
)
_ENDS_RE = re.compile(
    r"\b(?:until|till?|by|before|to|stop(?:s|ping)? at|end(?:s|ing)? at)\s(?:at the latest\s)?"
    rf"(?:(?:{_DAY}|{_SHORT_DAY})\s(?:at\s)?)?$",
    re.IGNORECASE,
)
_MONTHLY_RE = re.compile(
    r"\b(?:monthly|every month|(?:every|each|on the) (?:1st|first)(?: day)? of (?:the|every|each) month)\b",
    re.IGNORECASE,
)


def times(text: str) -> Iterator[Reading]:
    """Clock times as HH:MM: "22:00", "7am", "noon", "before 7"."""
    for match in _CLOCK_RE.finditer(text):
        if "." in match.group()[:3] and not match["ap"]:
            continue
        if re.match(r"\d+h", match.group(), re.IGNORECASE) and not _AT_RE.search(text[: match.start()]):
            continue
        yield Reading("time", _clock(match), match.span(), None, None, match.group())
    for match in _FROM_RE.finditer(text):
        start, end, half = int(match["h"]), int(match["end"]), match["ap"][0].lower()
        late = (half == "p") != (start > end)  # from 10 to 6 am: the evening before
        yield Reading(
            "time", f"{start % 12 + 12 * late:02d}:00", match.span("h"), "half of the day of its end", None, match["h"]
        )
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
        elif match["y3"]:
            value = f"{match['y3']}-{int(match['m3']):02d}-{int(match['d3']):02d}"
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
        yield Reading(
            "timezone",
            match.group() if "/" in match.group() else match.group().upper(),
            match.span(),
            None,
            None,
            match.group(),
        )


def cron_lines(text: str) -> Iterator[Reading]:
    """Recurrences in cron's own form: "30 22 * * 1-5"."""
    for match in _LINE_RE.finditer(text):
        if "*" in match.group():
            yield Reading("cron", match.group(), match.span(), None, None, match.group())


def recurrences(text: str, clock: list[Reading]) -> Iterator[Reading]:
    """Cron lines for recurrences, with each time of the text (without one: 22:00)."""
    for match in _HOURS_RE.finditer(text):
        step = int(lexicon.NUMBER_WORDS.get(match["n"].lower(), 0)) or int(match["n"])
        yield _cron(f"0 */{step} * * *", match, "recurrence")
    for match in _EVERY_RE.finditer(text):
        if "hour" in match.group().lower():
            yield _cron("0 * * * *", match, "recurrence")
        yield from _at_each_time(match, f"* * {_days(match)}", clock)
    for match in _MONTHLY_RE.finditer(text):
        yield from _at_each_time(match, "1 * *", clock)


def _at_each_time(match: re.Match[str], days: str, clock: list[Reading]) -> Iterator[Reading]:
    """A recurrence at each time named near it; at 22:00 where none is that it could start at."""
    hours = [reading for reading in clock if reading.kind == "time" and abs(reading.span[0] - match.end()) < 80][:3]
    starts = [reading for reading in hours if not _ENDS_RE.search(_words_before(reading, match))]
    for reading in starts or hours:
        hour, minute = str(reading.value).split(":")
        yield _cron(f"{int(minute)} {int(hour)} {days}", match, f"recurrence with {reading.value}")
    if not starts and "hour" not in match.group().lower():
        yield _cron(f"0 22 {days}", match, "recurrence, at 22:00")


def _words_before(reading: Reading, match: re.Match[str]) -> str:
    """The text before a time, without the recurrence itself."""
    start = reading.span[0]
    return match.string[match.end() if start >= match.end() else 0 : start]


def _cron(line: str, match: re.Match[str], rule: str) -> Reading:
    return Reading("cron", line, match.span(), rule, None, f"cron {line}")


def _days(match: re.Match[str]) -> str:
    text = match.group().lower()
    if text == "weekly" and (
        day := re.search(rf"\b(?:{_DAY}|{_SHORT_DAY})\b", match.string[match.end() :][:40], re.IGNORECASE)
    ):
        text = day.group().lower()
    if match["range"]:
        return f"1-{[day[:3] for day in lexicon.DAYS].index(match['range'].lower()[:3])}"
    if re.search(r"weekday|weeknight|work", text):
        return "1-5"
    if "weekend" in text:
        return "0,6"
    named = [str(number) for number, day in enumerate(lexicon.DAYS) if re.search(rf"\b{day[:3]}", text)]
    return ",".join(named) or ("0" if "week" in text else "*")
