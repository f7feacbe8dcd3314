"""What a person says to the console: what the planner is shown of it, what it may answer, what the answer means.

The kind of an utterance is the model's choice. Code lists the trials that the text mentions and refuses what cannot
stand, as in the other decisions.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from nightsmith.agent import lexicon
from nightsmith.agent.proposals import DIRECTIONS, SETTINGS, Direction
from nightsmith.agent.wire import Wire
from nightsmith.agent.wire_error import WireError
from nightsmith.record.digest import Contract

Kind = Literal[
    "goal", "why", "compare", "cost", "config", "best", "status", "report", "avoid", "try", "stop", "unknown"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
ABOUT_TRIALS: tuple[Kind, ...] = ("why", "compare", "cost", "config")
"""Questions that may name trials and a setting."""
STEERING: tuple[Kind, ...] = ("avoid", "try")
"""Sentences that name a setting to leave alone or to change."""
PLAIN: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind not in (*ABOUT_TRIALS, *STEERING))
MAX_MENTIONS = 8
HEAD, TAIL = 200, 60
"""Characters shown of a long text: its kind is clear from its beginning and end."""


class ConverseRequest(Contract):
    """What somebody said, and what they can have meant."""

    text: str
    """What was said, verbatim."""
    study: str | None
    """Study that is open; null: none."""
    trials: tuple[int, ...] = ()
    """Numbers of its trials; 0 is the baseline."""
    settings: tuple[str, ...] = ()
    """Settings that its trials may change; empty: all that exist."""

    def known_settings(self) -> tuple[str, ...]:
        """Settings that an answer may name."""
        return tuple(name for name in SETTINGS if not self.settings or name in self.settings)


class Utterance(Contract):
    """What was meant."""

    kind: Kind
    """A new goal, a question, a sentence that steers, a request to stop; `unknown`: none of these."""
    trials: tuple[int, ...] = ()
    """Trials that the text names, in its order. A number that the study lacks is kept: the console says so."""
    setting: str | None = None
    """Setting asked about, to leave alone or to change."""
    direction: Direction | None = None
    """Which way to change it, or not to."""


@dataclass(frozen=True)
class Mention:
    """A place in the text that can name a trial."""

    id: str
    """L0 … L7."""
    number: int
    """Trial number."""
    shown: str
    """How the prompt describes it."""

    @property
    def line(self) -> str:
        """The mention's line in the prompt."""
        return f"{self.shown} = {self.id}"


_WORDS = {"zero": 0} | {
    word: int(value) for word, value in lexicon.NUMBER_WORDS.items() if word.isalpha() and 2 <= value <= 20
}
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_NUMBER_RE = re.compile(
    r"(?:\b([A-Za-z]+)\s)?(?<![\w.])(?<![A-Za-z]-)(?:#|(?i:t|trial|nr\.?|no\.))?\s?"
    rf"(?:(?P<digits>\d{{1,4}})(?!\w|\.\d|\s?%|,\d{{3}}\b)|(?P<word>(?i:{'|'.join(_WORDS)}|(?<=trial )one))\b)"
)
_NAMED_RE = re.compile(
    rf"\b(?:(?P<ordinal>{'|'.join(_ORDINALS)}|1st|2nd|3rd|[4-9]th)|(?P<last>last|latest|newest|most recent)"
    r"|(?P<baseline>baseline))\b(?! (?:night|evening|week|weekend|month|year|hour|day|time)s?\b)"
    r"(?: (?:trial|run|one|attempt|experiment)\b)?",
    re.IGNORECASE,
)


def mentions(request: ConverseRequest) -> tuple[Mention, ...]:
    """Places of the text that can name a trial, in its order, at most eight.

    Beside numbers: ordinals ("the second trial"), the baseline (trial 0), and the last trial, which are derived.
    """
    text = shown(request.text)
    found = sorted({*_numbers(text), *_named(text, request.trials)})
    first = {number: (start, words) for start, number, words in reversed(found)}
    ordered = sorted((start, number, words) for number, (start, words) in first.items())
    return tuple(Mention(f"L{index}", number, words) for index, (_, number, words) in enumerate(ordered[:MAX_MENTIONS]))


