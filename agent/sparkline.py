"""A row of blocks that shows how figures went, for one line of a terminal."""

import math
from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(figures: Sequence[float], width: int = 24) -> str:
    """One block a figure, the lowest for the smallest; longer rows are thinned to `width`. Empty without any figure."""
    known = [figure for figure in figures if math.isfinite(figure)]
    shown = _thinned(known, width)
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    if high - low <= 1e-12 * max(1.0, abs(high)):
        return _BLOCKS[3] * len(shown)
    return "".join(_BLOCKS[round((figure - low) / (high - low) * (len(_BLOCKS) - 1))] for figure in shown)


def _thinned(figures: Sequence[float], width: int) -> list[float]:
    """The newest figure of each of `width` equal stretches."""
    if len(figures) <= width:
        return list(figures)
    return [figures[(index + 1) * len(figures) // width - 1] for index in range(width)]
