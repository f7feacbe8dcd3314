"""Candidate literals of a goal: what its text offers as values, each with the place or the rule it comes from.

The planner picks among them by id, so it cannot invent a number or a path (DESIGN §3, grounded decoding). This module
only lists readings; more readings than are needed is its normal state, choosing one is never its work.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from nightsmith.agent import calendar_readings, lexicon, phrases
from nightsmith.agent.reading import Kind, Reading

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
    fixed = [*phrases.quoted(text), *zones]
    fixed += phrases.generated(_mask(text, fixed))
    fixed += phrases.paths(_mask(text, fixed))
    fixed += [*phrases.models(_mask(text, fixed)), *phrases.benchmarks(_mask(text, fixed))]
    times = [*calendar_readings.times(_mask(text, fixed)), *calendar_readings.dates(text)]
    masked = _mask(text, [*fixed, *(reading for reading in times if reading.rule is None)])
    numbers = _all_numbers(masked, text)
    plain = _mask(masked, [reading for reading in numbers if reading.unit])
    named = [*phrases.own_models(masked), *phrases.data_phrases(plain), *phrases.names(masked)]
    words = [*calendar_readings.recurrences(text, times), *_any_amount(masked), *_ratio_words(masked)]
    return [*fixed, *times, *numbers, *_without_titles(named, fixed, text), *words]


def _without_titles(named: list[Reading], fixed: list[Reading], text: str) -> list[Reading]:
    """Without phrases that only introduce an opaque text: in "the folder /srv/texts" only the path names data."""
    starts = {reading.span[0] for reading in fixed}
    after = {reading: _next_word(text, reading.span[1]) for reading in named}
    return [reading for reading in named if not (_is_phrase(reading) and after[reading] in starts)]


def _next_word(text: str, position: int) -> int:
    """Where the text goes on after spaces and colons."""
    return len(text) - len(text[position:].lstrip(" :"))


def _mask(text: str, readings: list[Reading]) -> str:
    """The text with the readings' places blanked out (same length, so that spans stay true)."""
    for reading in readings:
        start, end = reading.span
        text = text[:start] + "\x00" * (end - start) + text[end:]
    return text


def _all_numbers(masked: str, text: str) -> list[Reading]:
    """Number readings, the longest forms first."""
    found: list[Reading] = []
    for rule in NUMBER_RULES:
        found += rule(_mask(masked, found), text)
    return found


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
        name = str(reading.value).lower() if isinstance(reading.value, str) and reading.kind == "text" else ""
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


# Numbers. `masked` is the text without opaque parts, `text` the original.

