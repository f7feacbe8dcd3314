"""When a schedule is due: a wall-clock time on certain days in one time zone, and the end of its window.

Local times as people mean them when clocks change: a time that a spring-forward day does not have is the first minute
after the gap, and a time that a fall-back day has twice is the first of the two. Pure; instants are UTC.
"""

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from nightsmith.record.digest import Contract

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CLOCK = r"^([01]\d|2[0-3]):[0-5]\d$"
HORIZON_DAYS = 2 * 366
"""Days looked ahead for clock changes: rules of the tz database repeat every year."""
_MINUTE = timedelta(minutes=1)


class Due(NamedTuple):
    """One occurrence."""

    at: datetime
    """When it starts, UTC."""
    until: datetime | None
    """When its window ends, UTC; None without an end of its own."""


class Recurrence(Contract):
    """A time of day on certain days of the week."""

    at: str = Field(pattern=CLOCK)
    """HH:MM, 24 hours."""
    days: tuple[Day, ...] = DAYS
    """Days of the week on which it starts, Monday first."""
    until: str | None = Field(default=None, pattern=CLOCK)
    """HH:MM by which an occurrence ends, on the same day or the next; null: no window."""
    timezone: str
    """IANA name of the time zone that `at`, `until` and `days` are of."""

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            return ZoneInfo(name).key
        except (KeyError, ValueError, OSError) as error:  # absent, not a relative path, a folder of the database
            raise ValueError(f"{name!r} is not a time zone of the tz database") from error

    @property
    def zone(self) -> ZoneInfo:
        """The time zone."""
        return ZoneInfo(self.timezone)

    @property
    def window(self) -> timedelta | None:
        """Length of the window by the clock on the wall; None without `until`."""
        if self.until is None:
            return None
        length = _minutes(self.until) - _minutes(self.at)
        return timedelta(minutes=length if length > 0 else length + 24 * 60)


def between(recurrence: Recurrence, after: datetime, until: datetime) -> list[Due]:
    """Occurrences that start later than `after` and not later than `until`, oldest first."""
    zone = recurrence.zone
    day, last = after.astimezone(zone).date() - timedelta(days=2), until.astimezone(zone).date()
    found: dict[datetime, Due] = {}
    while day <= last:
        if DAYS[day.weekday()] in recurrence.days:
            due = _due(recurrence, day)
            if after < due.at <= until:
                found[due.at] = due  # where a zone skipped a whole day, two days start at the same moment
        day += timedelta(days=1)
    return [found[at] for at in sorted(found)]


def following(recurrence: Recurrence, after: datetime, count: int = 1) -> list[Due]:
    """The next occurrences after a moment."""
    return between(recurrence, after, after + timedelta(days=7 * (count + 2)))[:count]


def starts_by_clock(recurrence: Recurrence, now: datetime, zone: tzinfo | None) -> Mapping[str, tuple[Day, ...]]:
    """Every time of day, and its days, at which a clock in `zone` (None: the machine's) shows a coming start.

    More than one where clocks change: for timers that know nothing of another zone's rules, or of gaps in their own.
    """
    shown: dict[str, set[int]] = defaultdict(set)
    for due in between(recurrence, now, now + timedelta(days=HORIZON_DAYS)):
        local = due.at.astimezone(zone)
        shown[f"{local:%H:%M}"].add(local.weekday())
    return {clock: tuple(DAYS[number] for number in sorted(shown[clock])) for clock in sorted(shown)}


def instant(day: date, clock: str, zone: tzinfo) -> datetime:
    """The moment at which a clock in `zone` shows this time of this day: the first of two, or the first after a gap."""
    naive = datetime.combine(day, time.fromisoformat(clock))
    while (at := naive.replace(tzinfo=zone).astimezone(UTC)).astimezone(zone).replace(tzinfo=None) != naive:
        naive += _MINUTE
    return at


def _due(recurrence: Recurrence, day: date) -> Due:
    start = instant(day, recurrence.at, recurrence.zone)
    if recurrence.until is None or recurrence.window is None:
        return Due(start, None)
    ends_on = day if _minutes(recurrence.until) > _minutes(recurrence.at) else day + timedelta(days=1)
    end = instant(ends_on, recurrence.until, recurrence.zone)
    return Due(start, end if end > start else start + recurrence.window)  # a window inside a gap keeps its length


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")
    return 60 * int(hours) + int(minutes)
