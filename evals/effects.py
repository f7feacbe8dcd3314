"""Estimates with their bounds: what is said of a figure, whatever it was taken from. Pure."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any


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
class ShareEffect:
    """A share with the bounds of Clopper and Pearson (Biometrika 1934), which hold at any size and share.

    They are made for items that are 0 or 1. Items in between vary less than that (at equal mean), so for them the
    bounds are wider than they need be.
    """

    estimate: float
    n: int
    """Items it rests on."""

    def lower(self, level: float = 0.05) -> float:
        """One-sided lower bound: a share below it gives this estimate, or a higher one, with probability < `level`."""
        hits = self.estimate * self.n
        return float(_scipy_special().betaincinv(hits, self.n - hits + 1, level)) if hits > 0 else 0.0

    def upper(self, level: float = 0.05) -> float:
        """One-sided upper bound."""
        return 1 - ShareEffect(1 - self.estimate, self.n).lower(level)


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
