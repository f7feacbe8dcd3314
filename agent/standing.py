"""Where a study stands for a person: does it go on by itself, or does it wait, and for what?"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from nightsmith.agent import dossier
from nightsmith.record import budget
from nightsmith.record.errors import Busy
from nightsmith.record.workspace import Workspace


class Standing(StrEnum):
    """What a reader wants to know first of a study that has no outcome yet."""

    ENDED = "ended"
    """It has an outcome."""
    RUNNING = "running"
    """A process drives it."""
    ANSWER = "needs an answer"
    """The planner asked something, and nobody answered."""
    APPROVAL = "needs approval"
    """Its plan was drawn up, and nobody approved it."""
    PAUSED = "paused"
    """Nobody drives it; it can be resumed."""


HOW_ON: Mapping[Standing, str] = {
    Standing.ANSWER: 'nightsmith resume {study} --answer "…"',
    Standing.APPROVAL: "nightsmith resume {study}",
    Standing.PAUSED: "nightsmith resume {study}",
}
"""What a person types; nothing where the study goes on by itself."""


def lock_name(study: str) -> str:
    """Name of the lock that whoever drives a study holds."""
    return f"study-{study}"


def is_driven(ws: Workspace, study: str) -> bool:
    """Whether a process drives the study now."""
    try:
        with ws.lock(lock_name(study)):
            return False
    except Busy:
        return True


def standing(ws: Workspace, study: str, outcome: str | None) -> Standing:
    """Where the study stands now; `outcome` is the record's."""
    if outcome is not None:
        return Standing.ENDED
    if is_driven(ws, study):
        return Standing.RUNNING
    understood: Any = dossier.load(ws, study, "interpretation") or {}
    answers: Any = dossier.load(ws, study, "answers") or []
    if understood.get("status") == "needs_answers" and understood.get("num_answers", 0) >= len(answers):
        return Standing.ANSWER
    planned = dossier.load(ws, study, "plan") is not None
    return Standing.APPROVAL if planned and not budget.is_open(ws, study) else Standing.PAUSED


def how_on(study: str, at: Standing) -> str:
    """What a person types to let the study go on; empty where nothing waits for one."""
    return HOW_ON.get(at, "").format(study=study)
