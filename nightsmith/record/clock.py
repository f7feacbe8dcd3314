"""The clock that time-dependent rules take as an argument."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Gives the present as an aware datetime."""


def utc_now() -> datetime:
    """The present in UTC: the default of every injected clock."""
    return datetime.now(UTC)
