"""A seeded grammar of what people say to the console, each with what it means."""

from typing import Any

import grammar
import parts
import wording as w
from parts import R

from nightsmith.agent.conversing import ConverseRequest
from nightsmith.agent.proposals import SETTINGS

Saying = tuple[str, dict[str, Any]]
_STOCK: dict[str, Any] = w.stock("sayings.json")
NAMES: dict[str, list[str]] = _STOCK["NAMES"]
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
MOST = 12


def trial(r: R, last: int) -> tuple[str, int]:
    """One trial as people name it."""
    pick, number = r.random(), r.randint(1, max(1, last + (r.random() < 0.06)))
    if pick < 0.1:
        return r.choice(("the baseline", "baseline", "the baseline")), 0
    if pick < 0.2 and number <= len(ORDINALS):
        noun = r.choice(("trial", "run", "one", "attempt"))
        return f"the {ORDINALS[number - 1]} {noun}", number
    if pick < 0.28:
        return r.choice(("the last trial", "the latest trial", "the last run", "the newest one")), last
    return r.choice(("trial {n}", "trial {n}", "trial {n}", "#{n}", "{n}", "t{n}", "run {n}", "number {n}")).format(
        n=number
    ), number


def trials(r: R, last: int, number: int) -> tuple[list[str], list[int]]:
    """Different trials."""
    found: dict[int, str] = {}
    while len(found) < number:
        text, n = trial(r, max(last, number))
        found.setdefault(n, text)
    return list(found.values()), list(found)


def why(r: R, last: int) -> Saying:
    if r.random() < 0.14:
        name, setting = _setting(r)
        return r.choice(_STOCK["WHY_SETTING"]).format(s=name), {"kind": "why", "setting": setting}
    if r.random() < 0.1:
        return r.choice(_STOCK["WHY_OPEN"]), {"kind": "why"}
    text, number = trial(r, last)
    return r.choice(_STOCK["WHY"]).format(t=text, p=r.choice(_STOCK["VERDICTS"])), {"kind": "why", "trials": [number]}


def compare(r: R, last: int) -> Saying:
    if r.random() < 0.06:
        return r.choice(_STOCK["COMPARE_OPEN"]), {"kind": "compare"}
    names, numbers = trials(r, last, r.choice((2, 2, 2, 2, 3)))
    if len(names) == 3:
        text = r.choice(_STOCK["COMPARE_3"]).format(a=names[0], b=names[1], c=names[2])
    else:
        text = r.choice(_STOCK["COMPARE"]).format(a=names[0], b=names[1])
    return text, {"kind": "compare", "trials": numbers}


def cost(r: R, last: int) -> Saying:
    if r.random() < 0.4:
        return r.choice(_STOCK["COST_OPEN"]), {"kind": "cost"}
    text, number = trial(r, last)
    return r.choice(_STOCK["COST"]).format(t=text), {"kind": "cost", "trials": [number]}


def config(r: R, last: int) -> Saying:
    text, number = trial(r, last)
    if r.random() < 0.5:
        return r.choice(_STOCK["CONFIG"]).format(t=text), {"kind": "config", "trials": [number]}
    name, setting = _setting(r)
    return r.choice(_STOCK["CONFIG_SETTING"]).format(t=text, s=name), {
        "kind": "config",
        "trials": [number],
        "setting": setting,
    }


def avoid(r: R, _: int) -> Saying:
    name, setting = _setting(r)
    if r.random() < 0.3 and setting not in ("schedule", "adaptation", "seed"):
        way = r.choice(("raise", "lower"))
        text = r.choice(_STOCK["AVOID_WAY"]).format(v=r.choice(_STOCK["VERBS"][way]), s=name)
        return text, {"kind": "avoid", "setting": setting, "direction": way}
    return r.choice(_STOCK["AVOID"]).format(s=name), {"kind": "avoid", "setting": setting}


