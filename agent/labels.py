"""The planner's answer: a label for each literal of the goal, then what the goal says beside its literals.

    {"s": "read", "L0": "model", "L1": "train", "L2": "want", "do": "train", "how": ["sft"],
     "want": [{"m": "exact_match", "op": ">="}], "ask": []}

A small model that wrote specs with ids in them forgot literals and used some twice; one that is to say what each is
does neither. `labelled` and `unlabelled` turn the wire form (`agent/wire.py`) into an answer and back.
"""

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any, get_args

from nightsmith.agent import wire_fields as wf
from nightsmith.agent.goal import DataRole
from nightsmith.agent.literals import Candidate
from nightsmith.agent.wire_error import WireError

Wire = dict[str, Any]

NOTHING = "-"
"""Label of a literal that the goal only mentions."""
SINGLE: dict[str, tuple[str, str] | tuple[str]] = {
    "model": ("model",),
    **{key: ("arch", key) for key in ("preset", "total", "active", "experts", "top_k", "layers", "vocab", "context")},
    **{key: ("max", key) for key in ("trials", "time", "each", "gpu_hours", "tokens", "cost", "date")},
    "deadline": ("max", "until"),
    "gpus": ("gpus",),
    "nodes": ("nodes",),
    "cron": ("when", "cron"),
    "until": ("when", "until"),
    "tz": ("when", "tz"),
    "name": ("out", "name"),
    "export": ("out", "export"),
    "reward": ("reward", "ref"),
}
"""Label -> place of what a goal has once."""
STAGES = range(4)
DATA: dict[str, Wire] = {
    f"{role}{'' if stage is None else f'@{stage}'}": ({} if role == "train" else {"as": role})
    | ({} if stage is None else {"at": stage})
    for role, stage in product(get_args(DataRole), (None, *STAGES))
}
"""Label -> what it says of a data source beside its name."""
AMOUNTS: dict[str, tuple[str, str, str | None]] = {
    f"{step}:{name}": (step, key, unit)
    for step in wf.PIPELINE_STEPS
    for name, key, unit in (("rows", "n", "rows"), ("share", "n", "share"), ("amount", "n", None), ("by", "by", None))
}
"""Label -> data step, its key, the unit of its amount."""
SETTINGS: dict[str, tuple[str | None, str]] = {
    f"{word}:{name or ''}": (name, how)
    for (word, how), name in product((("set", "fixed"), ("start", "start")), (*wf.SETTINGS, None))
}
"""Label of a value -> the setting's name (null: the first literal labelled `setting` without a value), and how."""
SETTING_NAME, AVOID = "setting", "avoid"
TARGETS: dict[str, tuple[str, int, str]] = {
    f"{kind}{'' if index == 0 else index + 1}{'' if key == 'v' else f'.{key}'}": (kind, index, key)
    for kind, index, key in product(("want", "keep"), range(6), ("v", "to", "name", "task", "data"))
}
"""Label -> which target, and which of its keys."""
LABELS: tuple[str, ...] = (NOTHING, *SINGLE, *DATA, *AMOUNTS, *SETTINGS, SETTING_NAME, AVOID, *TARGETS)


def node(label: str) -> wf.Pick | None:
    """What may stand at a label's place; null: nothing is picked by it."""
    if label in SINGLE:
        return _pick(wf.SPEC, SINGLE[label])
    if label in DATA:
        return _pick(wf.DATA_REF, ("r",))
    if label in AMOUNTS:
        return _pick(wf.STEP, (AMOUNTS[label][1],))
    if label in SETTINGS:
        return _pick(wf.SETTING, ("v",))
    if label in TARGETS:
        return _pick(wf.TARGET, (TARGETS[label][2],))
    return {SETTING_NAME: _pick(wf.SETTING, ("k",)), AVOID: wf.TEXT}.get(label)


def _pick(record: wf.Record, place: tuple[str, ...]) -> wf.Pick:
    found: wf.Node = record
    for key in place:
        assert isinstance(found, wf.Record)
        found = next(f.node for f in found.fields if f.key == key)
    assert isinstance(found, wf.Pick)
    return found


# From an answer to the wire form


