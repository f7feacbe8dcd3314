"""What every part of the grammar uses: its types, data names, joining of clauses, noise."""

import random
from typing import Any

import wording as w

Gold = dict[str, Any]
Part = tuple[str, Gold]
R = random.Random


WORDS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 8: "eight", 10: "ten", 12: "twelve"}


def count(r: R, n: int) -> str:
    return WORDS[n] if n in WORDS and r.random() < 0.2 else str(n)


def data_name(r: R) -> str:
    name, kind = r.choice(w.FOLDERS), r.random()
    if kind < 0.5:
        return r.choice(w.PHRASES)
    if kind < 0.68:
        return r.choice(w.PARENTS) + name + r.choice(("", "", "/", "_v2", "-clean"))
    if kind < 0.85:
        return r.choice(("", "", *w.PARENTS)) + r.choice(w.FILES)
    if kind < 0.92:
        return r.choice(w.GLOBS)
    return r.choice(w.URIS)


def merge(golds: list[Gold]) -> Gold:
    """Gold parts together: lists joined, records merged."""
    whole: Gold = {}
    for gold in golds:
        for key, value in gold.items():
            whole[key] = (
                whole[key] + value
                if isinstance(value, list) and key in whole
                else {**whole.get(key, {}), **value}
                if isinstance(value, dict)
                else value
            )
    return whole


def sentence(r: R, lead: str, clauses: list[str]) -> str:
    """Join a leading clause and the rest as people do."""
    text = lead
    for clause in clauses:
        joiner = r.choices(
            (", ", " and ", "; ", ". ", " - ", " "),
            (34, 14, 18, 22, 4, 5 if clause.startswith(("until", "with", "at most", "in ", "within")) else 0),
        )[0]
        text += joiner + (clause[0].upper() + clause[1:] if joiner == ". " and r.random() < 0.8 else clause)
    return text + r.choice((".", ".", ".", "", "!"))


def noise(r: R, text: str) -> str:
    pick = r.random()
    if pick < 0.12:
        return text.lower()
    if pick < 0.16:
        return text.replace(",", "").replace(".  ", " ")
    if pick < 0.26:
        words = text.split(" ")
        index = r.randrange(len(words))
        word = words[index]
        if word.isalpha() and len(word) > 4:
            at = r.randrange(1, len(word) - 2)
            words[index] = word[:at] + r.choice(
                (word[at + 1] + word[at] + word[at + 2 :], word[at + 1 :], word[at] + word[at:])
            )
        return " ".join(words)
    return text
