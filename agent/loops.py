"""Whether a study goes round in circles: the same call with the same result, or the same change in vain."""

from collections import Counter
from collections.abc import Sequence

from nightsmith.agent.plan import TrialPlan
from nightsmith.agent.proposals import DIRECTIONS, Direction, PastTrial, ProposeRequest
from nightsmith.evals.types import Decision, Verdict
from nightsmith.record.digest import canonical_json, sha256
from nightsmith.tools.base import ToolCall

MOST_IN_VAIN = 2
"""Trials since the best one that may change a setting in vain before it is left alone."""
CLEARLY = 1.1
"""How many times the best gain a better one must be to open everything again: a hair more is the seeds' noise."""
_NO_EVIDENCE = (Decision.UNVERIFIED, Decision.TAMPERED)


def call_digest(calls: Sequence[ToolCall]) -> str:
    """What makes two trials the same call: tools and arguments. Seeds are the trial's own."""
    return sha256(canonical_json([call.model_dump(mode="json") for call in calls]))


def outcome_digest(calls: Sequence[ToolCall], verdict: Verdict) -> str:
    """Call and result in one."""
    return sha256(canonical_json([call_digest(calls), verdict.decision, verdict.value]))


def repetition(plan: TrialPlan, past: Sequence[tuple[TrialPlan, Verdict | None]]) -> str:
    """Why a trial must not run again; empty where it may.

    What failed is never run again. What had a result is repeated only to see another seed, and not once a seed has
    given the very same result: then there is nothing that another one could show.
    """
    if not plan.calls:
        return ""
    same = [verdict for tried, verdict in past if call_digest(tried.calls) == call_digest(plan.calls)]
    judged = [verdict for verdict in same if verdict is not None]
    if any(verdict.decision in _NO_EVIDENCE for verdict in judged):
        return "the same trial has failed before."
    results = [outcome_digest(plan.calls, verdict) for verdict in judged]
    if len(set(results)) < len(results):
        return "the same trial has had the same result twice."
    return "the same trial has been run before." if same and plan.move != "seed" else ""


def exhausted(history: Sequence[PastTrial]) -> tuple[tuple[str, Direction], ...]:
    """Changes that trials have tried in vain since the best one; all of a setting's once two have changed it.

    A clearly better trial opens everything again: it is another recipe that changes start from.
    """
    best, start = 0.0, 0
    for at, trial in enumerate(history):
        is_good = trial.decision in ("promising", "promoted")
        if is_good and trial.gain is not None and trial.gain > CLEARLY * best:
            best, start = trial.gain, at + 1
    vain: list[tuple[str, Direction]] = [
        (trial.setting, trial.direction) for trial in history[start:] if trial.setting and trial.direction
    ]
    counts = Counter(setting for setting, _ in vain)
    left: list[tuple[str, Direction]] = [
        (name, way) for name, count in counts.items() if count >= MOST_IN_VAIN for way in DIRECTIONS
    ]
    return tuple(dict.fromkeys([*vain, *left]))


def without_exhausted(request: ProposeRequest) -> ProposeRequest:
    """The question without what was tried in vain; as it is where that would leave nothing to ask for."""
    narrowed = request.model_copy(update={"barred": (*request.barred, *exhausted(request.history))})
    return narrowed if narrowed.open_changes() else request
