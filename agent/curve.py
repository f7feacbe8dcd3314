"""Inline SVG without script: the best-so-far curve of a study, and one interval per trial. Figures in, text out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from nightsmith.agent import figures

_WHISKERS_UP_TO = 150
"""Trials beyond which single intervals are only clutter."""
_RADIUS = 4.5
_CAP = 4
"""Half the width of an interval's ends."""
_LOUD = "PROMOTED"
"""The decision whose points are never drawn small."""
_OUTLIER_SPANS = 2.5
"""A point further than this many spans of the essential figures is drawn at the edge instead of squashing the rest."""


@dataclass(frozen=True)
class Point:
    """One trial's value on the dev split."""

    trial: int
    value: float
    low: float | None = None
    high: float | None = None
    decision: str = ""


@dataclass(frozen=True)
class Curve:
    """What the best-so-far picture shows, in the metric's unit."""

    metric: str
    points: Sequence[Point] = ()
    best: Sequence[tuple[int, float]] = ()
    baseline: Sequence[float] = ()
    target: float | None = None
    target_label: str = "target"


@dataclass(frozen=True)
class Frame:
    """The picture's size and the linear map of trials and values into it, in user units of the viewBox."""

    width: int = 760
    height: int = 340
    left: int = 62
    right: int = 72
    top: int = 18
    bottom: int = 40
    trials: tuple[int, int] = (0, 1)
    values: tuple[float, float] = (0.0, 1.0)
    font: int = 13
    ticks: tuple[float, ...] = field(default=())

    def x(self, trial: float) -> float:
        """Horizontal position of a trial number."""
        first, last = self.trials
        pad = 22
        span = self.width - self.left - self.right - 2 * pad
        return self.left + pad + span * (trial - first) / max(1, last - first)

    def y(self, value: float) -> float:
        """Vertical position of a value, kept inside the frame."""
        low, high = self.values
        share = (min(max(value, low), high) - low) / (high - low)
        return self.height - self.bottom - share * (self.height - self.top - self.bottom)

    def holds(self, value: float) -> bool:
        """Whether the value lies on the axis."""
        return self.values[0] <= value <= self.values[1]


def best_so_far(curve: Curve, *, width: int = 760, height: int = 340, label: str) -> str:
    """The picture as an `<svg>` element. Without any finite figure: a sentence in its place, inside the same frame."""
    curve = _finite(curve)
    frame = _frame(curve, width, height)
    line, marks, labels = _step_line(curve, frame), _marks(curve, frame), _level_labels(curve, frame)
    drawn = [*marks, *line] if _is_crowded(curve) else [*line, *marks]
    body = [*_axes(curve.metric, frame), *_levels(curve, frame), *drawn, *labels]
    if not curve.points and not curve.baseline:
        body = [_text(width / 2, height / 2, "No trial has been evaluated yet", "axis", "middle")]
    return (
        f'<svg class="curve" viewBox="0 0 {width} {height}" role="img" aria-label="{_attribute(label)}" '
        f'font-size="{frame.font}">{"".join(body)}</svg>'
    )


def interval(low: float | None, estimate: float | None, high: float | None, reach: float, target: float | None) -> str:
    """A row's estimate with its interval around zero; `reach` is the largest absolute difference of the table."""
    width, height, middle = 120, 18, 9
    reach = reach if math.isfinite(reach) and reach > 0 else 1.0

    def x(figure: float) -> float:
        return width / 2 + (width / 2 - 4) * min(max(figure / reach, -1.0), 1.0)

    body = [_line(width / 2, 1, width / 2, height - 1, "zero")]
    if target is not None and abs(target) <= reach:
        body.append(_line(x(target), 1, x(target), height - 1, "target"))
    if _known(low) and _known(high):
        body.append(_line(x(low or 0.0), middle, x(high or 0.0), middle, "whisker"))
    if _known(estimate):
        body.append(f'<circle cx="{_n(x(estimate or 0.0))}" cy="{middle}" r="3.5" class="dot"/>')
    return f'<svg class="interval" viewBox="0 0 {width} {height}" aria-hidden="true">{"".join(body)}</svg>'


