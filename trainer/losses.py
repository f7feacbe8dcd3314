"""What a run's losses say: the figure that stands for it, and the reason where one is not finite. Torch-free."""

import math
from collections.abc import Sequence
from typing import Protocol

LOSS_TAIL = 0.05
"""Share of the steps, at the end, whose mean loss and experts' health stand for the run."""


class Recipe(Protocol):
    """The settings that keep a loss finite."""

    @property
    def learning_rate(self) -> float:
        """Peak learning rate."""
        ...

    @property
    def warmup_share(self) -> float:
        """Share of the steps with linear warm-up."""
        ...


def tail_mean(losses: Sequence[float]) -> float:
    """Mean over the last LOSS_TAIL of the steps, at least one: a single step's loss is mostly noise."""
    tail = losses[-max(1, round(LOSS_TAIL * len(losses))) :]
    return math.fsum(tail) / len(tail)


def not_finite(recipe: Recipe, step: int, loss: float, norm: float) -> str:
    """Why a run ends whose loss, or the norm of its gradient, is not finite, and what would mend it."""
    return (
        f"Loss {loss:g} with gradient norm {norm:g} at step {step}. Lower the learning rate "
        f"(now {recipe.learning_rate:g}) or lengthen the warm-up (now {recipe.warmup_share:g} of the steps)."
    )
