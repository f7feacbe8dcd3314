"""Nights on a clock that only moves when told to: studies are played by a script instead of being driven."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from nightsmith.agent import dossier
from nightsmith.agent.goal import DataRef, GoalSpec
from nightsmith.agent.night_add import envelope
from nightsmith.agent.night_run import NightRun
from nightsmith.agent.plan import StudyPlan
from nightsmith.agent.planning import Machine, study_plan
from nightsmith.agent.study import Desk, Ending
from nightsmith.evals.types import Target
from nightsmith.record import approvals, schedules, studies
from nightsmith.record.budget import Budget
from nightsmith.record.recurrence import Recurrence
from nightsmith.record.schedules import OccurrenceRow, ScheduleRow
from nightsmith.record.workspace import Workspace

SPEC = GoalSpec(
    goal="Pre-train on ./corpus until bits per byte are at least 0.3 below the baseline.",
    methods=("pretrain",),
    data=(DataRef(ref="./corpus"),),
    targets=(Target(metric="bits_per_byte", op="<=", value=-0.3, relative_to="baseline"),),
    budget=Budget(max_trials=5),
)
PLAN: StudyPlan = study_plan(SPEC, Machine())


class Killed(BaseException):
    """The machine went down in the middle of a night."""


Act = Callable[["Nights", str, Desk], Ending]
"""What a study does once it is driven."""


def ends(hours: float = 3, outcome: str = "MET") -> Act:
    """The study is approved, works so long and ends."""

    def act(nights: "Nights", study: str, desk: Desk) -> Ending:
        if not nights.ask_approval(study, desk):
            return Ending.APPROVAL
        nights.pass_time(hours)
        studies.set_spec(nights.ws, study, dossier.load(nights.ws, study, "interpretation")["spec"])
        studies.finish(nights.ws, study, outcome)
        return Ending.DONE

    return act


def dies(hours: float = 3) -> Act:
    """The machine goes down after so long."""

    def act(nights: "Nights", study: str, desk: Desk) -> Ending:
        nights.ask_approval(study, desk)
        nights.pass_time(hours)
        raise Killed

    return act


def asks(text: str) -> Act:
    """The planner asks something."""

    def act(nights: "Nights", study: str, desk: Desk) -> Ending:
        del nights, study
        assert asyncio.run(desk.answer([{"field": "targets", "text": text}])) is None
        return Ending.QUESTION

    return act


def raises(error: Exception) -> Act:
    """Something fails."""

    def act(nights: "Nights", study: str, desk: Desk) -> Ending:
        del nights, study, desk
        raise error

    return act


def interrupted(nights: "Nights", study: str, desk: Desk) -> Ending:
    """The process is asked to leave."""
    del nights, study, desk
    return Ending.INTERRUPTED


@dataclass
class Nights:
    """A workspace, a clock, and what the next studies do (the last act again when they run out)."""

    ws: Workspace
    at: datetime
    acts: list[Act] = field(default_factory=lambda: [ends()])
    plan: StudyPlan = PLAN
    driven: list[tuple[str, datetime]] = field(default_factory=list[Any])
    """(study, when) of every drive."""

    def now(self) -> datetime:
        """The clock."""
        return self.at

    def pass_time(self, hours: float) -> None:
        """Move the clock on."""
        self.at += timedelta(hours=hours)

    def schedule(
        self, name: str = "weeknights", *, valid_days: int = 90, catch_up: bool = True, **when: Any
    ) -> ScheduleRow:
        """A schedule that is approved from now on."""
        recurring = Recurrence.model_validate({"at": "22:00", "until": "07:00", "timezone": "Europe/Paris", **when})
        reading = {
            "status": "ready",
            "spec": SPEC.model_dump(mode="json"),
            "sources": {},
            "questions": [],
            "reasons": [],
        }
        row = schedules.add(
            self.ws, name, goal=SPEC.goal, interpretation=reading, folder="/folder", recurrence=recurring,
            budget=SPEC.budget, catch_up=catch_up, now=self.now,
        )  # fmt: skip
        self.approve(row, valid_days=valid_days)
        return row

    def approve(self, row: ScheduleRow, *, valid_days: int = 90) -> None:
        """Approve it, or approve it anew."""
        standing = envelope(row.account, SPEC, self.plan, row.recurrence)
        approvals.approve(self.ws, standing, how="flag", valid_s=valid_days * 86_400, now=self.now)

    def wake(self, *rows: ScheduleRow, at: datetime | None = None, forced: bool = False) -> int:
        """`night run` at a moment. Raises Killed where the machine goes down meanwhile."""
        self.at = at or self.at
        return NightRun(self.ws, self.drive, now=self.now).run(rows or schedules.all(self.ws), forced=forced)

    def drive(self, study: str, desk: Desk, folder: Path) -> Ending:
        """Play the next act."""
        assert folder == Path("/folder")
        self.driven.append((study, self.at))
        act = self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]
        return act(self, study, desk)

    def ask_approval(self, study: str, desk: Desk) -> bool:
        """What a study asks once it is planned."""
        dossier.save(self.ws, study, "plan", self.plan.model_dump(mode="json"))
        given = asyncio.run(desk.approve(study))
        return given == {"approved": True, "how": "schedule"}

    def told(self, row: ScheduleRow) -> list[tuple[str, str | None]]:
        """(due by the clock on the wall, outcome) of every occurrence."""
        return [(self.wall(one.due_at, row), one.outcome) for one in self.rows(row)]

    def rows(self, row: ScheduleRow) -> list[OccurrenceRow]:
        """Every occurrence of a schedule."""
        return schedules.occurrences(self.ws, row.id)

    def wall(self, at: datetime | None, row: ScheduleRow) -> str:
        """`Mon 22:00`."""
        return f"{at.astimezone(row.recurrence.zone):%a %H:%M}" if at else ""
