"""What the planner proposes: a study's plan, and trials inside it."""

from typing import Literal

from pydantic import Field

from nightsmith.record.digest import Contract
from nightsmith.tools.base import ToolCall

Move = Literal["baseline", "hyperparameters", "architecture", "data", "scale", "seed", "confirm", "stop"]


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
    start: int = Field(default=0, ge=0)
    """Trial whose recipe it starts from: the baseline, or the best so far."""
    calls: tuple[ToolCall, ...]
    """What will be run."""
    predicted: PredictedEffect | None = None
    """Expected effect."""


class Tunable(Contract):
    """One setting that trials may change."""

    name: str
    """Field of the recipe."""
    kind: Literal["float", "int", "choice"]
    """Numbers lie between `low` and `high`; a choice takes one of `choices`."""
    low: float | None = None
    """Smallest value."""
    high: float | None = None
    """Largest value."""
    log: bool = False
    """Searched on a logarithmic scale."""
    choices: tuple[str | int | float, ...] = ()
    """Allowed values of a choice, in order."""


class Estimate(Contract):
    """What the study is expected to take. An estimate, stated with what it rests on."""

    trial_s: float = Field(ge=0)
    """Seconds per trial: start, training, evaluation."""
    total_s: float = Field(ge=0)
    """Seconds for the whole study, confirmation and report included."""
    tokens: float = Field(ge=0)
    """Training tokens in all."""
    gpu_hours: float = Field(default=0, ge=0)
    """Accelerator hours."""
    basis: str
    """`measured on this machine (n runs)` or the assumption made."""


class StudyPlan(Contract):
    """How a goal will be pursued: shown before anything starts, approved as an envelope, followed by the graph."""

    calls: tuple[ToolCall, ...]
    """Typed calls in order: data, baseline training, evaluation."""
    recipe: dict[str, float | int | str]
    """Arguments of the baseline's training call; trials change single settings of it."""
    space: tuple[Tunable, ...]
    """What trials may change."""
    max_trials: int = Field(ge=0)
    """Trials at most."""
    seeds: int = Field(ge=1)
    """Seeds of the baseline, and fresh seeds of a candidate in a confirmation."""
    parallel: int = Field(ge=1)
    """Jobs side by side, one device each."""
    max_confirmations: int = Field(default=3, ge=0)
    """Confirmations that alpha is shared by."""
    job_limit_s: float = Field(gt=0)
    """Time limit of one job."""
    estimate: Estimate
    """Expected time and tokens."""
    assumptions: tuple[str, ...] = ()
    """Choices that the goal left open, one sentence each."""
