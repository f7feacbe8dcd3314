"""Other names of files, folders and models for goals written by hand: a planner shall learn places, not names."""

import json
import re
from collections.abc import Iterator

import wording as w
from parts import Gold, Part, R
from tuning_goals import model_name

_STEMS: list[str] = w.stock("tuning.json")["STEMS"]
_ENDING_RE = re.compile(r"\.(?:csv|jsonl|parquet|json|txt|tsv)$")
_PLAIN_RE = re.compile(r"(?<![\w./~:&+-])(?:\./[\w-]+|[\w-]+\.(?:csv|jsonl|parquet|json|txt|tsv))(?![\w/&+-]|\.\w)")
"""Files and folders as they stand in a text: a goal that is blocked has no others."""
KEPT = 0.25
"""Share of the goals that keep their names."""


def renamed(r: R, goal: str, gold: Gold) -> Part:
    """The same goal with other names of its files and folders, or as it was."""
    if r.random() < KEPT:
        return goal, gold
    text, answer = goal, json.dumps(gold, ensure_ascii=False)
    for name in dict.fromkeys((*_names(gold), *_PLAIN_RE.findall(goal))):
        other = _other(r, name)
        if json.dumps(other) in answer:
            continue
        text = re.sub(rf"(?<![\w./~-]){re.escape(name)}(?![\w/-])", other.replace("\\", ""), text)
        answer = answer.replace(json.dumps(name, ensure_ascii=False), json.dumps(other))
    return text, json.loads(answer)


def _names(gold: Gold) -> Iterator[str]:
    """Names that other ones can stand for: plain files, folders below here, models by folder."""
    for ref in gold.get("data", ()):
        if re.fullmatch(r"\./[\w-]+|[\w./-]+", ref["r"]) and (_ENDING_RE.search(ref["r"]) or ref["r"].startswith("./")):
            yield ref["r"]
    model = gold.get("model", "")
    if model.startswith(("./", "~/", "/")):
        yield model


def _other(r: R, name: str) -> str:
    ending = _ENDING_RE.search(name)
    if ending is None and name.startswith(("~", "/")):
        return model_name(r)
    stem = r.choice(_STEMS + w.FOLDERS) + r.choice(("", "", "_a", "_2", "-new", "2026", "_x", "-de", "_small"))
    if ending is None:
        return r.choice(("./", "./", "./", "/data/", "~/", "../")) + re.sub(r"[&+]", "", stem)
    lead = r.choice(("", "", "", "./", "data/"))
    return f"{lead}{re.sub(r'[&+]', '', stem)}{ending.group()}"