def attempt(r: R, _: int) -> Saying:
    name, setting = _setting(r)
    if r.random() < 0.2 or setting in ("schedule", "adaptation", "seed"):
        return r.choice(_STOCK["TUNE"]).format(s=name), {"kind": "try", "setting": setting, "direction": "tune"}
    way = r.choice(("raise", "lower"))
    if r.random() < 0.35 and setting in _STOCK["WAYS"]:
        text = r.choice(_STOCK["TRY_NOUN"]).format(c=r.choice(_STOCK["WAYS"][setting][way]))
    elif r.random() < 0.35:
        text = r.choice(_STOCK["TRY_NOUN"]).format(c=f"a {r.choice(_STOCK['MORE'][way])} {name}")
    else:
        text = r.choice(_STOCK["TRY"]).format(c=f"{r.choice(_STOCK['VERBS'][way])} the {name}")
    return text, {"kind": "try", "setting": setting, "direction": way}


def plain(kind: str) -> Any:
    """A kind without trials or settings, from its stock of sentences."""
    return lambda r, _: (r.choice(_STOCK[kind.upper()]), {"kind": kind})


def talk(r: R, last: int) -> Saying:
    """Small talk and general questions, put together from words or from the stock."""
    if r.random() < 0.4:
        return plain("unknown")(r, last)
    slots = _STOCK["TALK"]
    text = r.choice(slots["t"]).format(**{name: r.choice(texts) for name, texts in slots.items()})
    return text, {"kind": "unknown"}


def goal(r: R, _: int) -> Saying:
    """A goal of any sort; long ones are cut by the prompt, not here."""
    lead = r.choice(("", "", "", "", "new goal: ", "next: ", "and now ", "forget that. ", "another one: "))
    return lead + grammar.goal(r)[0], {"kind": "goal"}


def _setting(r: R) -> tuple[str, str]:
    setting = r.choice(list(NAMES))
    return r.choice(NAMES[setting]), setting


MAKERS: tuple[tuple[Any, int], ...] = (
    (why, 14),
    (compare, 12),
    (cost, 10),
    (config, 14),
    (plain("best"), 7),
    (plain("status"), 8),
    (plain("report"), 7),
    (avoid, 11),
    (attempt, 14),
    (plain("stop"), 6),
    (goal, 11),
    (talk, 20),
)
WITHOUT_STUDY = ("goal", "unknown")
"""Kinds that come up where no study is open."""


def saying(r: R) -> tuple[ConverseRequest, dict[str, Any]]:
    """One request with its gold utterance."""
    last = r.choice((1, 2, 3, 3, 4, 4, 5, 6, 8, MOST))
    make = r.choices([maker for maker, _ in MAKERS], [weight for _, weight in MAKERS])[0]
    text, gold = make(r, last)
    text = _manner(r, text) if gold["kind"] != "goal" else parts.noise(r, text)
    closed = gold["kind"] in WITHOUT_STUDY and r.random() < 0.5
    return request(text, None if closed else last, r), gold


def request(text: str, last_trial: int | None, r: R | None = None) -> ConverseRequest:
    """A request in a study with trials 0 to `last_trial`; null: no study is open."""
    numbers = () if last_trial is None else tuple(range(last_trial + 1))
    if r is not None and last_trial is not None and r.random() < 0.04:
        numbers = ()
    return ConverseRequest(text=text, study=None if last_trial is None else "s", trials=numbers)


def _manner(r: R, text: str) -> str:
    """Courtesy, haste and typing errors around a sentence."""
    pick = r.random()
    if pick < 0.08:
        text = f"{r.choice(_STOCK['COURTESY'])}{text[0].lower()}{text[1:]}"
    elif pick < 0.14:
        text = f"{text.rstrip('?.! ')}{r.choice((' please', ' pls', ', thanks', ' ok?', '??', ' then'))}"
    elif pick < 0.2:
        text = text.upper() if r.random() < 0.3 else text.rstrip("?.")
    return parts.noise(r, text)


assert set(NAMES) <= set(SETTINGS), "sayings.json names settings that no trial can change"
