"""Whether a goal's text can bear a reading at all. Code refuses what no text can mean so; it chooses nothing.

A place in the text has one part to play: a number of trials, a duration or a setting is not also the value of a target.
A target needs words: a bare number is one only where the text names a measure, an open-ended one ("as low as you can")
only where it says that something is to become better.
"""

import re
from collections.abc import Iterator, Mapping

from nightsmith.agent import figures, lexicon
from nightsmith.agent.goal import GoalSpec
from nightsmith.agent.literals import Candidate
from nightsmith.agent.wire_error import Missing, WireError
from nightsmith.agent.wire_fields import VALUE
from nightsmith.evals.types import Target

Picked = Mapping[str, Candidate]
"""JSON pointer into the spec -> the literal that was picked for it."""
_OF_TARGETS = ("targets", "guardrails")
NOT_OPEN = "the text does not ask for anything to become better."
_PURE = (None, "share", "points", "x", "times", "fold")
"""Units of a value that suit every metric: none, shares, points as they stand, multiples."""
_NOUNS: Mapping[str, tuple[str, ...]] = {
    "bits_per_byte": ("bit", "bits"),
    "output_tokens": ("token", "tokens", "characters"),
    "token_f1": ("token", "tokens"),  # "at least 0.6 token F1": the noun is the metric's own
}
"""Nouns that the value of a metric may count."""


def check(spec: GoalSpec, picked: Picked) -> None:
    """Refuse what the text cannot bear: data steps without a word for them, and (Missing, which asks for one) a target.

    A number in two places is refused without a question: either may be the wrong one.
    """
    if spec.pipeline and not has(lexicon.DATA_STEPS, spec.goal):
        raise WireError("steps: the text asks for nothing to be done to the data. Leave them out.")
    for pointer, target in _targets(spec):
        if target.op in ("max", "min"):
            problem = "" if spec.intent != "train" or has(lexicon.BECOMES_BETTER, spec.goal) else NOT_OPEN
        else:
            problem = _problem(target, picked.get(f"{pointer}/value"), spec.goal)
        if problem:
            raise Missing(f"want: {target.metric} {target.op}: {problem} If no target is named, ask.", asks="targets")
        _refuse_other_use(pointer, picked)


def can_aim(goal: str, candidates: tuple[Candidate, ...]) -> bool:
    """Whether a target could be read from the text: it asks for something to become better, or measures something."""
    if has(lexicon.BECOMES_BETTER, goal):
        return True
    return has(lexicon.MEASURES, goal) and any(VALUE.takes(each) for each in candidates)


def check_blocked(reasons: tuple[str, ...], goal: str) -> None:
    """Refuse a reason for blocking that no word of the text speaks of."""
    told = told_reasons(goal)
    if unfounded := next((reason for reason in reasons if reason not in told), None):
        raise WireError(f"why: the text says nothing of {unfounded}. If it asks for nothing dishonest, it is ready.")


def told_reasons(goal: str) -> tuple[str, ...]:
    """Reasons for blocking that the text has a word for; to have one is not yet to be blocked."""
    return tuple(reason for reason, words in lexicon.DISHONEST.items() if has(words, goal))


def unspoken(goal: str) -> tuple[str, ...]:
    """Keys of the wire form that the text has no words for."""
    return () if has(lexicon.DATA_STEPS, goal) else ("steps",)


def _targets(spec: GoalSpec) -> Iterator[tuple[str, Target]]:
    for name, targets in (("targets", spec.targets), ("guardrails", spec.guardrails)):
        yield from ((f"/{name}/{index}", target) for index, target in enumerate(targets))


def _problem(target: Target, value: Candidate | None, text: str) -> str:
    """Why the text cannot mean this target; empty where it can."""
    if value is None:  # said as a missing value
        return ""
    if not is_value_of(target.metric, value):
        return f"{value.line!r} is {value.unit or value.kind}, which is no value of {target.metric}."
    if target.metric in figures.SHARES and target.relation == "difference" and abs(float(value.value)) > 1:
        return f"{value.line!r} is more than a share can be."
    return "" if _is_named(target, value, text) else "the text names nothing that is measured."


def _refuse_other_use(pointer: str, picked: Picked) -> None:
    """Refuse a value whose place in the text was taken for something else as well."""
    value = picked.get(f"{pointer}/value")
    others = (p for p, c in picked.items() if value and c.span == value.span and p.split("/")[1] not in _OF_TARGETS)
    if value and (other := next(others, "")):
        raise WireError(f"want: {value.line!r} is the value of {other} already.")


def is_value_of(metric: str, literal: Candidate) -> bool:
    """Whether a literal's unit suits a metric; one of the goal's own may be measured in anything but work."""
    if metric == "custom":
        return True
    return literal.kind == "number" and (literal.unit in _PURE or literal.unit in _NOUNS.get(metric, ()))


def _is_named(target: Target, value: Candidate, text: str) -> bool:
    if target.metric == "custom" or has(lexicon.MEASURES, text):
        return True
    return (value.unit is not None or value.rule is not None) and has(lexicon.BECOMES_BETTER, text)


def has(words: str, text: str) -> bool:
    """Whether any of the words stands in the text."""
    return re.search(words, text, re.IGNORECASE) is not None
