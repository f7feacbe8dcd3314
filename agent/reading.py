"""One reading of one place in a goal's text."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "duration", "money", "time", "date", "cron", "timezone", "text"]


@dataclass(frozen=True)
class Reading:
    """A value that the text offers at a place, before it has an id."""

    kind: Kind
    """What it can be used for."""
    value: float | str
    """The value: seconds, fractions, HH:MM, YYYY-MM-DD, or the text itself."""
    span: tuple[int, int]
    """Where its text stands."""
    rule: str | None
    """Name of the rule that derived it; null: read as it stands."""
    unit: str | None
    """Noun, unit, currency, or the sort of text (path, model, quoted, name, phrase)."""
    shown: str
    """How the prompt describes it."""


def mask(text: str, readings: list[Reading]) -> str:
    """The text with the readings' places blanked out (same length, so that spans stay true)."""
    for reading in readings:
        start, end = reading.span
        text = text[:start] + "\x00" * (end - start) + text[end:]
    return text
