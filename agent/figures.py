"""How figures are written: metrics with their unit, durations, counts. Rounded for reading, never evidence."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from nightsmith.evals.targets import is_absolute
from nightsmith.evals.types import LOWER_IS_BETTER, Target

SHARES = frozenset({"exact_match", "accuracy", "macro_f1", "token_f1", "f1", "pass_at_1", "rouge_l", "win_rate"})
"""Metrics between 0 and 1."""
_LABELS: Mapping[str, str] = {
    "exact_match": "exact match",
    "macro_f1": "macro F1",
    "token_f1": "token F1",
    "f1": "F1",
    "pass_at_1": "pass@1",
    "bits_per_byte": "bits per byte",
    "rouge_l": "ROUGE-L",
    "win_rate": "win rate",
    "output_tokens": "output tokens",
}
_OPERATORS: Mapping[str, str] = {
    ">=": "at least",
    "<=": "at most",
    ">": "above",
    "<": "below",
    "max": "as high as possible",
    "min": "as low as possible",
}
MINUS = "\N{MINUS SIGN}"
UNCHANGED = "the recipe as it is"
"""What a trial without a change runs: the plan's recipe for the first time, or a recipe with another seed."""


def metric_label(metric: str) -> str:
    """Name of a metric as a reader knows it."""
    return _LABELS.get(metric, metric)


def lower_is_better(metric: str, target: Target | None = None) -> bool:
    """Whether smaller values of the metric are better; a custom metric takes it from its target's operator."""
    if target is not None and metric == "custom":
        return target.op in ("<=", "<", "min")
    return metric in LOWER_IS_BETTER


def counted(number: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def value(metric: str, figure: float | None) -> str:
    """A metric's value: shares in per cent, others with four decimals; `–` where there is none."""
    if figure is None or not math.isfinite(figure):
        return "–"
    if metric == "output_tokens":
        return f"{figure:,.1f}"
    text = f"{100 * figure:.1f} %" if metric in SHARES else decimal(figure)
    return text.replace("-", MINUS)


def difference(metric: str, figure: float | None) -> str:
    """A signed difference of two values of the metric; shares in points."""
    if figure is None or not math.isfinite(figure):
        return "–"
    text = f"{100 * figure:+.1f} points" if metric in SHARES else f"{figure:+.4f}"
    return text.replace("-", MINUS)


def estimated(metric: str, estimate: float, interval: Sequence[float] | None) -> str:
    """`−0.2100 [−0.2500, −0.1700]`: a difference and its interval, where there is one."""
    shown = difference(metric, estimate)
    if interval is None:
        return shown
    low, high = (difference(metric, end) for end in interval)
    return f"{shown} [{low}, {high}]"


def decimal(figure: float) -> str:
    """Four decimals below 1,000, none above."""
    return f"{figure:.4f}" if abs(figure) < 1000 else f"{figure:,.0f}"


def p_value(figure: float | None) -> str:
    """A p-value or level, `< 0.0001` where four decimals do not show it."""
    if figure is None:
        return "–"
    return "< 0.0001" if 0 <= figure < 0.0001 else f"{figure:.4f}"


def duration(seconds: float | None) -> str:
    """`0.4 s`, `12 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def moment(at: datetime, timezone: str) -> str:
    """`Mon 2026-03-30 22:00`, by the clock of a time zone."""
    return f"{at.astimezone(ZoneInfo(timezone)):%a %Y-%m-%d %H:%M}"


def span(begun: datetime, ended: datetime | None) -> str:
    """`2026-11-23 22:00 to 22:04 UTC`; without an end, when it began."""
    began = f"{begun.astimezone(UTC):%Y-%m-%d %H:%M}"
    if ended is None:
        return f"begun {began} UTC"
    shown = f"{ended.astimezone(UTC):%Y-%m-%d %H:%M}"
    return f"{began} to {shown.removeprefix(began[:11])} UTC"


def count(number: float | None) -> str:
    """`812`, `65.5 k`, `1.2 M`, `3.4 G`."""
    if number is None or not math.isfinite(number):
        return "–"
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(number) >= size:
            return f"{number / (1e3 if unit == ' k' else size):.1f}{unit}"
    return f"{number:,.0f}"


def setting(figure: float | int | str) -> str:
    """A setting's value, without digits that nobody typed."""
    return f"{figure:.4g}" if isinstance(figure, float) else str(figure)


def change(settings: Mapping[str, float | int | str]) -> str:
    """`learning_rate = 0.003, schedule = wsd`."""
    return ", ".join(f"{name} = {setting(figure)}" for name, figure in settings.items()) or UNCHANGED


def against(target: Target, figure: float) -> str:
    """A targeted quantity in words: `0.3100 below the baseline`, `0.50 times the baseline`, `85.0 %`.

    Of `max` and `min`, which name no threshold, it is the difference from the baseline.
    """
    if is_absolute(target):
        return value(target.metric, figure)
    if target.relation == "ratio":
        return f"{figure:.3f} times {_reference(target)}"
    side = "below" if figure < 0 else "above"
    amount = difference(target.metric, abs(figure)).lstrip("+")
    return f"{amount} {side} {_reference(target)}"


def target_words(target: Target) -> str:
    """A target in words: `bits per byte at least 0.1500 below the baseline`."""
    name = target.name or metric_label(target.metric)
    place = f" on {target.task}" if target.task else ""
    if target.value is None:
        return f"{name}{place} {_OPERATORS[target.op]}"
    return f"{name}{place} {_bound_words(target, target.value)}"


def _bound_words(target: Target, threshold: float) -> str:
    """Differences are read by size and side, so that `<= -0.15` is `at least 0.1500 below`."""
    if target.relative_to is None or target.relation == "ratio":
        return f"{_OPERATORS[target.op]} {against(target, threshold)}"
    if threshold == 0:
        level = {">=": "no lower than", ">": "above", "<=": "no higher than", "<": "below"}
        return f"{level[target.op]} {_reference(target)}"
    by_size = {">=": "at least", ">": "more than", "<=": "at most", "<": "less than"}
    turned = {">=": "at most", ">": "less than", "<=": "at least", "<": "more than"}
    return f"{(turned if threshold < 0 else by_size)[target.op]} {against(target, threshold)}"


def _reference(target: Target) -> str:
    return "the baseline" if target.relative_to in (None, "baseline") else str(target.relative_to)
