"""What a target asks: which way is better, which quantity is compared, whether it holds. Pure."""

import math
from collections.abc import Sequence

from nightsmith.evals.types import LOWER_IS_BETTER, MetricName, Target


def lower_is_better(metric: MetricName, targets: Sequence[Target] = ()) -> bool:
    """Direction of a metric. Only `custom` takes it from its target: a misread operator must not turn the search."""
    if metric == "custom":
        return any(target.metric == metric and target.op in ("<=", "<", "min") for target in targets)
    return metric in LOWER_IS_BETTER


def related(target: Target, candidate: float, reference: float) -> float:
    """The targeted quantity: own value, difference or ratio. `max` and `min` are judged by the difference."""
    if is_absolute(target):
        return candidate
    if target.relation == "ratio" and target.value is not None:
        return candidate / reference if reference else math.inf
    return candidate - reference


def is_absolute(target: Target) -> bool:
    """Whether the target needs no reference."""
    return target.relative_to is None and target.value is not None


def holds(target: Target, quantity: float) -> bool:
    """Whether the quantity satisfies the target; >= and <= are inclusive, > and < strict, open ends are beyond 0."""
    threshold = 0.0 if target.value is None else target.value
    if target.op in (">", "max"):
        return quantity > threshold
    if target.op in ("<", "min"):
        return quantity < threshold
    return quantity >= threshold if target.op == ">=" else quantity <= threshold
