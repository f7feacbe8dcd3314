"""Budgets: reserved before a start, reconciled after it, released where nothing was spent.

An account is what one study may spend. Every job takes a key of its own in it, a job's child too. What all keys have
spent and reserved together stays within the limits; only what a job really spent beyond its reservation may exceed
them, and is recorded as it was. Wall clock differs, since jobs side by side overlap: a start must fit between the
account's active seconds and the limit.
"""

import math
import sqlite3
from datetime import date, datetime, time, timedelta

from pydantic import AwareDatetime, Field

from nightsmith.record import audit
from nightsmith.record.clock import Clock, utc_now
from nightsmith.record.digest import Contract
from nightsmith.record.errors import BudgetSpent, NightsmithError
from nightsmith.record.workspace import Workspace

# Sums of decimal fractions miss their limit by some 1e-16 of it.
_TOLERANCE = 1e-9


class Cost(Contract):
    """An amount of money."""

    amount: float = Field(ge=0)
    """How much."""
    currency: str
    """ISO 4217 code."""


class Deadline(Contract):
    """A point in time by which a study ends."""

    time: str = Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    """HH:MM, 24 hours, local time."""
    date: str | None = Field(default=None, pattern=r"^\d{4}-\d{2}-\d{2}$")
    """YYYY-MM-DD; null: the next occurrence of `time`."""


class Budget(Contract):
    """What a study may spend. Null: not limited by the goal."""

    max_trials: int | None = Field(default=None, ge=0)
    """Proposed trials; baseline, calibration, confirmation and sealed runs do not count."""
    wall_clock_s: float | None = Field(default=None, gt=0)
    """Seconds of work from approval to report, time in which nothing runs not counted."""
    per_trial_s: float | None = Field(default=None, gt=0)
    """Seconds of training per trial."""
    gpu_hours: float | None = Field(default=None, ge=0)
    """Accelerator hours, children included."""
    tokens: float | None = Field(default=None, gt=0)
    """Training tokens in all."""
    cost: Cost | None = None
    """Money."""
    deadline: Deadline | None = None
    """When it must have ended."""


class Amount(Contract):
    """A reservation, or what was really spent."""

    wall_s: float = Field(default=0, ge=0)
    """Seconds of the job's own wall clock (jobs side by side overlap)."""
    cpu_s: float = Field(default=0, ge=0)
    """CPU-device seconds."""
    gpu_hours: float = Field(default=0, ge=0)
    """Accelerator hours."""
    tokens: float = Field(default=0, ge=0)
    """Training tokens."""
    cost: float = Field(default=0, ge=0)
    """Money, in the account's currency."""
    trials: int = Field(default=0, ge=0)
    """Proposed trials."""


class Left(Contract):
    """What is left of a budget. Null: not limited."""

    trials: int | None = None
    """Proposed trials."""
    wall_s: float | None = None
    """Active seconds."""
    gpu_hours: float | None = None
    """Accelerator hours."""
    tokens: float | None = None
    """Training tokens."""
    cost: float | None = None
    """Money, in the account's currency."""
    deadline_s: float | None = None
    """Seconds until the deadline."""


class Balance(Contract):
    """An account at one moment."""

    budget: Budget
    """What may be spent."""
    spent: Amount
    """What ended jobs really spent."""
    reserved: Amount
    """What started jobs have reserved."""
    active_s: float
    """Seconds in which the study worked; a paused or dead controller does not count."""
    deadline_at: AwareDatetime | None
    """The deadline as a point in time."""
    left: Left
    """Limits less spent and reserved, at least 0."""


def open_account(
    ws: Workspace, account: str, budget: Budget, *, ends_at: datetime | None = None, now: Clock = utc_now
) -> None:
    """Open an account, once. A deadline without a date is fixed here: the next time the local clock shows it.

    `ends_at` is a deadline beside the budget's own, such as the end of a night; the earlier one holds.

    Raises:
        NightsmithError: the account is open with another budget; `amend` changes that.
    """
    with ws.write() as db:
        row = db.execute("SELECT budget FROM accounts WHERE name = ?", (account,)).fetchone()
        if row is None:
            db.execute(
                "INSERT INTO accounts (name, budget, opened_at, deadline_at) VALUES (?, ?, ?, ?)",
                (account, budget.canonical(), now().isoformat(), _earlier(_deadline(budget, now), ends_at)),
            )
        elif row["budget"] != budget.canonical():
            raise NightsmithError(
                f"Account {account!r} is open with the budget {row['budget']}, not {budget.canonical()}. "
                "A budget is changed by a new approval only."
            )


