"""What the planner proposes: a study's plan, and trials inside it."""

from typing import Literal

from pydantic import Field

from nightsmith.record.digest import Contract
from nightsmith.tools.base import ToolCall
from nightsmith.trainer.spec import ModelRef

TRAINING = ("pretrain", "sft", "dpo", "grpo")
"""Tools whose calls are the stages of a run."""
Move = Literal["baseline", "recipe", "hyperparameters", "architecture", "data", "scale", "seed", "confirm", "stop"]


class PredictedEffect(Contract):
    """What the proposer expects; compared with the verdict in the report, never used as evidence."""

    metric: str
    """Metric that should change."""
    direction: Literal["lower", "higher"]
    """Which way."""


class TrialPlan(Contract):
    """One proposed trial: an idea, the typed calls that carry it out, what it should change."""

    move: Move
    """Kind of change; `recipe` is the plan's own, where the baseline is a model that nobody trained here."""
    hypothesis: str = Field(max_length=400)
    """Why it should help. Text by the planner: shown, escaped, never evidence."""
    change: dict[str, float | int | str] = {}
    """Setting -> value, against the recipe the trial starts from."""
    setting: str | None = None
    """Setting that the move is about; the others of `change` go with it. Null: the only one."""
    start: int = Field(default=0, ge=0)
    """Trial whose recipe it starts from: the baseline, or the best so far."""
    calls: tuple[ToolCall, ...]
    """What will be run: one training call a stage."""
    predicted: PredictedEffect | None = None
    """Expected effect."""

    @property
    def stages(self) -> tuple[ToolCall, ...]:
        """The training calls, in order; trials change settings of the last one."""
        return tuple(call for call in self.calls if call.tool in TRAINING)


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

    def nearest(self, value: float | int | str) -> float | int | str:
        """The value, or the nearest one that is allowed; of words that are none, the first."""
        if self.kind != "choice":
            return min(max(float(value), self.low or 0.0), self.high or float(value))
        if isinstance(value, str):
            return value if value in self.choices else self.choices[0]
        return min(self.choices, key=lambda choice: abs(float(choice) - value))


class Estimate(Contract):
    """What the study is expected to take. An estimate, stated with what it rests on."""

    trial_s: float = Field(ge=0)
    """Seconds per trial: start, training, evaluation."""
    total_s: float = Field(ge=0)
    """Seconds for the whole study, confirmation and report included."""
    sealed_s: float = Field(default=0, ge=0)
    """Seconds to open the seal: the winner and the baseline, evaluated side by side."""
    tokens: float = Field(ge=0)
    """Training tokens in all."""
    gpu_hours: float = Field(default=0, ge=0)
    """Accelerator hours."""
    basis: str
    """`measured on this machine (n runs)` or the assumption made."""


class StudyPlan(Contract):
    """How a goal will be pursued: shown before anything starts, approved as an envelope, followed by the graph."""

    calls: tuple[ToolCall, ...]
    """Typed calls in order: data, training stages, evaluation."""
    model: ModelRef | None = None
    """What is fine-tuned, or measured; unmodified it is the baseline. Null: the baseline is trained from scratch."""
    reference: ModelRef | None = None
    """What the model is compared with, where two are only measured."""
    recipe: dict[str, float | int | str]
    """Settings of the last training call; trials change single ones of them."""
    space: tuple[Tunable, ...]
    """What trials may change."""
    max_trials: int = Field(ge=0)
    """Trials at most."""
    seeds: int = Field(ge=1)
    """Seeds of the baseline, and fresh seeds of a candidate in a confirmation."""
    parallel: int = Field(ge=1)
    """Jobs side by side, one device each."""
    max_confirmations: int = Field(default=3, ge=0)
    """Confirmations that alpha is shared by; 0: none fits the budget, so only checkpoints can be claimed."""
    job_limit_s: float = Field(gt=0)
    """Time limit of one job."""
    estimate: Estimate
    """Expected time and tokens."""
    assumptions: tuple[str, ...] = ()
    """Choices that the goal left open, one sentence each."""

    @property
    def stages(self) -> tuple[ToolCall, ...]:
        """The training calls, in order."""
        return tuple(call for call in self.calls if call.tool in TRAINING)
