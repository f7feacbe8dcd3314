"""Goals composed of clauses that were written by hand: an opener, and what else a goal may say, in any order.

A clause of `clauses.jsonl` is a sentence or a fragment with the values it means. Clauses that say the same thing twice
or contradict each other never meet; what no clause says and a goal needs is asked for.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from parts import Gold, Part, R, merge

from nightsmith.agent.questions import ASKS

Clauses = dict[str, list[Part]]
SHARES = {
    "target": 0.86, "budget": 0.5, "setting": 0.42, "step": 0.25, "guard": 0.3, "avoid": 0.2, "aside": 0.3,
    "machine": 0.08, "schedule": 0.1, "output": 0.14,
}  # fmt: skip
"""Part -> share of the composed goals that have it."""
SECOND = 0.3
"""Share of those that have another clause of the same part."""
MOST = 6
"""Clauses beside the opener."""
LISTS = ("want", "keep", "set", "steps", "avoid", "data")


def load(path: Path) -> Clauses:
    """Clauses by part."""
    found: Clauses = defaultdict(list)
    for line in path.read_text().splitlines():
        clause = json.loads(line)
        found[clause["part"]].append((clause["text"], clause["gold"]))
    return found


def goal(r: R, clauses: Clauses) -> Part:
    """An opener with other clauses around it; what is missing is asked for."""
    opener = r.choice(clauses["open"])
    chosen = [opener]
    if opener[1]["do"] == "train":
        parts = [part for part, share in SHARES.items() for _ in range(_times(r, share))]
        if "grpo" in opener[1].get("how", ()):
            parts += ["reward"] * (r.random() < 0.75)
    else:
        parts = [part for part in ("aside", "budget", "step", "output") if r.random() < 0.2]
    r.shuffle(parts)
    for part in parts[:MOST]:
        clause = r.choice(clauses[part])
        if not _clashes(clause[1], merge([gold for _, gold in chosen])):
            chosen.append(clause)
    return complete(*_joined(r, chosen))


def lengthened(r: R, base: Part, clauses: Clauses) -> Part:
    """A whole goal with one or two clauses behind it."""
    chosen = [base]
    for part in r.sample(("guard", "step", "setting", "avoid", "aside", "output", "schedule", "machine"), 2):
        clause = r.choice(clauses[part])
        if not _clashes(clause[1], merge([gold for _, gold in chosen])):
            chosen.append(clause)
    texts = [_sentence(r, text) for text, _ in chosen]
    return r.choice((" ", " ", "\n")).join(texts), merge([gold for _, gold in chosen])


def _times(r: R, share: float) -> int:
    return 0 if r.random() >= share else 1 + (r.random() < SECOND)


def _clashes(gold: Gold, others: Gold) -> bool:
    """Whether a clause says something that was said, or forbids what is wanted."""
    if ("ask" in gold and ("want" in others or "ask" in others)) or ("ask" in others and "want" in gold):
        return True
    if any(key in others and (key not in LISTS) and not isinstance(gold[key], dict) for key in gold):
        return True
    if any(isinstance(gold[key], dict) and set(gold[key]) & set(others.get(key, {})) for key in gold):
        return True
    both = merge([others, gold])
    return (
        _repeats(s["k"] for s in both.get("set", ()))
        or _repeats(s["do"] for s in both.get("steps", ()))
        or _repeats((t["m"], t.get("data"), t.get("task")) for t in (*both.get("want", ()), *both.get("keep", ())))
        or _repeats(d["r"] for d in both.get("data", ()))
        or _repeats(both.get("avoid", ()))
        or bool(set(both.get("avoid", ())) & _wanted(both))
    )


def _repeats(names: Iterable[Any]) -> bool:
    said = list(names)
    return len(said) != len(set(said))


def _wanted(gold: Gold) -> set[str]:
    named = {s["k"] for s in gold.get("set", ())} | {s["do"] for s in gold.get("steps", ())}
    arch = {"architecture"} if "arch" in gold else set()
    return named | arch | {gold.get("adapt", "full")} | set(gold.get("how", ()))


def _joined(r: R, chosen: list[Part]) -> Part:
    """Clauses as a text: in lines, as a telegram, or in sentences; mostly with the opener first."""
    opener, *rest = chosen
    r.shuffle(rest)
    place = 0 if r.random() < 0.75 else r.randint(0, len(rest))
    parts = [*rest[:place], opener, *rest[place:]]
    texts = [text for text, _ in parts]
    style = r.random()
    if style < 0.12:  # a heading and its list
        mark = r.choice(("- ", "* ", "", "• "))
        text = "\n".join([_bare(texts[0]) + r.choice((":", "", ".")), *(mark + _bare(text) for text in texts[1:])])
    elif style < 0.4:
        text = r.choice((", ", ", ", "; ", " | ", " / ", ". ")).join(map(_bare, texts))
    else:
        text = _flowing(r, texts)
    return text, merge([gold for _, gold in parts])


def _bare(text: str) -> str:
    return text.rstrip(".") if not text.endswith("...") else text


def _sentence(r: R, text: str) -> str:
    return text if text.endswith((".", "!", "?", ":")) else text[0].upper() + text[1:] + r.choice((".", ".", ".", "!"))


def _flowing(r: R, texts: list[str]) -> str:
    """Sentences; a fragment stands behind a comma of the one before it, or as a sentence of its own."""
    whole = _sentence(r, texts[0])
    for text in texts[1:]:
        if text[0].islower() and whole.endswith(".") and r.random() < 0.6:
            whole = whole[:-1] + r.choice((", ", ", ", "; ", " - ", " and ")) + text + "."
        else:
            whole += r.choice((" ", " ", " ", "\n")) + _sentence(r, text)
    return whole


def complete(text: str, gold: Gold) -> Part:
    """The answer to a composed goal: ready, or what it lacks. A model and data alone mean fine-tuning."""
    asks = set(gold.pop("ask", ()))
    if gold["do"] == "train":
        if "how" not in gold and "model" in gold and "data" in gold:
            gold["how"] = ["sft"]
        lacking = {
            "data": "data" not in gold,
            "targets": "want" not in gold and not asks & {"metric", "value"},
            "methods": "how" not in gold and "model" not in gold,
            "reward": "grpo" in gold.get("how", ()) and "reward" not in gold,
        }
        asks |= {code for code, lacks in lacking.items() if lacks}
    return text, {"s": "ask", "ask": sorted(asks, key=ASKS.index)[:3], **gold} if asks else {"s": "ready", **gold}