def _known(figure: float | None) -> bool:
    return figure is not None and math.isfinite(figure)


def _finite(curve: Curve) -> Curve:
    """The curve without anything that cannot be drawn; an interval with one bad end is no interval."""
    points = [
        Point(p.trial, p.value, p.low, p.high, p.decision) if _known(p.low) and _known(p.high)
        else Point(p.trial, p.value, decision=p.decision)
        for p in curve.points if math.isfinite(p.value)
    ]  # fmt: skip
    best = [(trial, value) for trial, value in curve.best if math.isfinite(value)]
    baseline = [value for value in curve.baseline if math.isfinite(value)]
    target = curve.target if _known(curve.target) else None
    return Curve(curve.metric, points, best, baseline, target, curve.target_label)


def _frame(curve: Curve, width: int, height: int) -> Frame:
    last = max([*(point.trial for point in curve.points), *(trial for trial, _ in curve.best)], default=0)
    low, high = _range(curve)
    ticks = _ticks(low, high)
    return Frame(width=width, height=height, trials=(0, max(1, last)), values=(low, high), ticks=ticks)


def _range(curve: Curve) -> tuple[float, float]:
    """Axis ends: baseline, best curve and target always fit; trials too, unless they lie far off."""
    essential = [*curve.baseline, *(value for _, value in curve.best)]
    essential += [curve.target] if curve.target is not None else []
    drawn = [end for p in curve.points for end in (p.value, p.low, p.high) if end is not None]
    essential = essential or drawn or [0.0, 1.0]
    low, high = min(essential), max(essential)
    span = high - low
    if span <= 1e-9 * max(1.0, abs(low), abs(high)):  # one value only: some room around it
        span = abs(high) * 0.1 or 1.0
    near = [value for value in drawn if low - _OUTLIER_SPANS * span <= value <= high + _OUTLIER_SPANS * span]
    low, high = min([low, *near]), max([high, *near])
    margin = 0.08 * max(high - low, span)
    return low - margin, high + margin


def _ticks(low: float, high: float) -> tuple[float, ...]:
    """Four to seven round values between the ends."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next((factor for factor in (1, 2, 5) if power * factor >= rough), 10)
    first = math.ceil(low / step)
    return tuple(index * step for index in range(first, math.floor(high / step) + 1))


def _axes(metric: str, frame: Frame) -> list[str]:
    right, floor = frame.width - frame.right, frame.height - frame.bottom
    scale, unit = (100, " %") if metric in figures.SHARES else (1, "")
    step = scale * (frame.ticks[1] - frame.ticks[0] if len(frame.ticks) > 1 else 1.0)
    digits = min(6, max(0, -math.floor(math.log10(step) + 1e-9)))
    body: list[str] = []
    for tick in frame.ticks:
        body.append(_line(frame.left, frame.y(tick), right, frame.y(tick), "grid"))
        shown = f"{scale * tick:.{digits}f}{unit}".replace("-", figures.MINUS)
        body.append(_text(frame.left - 8, frame.y(tick) + 4, shown, "axis", "end"))
    for trial in _trial_ticks(frame):
        body.append(_text(frame.x(trial), floor + 18, str(trial), "axis", "middle"))
    body.append(_text((frame.left + right) / 2, frame.height - 4, "trial (0 is the baseline)", "axis", "middle"))
    return body


def _trial_ticks(frame: Frame) -> list[int]:
    last = frame.trials[1]
    room = max(1, (frame.width - frame.left - frame.right) // 60)
    step = next(s * 10**p for p in range(7) for s in (1, 2, 5) if last / (s * 10**p) <= room)
    return list(range(0, last + 1, step))


def is_barred(curve: Curve) -> bool:
    """Whether single intervals are drawn."""
    return not _is_crowded(curve)


def _is_crowded(curve: Curve) -> bool:
    return len(curve.points) > _WHISKERS_UP_TO


def _levels(curve: Curve, frame: Frame) -> list[str]:
    """Horizontal lines: the baseline's mean and the target."""
    right = frame.width - frame.right
    return [_line(frame.left, frame.y(at), right, frame.y(at), name) for name, at, _ in _named_levels(curve)]