def amend(ws: Workspace, account: str, budget: Budget, *, now: Clock = utc_now) -> None:
    """Give an open account another budget, after a person approved it. What was spent stays spent; audited."""
    with ws.write() as db:
        before, _, _ = _account(db, account)
        db.execute(
            "UPDATE accounts SET budget = ?, deadline_at = ? WHERE name = ?",
            (budget.canonical(), _deadline(budget, now), account),
        )
        detail = {"account": account, "before": before.model_dump(mode="json"), "after": budget.model_dump(mode="json")}
        audit.append(db, "budget.amended", detail, now=now)


def reserve(db: sqlite3.Connection, account: str, key: str, amount: Amount, *, now: Clock = utc_now) -> None:
    """Reserve an amount for the job `key`, inside the caller's transaction.

    Asked again while the reservation stands, it changes nothing. A key that was reconciled (a job resumed) reserves
    anew on top of what it spent; its trial is counted once.

    Raises:
        BudgetSpent: it does not fit into what is left, or the account was never opened.
    """
    row = db.execute("SELECT * FROM reservations WHERE key = ?", (key,)).fetchone()
    if row is not None and row["account"] != account:
        raise ValueError(f"Key {key!r} belongs to account {row['account']!r}, not {account!r}.")
    if row is not None and row["reserved"] is not None:
        return
    spent = Amount() if row is None else Amount.model_validate_json(row["spent"])
    amount = amount.model_copy(update={"trials": max(0, amount.trials - spent.trials)})
    shortages = _shortages(_balance(db, account, now), amount)
    if shortages:
        raise BudgetSpent(
            f"The budget of {account!r} does not cover job {key}: {'; '.join(shortages)}. "
            "Start something smaller, stop what is running, or approve a larger budget."
        )
    db.execute(
        "INSERT INTO reservations (key, account, reserved, spent) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (key) DO UPDATE SET reserved = excluded.reserved",
        (key, account, amount.canonical(), spent.canonical()),
    )


def reconcile(db: sqlite3.Connection, key: str, spent: Amount) -> None:
    """Replace a reservation by what was really spent, once: a settled key is not charged again."""
    row = db.execute("SELECT * FROM reservations WHERE key = ?", (key,)).fetchone()
    if row is None:
        raise NightsmithError(f"Job {key} has no reservation to reconcile. Reserve before a start.")
    if row["reserved"] is not None:
        before = Amount.model_validate_json(row["spent"])
        total = _sum([before, spent]).model_copy(update={"trials": max(before.trials, spent.trials)})
        db.execute("UPDATE reservations SET reserved = NULL, spent = ? WHERE key = ?", (total.canonical(), key))


def release(db: sqlite3.Connection, key: str) -> None:
    """Free a reservation of which nothing was spent; a key without one changes nothing."""
    db.execute("UPDATE reservations SET reserved = NULL WHERE key = ?", (key,))


def set_spent(ws: Workspace, account: str, key: str, spent: Amount) -> None:
    """Record what something that reserves nothing has spent in all so far. Asked again, the last figure stands."""
    with ws.write() as db:
        _account(db, account)
        db.execute(
            "INSERT INTO reservations (key, account, spent) VALUES (?, ?, ?) "
            "ON CONFLICT (key) DO UPDATE SET spent = excluded.spent",
            (key, account, spent.canonical()),
        )


def tick(ws: Workspace, account: str, seconds: float) -> None:
    """Add active wall-clock time. Only the controller of the study calls it, so that parallel jobs count once."""
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"Active time grows by a finite number of seconds that is not negative, not by {seconds}.")
    with ws.write() as db:
        cursor = db.execute("UPDATE accounts SET active_s = active_s + ? WHERE name = ?", (seconds, account))
        if cursor.rowcount == 0:
            raise _unopened(account)


def balance(ws: Workspace, account: str, *, now: Clock = utc_now) -> Balance:
    """The account at this moment; one that was never opened raises BudgetSpent."""
    with ws.read() as db:
        return _balance(db, account, now)


def is_open(ws: Workspace, account: str) -> bool:
    """Whether an account was opened."""
    with ws.read() as db:
        return db.execute("SELECT 1 FROM accounts WHERE name = ?", (account,)).fetchone() is not None


def _account(db: sqlite3.Connection, account: str) -> tuple[Budget, float, datetime | None]:
    row = db.execute("SELECT * FROM accounts WHERE name = ?", (account,)).fetchone()
    if row is None:
        raise _unopened(account)
    deadline = None if row["deadline_at"] is None else datetime.fromisoformat(row["deadline_at"])
    return Budget.model_validate_json(row["budget"]), float(row["active_s"]), deadline


