"""Baseline and winner side by side: the contracts of what report and `show` print. `side_by_side` fills them in."""

from typing import Literal

from pydantic import Field

from nightsmith.evals.types import Difference, MetricName
from nightsmith.record.digest import Contract


class Figure(Contract):
    """A metric of one checkpoint on one split."""

    value: float
    """Estimate."""
    low: float | None = None
    """Lower end of its two-sided 95 % interval, over items; null where it is not bounded."""
    high: float | None = None
    """Upper end."""


class OwnFigures(Contract):
    """What one checkpoint scored on one split."""

    split: Literal["dev", "sealed"]
    """Split."""
    num_items: int = Field(ge=0)
    """Items."""
    suite_digest: str
    """Digest of the suite."""
    metrics: dict[str, Figure]
    """Canonical name -> figure."""


class Measured(Contract):
    """A model that nobody trained here, as it was evaluated."""

    name: str
    """As the goal names it."""
    path: str
    """Its folder."""
    weights_digest: str
    """Digest of its weights."""
    metrics: dict[str, Figure]
    """Canonical name -> figure, the main one first."""


class Measurement(Contract):
    """What a goal that only measures has found. Intervals are over rows, two-sided, 95 %."""

    main: MetricName
    """The metric that the goal asks for, or that suits the rows best."""
    n: int = Field(gt=0)
    """Rows."""
    models: tuple[Measured, ...]
    """One, or two that were compared."""
    differences: tuple[Difference, ...] = ()
    """First - second, paired by row; the main metric first. Empty for one model."""

    def difference(self, metric: str) -> Difference | None:
        """The difference in one metric; None where it cannot be compared."""
        return next((each for each in self.differences if each.metric == metric), None)


class MetricPair(Contract):
    """One metric of both."""

    metric: str
    """Canonical name."""
    before: Figure
    """Of the baseline."""
    after: Figure
    """Of the winner."""


class SplitPair(Contract):
    """Both on the same items of one split."""

    split: Literal["dev", "sealed"]
    """Split."""
    num_items: int = Field(ge=0)
    """Items."""
    metrics: tuple[MetricPair, ...]
    """The study's metric first."""


class AnswerPair(Contract):
    """One row, answered by both. Texts are data: cut, and escaped where they are shown."""

    row_id: str
    """Row."""
    prompt: str
    """What was asked."""
    reference: str
    """The right answer."""
    before: str
    """The baseline's."""
    after: str
    """The winner's."""
    before_right: bool
    """Whether the baseline's equals the reference."""
    after_right: bool
    """Whether the winner's equals the reference."""


class SideBySide(Contract):
    """Baseline and winner, or the best trial where nothing won."""

    trial: int
    """The trial that the baseline is compared with."""
    is_winner: bool
    """Whether it is the winner; else it is the best screened one."""
    splits: tuple[SplitPair, ...]
    """Dev, and sealed where it was opened."""
    answers: tuple[AnswerPair, ...] = ()
    """The first rows by row id, of the sealed split where it was opened."""
    answers_split: Literal["dev", "sealed"] = "dev"
    """Where the answers are from."""
