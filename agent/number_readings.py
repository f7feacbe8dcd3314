"""Numbers in a goal's text: every reading that their words and units allow, and what follows from them by a rule.

`masked` is the text with its opaque parts (paths, names, times) blanked out, `text` the original.
"""

import re
from collections.abc import Callable, Iterator

from nightsmith.agent import lexicon
from nightsmith.agent.reading import Kind, Reading, mask

_DIGITS = (
    r"(?<![\w.,@])(?<!\w-)[-−]?(?:\d{1,3}(?:[,_]\d{3})+(?:\.\d+)?|\d{1,3}(?:\.\d{3}){2,}(?![.\d])|"
    r"\d+(?:\.\d+)?(?:e[-+]?\d+)?|\.\d+)"
)
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
    rf"""[^\S\n]?(?:
      (?P<percent>%(?:[ -]?points?)?|
        [^\S\n]?(?:more[ ])?(?:percents?|procent|percentage|per\ cent|pct)\b(?:[ -]?(?:points?|pts?))?) |
      (?P<points>-?[^\S\n]?(?:(?:rouge(?:-?[12l])?|bleu|chrf|accuracy|macro|token|exact|match|em|f1|win|rate|percentage|full|
        whole|absolute|more|extra|additional|further)[ -]){{0,2}}(?:points?|pts?|pp|pps)\b) |
      (?P<gpuhours>-?[^\S\n]?(?:(?:gpu|accelerator|h100|h200|a100|card)s?[ -]?(?:hours?|hrs?|h)\b)) |
      (?P<money>[^\S\n]?(?:{lexicon.MONEY.replace(" ", "[ ]")})\b|[$€£¥₹]) |
      (?P<times>[^\S\n]?(?:x|×|times|-?fold)(?!\w)) |
      (?P<scale>-?[^\S\n]?(?:(?-i:[kKMBTb])|bn|mio|thousand|million|billion|trillion|
        m(?=\s(?:token|param|row|example|doc)))\b) |
      (?P<duration>-?[^\S\n]?{lexicon.DURATION}\b(?!\w|-fold)) |
      (?P<noun>[^\S\n]?-?(?:{"|".join(sorted(lexicon.COUNT_NOUNS, key=len, reverse=True))})\b
        (?![^\S\n]?[<=>]|:[^\S\n]?\d))
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_MONEY_RE = re.compile(rf"\s?(?:(?:{lexicon.MONEY})\b|[$€£¥₹])", re.IGNORECASE)
_PREFIX_RE = re.compile(
    rf"(?<!\d)(?<!\d\s)(?<!\dk\s)(?:[$€£¥₹]|\b(?:{'|'.join(sorted(set(lexicon.CURRENCY.values())))}))\s?$",
    re.IGNORECASE,
)
"""A currency before its amount, unless it belongs to a number before it ("20 EUR 3 trials")."""
_TAIL_RE = re.compile(r"\s?-?(?:[a-z]+[ -])?(" + "|".join(lexicon.COUNT_NOUNS) + r")\b", re.IGNORECASE)


def _value(token: str) -> float:
    word = re.sub(r"^(an?) (?:whole|full|entire)$", r"\1", token.lower().strip())
    if word in lexicon.NUMBER_WORDS:
        return float(lexicon.NUMBER_WORDS[word])
    if word[0].isalpha():
        return _composed(word)
    if word.count(".") > 1:
        word = word.replace(".", "")
    return float(word.replace(",", "").replace("_", "").replace("−", "-"))


def _composed(words: str) -> float:
    """Value of a number of several words: "fifty-five", "three hundred and ten"."""
    if words.endswith(" and a half"):
        return lexicon.SMALL_NUMBERS[words.split()[0]] + 0.5
    count, hundred, rest = words.rpartition("hundred")
    parts = [word for word in re.split(r"[ -]", rest) if word not in ("", "and")]
    hundreds = 100.0 * lexicon.NUMBER_WORDS[count.strip()] if hundred else 0.0
    return hundreds + sum(lexicon.SMALL_NUMBERS[word] for word in parts)


def _numbers(masked: str, text: str) -> Iterator[Reading]:
    """Every number with the reading that its unit gives, then the readings derived from it."""
    for match in _NUMBER_RE.finditer(masked):
        value = _value(match.group())
        if abs(value) > 1e18:
            continue
        unit = _unit(match, value, masked)
        if unit and unit.lastgroup in ("money", "noun") and re.fullmatch(r"\d{1,3}\.\d{3}", match.group()):
            value *= 1000  # "10.000 rows": neither rows nor money come in thousandths
        if unit is None and _is_no_amount(match, masked):
            continue
        base = _with_unit(match, unit, value, masked, text)
        yield base
        yield from _derived(base, value, unit, masked)


def _unit(match: re.Match[str], value: float, masked: str) -> re.Match[str] | None:
    """The unit after a number; "0.65 min" is a minimum and no part of a minute, unless it is spent on something."""
    unit = _UNIT_RE.match(masked, match.end())
    minimum = unit and unit.group().strip().lower() == "min" and 0 < value < 1
    return None if minimum and not re.match(r" ?(?:/|per\b|each\b)", masked[match.end() + 4 :]) else unit


def _is_no_amount(match: re.Match[str], masked: str) -> bool:
    """Whether a number without a unit is only a word or a list's mark: "one of", "zero-shot", "2) take it"."""
    word, before, after = match.group().lower(), masked[: match.start()], masked[match.end() :]
    if word == "one":
        last = re.match(r"\s?(?:[.;,)]|$)", after)
        return not (last and re.search(r"\b(?:at most|at least|by|than|of|is|to)\s$", before[-40:]))
    if re.match(r" (?:thirds|quarters|fifths|tenths)\b", after):
        return True
    if word == "zero":
        return after.lower().startswith(("-", " shot"))
    if not re.fullmatch(r"\d\d?", word):
        return False
    in_brackets = before.rfind("(") > before.rfind(")")
    return (after.startswith(")") and not in_brackets) or bool(
        after.startswith(". ") and re.search(r"(?:^|\n)\s*$", before[-40:])
    )


