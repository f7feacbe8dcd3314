"""Open numbers: the planner names a setting and a direction, Optuna's ask-and-tell names the value.

The sampler's state is replayed from the trials in the record each time, so there is no second truth; the seed follows
from the study and the trial number, so a resumed study asks the same question and gets the same answer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nightsmith.agent.plan import Tunable
from nightsmith.agent.proposals import Direction
from nightsmith.record.digest import canonical_json, sha256

Value = float | int | str
RESAMPLES = 16
HALF_DECADE = 10**0.5


@dataclass(frozen=True)
class Tried:
    """One judged trial as the sampler sees it."""

    recipe: dict[str, Any]
    """Its full recipe."""
    value: float
    """Its metric."""


def choose_value(
    tunable: Tunable,
    direction: Direction,
    current: Value,
    tried: Sequence[Tried],
    *,
    lower_is_better: bool,
    seed: int,
    taken: Sequence[Value] = (),
) -> Value | None:
    """A new value for one setting, or None where nothing is left in that direction.

    Args:
        tunable: the setting and its range.
        direction: where to look from `current`; `tune` looks everywhere.
        current: its value in the recipe that the trial starts from.
        tried: judged trials, replayed into the sampler.
        lower_is_better: direction of the metric.
        seed: makes the choice reproducible.
        taken: values that must not come again.
    """
    if tunable.kind == "choice":
        return _next_choice(tunable, direction, current, taken)
    low, high = _range(tunable, direction, float(current))
    if not low < high:
        return None
    known = {float(one.recipe[tunable.name]) for one in tried if tunable.name in one.recipe} - {float(current)}
    if not any(low <= value <= high for value in known) and (first := _step(tunable, direction, current)) not in taken:
        return first
    return _ask(tunable, low, high, tried, lower_is_better=lower_is_better, seed=seed, taken=taken)


def _next_choice(tunable: Tunable, direction: Direction, current: Value, taken: Sequence[Value]) -> Value | None:
    """The nearest untried choice in that direction."""
    choices = list(tunable.choices)
    here = choices.index(current) if current in choices else 0
    ahead = [(i, c) for i, c in enumerate(choices) if c != current and c not in taken]
    if direction != "tune" and not isinstance(current, str):
        ahead = [(i, c) for i, c in ahead if (i > here) == (direction == "raise")]
    return min(ahead, key=lambda ic: (abs(ic[0] - here), ic[0]))[1] if ahead else None


def _range(tunable: Tunable, direction: Direction, current: float) -> tuple[float, float]:
    """Raising looks from a noticeable step above the current value to a decade (or the rest of the range) above it."""
    low, high = float(tunable.low or 0.0), float(tunable.high or 0.0)
    if tunable.log:
        above, below = (current * 2.0, min(high, current * 10.0)), (max(low, current / 10.0), current / 2.0)
    else:
        step = 0.1 * (high - low)
        above, below = (current + step, high), (low, current - step)
    return {"raise": above, "lower": below, "tune": (low, high)}[direction]


def _step(tunable: Tunable, direction: Direction, current: Value) -> float:
    """The first value in a direction, while nothing is known there: half a decade, or a quarter of a plain range.

    Optuna's sampler would draw it at random. Without a direction it goes where there is more room.
    """
    low, high, here = float(tunable.low or 0.0), float(tunable.high or 0.0), float(current)
    if direction == "tune":
        below, above = (here / low, high / here) if tunable.log else (here - low, high - here)
        direction = "raise" if above >= below else "lower"
    if tunable.log:
        value = here * HALF_DECADE if direction == "raise" else here / HALF_DECADE
    else:
        value = here + (0.25 if direction == "raise" else -0.25) * (high - low)
    return _rounded(min(max(value, low), high))


def _ask(
    tunable: Tunable,
    low: float,
    high: float,
    tried: Sequence[Tried],
    *,
    lower_is_better: bool,
    seed: int,
    taken: Sequence[Value],
) -> float | None:
    import optuna  # here: a second of imports that only a proposal needs

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distribution = optuna.distributions.FloatDistribution(low, high, log=tunable.log)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=4)
    study = optuna.create_study(direction="minimize" if lower_is_better else "maximize", sampler=sampler)
    for one in tried:
        value = one.recipe.get(tunable.name)
        if isinstance(value, (int, float)) and low <= value <= high and math.isfinite(one.value):
            frozen = optuna.trial.create_trial(
                params={tunable.name: float(value)}, distributions={tunable.name: distribution}, value=one.value
            )
            study.add_trial(frozen)
    for _ in range(RESAMPLES):
        value = _rounded(study.ask({tunable.name: distribution}).params[tunable.name])
        if value not in taken:
            return value
    return None


def _rounded(value: float) -> float:
    """Two significant digits: a setting that a person can read and repeat."""
    return float(f"{value:.2g}")


def proposal_seed(spec_digest: str, trial: int) -> int:
    """Seed of the sampler for one trial of one goal."""
    return int(sha256(canonical_json([spec_digest, trial]))[:8], 16)