_DIGITS = r"(?<![\w.,])(?<!\w-)[-−]?(?:\d{1,3}(?:[,_]\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?(?:e[-+]?\d+)?|\.\d+)"
_WORDS = "|".join(
    sorted((re.escape(word) for word in lexicon.NUMBER_WORDS if word not in ("a", "an")), key=len, reverse=True)
)
_WORD = (
    rf"\b(?:{lexicon.COMPOSED_NUMBER})\b|\b(?:{_WORDS})\b(?!-)|"
    rf"\ban? (?:(?:whole|full|entire) )?(?={lexicon.ARTICLE_NOUNS}\b)"
)
_NUMBER = rf"(?:{_DIGITS}|{_WORD})"
_NUMBER_RE = re.compile(_NUMBER, re.IGNORECASE)
_UNIT_RE = re.compile(
    rf"""\s?(?:
      (?P<percent>%(?:[ -]?points?)?|\s?(?:percent(?:age)?|per\ cent|pct)\b(?:[ -]?(?:points?|pts?))?) |
      (?P<points>-?\s?(?:points?|pts?|pp|pps)\b) |
      (?P<gpuhours>-?\s?(?:(?:gpu|accelerator|h100|h200|a100|card)s?[ -]?(?:hours?|hrs?|h)\b)) |
      (?P<money>\s?(?:usd|eur|chf|gbp|jpy|dollars?|euros?|bucks|francs|pounds|quid|yen)\b|€|\$|£) |
      (?P<times>\s?(?:x|×|times|-?fold)(?!\w)) |
      (?P<scale>\s?(?:(?-i:[kKMBTb])|bn|mio|thousand|million|billion|trillion|
        m(?=\s(?:token|param|row|example|doc)))\b) |
      (?P<duration>-?\s?{lexicon.DURATION}\b(?!\w|-fold)) |
      (?P<noun>\s?-?(?:{"|".join(sorted(lexicon.COUNT_NOUNS, key=len, reverse=True))})\b(?!\s?[<=>]|:))
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_TAIL_RE = re.compile(r"\s?-?(?:[a-z]+[ -])?(" + "|".join(lexicon.COUNT_NOUNS) + r")\b", re.IGNORECASE)


def _value(token: str) -> float:
    word = re.sub(r"^(an?) (?:whole|full|entire)$", r"\1", token.lower().strip())
    if word in lexicon.NUMBER_WORDS:
        return float(lexicon.NUMBER_WORDS[word])
    if word[0].isalpha():
        return _composed(word)
    return float(word.replace(",", "").replace("_", "").replace("−", "-"))


def _composed(words: str) -> float:
    """Value of a number of several words: "fifty-five", "three hundred and ten"."""
    count, hundred, rest = words.rpartition("hundred")
    parts = [word for word in re.split(r"[ -]", rest) if word not in ("", "and")]
    hundreds = 100 * lexicon.NUMBER_WORDS[count.strip()] if hundred else 0.0
    return hundreds + sum(lexicon.SMALL_NUMBERS[word] for word in parts)


def _numbers(masked: str, text: str) -> Iterator[Reading]:
    """Every number with the reading that its unit gives, then the readings derived from it."""
    for match in _NUMBER_RE.finditer(masked):
        value = _value(match.group())
        if abs(value) > 1e18:
            continue
        unit = _UNIT_RE.match(masked, match.end())
        if unit is None and match.group().lower() in ("one", "zero"):
            continue
        base = _with_unit(match, unit, value, masked, text)
        yield base
        yield from _derived(base, value, unit, masked)


def _with_unit(match: re.Match[str], unit: re.Match[str] | None, value: float, masked: str, text: str) -> Reading:
    start, end = match.start(), match.start() + len(match.group().rstrip())
    prefix = re.search(r"[$€£]\s?$", masked[max(0, start - 2) : start])
    if prefix:
        scale = unit.group().strip().lower() if unit and unit.lastgroup == "scale" else ""
        begin, stop = start - len(prefix.group()), unit.end() if scale and unit else end
        currency = lexicon.CURRENCY[prefix.group().strip()]
        return Reading("money", value * lexicon.SCALE.get(scale, 1), (begin, stop), None, currency, text[begin:stop])
    if unit is None:
        return Reading("number", value, (start, end), None, None, _in_context(text, start, end))
    kind, scaled, name = UNIT_READINGS[str(unit.lastgroup)](value, unit.group().strip(" \t\n-").lower())
    tail = _TAIL_RE.match(text, unit.end()) if unit.lastgroup == "scale" else None
    end = tail.end() if tail else unit.end()
    return Reading(kind, scaled, (start, end), None, tail.group(1).lower() if tail else name, text[start:end])


def _share(value: float, _: str) -> tuple[Kind, float, str]:
    return "number", _tidy(value / 100), "share"


def _duration(value: float, unit: str) -> tuple[Kind, float, str]:
    return "duration", _tidy(value * lexicon.SECONDS[unit[0]]), "s"


def _money(value: float, unit: str) -> tuple[Kind, float, str]:
    return "money", value, lexicon.CURRENCY[unit]


def _counted(value: float, unit: str) -> tuple[Kind, float, str]:
    return "number", value, unit


def _scaled(value: float, unit: str) -> tuple[Kind, float, str]:
    return "number", _tidy(value * lexicon.SCALE[unit]), "scaled"


UNIT_READINGS: dict[str, Callable[[float, str], tuple[Kind, float, str]]] = {
    "percent": _share,
    "points": _share,
    "gpuhours": _counted,
    "money": _money,
    "times": _counted,
    "duration": _duration,
    "scale": _scaled,
    "noun": _counted,
}
"""Unit group -> reading of a number with that unit (lower case)."""


def _in_context(text: str, start: int, end: int) -> str:
    """A bare number with the word before it and the word after it."""
    before = re.search(r"[\w%@.'-]+\W{1,2}$", text[max(0, start - 24) : start])
    after = re.match(r"\s[a-zA-Z-]+", text[end : end + 20])
    return (before.group() if before else "") + text[start:end] + (after.group() if after else "")


def _derived(base: Reading, raw: float, unit: re.Match[str] | None, masked: str) -> Iterator[Reading]:
    """Readings that a rule makes of a number: signs, ratios, points taken as they stand."""
    if base.kind != "number" or raw < 0:
        return
    group = unit.lastgroup if unit else None
    clause = re.split(r"[,;:!?\n]|\.\s|\band\b|\bbut\b", masked[max(0, base.span[0] - 80) : base.span[0]])[-1]
    after = masked[base.span[1] : base.span[1] + 40]
    value = float(base.value)
    if group == "points":
        yield _rule(base, raw, "points as they stand", f"{raw:g} unscaled", "points")
    signed = group in (None, "points", "percent") or base.unit in ("token", "tokens", "bit", "bits", "characters")
    if signed and _hit(lexicon.DOWN_BEFORE, _not_reached(clause), lexicon.DOWN_AFTER, after):
        yield _rule(base, -value, "downwards", f"{-value:g}")
    if group == "percent" and _hit(lexicon.RATIO_BEFORE, clause, lexicon.RATIO_AFTER, after):
        yield _rule(base, _tidy(1 - value), "per cent less, as a ratio", f"{_tidy(1 - value):g} ratio")
        yield _rule(base, _tidy(1 + value), "per cent more, as a ratio", f"{_tidy(1 + value):g} ratio")


def _not_reached(clause: str) -> str:
    """The words before a number, or none where they say that the number itself is reached ("reduce it to 5")."""
    return "" if re.search(lexicon.REACHED, clause, re.IGNORECASE) else clause


def _hit(before: str, clause: str, after: str, rest: str) -> bool:
    return bool(re.search(before, clause, re.IGNORECASE) or re.search(after, rest, re.IGNORECASE))


def _rule(base: Reading, value: float, rule: str, shown: str, unit: str | None = None) -> Reading:
    return Reading("number", value, base.span, rule, unit, shown)


_COMPOUND_RE = re.compile(
    rf"(?P<h>{_NUMBER})\s?-?(?:hours?|hrs?|hr|h)\s?(?:,\s?|and\s)?"
    r"(?P<m>\d+(?=\s?(?:minutes?|mins?|m)\b)|a half|a quarter|thirty|fifteen)"
    r"\b(?:\s?(?:minutes?|mins?|m)\b)?|(?<!\w)(?P<h2>\d+)h(?P<m2>\d+)m?\b",
    re.IGNORECASE,
)


def _compound(masked: str, text: str) -> Iterator[Reading]:
    """Durations of hours and minutes: "1h30m", "2 hours and 30 minutes", "an hour and a half"."""
    for match in _COMPOUND_RE.finditer(masked):
        if "." in match.group():
            continue
        part = (match["m"] or match["m2"]).lower()
        minutes = {"a half": 30.0, "a quarter": 15.0}.get(part)
        seconds = _value(match["h"] or match["h2"]) * 3600 + (minutes if minutes is not None else _value(part)) * 60
        yield Reading("duration", _tidy(seconds), match.span(), None, "s", text[slice(*match.span())])


_DECIMAL_COMMA_RE = re.compile(r"(?<![\w.,])(\d{1,3}),(\d{1,2}|\d{4,})(?![\w,.]\d)(?=\s?%|\b)")


def _decimal_comma(masked: str, _: str) -> Iterator[Reading]:
    """Numbers written with a decimal comma: "0,15"."""
    for match in _DECIMAL_COMMA_RE.finditer(masked):
        value = float(f"{match[1]}.{match[2]}")
        base = Reading("number", value, match.span(), "decimal comma", None, f"{value:g}")
        yield base
        yield from _derived(base, value, None, masked)


_OUT_OF_RE = re.compile(
    rf"(?P<part>{_NUMBER})(?:\s?/\s?| out of (?:every )?| in (?=\w+ (?:answers?|items?|questions?|cases?|right)))"
    rf"(?P<whole>{_NUMBER}|(?<=/)\d+)",
    re.IGNORECASE,
)


def _out_of(masked: str, text: str) -> Iterator[Reading]:
    """Shares as counts: "85 out of 100", "17/20"."""
    for match in _OUT_OF_RE.finditer(masked):
        part, whole = _value(match["part"]), _value(match["whole"])
        if 0 <= part <= whole and whole > 1:
            span = match.start(), match.start() + len(match.group().rstrip())
            yield Reading("number", _tidy(part / whole), span, "count out of a whole", "share", text[slice(*span)])


_ATTACHED_RE = re.compile(
    r"(?<![\w/.-])(?:(?P<top>top-?)(?P<k>\d{1,2})(?![\w.%]|[- ]?(?:accuracy|acc|error)\b)|"
    r"(?:r(?=4\b|8\b|\d\d)|rank|alpha|α|bs|lr|ep|epochs)(?P<value>\d+(?:\.\d+)?(?:e-?\d+)?)(?![\w.]))",
    re.IGNORECASE,
)


def _attached(masked: str, text: str) -> Iterator[Reading]:
    """Numbers written on to their setting: "r16", "rank32", "top-2"."""
    for match in _ATTACHED_RE.finditer(masked):
        unit = "experts" if match["top"] else None
        yield Reading(
            "number", float(match["k"] or match["value"]), match.span(), None, unit, text[slice(*match.span())]
        )


NUMBER_RULES: tuple[Callable[[str, str], Iterator[Reading]], ...] = (
    _attached,
    _compound,
    _decimal_comma,
    _out_of,
    _numbers,
)


def _any_amount(masked: str) -> Iterator[Reading]:
    """Words that compare without a number ("any improvement", "must not drop"): zero."""
    for match in re.finditer(rf"\b(?:{lexicon.ANY_CUES})\b", masked, re.IGNORECASE):
        amount = re.search(
            r"(?<![A-Za-z])\d\W{0,2}(?:%|points?|percent)?\W?$", masked[max(0, match.start() - 10) : match.start()]
        )
        if amount and re.match(r"better|worse|lower|higher|below|above|under", match.group(), re.IGNORECASE):
            continue
        yield Reading("number", 0.0, match.span(), "no amount named", None, f"0 {match.group()[:24]}")


def _ratio_words(masked: str) -> Iterator[Reading]:
    """Words that are ratios ("halve", "double", "a third")."""
    for pattern, value in lexicon.RATIO_WORDS.items():
        for match in re.finditer(rf"\b(?:{pattern})\b", masked, re.IGNORECASE):
            yield Reading(
                "number",
                value,
                match.span(),
                f"{match.group().lower()} as a ratio",
                None,
                f"{value:.4g} {match.group()}",
            )
            if value < 1 and value != 0.5:
                rest = _tidy(1 - value)
                yield Reading(
                    "number", rest, match.span(), f"less {match.group().lower()}, as a ratio", None, f"{rest:.4g} ratio"
                )


def _tidy(value: float) -> float:
    """Take away the noise of decimal fractions in binary."""
    return float(f"{value:.12g}")
