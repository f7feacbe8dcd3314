"""Estimates with their uncertainty, in closed form. Pure: arrays in, numbers out.

A metric is a smooth function g of a ratio of sums r = Σ num / Σ den over the items of a suite (bits per byte: nats over
bytes, over ln 2). Items are whole documents, so they are the clusters: tokens inside one are not independent. The ratio
is linearised (Cochran, *Sampling Techniques*, 3rd ed. 1977, §2.11 and §6.4; for language models Miller 2024, "Adding
Error Bars to Evals", arXiv:2411.00640): item i moves the metric by e_i = g'(r) (num_i - r den_i) / mean(den), and
var(e) / k is the sampling variance over k items. Differences, ratios and means over seeds are taken on the e_i of the
same items, so that pairing is kept.

Seeds are the second source of chance: a recipe trained again gives another metric. Their deviation is estimated from
runs of several seeds and added to the item part. Both are variances of the same observed figures, so the item noise
that is particular to one seed is counted twice: intervals are a little too wide, never too narrow.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from nightsmith.evals.suite import Floats, Items


@dataclass(frozen=True)
class Metric:
    """g(Σ numerator / Σ denominator) over items."""

    numerator: Callable[[Items], Floats]
    denominator: Callable[[Items], Floats]
    transform: Callable[[float], float]
    """g"""
    derivative: Callable[[float], float]
    """g'"""


def _exp(x: float) -> float:
    return (
        math.exp(x) if x < 700 else math.inf
    )  # the judge refuses infinite metrics by name; an overflow would hide them


METRICS: dict[str, Metric] = {
    "bits_per_byte": Metric(
        lambda items: items.nll_nats,
        lambda items: items.num_bytes,
        lambda r: r / math.log(2),
        lambda _: 1 / math.log(2),
    ),
    "loss": Metric(lambda items: items.nll_nats, lambda items: items.num_tokens, lambda r: r, lambda _: 1.0),
    "perplexity": Metric(lambda items: items.nll_nats, lambda items: items.num_tokens, _exp, _exp),
}


@dataclass(frozen=True, eq=False)
class Point:
    """A figure and how each item moves it. `influence` has one entry an item, in order of row ids, and sums to 0."""

    value: float
    influence: Floats

    @property
    def item_variance(self) -> float:
        """Sampling variance over items: infinite where there are fewer than two."""
        k = len(self.influence)
        return float(np.var(self.influence, ddof=1)) / k if k > 1 else math.inf


@dataclass(frozen=True)
class Effect:
    """An estimate with a t interval."""

    estimate: float
    se: float
    """Standard error, in the estimate's unit."""
    df: int
    """Degrees of freedom."""
    n: int
    """Items it rests on."""

    def lower(self, level: float = 0.05) -> float:
        """One-sided lower bound: the true value lies below it with probability `level`."""
        return self.estimate - t_quantile(1 - level, self.df) * self.se

    def upper(self, level: float = 0.05) -> float:
        """One-sided upper bound: the true value lies above it with probability `level`."""
        return self.estimate + t_quantile(1 - level, self.df) * self.se

    def interval(self, level: float = 0.05) -> tuple[float, float]:
        """Two-sided interval that misses the true value with probability `level`."""
        return self.lower(level / 2), self.upper(level / 2)

    def p_above(self, threshold: float = 0.0) -> float:
        """One-sided p-value of "the true value is not above the threshold". 1 where no variation was seen at all."""
        if self.se == 0:
            return 1.0
        return t_tail((self.estimate - threshold) / self.se, self.df)

    def p_below(self, threshold: float = 0.0) -> float:
        """One-sided p-value of "the true value is not below the threshold"."""
        return Effect(-self.estimate, self.se, self.df, self.n).p_above(-threshold)


@dataclass(frozen=True)
class Noise:
    """How much one recipe varies from seed to seed."""

    mean: float
    deviation: float
    """Sample standard deviation over seeds; 0 for a single seed."""
    df: int
    """Seeds - 1."""


def t_quantile(probability: float, df: float) -> float:
    """Quantile of Student's t."""
    return float(_scipy_special().stdtrit(df, probability))


def t_tail(t: float, df: float) -> float:
    """P(T > t) of Student's t."""
    return float(_scipy_special().stdtr(df, -t))


def _scipy_special() -> Any:
    # Loaded when first needed, and not scipy.stats, which takes ten times as long; untyped, as scipy ships no stubs.
    return import_module("scipy.special")


