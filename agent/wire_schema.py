"""JSON schemas of the planner's answer: one constant for every goal, and a narrow one for the repair turn."""

from collections.abc import Callable
from typing import Any

from nightsmith.agent import wire_fields as wf
from nightsmith.agent.literals import MAX_LITERALS, Candidate
from nightsmith.agent.questions import ASKS, REASONS
from nightsmith.record.digest import canonical_json, sha256

Schema = dict[str, Any]
_Literals = Callable[[wf.Pick], Schema | None]
"""Schema of the ids that may stand at a place; None: no literal can."""


def narrowed(
    candidates: tuple[Candidate, ...], without: tuple[str, ...] = (), reasons: tuple[str, ...] = REASONS
) -> Schema:
    """Schema for one goal: at each place only the ids that suit it, no keys `without` which the goal is, and only
    the `reasons` for blocking that it has words for.

    For the repair turn; servers cannot cache it.
    """
    return _answer(_suiting(candidates), without, reasons)


def _suiting(candidates: tuple[Candidate, ...]) -> _Literals:
    def literals(node: wf.Pick) -> Schema | None:
        ids = [candidate.id for candidate in candidates if node.takes(candidate)]
        return {"enum": ids} if ids else None

    return literals


def asking(code: str, candidates: tuple[Candidate, ...], without: tuple[str, ...] = ()) -> Schema:
    """Schema of a reading that asks for one field, and says everything else that the goal says."""
    spec = _properties(wf.SPEC, _suiting(candidates))
    ask = {"ask": {"type": "array", "items": {"enum": [code]}, "minItems": 1, "maxItems": 1}}
    told = {key: part for key, part in spec.items() if key not in (*_ASKED_FOR.get(code, ()), *without)}
    return _object({"s": {"const": "ask"}, **ask, **told}, ["s", "ask"])


_ASKED_FOR = {"targets": ("want", "keep"), "data": ("data",)}
"""Question -> keys that are not known while it is open."""


def _constant() -> Schema:
    ids = {"enum": [f"L{index}" for index in range(MAX_LITERALS)]}
    return {**_answer(lambda _: {"$ref": "#/$defs/L"}), "$defs": {"L": ids}}


def _answer(literals: _Literals, without: tuple[str, ...] = (), reasons: tuple[str, ...] = REASONS) -> Schema:
    spec = {key: part for key, part in _properties(wf.SPEC, literals).items() if key not in without}
    ready = _object({"s": {"const": "ready"}, **spec}, ["s", "do"])
    ask = _object({"s": {"const": "ask"}, "ask": _codes(ASKS), **spec}, ["s", "ask"])
    if not reasons:
        return {"anyOf": [ready, ask]}
    blocked = _object({"s": {"const": "blocked"}, "why": _codes(reasons)}, ["s", "why"])
    return {"anyOf": [ready, ask, blocked]}


def _properties(record: wf.Record, literals: _Literals) -> dict[str, Schema]:
    found = {f.key: _schema_of(f.node, literals) for f in record.fields}
    return {key: schema for key, schema in found.items() if schema is not None}


def _schema_of(node: wf.Node, literals: _Literals) -> Schema | None:
    match node:
        case wf.Choice(values):
            return {"enum": list(values)}
        case wf.Pick():
            return _either(node.names, literals(node))
        case wf.Index():
            return {"enum": [0, 1, 2, 3]}
        case wf.Flag():
            return {"const": True}
        case wf.Many(item, most):
            inner = _schema_of(item, literals)
            return inner and {"type": "array", "items": inner, "minItems": 1, "maxItems": most}
        case wf.Record(fields):
            properties = _properties(node, literals)
            required = [f.key for f in fields if f.required]
            return _object(properties, required) if properties and set(required) <= set(properties) else None


def _either(names: tuple[str, ...], literals: Schema | None) -> Schema | None:
    if not names:
        return literals
    return {"anyOf": [{"enum": list(names)}, literals]} if literals else {"enum": list(names)}


def _object(properties: dict[str, Schema], required: list[str]) -> Schema:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _codes(values: tuple[str, ...]) -> Schema:
    return {"type": "array", "items": {"enum": list(values)}, "minItems": 1, "maxItems": 3}


SCHEMA: Schema = _constant()
"""The same bytes for every goal."""
SCHEMA_DIGEST = sha256(canonical_json(SCHEMA))