def _level_labels(curve: Curve, frame: Frame) -> list[str]:
    """Their names, right of the last trial, one above the other where the levels are close."""
    styles = {"baseline": "level", "target": "level target-label"}
    levels = sorted(_named_levels(curve), key=lambda level: frame.y(level[1]))
    heights = [frame.y(at) + frame.font / 3 for _, at, _ in levels]
    if len(heights) == 2 and (overlap := 1.2 * frame.font - heights[1] + heights[0]) > 0:
        heights = [heights[0] - overlap / 2, heights[1] + overlap / 2]
    left = frame.width - frame.right + 4
    return [
        _text(left, height, told, styles[name], "start")
        for (name, _, told), height in zip(levels, heights, strict=True)
    ]


def _named_levels(curve: Curve) -> list[tuple[str, float, str]]:
    found = [("baseline", sum(curve.baseline) / len(curve.baseline), "baseline")] if curve.baseline else []
    return [*found, *([("target", curve.target, curve.target_label)] if curve.target is not None else [])]


def _step_line(curve: Curve, frame: Frame) -> list[str]:
    """The best value so far holds until a better one: a staircase, to the last trial."""
    if not curve.best:
        return []
    x, y = frame.x(curve.best[0][0]), frame.y(curve.best[0][1])
    path = [f"M{_n(x)} {_n(y)}"]
    for trial, value in curve.best[1:]:
        path.append(f"H{_n(frame.x(trial))}V{_n(frame.y(value))}")
    last = max([curve.best[-1][0], *(point.trial for point in curve.points)])
    return [f'<path class="best" d="{"".join(path)}H{_n(frame.x(last))}"/>']


def _marks(curve: Curve, frame: Frame) -> list[str]:
    many = _is_crowded(curve)
    body = [
        f'<circle cx="{_n(frame.x(0))}" cy="{_n(frame.y(value))}" r="3" class="seed"><title>baseline seed: '
        f"{figures.value(curve.metric, value)}</title></circle>"
        for value in curve.baseline
    ]
    small = max(1.3, frame.width / 400) if many else _RADIUS
    for point in sorted(curve.points, key=lambda point: point.decision == _LOUD):  # over the others
        radius = _RADIUS if point.decision == _LOUD else small
        body += _mark(curve.metric, point, frame, radius=radius, whisker=not many)
    return body


def _mark(metric: str, point: Point, frame: Frame, *, radius: float, whisker: bool) -> list[str]:
    x, y, title = frame.x(point.trial), frame.y(point.value), _title(metric, point)
    size = " small" if radius < _RADIUS else ""
    style = f'class="dot {_attribute(point.decision.lower())}{size}"'
    if not frame.holds(point.value):
        above = point.value > frame.values[1]
        tip, base = (y - 9, y + 1) if above else (y + 9, y - 1)
        arrow = f'<path {style} d="M{_n(x)} {_n(tip)}L{_n(x + 6)} {_n(base)}H{_n(x - 6)}Z">{title}</path>'
        far = figures.value(metric, point.value)
        return [arrow, _text(x - 10, y + (8 if above else 0), far, "level", "end")]
    body: list[str] = []
    if whisker and point.low is not None and point.high is not None:
        low, high = frame.y(point.low), frame.y(point.high)
        body.append(_line(x, low, x, high, "whisker"))
        body += [_line(x - _CAP, end, x + _CAP, end, "whisker") for end in (low, high)]
    return [*body, f'<circle {style} cx="{_n(x)}" cy="{_n(y)}" r="{radius}">{title}</circle>']


def _title(metric: str, point: Point) -> str:
    decision = f", {point.decision}" if point.decision else ""
    return f"<title>trial {point.trial}: {figures.value(metric, point.value)}{_attribute(decision)}</title>"


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line class="{style}" x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"/>'


def _text(x: float, y: float, text: str, style: str, anchor: str) -> str:
    return f'<text class="{style}" x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}">{_attribute(text)}</text>'


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def _n(position: float) -> str:
    return f"{position:.1f}".removesuffix(".0")