def unlabelled(answer: Wire, candidates: tuple[Candidate, ...]) -> Wire:
    """The wire form of an answer. WireError says exactly what cannot stand."""
    if answer.get("s") == "blocked":
        return {"s": "blocked", "why": answer.get("why")}
    if answer.get("s") != "read":
        raise WireError(f"s: {answer.get('s')!r} is not one of read, blocked.")
    given = [*_labels(answer, candidates), *_more(answer)]
    wire: Wire = {"s": "ask", "ask": answer["ask"]} if answer.get("ask") else {"s": "ready"}
    wire |= {key: answer[key] for key in ("do", "how", "adapt") if key in answer}
    for key, make in _BUILT.items():
        built = make(answer, given)
        if built:
            wire[key] = built
    for literal, label in given:
        if label in SINGLE:
            _put(wire, SINGLE[label], literal, label)
    known = {"s", "ask", "do", "how", "adapt", "steps", "avoid", "reward", "want", "keep", "register", "also"}
    if unknown := [key for key in answer if key not in known and key not in {c.id for c in candidates}]:
        raise WireError(f"unknown key {unknown[0]!r}; allowed: the literals' ids and {', '.join(sorted(known))}.")
    return wire


Given = list[tuple[str, str]]
"""Literal id and label, in the order of the text."""


def _labels(answer: Wire, candidates: tuple[Candidate, ...]) -> Iterator[tuple[str, str]]:
    missing = [candidate.id for candidate in candidates if candidate.id not in answer]
    if missing:
        raise WireError(f"{', '.join(missing)}: no label. Say of each literal what it is, {NOTHING!r} if nothing.")
    for candidate in candidates:
        yield candidate.id, _known(answer[candidate.id], candidate.id)


def _more(answer: Wire) -> Iterator[tuple[str, str]]:
    also = answer.get("also", [])
    if not isinstance(also, list):
        raise WireError("also: must be a list.")
    for part in also:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(part, dict) or set(part) != {"l", "as"}:  # pyright: ignore[reportUnknownArgumentType]
            raise WireError("also: each is an object with the keys l (a literal's id) and as (a label).")
        yield str(part["l"]), _known(part["as"], "also")  # pyright: ignore[reportUnknownArgumentType]


def _known(label: Any, place: str) -> str:
    if label not in LABELS:
        raise WireError(f"{place}: {label!r} is no label.")
    return label


def _put(wire: Wire, place: tuple[str, ...], literal: str, label: str) -> None:
    *parents, last = place
    for key in parents:
        wire = wire.setdefault(key, {})
    if last in wire:
        raise WireError(f"{literal}: {label} is {wire[last]} already; a goal has one.")
    wire[last] = literal


def _data(_: Wire, given: Given) -> list[Wire]:
    return [{"r": literal, **DATA[label]} for literal, label in given if label in DATA]


def _steps(answer: Wire, given: Given) -> list[Wire]:
    steps: list[Wire] = [{"do": name} for name in _listed(answer, "steps")]
    for literal, label in given:
        if label in AMOUNTS:
            name, key, unit = AMOUNTS[label]
            step = next((step for step in steps if step["do"] == name and key not in step), None)
            if step is None:
                raise WireError(f"{literal}: {label}, but steps has no {name} for it.")
            step |= {key: literal} | ({"u": unit} if unit else {})
    return steps


def _listed(answer: Wire, key: str) -> list[Any]:
    part = answer.get(key, [])
    if not isinstance(part, list):
        raise WireError(f"{key}: must be a list.")
    return part  # pyright: ignore[reportUnknownVariableType]


def _avoid(answer: Wire, given: Given) -> list[str]:
    return [*_listed(answer, "avoid"), *(literal for literal, label in given if label == AVOID)]


def _settings(_: Wire, given: Given) -> list[Wire]:
    names = [literal for literal, label in given if label == SETTING_NAME]
    settings: list[Wire] = []
    for literal, label in given:
        if label in SETTINGS:
            name, how = SETTINGS[label]
            if name is None and not names:
                raise WireError(f"{literal}: {label} needs a literal that is labelled {SETTING_NAME}.")
            settings.append({"k": name or names.pop(0), "v": literal, **({"how": "start"} if how == "start" else {})})
    if names:
        raise WireError(f"{names[0]}: {SETTING_NAME}, but no literal is its value (label set: or start:).")
    return settings


def _reward(answer: Wire, _: Given) -> Wire:
    return {"kind": answer["reward"]} if "reward" in answer else {}


def _targets(kind: str) -> Any:
    def made(answer: Wire, given: Given) -> list[Wire]:
        parts = _listed(answer, kind)
        if any(not isinstance(part, dict) for part in parts):
            raise WireError(f"{kind}: each is an object.")
        targets: list[Wire] = [dict(part) for part in parts]
        for literal, label in given:
            group, index, key = TARGETS.get(label, ("", 0, ""))
            if group == kind:
                if index >= len(targets):
                    raise WireError(f"{literal}: {label}, but {kind} has {len(targets)}: name its metric there.")
                _put(targets[index], (key,), literal, label)
        return targets

    return made


