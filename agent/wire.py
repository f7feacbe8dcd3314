"""The planner's answer: a short JSON form with literal ids, and what it stands for.

expand    wire JSON + candidates -> Meaning (GoalSpec, sources, questions, reasons)
compress  Meaning -> wire JSON: the inverse, for corpora and round trips
ground    wire JSON with values -> wire JSON with ids
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from nightsmith.agent import grounds
from nightsmith.agent import wire_fields as wf
from nightsmith.agent.goal import GoalSpec
from nightsmith.agent.literals import Candidate
from nightsmith.agent.questions import ASKS, REASONS, Question, question, reason
from nightsmith.agent.wire_error import Missing, WireError

Status = Literal["ready", "needs_answers", "blocked"]
Wire = dict[str, Any]
"""Plain JSON as the planner writes it."""


@dataclass(frozen=True)
class Meaning:
    """What an answer stands for."""

    status: Status
    spec: GoalSpec | None = None
    sources: dict[str, Any] = field(default_factory=dict[str, Any])
    """JSON pointer into the spec -> {"span": [a, b]} | {"rule": …}."""
    questions: tuple[Question, ...] = ()
    reasons: tuple[str, ...] = ()
    """Codes of REASONS."""

    def reason_texts(self) -> list[str]:
        """Why it is blocked, in words."""
        return [reason(code) for code in self.reasons]


# Expansion


@dataclass
class _Expansion:
    candidates: dict[str, Candidate]
    sources: dict[str, Any] = field(default_factory=dict[str, Any])
    picked: dict[str, Candidate] = field(default_factory=dict[str, Candidate])

    def value(self, node: wf.Node, wire: Any, pointer: str) -> Any:
        match node:
            case wf.Choice(values):
                return self._choice(values, wire, pointer)
            case wf.Pick():
                return wire if wire in node.names else self._literal(node, wire, pointer)
            case wf.Index() | wf.Flag():
                return wire
            case wf.Many(item, most):
                return [
                    self.value(item, part, f"{pointer}/{index}")
                    for index, part in enumerate(_list(wire, most, pointer))
                ]
            case wf.Record(fields):
                return self._record(fields, wire, pointer)

    def _choice(self, values: tuple[str, ...], wire: Any, pointer: str) -> str:
        if wire not in values:
            raise WireError(f"{pointer}: {wire!r} is not one of {', '.join(values)}.")
        return wire

    def _literal(self, node: wf.Pick, wire: Any, pointer: str) -> Any:
        candidate = self.candidates.get(wire) if isinstance(wire, str) else None
        if candidate is None:
            known = f"L0 to L{len(self.candidates) - 1}" if self.candidates else "none"
            raise WireError(
                f"{pointer}: {wire!r} is not a literal of this goal (there are: {known}). "
                "Use a listed id or leave it out."
            )
        if candidate.kind not in node.kinds:
            raise WireError(
                f"{pointer}: {candidate.line!r} is a {candidate.kind}, here must be a {' or '.join(node.kinds)}."
            )
        if node.whole and not candidate.is_whole:
            raise WireError(f"{pointer}: {candidate.line!r} is not a whole number.")
        if candidate.unit in node.never:
            problem = f"{pointer}: {candidate.line!r} counts {candidate.unit}; where nothing else is named, ask."
            raise Missing(problem, asks=node.asks) if node.asks else WireError(problem)
        self._note(candidate, pointer)
        return _spec_value(candidate, whole=node.whole)

    def _note(self, candidate: Candidate, pointer: str) -> None:
        self.picked[pointer] = candidate
        self.sources[pointer] = {"rule": candidate.rule} if candidate.rule else {"span": list(candidate.span)}

    def _record(self, fields: tuple[wf.Field, ...], wire: Any, pointer: str) -> dict[str, Any]:
        known = {f.key: f for f in fields}
        if not isinstance(wire, dict):
            raise WireError(f"{pointer or '/'}: must be an object with the keys {', '.join(known)}.")
        spec: dict[str, Any] = {}
        for key, part in wire.items():  # pyright: ignore[reportUnknownVariableType]
            if key not in known:
                raise WireError(f"{pointer or '/'}: unknown key {key!r}; allowed: {', '.join(known)}.")
            if part == {}:  # nothing asked for: the same as the key left out
                continue
            name = known[key].name
            value = self.value(known[key].node, part, f"{pointer}/{name.replace('.', '/')}")
            _put(spec, name, value)
        return spec


def _list(wire: Any, most: int, pointer: str) -> list[Any]:
    if not isinstance(wire, list) or len(wire) > most:  # pyright: ignore[reportUnknownArgumentType]
        raise WireError(f"{pointer}: must be a list of at most {most}.")
    return wire  # pyright: ignore[reportUnknownVariableType]


def _put(spec: dict[str, Any], name: str, value: Any) -> None:
    head, _, rest = name.partition(".")
    if rest:
        spec.setdefault(head, {})[rest] = value
    else:
        spec[head] = value


def _spec_value(candidate: Candidate, *, whole: bool) -> Any:
    if candidate.kind == "money":
        return {"amount": candidate.value, "currency": candidate.unit}
    if isinstance(candidate.value, str):
        return candidate.value
    exact = candidate.is_whole and (whole or candidate.unit != "share")
    return int(candidate.value) if exact else candidate.value


def expand(wire: Wire, goal: str, candidates: tuple[Candidate, ...]) -> Meaning:
    """Give an answer its full meaning. WireError says exactly what cannot stand."""
    status = wire.get("s")
    if status == "blocked":
        reasons = _named(wire.get("why"), REASONS, "why")
        grounds.check_blocked(reasons, goal)
        return Meaning("blocked", reasons=reasons)
    if status not in ("ready", "ask"):
        raise WireError(f"s: {status!r} is not one of ready, ask, blocked.")
    body = {key: part for key, part in wire.items() if key not in ("s", "ask")}
    asks = _named(wire.get("ask"), ASKS, "ask") if status == "ask" else ()
    if status == "ready" and "do" not in body:
        raise WireError("do: missing; one of train, evaluate, compare, build_data.")
    spec, sources = _spec(body, goal, candidates) if body.get("do") else (None, {})
    if spec is not None and not asks:
        _require_whole(spec)
    return Meaning("needs_answers" if asks else "ready", spec, sources, tuple(question(code) for code in asks))


def _spec(body: Wire, goal: str, candidates: tuple[Candidate, ...]) -> tuple[GoalSpec, dict[str, Any]]:
    expansion = _Expansion({candidate.id: candidate for candidate in candidates})
    fields = expansion.value(wf.SPEC, body, "")
    for pointer, target in _compared(fields):
        _settle(target, pointer, expansion)
    try:
        spec = GoalSpec.model_validate({"goal": goal, **fields})
    except ValidationError as error:
        first = error.errors()[0]
        raise WireError(f"/{'/'.join(map(str, first['loc']))}: {first['msg']}.") from error
    grounds.check(spec, expansion.picked)
    return spec, expansion.sources


def _compared(fields: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Targets and guardrails that are differences to something, each with its JSON pointer."""
    for name in ("targets", "guardrails"):
        for index, target in enumerate(fields.get(name, ())):
            if target.get("relative_to") and target.get("relation", "difference") == "difference":
                yield f"/{name}/{index}", target


