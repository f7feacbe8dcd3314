"""Budgets: reserved before a start, reconciled after it, released where nothing was spent."""

from pydantic import Field

from nightsmith.record.digest import Contract


class Cost(Contract):
    """An amount of money."""

    amount: float = Field(ge=0)
    """How much."""
    currency: str
    """ISO 4217 code."""


class Deadline(Contract):
    """A point in time by which a study ends."""

    time: str = Field(pattern=r"^\d{2}:\d{2}$")
    """HH:MM, 24 hours, local time."""
    date: str | None = None
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


