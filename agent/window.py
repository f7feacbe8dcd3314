"""The window of a study that a schedule started: it is planned into it, held to it, and ends before it does."""

from datetime import datetime, timedelta

from pydantic import AwareDatetime

from nightsmith.agent import dossier
from nightsmith.agent.goal import GoalSpec
from nightsmith.record.clock import Clock, utc_now
from nightsmith.record.digest import Contract
from nightsmith.record.workspace import Workspace

END_MARGIN = timedelta(seconds=30)
"""Kept between the last job of a night and the end of its time, for the judgement and the report."""
_PAPER = "window"


class Window(Contract):
    """The time of one occurrence, beside the goal's own budget."""

    ends_at: AwareDatetime | None = None
    """The study has ended by then, UTC; null: no such end."""

    def narrowed(self, spec: GoalSpec, now: Clock = utc_now) -> GoalSpec:
        """The goal with no more time than is left of the window, to plan with."""
        if self.ends_at is None:
            return spec
        left = max(1.0, (self.ends_at - now()).total_seconds())
        wall = min(left, spec.budget.wall_clock_s or left)
        return spec.model_copy(update={"budget": spec.budget.model_copy(update={"wall_clock_s": wall})})

    def deadline(self, now: Clock = utc_now) -> datetime | None:
        """When the account is closed. A person who approves after the window is not bound by it."""
        return self.ends_at if self.ends_at is not None and self.ends_at > now() else None


def give(ws: Workspace, study: str, window: Window) -> None:
    """Write the window among the study's papers."""
    dossier.save(ws, study, _PAPER, window.model_dump(mode="json"))


def of(ws: Workspace, study: str) -> Window:
    """The study's window; without bounds where no schedule started it."""
    return Window.model_validate(dossier.load(ws, study, _PAPER) or {})