def _with_unit(match: re.Match[str], unit: re.Match[str] | None, value: float, masked: str, text: str) -> Reading:
    start, end = match.start(), match.start() + len(match.group().rstrip())
    prefix = _PREFIX_RE.search(masked[max(0, start - 8) : start])
    if prefix:
        scale = unit.group().strip().lower() if unit and unit.lastgroup == "scale" else ""
        begin, stop = start - len(prefix.group()), unit.end() if scale and unit else end
        currency = lexicon.CURRENCY[prefix.group().strip().lower()]
        return Reading("money", value * lexicon.SCALE.get(scale, 1), (begin, stop), None, currency, text[begin:stop])
    if unit is None:
        return Reading("number", value, (start, end), None, None, _in_context(text, start, end))
    kind, scaled, name = UNIT_READINGS[str(unit.lastgroup)](value, unit.group().strip(" \t\n-").lower())
    if unit.lastgroup == "scale" and (money := _MONEY_RE.match(masked, unit.end())):
        currency = lexicon.CURRENCY[money.group().strip().lower()]
        return Reading("money", scaled, (start, money.end()), None, currency, text[start : money.end()])
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
    after = re.match(r"[^\S\n][a-zA-Z-]+", text[end : end + 20])
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
    if group in ("points", "percent") and re.search(r"\b(?:at most|no more than|up to|max(?:imum)?)\W*$", clause):
        clause = re.split(r"[;:!?\n]|\.\s", masked[max(0, base.span[0] - 120) : base.span[0]])[-1]
    if signed and _hit(lexicon.DOWN_BEFORE, _not_reached(clause), lexicon.DOWN_AFTER, after):
        yield _rule(base, -value, "downwards", f"{-value:g}")
    before = masked[max(0, base.span[0] - 40) : base.span[0]]
    if group is None and 1 < raw <= 100 and (_SHARE_OF_RE.search(before) or _SHARE_IN_RE.match(after)):
        yield _rule(base, _tidy(raw / 100), "a metric of at most one, in per cent", f"{raw:g} %", "share")
    if group == "percent" and _hit(lexicon.RATIO_BEFORE, clause, lexicon.RATIO_AFTER, after):
        yield _rule(base, _tidy(1 - value), "per cent less, as a ratio", f"{_tidy(1 - value):g} ratio")
        yield _rule(base, _tidy(1 + value), "per cent more, as a ratio", f"{_tidy(1 + value):g} ratio")


