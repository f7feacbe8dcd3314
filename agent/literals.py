"""Candidate literals of a goal: what its text offers as values, each with the place or the rule it comes from.

The planner picks among them by id, so it cannot invent a number or a path (DESIGN §3, grounded decoding). This module
only lists readings; more readings than are needed is its normal state, choosing one is never its work.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from nightsmith.agent import calendar_readings, number_readings, phrases
from nightsmith.agent.reading import Kind, Reading, mask

MAX_LITERALS = 64
HEAD, TAIL = 3000, 1000
"""Characters read at the beginning and at the end of a long goal; the planner's prompt shows the same."""
SHOWN = 60
"""Characters of a literal shown in the prompt."""


@dataclass(frozen=True)
class Candidate:
    """One literal that the planner may choose."""

    id: str
    """L0 … L63."""
    kind: Kind
    """What it can be used for."""
    value: float | str
    """The value that enters the spec; money carries its currency in `unit`."""
    span: tuple[int, int]
    """Where its text stands in the goal."""
    rule: str | None
    """Name of the rule that derived the value; null: it is what the text says."""
    unit: str | None
    """Noun or unit beside the number."""
    shown: str
    """How the prompt describes it."""

    @property
    def line(self) -> str:
        """The candidate's line in the prompt."""
        return f"{self.shown} = {self.id}"

    @property
    def is_whole(self) -> bool:
        """Whether it is a whole number."""
        return isinstance(self.value, (int, float)) and float(self.value).is_integer()


def find(goal: str) -> tuple[Candidate, ...]:
    """List the candidate literals of a goal in the order of the text, at most 64."""
    readings = [reading for start, text in windows(goal) for reading in _shifted(_read(text), start)]
    return tuple(_candidate(index, reading) for index, reading in enumerate(_fit(_distinct(readings))))


def windows(goal: str) -> tuple[tuple[int, str], ...]:
    """The parts of a goal that are read: all of it, or beginning and end of a long one, each with its offset."""
    if len(goal) <= HEAD + TAIL:
        return ((0, goal),)
    return ((0, goal[:HEAD]), (len(goal) - TAIL, goal[-TAIL:]))


def _candidate(index: int, reading: Reading) -> Candidate:
    shown = re.sub(r"\s+", " ", reading.shown).strip()
    shown = shown if len(shown) <= SHOWN else shown[: SHOWN - 1] + "…"
    return Candidate(f"L{index}", reading.kind, reading.value, reading.span, reading.rule, reading.unit, shown)


def _shifted(readings: list[Reading], offset: int) -> Iterator[Reading]:
    for reading in readings:
        yield replace(reading, span=(reading.span[0] + offset, reading.span[1] + offset))


def _read(text: str) -> list[Reading]:
    """All readings of one window. Opaque texts come first: digits in a path, a model name or a time are no numbers."""
    zones = list(calendar_readings.zones(text))
    lines = list(calendar_readings.cron_lines(text))
    fixed = [*phrases.quoted(mask(text, lines)), *zones, *lines]
    fixed += phrases.generated(mask(text, fixed))
    fixed += phrases.paths(mask(text, fixed))
    fixed += [*phrases.models(mask(text, fixed)), *phrases.benchmarks(mask(text, fixed))]
    times = [*calendar_readings.times(mask(text, fixed)), *calendar_readings.dates(text)]
    masked = mask(text, [*fixed, *(reading for reading in times if reading.rule is None)])
    numbers = number_readings.numbers(masked, text)
    plain = mask(masked, [reading for reading in numbers if reading.unit])
    asked = [*phrases.commands(text), *phrases.rewards(plain), *phrases.language_pairs(masked)]
    named = [
        *phrases.own_models(masked),
        *phrases.data_phrases(plain),
        *phrases.names(mask(masked, [reading for reading in numbers if reading.kind == "money"])),
    ]
    words = [
        *calendar_readings.recurrences(text, times),
        *number_readings.any_amount(masked),
        *number_readings.ratio_words(masked),
    ]
    return [*fixed, *times, *numbers, *asked, *_without_titles(named, fixed, text), *words]


def _without_titles(named: list[Reading], fixed: list[Reading], text: str) -> list[Reading]:
    """Without phrases that only introduce an opaque text: in "the folder /srv/texts" only the path names data."""
    starts = {reading.span[0] for reading in fixed}
    after = {reading: _next_word(text, reading.span[1]) for reading in named}
    return [reading for reading in named if not (_is_phrase(reading) and after[reading] in starts)]


def _next_word(text: str, position: int) -> int:
    """Where the text goes on after spaces and colons."""
    return len(text) - len(text[position:].lstrip(" :"))


def _distinct(readings: list[Reading]) -> list[Reading]:
    """Readings in the order of the text, without those that say the same of the same place."""
    seen: dict[tuple[object, ...], Reading] = {}
    for reading in readings:
        seen.setdefault((reading.span, reading.value, reading.kind == "number"), reading)
    texts: set[str] = set()
    kept: list[Reading] = []
    for reading in sorted(
        seen.values(), key=lambda reading: (reading.span[0], reading.rule is not None, -reading.span[1])
    ):
        name = reading.value if isinstance(reading.value, str) and reading.kind == "text" else ""
        if name and name in texts:
            continue
        texts.add(name)
        kept.append(reading)
    return kept


def _fit(readings: list[Reading]) -> list[Reading]:
    """At most 64, dropping phrases first, then derived readings, then the last ones."""
    for expendable in (_is_phrase, _is_derived):
        excess = len(readings) - MAX_LITERALS
        dropped = (
            [index for index, reading in enumerate(readings) if expendable(reading)][-excess:] if excess > 0 else []
        )
        readings = [reading for index, reading in enumerate(readings) if index not in dropped]
    return readings[:MAX_LITERALS]


def _is_phrase(reading: Reading) -> bool:
    return reading.unit == "phrase"


def _is_derived(reading: Reading) -> bool:
    return reading.rule is not None
