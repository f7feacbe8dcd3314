"""How schedules and nights are told: blocks of lines for 80 columns, and the same as data."""

import textwrap
from datetime import datetime
from pathlib import Path

from pydantic import AwareDatetime

from nightsmith.agent import account, figures, history, night_words
from nightsmith.agent.escape import plain
from nightsmith.record import budget, recurrence, schedules, studies
from nightsmith.record.approvals import Approval, Envelope
from nightsmith.record.clock import Clock, utc_now
from nightsmith.record.digest import Contract
from nightsmith.record.recurrence import Due, Recurrence
from nightsmith.record.schedules import OccurrenceRow, ScheduleRow
from nightsmith.record.workspace import Workspace

_WIDTH = 80


class NightCost(Contract):
    """What a night spent."""

    active_s: float = 0
    """Seconds in which its study worked."""
    cpu_s: float = 0
    """CPU-device seconds."""
    gpu_hours: float = 0
    """Accelerator hours."""
    tokens: float = 0
    """Training tokens."""
    trials: int = 0
    """Proposed trials."""


class Night(Contract):
    """One occurrence as it is told in the morning."""

    schedule: str
    """Name of the schedule."""
    timezone: str
    """Time zone of the schedule."""
    due_at: AwareDatetime
    """When it was due, UTC."""
    started_at: AwareDatetime | None
    """When it began; null: it did not."""
    ended_at: AwareDatetime | None
    """When it ended or was given up; null while it runs, or was cut off."""
    ends_at: AwareDatetime | None
    """End of its window."""
    study: str | None
    """Its study."""
    outcome: str | None
    """The study's outcome as it is now, else what became of the night; null while neither is known."""
    exit_status: int | None
    """Exit status of its run."""
    sentence: str
    """The outcome in one sentence."""
    note: str
    """What is to be said of the night itself."""
    cost: NightCost
    """What was spent."""
    report: str | None
    """Path of the report."""


def night(ws: Workspace, schedule: ScheduleRow, row: OccurrenceRow) -> Night:
    """One occurrence with what its study is now: a person may have gone on with it since."""
    known = row.model_dump(exclude={"id", "schedule", "outcome"})
    ended = studies.get(ws, row.study).outcome if row.study else None
    sentence = account.outcome_sentence(history.load(ws, row.study)) if row.study else ""
    report = ws.reports / row.study / "index.html" if row.study else None
    return Night(
        **known,
        schedule=schedule.name,
        timezone=schedule.recurrence.timezone,
        outcome=ended or row.outcome,
        sentence=sentence,
        cost=_cost(ws, row.study),
        report=str(report) if report and report.is_file() else None,
    )


def _cost(ws: Workspace, study: str | None) -> NightCost:
    if study is None or not budget.is_open(ws, study):
        return NightCost()
    balance = budget.balance(ws, study)
    spent = balance.spent.model_dump(include={"cpu_s", "gpu_hours", "tokens", "trials"})
    return NightCost(active_s=balance.active_s, **spent)


def night_lines(told: Night) -> str:
    """When, study and outcome; the sentence; the cost; where the report is."""
    late = told.started_at is not None and (told.started_at - told.due_at).total_seconds() >= 120
    begun = f", begun {figures.moment(told.started_at, told.timezone)}" if told.started_at and late else ""
    outcome = (told.outcome or ("running or cut off" if told.started_at else "not begun")).replace("_", " ")
    head = f"{figures.moment(told.due_at, told.timezone)}{begun}  {told.schedule}  {told.study or '–'}  {outcome}"
    lines = [head, *_wrapped(told.sentence), *_wrapped(told.note)]
    if told.study:
        lines += _wrapped(f"Cost: {_cost_told(told.cost)}")
    return "\n".join([*lines, *([f"  {told.report}"] if told.report else [])])


def _cost_told(cost: NightCost) -> str:
    gpu = f", {cost.gpu_hours:.2f} GPU-hours" if cost.gpu_hours else f", {figures.duration(cost.cpu_s)} of CPU time"
    trials = f"{cost.trials} trial{'' if cost.trials == 1 else 's'}"
    return f"{figures.duration(cost.active_s)}{gpu}, {figures.count(cost.tokens)} tokens, {trials}"


def schedule_lines(ws: Workspace, schedule: ScheduleRow, approval: Approval | None, now: Clock = utc_now) -> str:
    """One schedule: when, next and last night, approval, goal."""
    rows = schedules.occurrences(ws, schedule.id)
    zone = schedule.recurrence.timezone
    last = f"{_outcome_of(ws, rows[-1])} ({figures.moment(rows[-1].due_at, zone)})" if rows else "none"
    approved = "Not approved, or no more: nothing starts. Renew it: nightsmith night renew " + schedule.name
    if approval is not None:
        approved = f"Approved by {approval.by} until {approval.expires_at:%Y-%m-%d}: {envelope_told(approval.envelope)}"
    lines = [f"{schedule.name}  {when_told(schedule.recurrence)}"]
    lines += _wrapped(f"Next: {coming(schedule.recurrence, now(), 1)}. Last: {last}.")
    return "\n".join([*lines, *_wrapped(approved), *_wrapped(f"Goal: {schedule.goal}")])


def _outcome_of(ws: Workspace, row: OccurrenceRow) -> str:
    ended = studies.get(ws, row.study).outcome if row.study else None
    return (ended or row.outcome or "running or cut off").replace("_", " ")


def card(recurring: Recurrence, envelope: Envelope, *, folder: Path, valid_days: int, now: Clock = utc_now) -> str:
    """What a person approves for every night."""
    told = [
        f"Every night: {when_told(recurring)}",
        f"Next: {coming(recurring, now(), 3)}",
        f"In: {folder}",
        f"Approved for each night, for {valid_days} days: {envelope_told(envelope)}",
    ]
    return "\n".join(line for part in told for line in _wrapped(part, indent=""))


def when_told(recurring: Recurrence) -> str:
    """`mon-fri at 22:00 until 07:00 (Europe/Paris)`."""
    until = f" until {recurring.until}" if recurring.until else ""
    return f"{night_words.days_told(recurring.days)} at {recurring.at}{until} ({recurring.timezone})"


def coming(recurring: Recurrence, now: datetime, count: int) -> str:
    """The next occurrences in the schedule's own time."""
    dues: list[Due] = recurrence.following(recurring, now, count)
    return ", ".join(figures.moment(due.at, recurring.timezone) for due in dues)


def envelope_told(envelope: Envelope) -> str:
    """The bounds of a night in words."""
    limits = envelope.budget
    parts = [
        " and ".join(envelope.kinds) + " jobs",
        _trials_told(envelope.max_trials),
        f"{figures.duration(limits.wall_clock_s)} of work" if limits.wall_clock_s else "",
        f"{figures.count(limits.tokens)} tokens" if limits.tokens else "",
        f"{limits.gpu_hours:g} GPU-hours" if limits.gpu_hours is not None else "",
        f"{limits.cost.amount:,.2f} {limits.cost.currency}" if limits.cost else "",
        f"no job longer than {figures.duration(envelope.time_limit_s)}",
    ]
    return ", ".join(part for part in parts if part)


def _trials_told(most: int | None) -> str:
    if most is None:
        return "as many trials as its time and budget hold"
    return f"at most {most} trial{'' if most == 1 else 's'}"


def _wrapped(text: str, indent: str = "  ") -> list[str]:
    told = " ".join(plain(text).split())
    return textwrap.wrap(
        told, _WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