_SHARE_OF_RE = re.compile(
    r"\b(?:accuracy|acc|exact[ -]match|em|f1|win[ -]?rate|pass@1)\W*(?:(?:of|is|at least|above|over|to|more than)\s?)?"
    r"[<>=≥≤~]*\s?(?:(?:from )?\d+(?:\.\d+)?\s?(?:->|→|to)\s?)?$",
    re.IGNORECASE,
)
"""A metric that is at most one, right before a bare number."""
_SHARE_IN_RE = re.compile(
    r" (?:in|on|for) (?:token[ -]|macro[ -])?(?:f1|em|accuracy|exact[ -]match|win[ -]rate)\b", re.IGNORECASE
)
"""The same, behind the number."""


def _not_reached(clause: str) -> str:
    """The words before a number, or none where they say that the number itself is reached ("reduce it to 5")."""
    return "" if re.search(lexicon.REACHED, clause, re.IGNORECASE) else clause


def _hit(before: str, clause: str, after: str, rest: str) -> bool:
    return bool(re.search(before, clause, re.IGNORECASE) or re.search(after, rest, re.IGNORECASE))


def _rule(base: Reading, value: float, rule: str, shown: str, unit: str | None = None) -> Reading:
    return Reading("number", value, base.span, rule, unit, shown)


