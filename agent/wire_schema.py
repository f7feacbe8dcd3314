"""JSON schemas of the planner's answer: one constant for every goal, and a narrow one for the repair turn."""

from collections.abc import Callable
from typing import Any, get_args

from nightsmith.agent import labels
from nightsmith.agent import wire_fields as wf
from nightsmith.agent.goal import RewardKind
from nightsmith.agent.literals import MAX_LITERALS, Candidate
from nightsmith.agent.questions import ASKS, REASONS
from nightsmith.record.digest import canonical_json, sha256

Schema = dict[str, Any]
_Says = Callable[[str], bool]
"""Whether a label may be given."""
_SPOKEN: dict[str, _Says] = {
    "steps": lambda label: label in labels.AMOUNTS,
    "want": lambda label: labels.TARGETS.get(label, ("",))[0] == "want",
    "keep": lambda label: labels.TARGETS.get(label, ("",))[0] == "keep",
    "data": lambda label: label in labels.DATA,
}
"""Key of the wire form -> the labels that go with it."""
_ASKED_FOR = {"targets": ("want", "keep"), "data": ("data",)}
"""Question -> keys that are not known while it is open."""


def narrowed(
    candidates: tuple[Candidate, ...], without: tuple[str, ...] = (), reasons: tuple[str, ...] = REASONS
) -> Schema:
    """Schema for one goal: a label for each of its literals, of those that suit it; nothing of the keys `without`
    which the goal is, and only the `reasons` for blocking that it has words for.

    For the repair turn; servers cannot cache it.
    """
    read = _read(_suiting(candidates, without), without, {"ask": _codes(ASKS, 0)}, [c.id for c in candidates])
    return {"anyOf": [read, _blocked(reasons)]} if reasons else read


def asking(code: str, candidates: tuple[Candidate, ...], without: tuple[str, ...] = ()) -> Schema:
    """Schema of a reading that asks for one field, and says everything else that the goal says.

    `ask` is not required: servers put required keys first, and it is what an answer ends with.
    """
    unsaid = (*without, *_ASKED_FOR.get(code, ()))
    ask = {"type": "array", "items": {"enum": [code]}, "minItems": 1, "maxItems": 1}
    return _read(_suiting(candidates, unsaid), unsaid, {"ask": ask}, [c.id for c in candidates])


def _suiting(candidates: tuple[Candidate, ...], without: tuple[str, ...]) -> dict[str, Schema]:
    rules = [_SPOKEN[key] for key in without if key in _SPOKEN]
    allowed = [label for label in labels.LABELS if not any(rule(label) for rule in rules)]
    return {candidate.id: {"enum": labels.suiting(candidate, allowed)} for candidate in candidates}


def _constant() -> Schema:
    ids = {f"L{index}": {"$ref": "#/$defs/label"} for index in range(MAX_LITERALS)}
    read = _read(ids, (), {"ask": _codes(ASKS, 0)}, [])
    return {"anyOf": [read, _blocked(REASONS)], "$defs": {"label": {"enum": list(labels.LABELS)}}}


def _read(ids: dict[str, Schema], without: tuple[str, ...], ask: Schema, required: list[str]) -> Schema:
    beside = {key: part for key, part in _beside().items() if key not in without}
    return _object({"s": {"const": "read"}, **ids, **beside, **ask}, ["s", *required])


def _beside() -> dict[str, Schema]:
    """What an answer says without literals, in the order in which it says it."""
    also = _object(
        {"l": {"enum": [f"L{i}" for i in range(MAX_LITERALS)]}, "as": {"enum": list(labels.LABELS)}}, ["l", "as"]
    )
    target = _object({f.key: _bare(f.node) for f in wf.TARGET.fields if _bare(f.node)}, ["m", "op"])
    spec = {f.key: f.node for f in wf.SPEC.fields}
    return {
        "also": _list(also, 6),
        "do": _bare(spec["do"]),
        "how": _bare(spec["how"]),
        "adapt": _bare(spec["adapt"]),
        "steps": _list({"enum": list(wf.PIPELINE_STEPS)}, 8),
        "avoid": _list({"enum": list(wf.AVOIDABLE)}, 8),
        "reward": {"enum": list(get_args(RewardKind))},
        "want": _list(target, 6),
        "keep": _list(target, 6),
        "register": {"const": True},
    }


def _bare(node: wf.Node) -> Schema:
    """Schema of what may stand at a place without a literal; empty where only literals can."""
    match node:
        case wf.Choice(values):
            return {"enum": list(values)}
        case wf.Pick(names=names):
            return {"enum": list(names)} if names else {}
        case wf.Index():
            return {"enum": [*labels.STAGES]}
        case wf.Flag():
            return {"const": True}
        case wf.Many(item, most):
            return _list(_bare(item), most)
        case wf.Record(fields):
            return _object({f.key: _bare(f.node) for f in fields if _bare(f.node)}, [])


def _blocked(reasons: tuple[str, ...]) -> Schema:
    return _object({"s": {"const": "blocked"}, "why": _codes(reasons, 1)}, ["s", "why"])


def _list(items: Schema, most: int) -> Schema:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": most}


def _object(properties: dict[str, Schema], required: list[str]) -> Schema:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _codes(values: tuple[str, ...], least: int) -> Schema:
    return {"type": "array", "items": {"enum": list(values)}, "minItems": least, "maxItems": 3}


SCHEMA: Schema = _constant()
"""The same bytes for every goal."""
SCHEMA_DIGEST = sha256(canonical_json(SCHEMA))