def _settle(target: dict[str, Any], pointer: str, expansion: _Expansion) -> None:
    """What the words leave out of a difference: its amount ("better than now": 0), or which way it goes.

    Against the baseline a target's amount is an improvement, a guardrail's what may be lost.
    """
    if target["op"] in ("max", "min"):
        return
    place = f"{pointer}/value"
    if "value" not in target:
        target["value"], expansion.sources[place] = 0, {"rule": "no amount named"}
    elif target["relative_to"] == "baseline" and target["value"]:
        grows = (target["op"] in (">", ">=")) == pointer.startswith("/targets")
        right = math.copysign(target["value"], 1 if grows else -1)
        if right != target["value"]:
            target["value"], expansion.sources[place] = right, {"rule": "the way that the comparison goes"}


def _require_whole(spec: GoalSpec) -> None:
    """Refuse a spec that is called ready and lacks what its work needs."""
    if spec.intent == "train" and not spec.targets:
        raise Missing("want: missing. A goal that trains needs a target; if it names none, s is ask.", asks="targets")
    if spec.intent in ("train", "build_data") and not spec.data:
        raise Missing("data: missing. If the goal names none, s is ask.", asks="data")
    for target in (*spec.targets, *spec.guardrails):
        if (target.value is None) != (target.op in ("max", "min")):
            raise WireError(f"want: {target.metric} {target.op}: max and min have no v, every other op needs one.")


def _named(wire: Any, allowed: tuple[str, ...], key: str) -> tuple[str, ...]:
    codes = _list(wire if wire is not None else [], 3, key)
    if not codes or any(code not in allowed for code in codes):
        raise WireError(f"{key}: must name one to three of {', '.join(allowed)}.")
    return tuple(codes)