def _output(answer: Wire, _: Given) -> Wire:
    return {"register": True} if answer.get("register") else {}


_BUILT = {
    "data": _data,
    "steps": _steps,
    "avoid": _avoid,
    "set": _settings,
    "reward": _reward,
    "want": _targets("want"),
    "keep": _targets("keep"),
    "out": _output,
}


# From the wire form to an answer


def labelled(wire: Wire, candidates: tuple[Candidate, ...]) -> Wire:
    """The answer that means a wire form: unlabelled(labelled(w)) is w, data and settings in the order of the text.

    WireError where no label says something, which no goal so far has needed.
    """
    if wire["s"] == "blocked":
        return {"s": "blocked", "why": wire["why"]}
    labels: dict[str, list[str]] = {}
    for literal, label in _given(wire):
        labels.setdefault(literal, []).append(label)
    answer: Wire = {"s": "read"} | {c.id: labels.get(c.id, [NOTHING])[0] for c in candidates}
    also = [{"l": literal, "as": label} for literal, found in labels.items() for label in found[1:]]
    if also:
        answer["also"] = also
    answer |= {key: wire[key] for key in ("do", "how", "adapt") if key in wire}
    answer |= _beside(wire)
    return {**answer, "ask": wire.get("ask", [])}


def _beside(wire: Wire) -> Wire:
    """What a wire form says without literals."""
    out = wire.get("out", {})
    said: Wire = {
        "steps": [step["do"] for step in wire.get("steps", [])],
        "avoid": [name for name in wire.get("avoid", []) if not _is_id(name)],
        "reward": wire.get("reward", {}).get("kind"),
        "want": [_bare(target) for target in wire.get("want", [])],
        "keep": [_bare(target) for target in wire.get("keep", [])],
        "register": out.get("register"),
    }
    return {key: part for key, part in said.items() if part}


def _bare(target: Wire) -> Wire:
    return {key: part for key, part in target.items() if not _is_id(part)}


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and value[:1] == "L" and value[1:].isdigit()


def _given(wire: Wire) -> Iterator[tuple[str, str]]:
    """Every literal of a wire form with its label."""
    for label, place in SINGLE.items():
        found: Any = wire
        for key in place:
            found = found.get(key, {})
        if found:
            yield found, label
    for ref in wire.get("data", []):
        yield ref["r"], _find(DATA, {key: part for key, part in ref.items() if key != "r"})
    yield from _given_steps(wire.get("steps", []))
    yield from ((name, AVOID) for name in wire.get("avoid", []) if _is_id(name))
    yield from _given_settings(wire.get("set", []))
    for kind in ("want", "keep"):
        for index, target in enumerate(wire.get(kind, [])):
            yield from ((part, _find(TARGETS, (kind, index, key))) for key, part in target.items() if _is_id(part))


def _given_steps(steps: list[Wire]) -> Iterator[tuple[str, str]]:
    named = [step["do"] for step in steps]
    for step in steps:
        if named.count(step["do"]) > 1 and set(step) & {"n", "by"}:
            raise WireError(f"steps: no label says which of two {step['do']} steps an amount or a column belongs to.")
        for key in ("n", "by"):
            if key in step:
                yield step[key], _find(AMOUNTS, (step["do"], key, step.get("u") if key == "n" else None))


def _given_settings(settings: list[Wire]) -> Iterator[tuple[str, str]]:
    if sum(_is_id(setting["k"]) for setting in settings) > 1:
        raise WireError("set: no label says which of two names in the text's words a value belongs to.")
    for setting in settings:
        known = not _is_id(setting["k"])
        if not known:
            yield setting["k"], SETTING_NAME
        yield setting["v"], _find(SETTINGS, (setting["k"] if known else None, setting.get("how", "fixed")))


def _find(table: dict[str, Any], meaning: Any) -> str:
    label = next((label for label, known in table.items() if known == meaning), None)
    if label is None:
        raise WireError(f"no label says {meaning!r}.")
    return label


def suiting(candidate: Candidate, labels: Iterable[str] = LABELS) -> list[str]:
    """Labels that a literal may have."""
    nodes = {label: node(label) for label in labels}
    return [label for label, pick in nodes.items() if pick is None or pick.takes(candidate)]