def value(items: Items, metric: str) -> float:
    """The metric over all items."""
    rule = METRICS[metric]
    return rule.transform(float(rule.numerator(items).sum() / rule.denominator(items).sum()))


def point(items: Items, metric: str) -> Point:
    """The metric and each item's influence on it (module docstring)."""
    rule = METRICS[metric]
    num, den = rule.numerator(items), rule.denominator(items)
    r = float(num.sum() / den.sum())
    return Point(rule.transform(r), rule.derivative(r) * (num - r * den) / float(den.mean()))


def mean(points: Sequence[Point]) -> Point:
    """Mean over seeds evaluated on the same items."""
    influence: Floats = np.stack([p.influence for p in points]).sum(axis=0) / len(points)
    return Point(float(np.mean([p.value for p in points])), influence)


def difference(candidate: Point, reference: Point) -> Point:
    """Candidate - reference, paired by item."""
    return Point(candidate.value - reference.value, candidate.influence - reference.influence)


def ratio(candidate: Point, reference: Point) -> Point:
    """Candidate / reference, paired by item, by the delta method. Raises ZeroDivisionError for a reference of 0."""
    r = candidate.value / reference.value
    return Point(r, (candidate.influence - r * reference.influence) / reference.value)


def item_effect(figure: Point) -> Effect:
    """A figure of fixed checkpoints: only the choice of items is by chance."""
    k = len(figure.influence)
    return Effect(figure.value, math.sqrt(figure.item_variance), max(k - 1, 1), k)


def noise(values: Sequence[float]) -> Noise:
    """Seed noise of one recipe from its metric in several seeds."""
    df = len(values) - 1
    return Noise(float(np.mean(values)), float(np.std(values, ddof=1)) if df > 0 else 0.0, df)


def screen_effect(candidate: Items, baseline: Sequence[Items], metric: str) -> Effect:
    """One run of the candidate against the baseline's n ≥ 2 seeds: candidate - baseline.

    The candidate's one seed is a new observation: se² = s² (1 + 1/n) + item variance of the paired difference, with the
    baseline's s. df = n - 1: the seed part rules, and the Satterthwaite value is never below the smallest part's.
    """
    points = [point(items, metric) for items in baseline]
    diff = difference(point(candidate, metric), mean(points))
    n, seeds = len(points), noise([p.value for p in points])
    se = math.sqrt(seeds.deviation**2 * (1 + 1 / n) + diff.item_variance)
    return Effect(diff.value, se, min(seeds.df, len(candidate) - 1), len(candidate))


def confirm_effect(candidates: Sequence[Items], baseline: Sequence[Items], metric: str) -> Effect:
    """Fresh seeds of the candidate against the baseline's seeds (at least 2 a side): mean difference of the recipes.

    se² = seed part + item variance of the paired difference of the seed means. The seed part is the larger of the
    pooled and the Welch variance, so that unequal numbers of seeds with unequal noise do not shrink it; they agree for
    equal numbers.
    df = pooled seed degrees of freedom, the least that Satterthwaite's formula gives for pooled plus item variance. At
    level 0.010, 3 seeds against 4 promote a null change in 0.9 % of confirmations, and in 2.3 % where the candidate is
    three times as noisy as the baseline; Welch's own df would hold that at 1.5 % but find 79 instead of 90 % of the
    improvements of four seed deviations.
    """
    sides = [[point(items, metric) for items in side] for side in (candidates, baseline)]
    diff = difference(mean(sides[0]), mean(sides[1]))
    noises = [noise([p.value for p in side]) for side in sides]
    counts = [len(side) for side in sides]
    df = sum(n.df for n in noises)
    pooled = sum(n.df * n.deviation**2 for n in noises) / df * sum(1 / c for c in counts)
    welch = sum(n.deviation**2 / c for n, c in zip(noises, counts, strict=True))
    k = len(diff.influence)
    return Effect(diff.value, math.sqrt(max(pooled, welch) + diff.item_variance), min(df, k - 1), k)


def spend_alpha(study: int, confirmations: int = 3, total: float = 0.05) -> float:
    """Level of one confirmation in the `study`-th study (from 1) that confirms on the same dev split.

    Studies spend total · 6 / (π² k²), which sums to `total` over endlessly many nights; a study divides its share among
    its confirmations (Bonferroni). Like alpha investing (Foster and Stine 2008), but nothing is earned back.
    """
    if study < 1 or confirmations < 1:
        raise ValueError(f"study {study} and confirmations {confirmations} are counted from 1.")
    return total * 6 / (math.pi**2 * study**2) / confirmations
