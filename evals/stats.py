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

Exact match, token F1 and the accuracy of pairs are shares: means over items that lie in 0..1, often all 0 or all 1,
where the observed variance says nothing. A share by itself gets the bound of Clopper and Pearson (1934). Differences
and ratios get half an item more of each possible pair of outcomes in their variance (Agresti and Min 2005, "Simple
improved confidence intervals for comparing matched proportions", Statistics in Medicine 24), so that no bound is the
estimate itself because all items agree.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from nightsmith.evals.effects import Effect, Noise, ShareEffect
from nightsmith.evals.suite import Floats, Items


@dataclass(frozen=True)
class Metric:
    """g(Σ numerator / Σ denominator) over items."""

    numerator: Callable[[Items], Floats | None]
    """None where the items do not have it."""
    denominator: Callable[[Items], Floats]
    transform: Callable[[float], float] = float
    """g"""
    derivative: Callable[[float], float] = lambda _: 1.0
    """g'"""
    extremes: Callable[[float], tuple[float, float]] | None = None
    """Where items can agree by chance: the values between which an item may lie, given the mean over items."""


def _exp(x: float) -> float:
    return (
        math.exp(x) if x < 700 else math.inf
    )  # the judge refuses infinite metrics by name; an overflow would hide them


def _ones(items: Items) -> Floats:
    return np.ones(len(items))


METRICS: dict[str, Metric] = {
    "bits_per_byte": Metric(
        lambda items: items.nll_nats,
        lambda items: items.num_bytes,
        lambda r: r / math.log(2),
        lambda _: 1 / math.log(2),
    ),
    "loss": Metric(lambda items: items.nll_nats, lambda items: items.num_tokens),
    "perplexity": Metric(lambda items: items.nll_nats, lambda items: items.num_tokens, _exp, _exp),
    "exact_match": Metric(lambda items: items.exact_match, _ones, extremes=lambda _: (0.0, 1.0)),
    "token_f1": Metric(lambda items: items.token_f1, _ones, extremes=lambda _: (0.0, 1.0)),
    "accuracy": Metric(lambda items: items.accuracy, _ones, extremes=lambda _: (0.0, 1.0)),
    "margin": Metric(lambda items: items.margin, _ones),
    # No answer is longer than twice the mean: an assumption, which only matters where all answers are equally long.
    "output_tokens": Metric(lambda items: items.output_tokens, _ones, extremes=lambda mean: (0.0, 2 * mean)),
}
SHARES = frozenset({"exact_match", "token_f1", "accuracy"})
"""Metrics whose items lie in 0..1."""


@dataclass(frozen=True, eq=False)
class Point:
    """A figure and how each item moves it. `influence` has one entry an item, in order of row ids, and sums to 0."""

    value: float
    influence: Floats
    unseen: Floats = field(default_factory=lambda: np.empty(0))
    """Influences of the outcomes that are added to the variance, as if two items more were spread over them."""

    @property
    def item_variance(self) -> float:
        """Sampling variance over items: infinite where there are fewer than two."""
        k = len(self.influence)
        if k < 2:
            return math.inf
        added = 2 * float(np.mean(self.unseen**2)) / (k - 1) if len(self.unseen) else 0.0
        return (float(np.var(self.influence, ddof=1)) + added) / k


def measures(items: Items, metric: str) -> bool:
    """Whether the items give this metric."""
    return metric in METRICS and METRICS[metric].numerator(items) is not None


def value(items: Items, metric: str) -> float:
    """The metric over all items. Raises KeyError where they do not give it."""
    num, den = _parts(items, metric)
    return METRICS[metric].transform(float(num.sum() / den.sum()))


def point(items: Items, metric: str) -> Point:
    """The metric and each item's influence on it (module docstring)."""
    rule, (num, den) = METRICS[metric], _parts(items, metric)
    r = float(num.sum() / den.sum())
    slope = rule.derivative(r)
    unseen = np.array(rule.extremes(r)) - r if rule.extremes else np.empty(0)
    return Point(rule.transform(r), slope * (num - r * den) / float(den.mean()), slope * unseen)


def _parts(items: Items, metric: str) -> tuple[Floats, Floats]:
    num = METRICS[metric].numerator(items)
    if num is None:
        raise KeyError(f"these items do not give {metric}: nothing was generated for them")
    return num, METRICS[metric].denominator(items)


def mean(points: Sequence[Point]) -> Point:
    """Mean over seeds evaluated on the same items."""
    influence: Floats = np.stack([p.influence for p in points]).sum(axis=0) / len(points)
    unseen: Floats = np.stack([p.unseen for p in points]).mean(axis=0)
    return Point(float(np.mean([p.value for p in points])), influence, unseen)


def difference(candidate: Point, reference: Point) -> Point:
    """Candidate - reference, paired by item."""
    return Point(
        candidate.value - reference.value,
        candidate.influence - reference.influence,
        np.subtract.outer(candidate.unseen, reference.unseen).ravel(),
    )


def ratio(candidate: Point, reference: Point) -> Point:
    """Candidate / reference, paired by item, by the delta method. Raises ZeroDivisionError for a reference of 0."""
    r = candidate.value / reference.value
    return Point(
        r,
        (candidate.influence - r * reference.influence) / reference.value,
        np.subtract.outer(candidate.unseen, r * reference.unseen).ravel() / reference.value,
    )


def item_effect(figure: Point) -> Effect:
    """A figure of fixed checkpoints: only the choice of items is by chance."""
    k = len(figure.influence)
    return Effect(figure.value, math.sqrt(figure.item_variance), max(k - 1, 1), k)


def own_effect(items: Items, metric: str) -> Effect | ShareEffect:
    """The metric of one checkpoint by itself."""
    if metric in SHARES:
        return ShareEffect(value(items, metric), len(items))
    return item_effect(point(items, metric))


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


def fixed_effect(candidates: Sequence[Items], reference: Items, metric: str) -> Effect:
    """Fresh seeds of the candidate, or one run, against a reference that is one model: candidate - reference.

    The reference has no seeds: se² = s² / n + item variance of the paired difference, s of the candidate; df = n - 1.
    Of one run no seed noise is known: the effect is that of this checkpoint, not of its recipe, and df is the items'.
    """
    points = [point(items, metric) for items in candidates]
    diff = difference(mean(points), point(reference, metric))
    seeds, k = noise([p.value for p in points]), len(reference)
    se = math.sqrt(seeds.deviation**2 / len(points) + diff.item_variance)
    return Effect(diff.value, se, min(seeds.df, k - 1) if seeds.df else k - 1, k)


def spend_alpha(study: int, confirmations: int = 3, total: float = 0.05) -> float:
    """Level of one confirmation in the `study`-th study (from 1) that confirms on the same dev split.

    Studies spend total · 6 / (π² k²), which sums to `total` over endlessly many nights; a study divides its share among
    its confirmations (Bonferroni). Like alpha investing (Foster and Stine 2008), but nothing is earned back.
    """
    if study < 1 or confirmations < 1:
        raise ValueError(f"study {study} and confirmations {confirmations} are counted from 1.")
    return total * 6 / (math.pi**2 * study**2) / confirmations