def _numbers(text: str) -> Iterator[tuple[int, int, str]]:
    for match in _NUMBER_RE.finditer(text):
        word = match["word"]
        number = int(match["digits"]) if word is None else _WORDS.get(word.lower(), 1)
        yield match.start("digits" if word is None else "word"), number, " ".join(match.group().split())


def _named(text: str, trials: tuple[int, ...]) -> Iterator[tuple[int, int, str]]:
    for match in _NAMED_RE.finditer(text):
        if match["ordinal"]:
            yield match.start(), _ordinal(match["ordinal"].lower()), match.group()
        elif trials and (match["last"] or 0 in trials):
            yield match.start(), max(trials) if match["last"] else 0, match.group()


def _ordinal(word: str) -> int:
    return _ORDINALS.index(word) + 1 if word in _ORDINALS else int(word[0])


def shown(text: str) -> str:
    """The part of a text that the planner sees: all of it, or beginning and end of a long one."""
    return text if len(text) <= HEAD + TAIL else f"{text[:HEAD]} […] {text[-TAIL:]}"


def schema(ids: tuple[str, ...] | None = None, settings: tuple[str, ...] = tuple(SETTINGS)) -> dict[str, Any]:
    """JSON schema of an answer. Without arguments it is the same for every text; a repair turn narrows it."""
    names = tuple(f"L{index}" for index in range(MAX_MENTIONS)) if ids is None else ids
    setting = {"set": {"enum": list(settings)}} if settings else {}
    trials = {"t": {"type": "array", "items": {"enum": list(names)}, "minItems": 1, "maxItems": 4}} if names else {}
    questions = _object({"k": {"enum": list(ABOUT_TRIALS)}, **trials, **setting}, ("k",))
    steering = _object({"k": {"enum": list(STEERING)}, **setting, "dir": {"enum": list(DIRECTIONS)}}, ("k", "set"))
    plain = _object({"k": {"enum": list(PLAIN)}}, ("k",))
    return {"anyOf": [questions, *([steering] if settings else []), plain]}


def _object(properties: dict[str, Any], required: tuple[str, ...]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def expand(wire: Wire, request: ConverseRequest, found: tuple[Mention, ...]) -> Utterance:
    """The utterance of an answer. WireError names what cannot stand: an unlisted id, a setting of another recipe."""
    kind, setting, direction = wire.get("k"), wire.get("set"), wire.get("dir")
    if kind not in KINDS:
        raise WireError(f"k: {kind!r} is not one of {', '.join(KINDS)}.")
    if setting is not None and setting not in request.known_settings():
        raise WireError(f"set: {setting!r} is not a setting of this study ({', '.join(request.known_settings())}).")
    if kind in STEERING and setting is None:
        raise WireError(f"set: missing. {kind} needs the setting that the text names; if it names none, k is unknown.")
    if direction is not None and (direction not in DIRECTIONS or kind not in STEERING):
        raise WireError(f"dir: only try and avoid have one of {', '.join(DIRECTIONS)}.")
    trials = _trials(wire.get("t", []), found) if kind in ABOUT_TRIALS else ()
    return Utterance(kind=kind, trials=trials, setting=None if kind in PLAIN else setting, direction=direction)


def _trials(ids: Any, found: tuple[Mention, ...]) -> tuple[int, ...]:
    known = {mention.id: mention.number for mention in found}
    if not isinstance(ids, list) or not set(ids) <= set(known):  # pyright: ignore[reportUnknownArgumentType]
        raise WireError(f"t: {ids!r} must list ids of trials that the text names ({', '.join(known) or 'none'}).")
    return tuple(dict.fromkeys(known[name] for name in ids))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def compress(said: Utterance, found: tuple[Mention, ...]) -> Wire:
    """The wire form of an utterance, for corpora. WireError where the text lacks a trial of it."""
    ids = {mention.number: mention.id for mention in found}
    missing = [number for number in said.trials if number not in ids]
    if missing:
        raise WireError(f"The text names no trial {missing[0]}; it names {', '.join(map(str, ids)) or 'none'}.")
    parts = {"k": said.kind, "t": [ids[n] for n in said.trials], "set": said.setting, "dir": said.direction}
    return {key: value for key, value in parts.items() if value}
