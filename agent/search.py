"""Open numbers: the planner names a setting and a direction, Optuna's ask-and-tell names the value.

The sampler's state is replayed from the trials in the record each time, so there is no second truth; the seed follows
from the study and the trial number, so a resumed study asks the same question and gets the same answer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nightsmith.agent.plan import Tunable
from nightsmith.agent.priors import Sound
from nightsmith.agent.proposals import Direction
from nightsmith.record.digest import canonical_json, sha256

Value = float | int | str
RESAMPLES = 16
STEP_LOG, STEP_SHARE = math.log(10) / 2, 0.25
"""First step in a direction: on a logarithmic scale, and as a share of a plain range."""
LEAST_STEP = 0.2
"""Share of the first step below which a value is as good as the one that is there."""


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
    sound: Sound | None = None,
) -> Value | None:
    """A new value for one setting, or None where nothing is left in that direction.

    Args:
        tunable: the setting and its range.
        direction: where to look from `current`; `tune` looks on both sides.
        current: its value in the recipe that the trial starts from.
        tried: judged trials, replayed into the sampler.
        lower_is_better: direction of the metric.
        seed: makes the choice reproducible.
        taken: values that must not come again.
        sound: where sound values lie; from outside they are tried first.
    """
    if sound is not None and not sound.holds(current) and _leads_to(sound, current, direction):
        begin = tunable.nearest(sound.value)
        if begin not in (*taken, current):
            return begin
    if tunable.kind == "choice":
        return _next_choice(tunable, direction, current, taken, sound)
    here = float(current)
    if direction != "tune":
        return _step(tunable, direction, here, taken, sound)
    ends = {way: _step(tunable, way, here, taken, sound) for way in ("raise", "lower")}
    if all(value == current for value in taken):
        return ends[_roomier(tunable, here)]
    low, high = ends["lower"] or here, ends["raise"] or here
    asked = (*taken, current)
    return (
        _ask(tunable, low, high, tried, lower_is_better=lower_is_better, seed=seed, taken=asked) if low < high else None
    )


def _next_choice(
    tunable: Tunable, direction: Direction, current: Value, taken: Sequence[Value], sound: Sound | None
) -> Value | None:
    """The nearest untried choice, sound ones first; in a direction of three or more the middle one, as a search by
    halves would.
    """
    choices = list(tunable.choices)
    here = choices.index(current) if current in choices else 0
    ahead = [(i, c) for i, c in enumerate(choices) if c != current and c not in taken]
    if direction != "tune" and not isinstance(current, str):
        ahead = [(i, c) for i, c in ahead if (i > here) == (direction == "raise")]
        ahead.sort(key=lambda ic: abs(ic[0] - here))
        return ahead[(len(ahead) - 1) // 2][1] if ahead else None
    unsound = {c for _, c in ahead if sound is not None and not sound.holds(c)}
    return min(ahead, key=lambda ic: (ic[1] in unsound, abs(ic[0] - here), ic[0]))[1] if ahead else None


def _leads_to(sound: Sound, current: Value, direction: Direction) -> bool:
    if direction == "tune" or isinstance(current, str) or isinstance(sound.value, str):
        return True
    return (sound.value > current) == (direction == "raise")


def _roomier(tunable: Tunable, current: float) -> Direction:
    """Where there is more of the range."""
    low, high = float(tunable.low or 0.0), float(tunable.high or 0.0)
    below, above = (current / low, high / current) if tunable.log else (current - low, high - current)
    return "raise" if above >= below else "lower"


def _step(
    tunable: Tunable, direction: Direction, current: float, taken: Sequence[Value], sound: Sound | None
) -> float | None:
    """To the edge of the sound values, or half a decade on, or a quarter of a plain range; half-way to the next value
    that was tried; None: too near.

    A sampler that knows little would draw it at random, and could go where the trials already say that it is worse.
    """
    to, back = (math.log, math.exp) if tunable.log else (float, float)
    low, high, here = to(float(tunable.low or 0.0)), to(float(tunable.high or 0.0)), to(current)
    sign, step = (1 if direction == "raise" else -1), STEP_LOG if tunable.log else STEP_SHARE * (high - low)
    end = high if sign > 0 else low
    on_the_way = [to(float(value)) for value in taken]
    between = [sign * (value - here) for value in on_the_way if sign * (value - here) > 0]
    edges = [sign * (to(edge) - here) for edge in _edges(sound) if sign * (edge - current) > 0]
    edges = [distance for distance in edges if distance > LEAST_STEP * step]
    room = min([sign * (end - here), step, *edges, *(distance / 2 for distance in between)])
    return _rounded(back(here + sign * room)) if room > LEAST_STEP * step else None


def _edges(sound: Sound | None) -> list[float]:
    """Least and largest sound value, where there are any above 0."""
    return [edge for edge in (sound.low, sound.high) if 0 < edge < math.inf] if sound else []


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