_COMPOUND_RE = re.compile(
    rf"(?P<h>{_NUMBER})\s?-?(?:hours?|hrs?|hr|h)\s?(?:and\s)?"
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
        unit = _UNIT_RE.match(masked, match.end())
        if unit and unit.lastgroup in ("percent", "points", "duration", "money"):
            base = _with_unit(match, unit, value, masked, masked)
        else:
            unit, base = None, Reading("number", value, match.span(), "decimal comma", None, f"{value:g}")
        yield base
        yield from _derived(base, value, unit, masked)


_OUT_OF_RE = re.compile(
    rf"(?<!/)(?P<part>{_NUMBER})"
    r"(?P<joint>/|(?: (?:answers?|times|questions?|items?|cases?|examples?|games?|comparisons?))? "
    rf"(?:out of|of|in) (?:every |the )?)(?P<whole>{_NUMBER}|(?<=/)\d+)(?!/)",
    re.IGNORECASE,
)
_COUNTED_RE = re.compile(
    r"\s?(?:questions?|items?|rows?|lines?|examples?|samples?|records|pairs|conversations|emails|messages|pages|documents?|docs)\b",
    re.IGNORECASE,
)


_SCALES = frozenset({5.0, 7.0, 10.0})
"""Wholes that are scales as well: "4 out of 5" is also a 4."""
_USUAL_WHOLES = frozenset({3.0, 4.0, 5.0, 8.0, 10.0, 12.0, 20.0, 50.0, 100.0, 1000.0})
"""Wholes of which shares are told with "in": "six in ten"."""


def _out_of(masked: str, text: str) -> Iterator[Reading]:
    """Shares as counts: "85 out of 100", "17/20", "six in ten", "11 of 20 comparisons"."""
    for match in _OUT_OF_RE.finditer(masked):
        part, whole = _value(match["part"]), _value(match["whole"])
        if not (0 <= part <= whole and whole > 1 and _is_whole_of(match, whole, masked)):
            continue
        span = match.start(), match.start() + len(match.group().rstrip())
        yield Reading("number", _tidy(part / whole), span, "count out of a whole", "share", text[slice(*span)])
        if "out of" in match["joint"].lower() and whole in _SCALES:
            yield Reading("number", part, match.span("part"), "place on a scale", None, f"{part:g} unscaled")


def _is_whole_of(match: re.Match[str], whole: float, masked: str) -> bool:
    """Whether the second number is the whole of the first: not a time, a price, or hardware ("2 of 4 GPUs")."""
    joint = match["joint"].lower()
    if "/" in joint or "out of" in joint:
        return whole.is_integer()
    unit = _UNIT_RE.match(masked, match.end())
    counted = unit is None or _COUNTED_RE.match(masked, match.end()) is not None
    usual = " in " not in joint or whole in _USUAL_WHOLES
    single = match["part"].lower() == "one" and " in " not in joint
    return counted and usual and whole >= 3 and whole.is_integer() and not single


_SPLIT_RE = re.compile(r"(?<![\w./])(\d{1,2})/(\d{1,2})(?:/(\d{1,2}))?(?![\w/%]|\.\d)")


def _split(masked: str, _: str) -> Iterator[Reading]:
    """Parts of a hundred: "80/20", "80/10/10"."""
    for match in _SPLIT_RE.finditer(masked):
        parts = [int(part) for part in match.groups() if part]
        if sum(parts) == 100 and (len(parts) > 2 or parts[0] >= parts[1]):
            for index, part in enumerate(parts, 1):
                if part not in parts[: index - 1]:
                    yield Reading("number", part / 100, match.span(index), "part of a hundred", "share", f"{part} %")


_DIGIT_WORD = f"(?:zero|{'|'.join(lexicon.ONES)})"
_POINT_RE = re.compile(
    rf"(?<![\w.])(?P<whole>\d+|{lexicon.COMPOSED_NUMBER}|{'|'.join(lexicon.SMALL_NUMBERS)}) point "
    rf"(?P<rest>\d+|{_DIGIT_WORD}(?: {_DIGIT_WORD})*)(?!\s?\w)(?!\s?%)|"
    rf"(?<![\w.])(?P<whole2>\d+|{lexicon.COMPOSED_NUMBER}|{'|'.join(lexicon.SMALL_NUMBERS)}) point "
    rf"(?P<rest2>\d+|{_DIGIT_WORD}(?: {_DIGIT_WORD})*)\s?(?P<unit>%|percent\b|per cent\b)",
    re.IGNORECASE,
)


def _spoken_decimal(masked: str, text: str) -> Iterator[Reading]:
    """Numbers as spoken: "2 point 2", "zero point eight five", "ninety-two point five percent"."""
    for match in _POINT_RE.finditer(masked):
        whole, rest = match["whole"] or match["whole2"], match["rest"] or match["rest2"]
        digits = [part if part.isdigit() else f"{_value(part):.0f}" for part in rest.split()]
        value, unit = float(f"{_value(whole):.0f}.{''.join(digits)}"), "share" if match["unit"] else None
        said = text[slice(*match.span())]
        yield Reading("number", _tidy(value / 100) if unit else value, match.span(), None, unit, said)


_POWER_RE = re.compile(r"(?<![\w.,])(?:(?P<n>\d+(?:\.\d+)?)\s?[*x×·]\s?)?10\^(?P<e>-?\d{1,2})(?!\w)")


def _power(masked: str, text: str) -> Iterator[Reading]:
    """Powers of ten: "10^-4", "2*10^-4"."""
    for match in _POWER_RE.finditer(masked):
        value = float(f"{match['n'] or 1}e{match['e']}")
        yield Reading("number", value, match.span(), None, None, text[slice(*match.span())])


_LONG_AND_HALF_RE = re.compile(r"\b(?:an?|one) (?P<unit>day|week) and a half\b", re.IGNORECASE)
_POINT_AND_HALF_RE = re.compile(
    rf"\b(?P<n>an?|\d+|{'|'.join(lexicon.ONES)})\s(?:percentage )?(?:points?|percent) and a half\b", re.IGNORECASE
)


def _and_half(masked: str, text: str) -> Iterator[Reading]:
    """One and a half: "a point and a half", "a day and a half"."""
    for match in _LONG_AND_HALF_RE.finditer(masked):
        seconds = 1.5 * lexicon.SECONDS[match["unit"][0].lower()]
        yield Reading("duration", seconds, match.span(), None, "s", text[slice(*match.span())])
    for match in _POINT_AND_HALF_RE.finditer(masked):
        value = _tidy((_value(match["n"]) + 0.5) / 100)
        yield Reading("number", value, match.span(), None, "share", text[slice(*match.span())])


_LABELLED_TIME_RE = re.compile(
    rf"(?<!gpu[ -])\b(?P<unit>hours|minutes|days)\s?[?:=]\s?(?P<value>{_NUMBER})", re.IGNORECASE
)


def _labelled_time(masked: str, text: str) -> Iterator[Reading]:
    """Durations whose unit is their label: "hours: 4"."""
    for match in _LABELLED_TIME_RE.finditer(masked):
        if _UNIT_RE.match(masked, match.end()):
            continue
        seconds = _value(match["value"]) * lexicon.SECONDS[match["unit"][0].lower()]
        yield Reading("duration", _tidy(seconds), match.span(), None, "s", text[slice(*match.span())])


_ATTACHED_RE = re.compile(
    r"(?<![\w/.-])(?:(?P<top>top-?)(?P<k>\d{1,2})(?![\w%]|\.\d|[- ]?(?:accuracy|acc|error)\b)|"
    r"(?:r(?=4\b|8\b|\d\d)|a(?=8\b|16\b|32\b|64\b|128\b)|rank|alpha|α|bs|lr|ep|epochs)(?P<value>\d+(?:\.\d+)?(?:e-?\d+)?)(?![\w.]))",
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
    _labelled_time,
    _spoken_decimal,
    _power,
    _and_half,
    _compound,
    _decimal_comma,
    _split,
    _out_of,
    _numbers,
)


def numbers(masked: str, text: str) -> list[Reading]:
    """Number readings, the longest forms first."""
    found: list[Reading] = []
    for rule in NUMBER_RULES:
        found += rule(mask(masked, found), text)
    return found


def any_amount(masked: str) -> Iterator[Reading]:
    """Words that compare without a number ("any improvement", "must not drop"): zero."""
    for match in re.finditer(rf"\b(?:{lexicon.ANY_CUES})\b", masked, re.IGNORECASE):
        amount = re.search(
            r"(?<![A-Za-z])\d\W{0,2}(?:%|points?|percent)?\W?$", masked[max(0, match.start() - 10) : match.start()]
        )
        if amount and re.match(r"better|worse|lower|higher|below|above|under", match.group(), re.IGNORECASE):
            continue
        if re.search(lexicon.AMOUNT_FOLLOWS, masked[match.end() : match.end() + 60], re.IGNORECASE):
            continue
        yield Reading("number", 0.0, match.span(), "no amount named", None, f"0 {match.group()[:24]}")


_PARTS = {
    "third": 3,
    "quarter": 4,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "eighth": 8,
    "ninth": 9,
    "tenth": 10,
    "twentieth": 20,
}
_FRACTION_RE = re.compile(
    rf"\b(?:(?P<n>{'|'.join(lexicon.ONES)})[ -]|an? (?:(?!day|week|night)[a-z]+ )?)(?P<part>{'|'.join(_PARTS)})s?\b",
    re.IGNORECASE,
)


def ratio_words(masked: str) -> Iterator[Reading]:
    """Words that are ratios: "halve", "double", "a third", "four fifths"."""
    for pattern, value in lexicon.RATIO_WORDS.items():
        for match in re.finditer(rf"\b(?:{pattern})\b", masked, re.IGNORECASE):
            yield from _ratios(match, value, masked)
    for match in _FRACTION_RE.finditer(masked):
        value = lexicon.SMALL_NUMBERS[(match["n"] or "one").lower()] / _PARTS[match["part"].lower()]
        yield from _ratios(match, value, masked)


def _ratios(match: re.Match[str], value: float, masked: str) -> Iterator[Reading]:
    """A ratio as it stands; where it is taken away or added, what is left or there then."""
    words = match.group().lower()

    def reading(ratio: float, rule: str, shown: str) -> Reading:
        return Reading("number", ratio, match.span(), rule, None, f"{ratio:.4g} {shown}")

    yield reading(value, f"{words} as a ratio", match.group())
    if value < 1 and re.search(lexicon.MORE_BY, masked[max(0, match.start() - 50) : match.start()], re.IGNORECASE):
        yield reading(_tidy(1 + value), f"{words} more, as a ratio", "ratio")
    if value < 1 and value != 0.5:
        yield reading(_tidy(1 - value), f"less {words}, as a ratio", "ratio")


def _tidy(value: float) -> float:
    """Take away the noise of decimal fractions in binary."""
    return float(f"{value:.12g}")