# Compression


def compress(meaning: Meaning, candidates: tuple[Candidate, ...]) -> Wire:
    """The wire form of a meaning: expand(compress(m)) == m. WireError where the goal lacks a literal."""
    if meaning.status == "blocked":
        return {"s": "blocked", "why": list(meaning.reasons)}
    head: Wire = {"s": "ask", "ask": [q.field for q in meaning.questions]} if meaning.questions else {"s": "ready"}
    if meaning.spec is None:
        return head
    body = _shorten(wf.SPEC, meaning.spec.model_dump(mode="json", exclude_none=True))
    return ground({**head, **body}, candidates)


def _shorten(node: wf.Node, value: Any) -> Any:
    """Spec names -> wire keys, defaults and empty parts left out."""
    if isinstance(node, wf.Many):
        return [_shorten(node.item, part) for part in value]
    if not isinstance(node, wf.Record):
        return value
    wire: Wire = {}
    for f in node.fields:
        part = _get(value, f.name)
        if part is None or (part == f.default and not f.required):
            continue
        short = _shorten(f.node, part)
        if short not in ([], {}):
            wire[f.key] = short
    return wire


def _get(value: Any, name: str) -> Any:
    head, _, rest = name.partition(".")
    part = value.get(head)
    return part.get(rest) if rest and part is not None else part


def ground(wire: Wire, candidates: tuple[Candidate, ...]) -> Wire:
    """Replace the values of a wire form by the ids of the literals that have them."""
    head = {key: wire[key] for key in ("s", "ask", "why") if key in wire}
    body = {key: part for key, part in wire.items() if key not in head}
    return {**head, **_Grounding(candidates).value(wf.SPEC, body)}


@dataclass
class _Grounding:
    candidates: tuple[Candidate, ...]
    used: list[str] = field(default_factory=list[str])

    def value(self, node: wf.Node, value: Any) -> Any:
        if isinstance(node, wf.Many):
            return [self.value(node.item, part) for part in value]
        if isinstance(node, wf.Record):
            order = [f for f in node.fields if f.key in value]
            unknown = set(value) - {f.key for f in node.fields}
            if unknown:
                raise WireError(f"unknown keys {sorted(unknown)}; allowed: {', '.join(f.key for f in node.fields)}.")
            return {
                f.key: self.value(f.node, value[f.key]) for f in order if not self._unsaid(f.node, value[f.key], value)
            }
        if isinstance(node, wf.Choice) and value not in node.values:
            raise WireError(f"{value!r} is not one of {', '.join(node.values)}.")
        return self._id(node, value) if isinstance(node, wf.Pick) and value not in node.names else value

    def _unsaid(self, node: wf.Node, value: Any, record: Wire) -> bool:
        """Whether a difference has no amount in the text: code takes 0 for it (`_settle`)."""
        return node is wf.VALUE and value == 0 and "to" in record and not self._fitting(wf.VALUE, 0)

    def _fitting(self, node: wf.Pick, value: Any) -> list[Candidate]:
        """Literals of this value; for the amount of a target, one of the other sign does too."""
        takes = [c for c in self.candidates if node.takes(c)]
        fitting = [c for c in takes if _same(c, value)]
        return fitting or [c for c in takes if node is wf.VALUE and value and _same(c, -value)]

    def _id(self, node: wf.Pick, value: Any) -> str:
        fitting = self._fitting(node, value)
        if not fitting:
            raise WireError(
                f"no literal of kind {' or '.join(node.kinds)} that may stand here has the value {value!r}; "
                f"there are: {'; '.join(c.line for c in self.candidates)}."
            )
        best = min(
            fitting,
            key=lambda c: (
                c.unit not in node.units if node.units else bool(c.unit),
                c.id in self.used,
                c.rule is not None,
            ),
        )
        self.used.append(best.id)
        return best.id


def _same(candidate: Candidate, value: Any) -> bool:
    if candidate.kind == "money":
        return f"{candidate.value:g} {candidate.unit}" == _money_text(value)
    if isinstance(value, str) or isinstance(candidate.value, str):
        return bool(candidate.value == value)
    return math.isclose(candidate.value, value, rel_tol=1e-9, abs_tol=1e-12)


def _money_text(value: Any) -> str:
    """Money as text, e.g. `20 USD`, from that text or from a Cost as JSON."""
    return value if isinstance(value, str) else f"{value['amount']:g} {value['currency']}"
