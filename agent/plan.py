"""What the planner proposes: a study's plan, and trials inside it."""

from typing import Literal

from pydantic import Field

from nightsmith.record.digest import Contract
from nightsmith.tools.base import ToolCall

Move = Literal["hyperparameters", "architecture", "data", "scale", "seed", "confirm", "stop"]


class PredictedEffect(Contract):
    """What the proposer expects; compared with the verdict in the report, never used as evidence."""

    metric: str
    """Metric that should change."""
    direction: Literal["lower", "higher"]
    """Which way."""


class TrialPlan(Contract):
    """One proposed trial: an idea, the typed calls that carry it out, what it should change."""

    move: Move
    """Kind of change."""
    hypothesis: str = Field(max_length=400)
    """Why it should help. Text by the planner: shown, escaped, never evidence."""
    change: dict[str, float | int | str] = {}
    """Setting -> value, against the recipe the trial starts from."""
    calls: tuple[ToolCall, ...]
    """What will be run."""
    predicted: PredictedEffect | None = None
    """Expected effect."""
