"""Whether a study goes round in circles: the same call with the same result, or trial after trial without a gain."""

from collections.abc import Sequence

from nightsmith.agent.plan import TrialPlan
from nightsmith.agent.proposals import Direction, PastTrial
from nightsmith.evals.types import Decision, Verdict
from nightsmith.record.digest import canonical_json, sha256
from nightsmith.tools.base import ToolCall

PLATEAU = 4
"""Judged trials in a row without a better one after which what they changed is not proposed again."""
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
    """On a plateau: the changes that were tried on it, none of which helped. Empty while there is progress."""
    gains = [trial.gain for trial in history]
    best = max((gain for gain in gains if gain is not None), default=None)
    last_better = next((at for at, gain in enumerate(gains) if gain is not None and gain == best and gain > 0), -1)
    since = history[last_better + 1 :]
    if len(since) < PLATEAU:
        return ()
    return tuple(dict.fromkeys((t.setting, t.direction) for t in since if t.setting and t.direction))
