"""`night add` and `night renew`: a goal read and planned once becomes a schedule under a standing approval."""

import asyncio
import json
import re
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from nightsmith.agent import editing, night_view, night_words, render
from nightsmith.agent.desk import desk
from nightsmith.agent.goal import GoalSpec
from nightsmith.agent.night_words import CannotSchedule
from nightsmith.agent.opening import existing, opened
from nightsmith.agent.plan import StudyPlan
from nightsmith.agent.planner import Planner
from nightsmith.agent.preflight import preflight
from nightsmith.agent.questions import named, with_answers
from nightsmith.agent.remote import say_remote
from nightsmith.agent.settings import load_settings
from nightsmith.agent.window import END_MARGIN, Window
from nightsmith.record import approvals, schedules
from nightsmith.record.approvals import Approval, Envelope, How
from nightsmith.record.clock import Clock, utc_now
from nightsmith.record.recurrence import DAYS, Recurrence
from nightsmith.record.schedules import ScheduleRow
from nightsmith.record.workspace import Workspace

NEEDS_ANSWERS, BLOCKED, NOT_APPROVED = 4, 5, 6
DAY_S = 86_400
"""Longest time limit of a job where neither window nor budget name one, in seconds."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
ASKED = {"rule": "asked for by an option of night add"}
"""Source of a value that the command line gave."""


@dataclass(frozen=True)
class Asked:
    """The options of `night add`."""

    at: str | None = None
    days: str | None = None
    until: str | None = None
    budget: str | None = None
    name: str | None = None
    timezone: str | None = None
    valid_days: int = 90
    catch_up: bool = True
    answers: list[str] = field(default_factory=list[str])


def add(goal: str, asked: Asked, path: Path | None, *, yes: bool, as_json: bool, now: Clock = utc_now) -> int:
    """Read the goal once, plan it, and store it as a schedule under a standing approval."""
    ws, folder = opened(path), Path.cwd()
    name = _free_name(ws, asked.name)
    reading = _read(ws, goal, folder, asked.answers, as_json=as_json)
    if reading["status"] != "ready":
        return _not_ready(reading, as_json=as_json)
    spec = GoalSpec.model_validate(reading["spec"])
    recurring = recurrence_of(spec, asked)
    standing_spec, sources = nightly(spec, reading["sources"], asked)
    require_end(recurring, standing_spec)
    plan = _planned(ws, standing_spec, recurring, folder, now)
    reading |= {"spec": standing_spec.model_dump(mode="json"), "sources": sources}
    draft = envelope(name, standing_spec, plan, recurring)
    if not as_json:
        print(render.planned(reading, plan, f"Plan of each night of {name}"))
        print(night_view.card(recurring, draft, folder=folder, valid_days=asked.valid_days, now=now))
    how = _approved(yes=yes, as_json=as_json)
    if how is None:
        print("nightsmith: Nothing was scheduled: it was not approved. Add --yes to approve it.", file=sys.stderr)
        return NOT_APPROVED
    row = schedules.add(
        ws, name, goal=goal, interpretation=reading, folder=str(folder), recurrence=recurring,
        budget=standing_spec.budget, catch_up=asked.catch_up, now=now,
    )  # fmt: skip
    given = _approve(ws, row, draft, how, asked.valid_days, now)
    _tell_added(row, given, plan, as_json=as_json, now=now)
    return 0


def recurrence_of(spec: GoalSpec, asked: Asked) -> Recurrence:
    """When the nights are: as the options say, else as the goal does."""
    own = spec.schedule
    if own is None and asked.at is None:
        raise CannotSchedule("The goal names no time at which to start. Give one, e.g. --at 22:00 --until 07:00.")
    complete = asked.at is not None and asked.days is not None
    at, days = night_words.from_cron(own.cron) if own and not complete else ("", DAYS)
    at = night_words.clock(asked.at, "--at") if asked.at else at
    days = night_words.days(asked.days) if asked.days else days
    until = night_words.clock(asked.until, "--until") if asked.until else (own.until if own else None)
    deadline = spec.budget.deadline
    until = until or (deadline.time if deadline and deadline.date is None else None)
    if until == at:
        raise CannotSchedule(f"A night cannot start and end at {at}. Give another --until, or a --budget instead.")
    zone = night_words.timezone(asked.timezone or (own.timezone if own else None))
    return Recurrence(at=at, days=days, until=until, timezone=zone)


def nightly(spec: GoalSpec, sources: dict[str, Any], asked: Asked) -> tuple[GoalSpec, dict[str, Any]]:
    """The goal of one night, and its sources: without the schedule, with the budget that was asked for."""
    kept = spec.budget.deadline if spec.budget.deadline and spec.budget.deadline.date else None
    one = spec.model_copy(update={"schedule": None, "budget": spec.budget.model_copy(update={"deadline": kept})})
    if kept is None:
        sources = {at: source for at, source in sources.items() if not at.startswith("/budget/deadline")}
    marked = {at: source for at, source in sources.items() if not at.startswith("/schedule")}
    if asked.budget is None:
        return one, marked
    one, edited = editing.edited(one, marked, night_words.budget(asked.budget), ())
    return one, {at: ASKED if source == editing.EDITED else source for at, source in edited.items()}


def require_end(recurring: Recurrence, spec: GoalSpec) -> None:
    """An unattended run needs an end. Raises CannotSchedule."""
    limits = spec.budget
    if recurring.until or limits.wall_clock_s or limits.max_trials is not None or limits.tokens:
        return
    raise CannotSchedule(
        "Nobody watches a scheduled run, so it needs an end: a time (--until 07:00) or a budget of time, trials or "
        "tokens (--budget '5 trials, 8h'). Money and GPU-hours alone do not end a run on a machine without GPUs."
    )


def envelope(account: str, spec: GoalSpec, plan: StudyPlan, recurring: Recurrence) -> Envelope:
    """What is approved for every night."""
    lengths = [recurring.window.total_seconds() if recurring.window else None, spec.budget.wall_clock_s]
    longest = min((length for length in lengths if length), default=max(DAY_S, plan.job_limit_s))
    return Envelope(
        study=account,
        spec_digest=spec.digest(),
        plan_digest=plan.digest(),
        kinds=(*dict.fromkeys(call.tool for call in plan.stages), "evaluate"),
        methods=tuple(spec.methods),
        max_trials=spec.budget.max_trials,  # where the goal names none, a night has as many as its time holds
        budget=spec.budget,
        time_limit_s=longest,
    )


def renew(name: str, path: Path | None, *, valid_days: int, yes: bool, as_json: bool, now: Clock = utc_now) -> int:
    """Approve a schedule anew: the same goal, planned again."""
    ws = existing(path)
    row = schedules.get(ws, name)
    spec, folder = GoalSpec.model_validate(row.spec), Path(row.folder)
    plan = _planned(ws, spec, row.recurrence, folder, now)
    draft = envelope(row.account, spec, plan, row.recurrence)
    if not as_json:
        print(render.planned(row.interpretation, plan, f"Plan of each night of {name}"))
        print(night_view.card(row.recurrence, draft, folder=folder, valid_days=valid_days, now=now))
    how = _approved(yes=yes, as_json=as_json)
    if how is None:
        print("nightsmith: Not renewed: it was not approved. Add --yes to approve it.", file=sys.stderr)
        return NOT_APPROVED
    _tell_added(row, _approve(ws, row, draft, how, valid_days, now), plan, as_json=as_json, now=now)
    return 0


def _free_name(ws: Workspace, wanted: str | None) -> str:
    taken = {row.name for row in schedules.all(ws)}
    if wanted is None:
        numbers = range(1, len(taken) + 2)
        return next(f"night{number}" for number in numbers if f"night{number}" not in taken)
    if not _NAME.fullmatch(wanted):
        raise CannotSchedule(f"--name {wanted!r}: up to 40 letters, digits, '-' and '_', e.g. weeknights.")
    if wanted in taken:
        raise CannotSchedule(f"There is a schedule {wanted!r} already. Choose another name, or remove that one.")
    return wanted


def _read(ws: Workspace, goal: str, folder: Path, answers: list[str], *, as_json: bool) -> dict[str, Any]:
    """The goal as the planner reads it; what it asks is answered by option, or at a terminal."""
    say_remote(load_settings(folder))
    planner = Planner(load_settings(folder).backend())
    known = list(answers)
    while True:
        reading = asyncio.run(planner.interpret(with_answers(goal, known))).as_json()
        if reading["status"] != "needs_answers" or as_json or not sys.stdin.isatty():
            return reading
        said = asyncio.run(desk(ws, yes=False, as_json=False, answers=[]).answer(reading["questions"]))
        if not said:
            return reading
        known += named(reading["questions"], said)


def _not_ready(reading: dict[str, Any], *, as_json: bool) -> int:
    blocked = reading["status"] == "blocked"
    print(json.dumps(reading) if as_json else render.interpretation(reading))
    mend = "" if blocked else ' Answer with --answer "…", or put it into the goal.'
    print(f"nightsmith: Nothing was scheduled.{mend}", file=sys.stderr)
    return BLOCKED if blocked else NEEDS_ANSWERS


def _planned(ws: Workspace, spec: GoalSpec, recurring: Recurrence, folder: Path, now: Clock) -> StudyPlan:
    """What one night would be, by the speeds that are known today."""
    ends_at = now() + recurring.window - END_MARGIN if recurring.window else None
    return preflight(Window(ends_at=ends_at).narrowed(spec, now), ws, folder)


def _approved(*, yes: bool, as_json: bool) -> How | None:
    if yes:
        return "flag"
    if as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None
    try:
        return "console" if input("Approve this for every night? [y/N] ").strip().lower() in ("y", "yes") else None
    except (EOFError, KeyboardInterrupt):
        print()
        return None


def _approve(ws: Workspace, row: ScheduleRow, draft: Envelope, how: How, valid_days: int, now: Clock) -> Approval:
    named = draft.model_copy(update={"study": row.account})
    return approvals.approve(ws, named, how=how, valid_s=timedelta(days=valid_days).total_seconds(), now=now)


def _tell_added(row: ScheduleRow, given: Approval, plan: StudyPlan, *, as_json: bool, now: Clock) -> None:
    if as_json:
        shown = plan.model_dump(mode="json")
        told = {"schedule": row.model_dump(mode="json"), "approval": given.model_dump(mode="json")}
        print(json.dumps(told | {"plan": shown["calls"], "estimate": shown["estimate"]}))
        return
    print(f"Scheduled {row.name}; next: {night_view.coming(row.recurrence, now(), 1)}.")
    print("Nothing calls it yet unless a timer does: nightsmith night install (again after each change).")