def _unopened(account: str) -> BudgetSpent:
    return BudgetSpent(
        f"Account {account!r} was never opened, so nothing may be spent from it. Approve a plan with a budget first."
    )


def _balance(db: sqlite3.Connection, account: str, now: Clock) -> Balance:
    budget, active_s, deadline = _account(db, account)
    rows = db.execute("SELECT reserved, spent FROM reservations WHERE account = ?", (account,)).fetchall()
    spent = _sum([Amount.model_validate_json(row["spent"]) for row in rows])
    reserved = _sum([Amount.model_validate_json(row["reserved"]) for row in rows if row["reserved"] is not None])
    used = _sum([spent, reserved])
    left = Left(
        trials=None if budget.max_trials is None else max(0, budget.max_trials - used.trials),
        wall_s=_less(budget.wall_clock_s, active_s),
        gpu_hours=_less(budget.gpu_hours, used.gpu_hours),
        tokens=_less(budget.tokens, used.tokens),
        cost=_less(budget.cost.amount if budget.cost else None, used.cost),
        deadline_s=None if deadline is None else max(0.0, (deadline - now()).total_seconds()),
    )
    return Balance(budget=budget, spent=spent, reserved=reserved, active_s=active_s, deadline_at=deadline, left=left)


def _less(limit: float | None, used: float) -> float | None:
    return None if limit is None else max(0.0, limit - used)


def _sum(amounts: list[Amount]) -> Amount:
    """Exactly rounded sums, so that order does not matter."""
    fields = ("wall_s", "cpu_s", "gpu_hours", "tokens", "cost")
    totals = {field: math.fsum(getattr(amount, field) for amount in amounts) for field in fields}
    return Amount(**totals, trials=sum(amount.trials for amount in amounts))


def _shortages(present: Balance, amount: Amount) -> list[str]:
    """One phrase for each limit that the amount does not fit into; a dimension that is not asked for is not checked."""
    budget, used = present.budget, _sum([present.spent, present.reserved])
    money, currency = (budget.cost.amount, budget.cost.currency) if budget.cost else (None, "")
    dimensions: list[tuple[str, float, float, float | None]] = [
        ("trials", amount.trials, used.trials, budget.max_trials),
        ("GPU-hours", amount.gpu_hours, used.gpu_hours, budget.gpu_hours),
        ("tokens", amount.tokens, used.tokens, budget.tokens),
        (currency, amount.cost, used.cost, money),
    ]
    short = [
        f"asked {asked:g} {unit}, left {max(0.0, limit - gone):g} of {limit:g}"
        for unit, asked, gone, limit in dimensions
        if limit is not None and asked > 0 and _exceeds(gone + asked, limit)
    ]
    return short + _time_shortages(present, amount.wall_s)


def _time_shortages(present: Balance, wall_s: float) -> list[str]:
    """Time always passes: with none left nothing starts, whatever it asks."""
    left, limit, active_s = present.left, present.budget.wall_clock_s, present.active_s
    short: list[str] = []
    if limit is not None and (active_s >= limit or _exceeds(active_s + wall_s, limit)):
        short.append(f"asked {wall_s:g} s of wall clock, left {max(0.0, limit - active_s):g} s of {limit:g} s")
    if left.deadline_s is not None and (left.deadline_s == 0 or wall_s > left.deadline_s):
        at = f"{present.deadline_at:%Y-%m-%d %H:%M %Z}"
        short.append(f"asked {wall_s:g} s of wall clock, left {left.deadline_s:.0f} s until the deadline {at}")
    return short


def _exceeds(total: float, limit: float) -> bool:
    return total > limit * (1 + _TOLERANCE)


def _deadline(budget: Budget, now: Clock) -> str | None:
    """The deadline as ISO text with offset. `astimezone` of a naive time applies this machine's zone on that day."""
    if budget.deadline is None:
        return None
    at = time.fromisoformat(budget.deadline.time)
    if budget.deadline.date is not None:
        return datetime.combine(_day(budget.deadline.date), at).astimezone().isoformat()
    today = now().astimezone().date()
    first = datetime.combine(today, at).astimezone()
    return (first if first > now() else datetime.combine(today + timedelta(days=1), at).astimezone()).isoformat()


def _earlier(deadline: str | None, ends_at: datetime | None) -> str | None:
    known = [at for at in (deadline and datetime.fromisoformat(deadline), ends_at) if at]
    return min(known).isoformat() if known else None


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise NightsmithError(
            f"The deadline's date {text!r} is not in the calendar ({error}). Give YYYY-MM-DD."
        ) from error
