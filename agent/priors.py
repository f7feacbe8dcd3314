"""What is known of a recipe before its study's first trial: where the settings of sound ones lie.

Published rules, not results of studies: they say where to begin, and trials say where to go on. Only of pre-training
with AdamW; other methods are planned from their own defaults.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nightsmith.agent.plan import Tunable
from nightsmith.agent.proposals import Direction, ProposeRequest
from nightsmith.tools.training import Value

RATE_AT_768, RATE_EXPONENT = 6e-4, -0.83
"""Peak rate at a width of 768, and how it changes with the width: GPT-3's models (arXiv:2005.14165, table 2.1)."""
BATCH_FACTOR, BATCH_EXPONENT = 0.58, 0.571
"""Tokens of a step from the tokens of a run: the step law (arXiv:2503.04715, eq. 1). At another batch, the rate goes
with its square root (arXiv:2205.10287)."""
WITHIN = 2.0
"""Factor about the rules' values that counts as sound; of batches downwards alone: what short runs lack is updates."""
FIRST = ("learning_rate", "batch_size")
"""What matters most: other settings are offered once these have been tried in vain."""
MOST_MENDED = 2
"""Trials that may bring the same settings to their sound values, in case that the first one's move spoilt it."""


@dataclass(frozen=True)
class Sound:
    """Sound values of one setting."""

    value: Value
    """Where to begin."""
    low: float = -math.inf
    """Smallest."""
    high: float = math.inf
    """Largest."""
    words: tuple[str, ...] = ()
    """Of a setting whose values are words."""

    def holds(self, value: Value) -> bool:
        """Whether a value is sound."""
        return value in self.words if isinstance(value, str) else self.low <= value <= self.high

    def leads_away(self, value: Value, direction: Direction) -> bool:
        """Whether a change in that direction leads out, or further out."""
        if isinstance(value, str) or direction == "tune":
            return False
        return value >= self.high if direction == "raise" else value <= self.low


def sound(recipe: Mapping[str, Value]) -> dict[str, Sound]:
    """By setting; empty for recipes that nothing is known of.

    Args:
        recipe: every setting with the value that is used, `hidden_size` and `num_steps` among them.
    """
    if "hidden_size" not in recipe or recipe.get("optimizer") == "muon":
        return {}
    tokens = float(recipe["num_steps"]) * float(recipe["batch_size"]) * float(recipe["seq_len"])
    batch = max(1.0, BATCH_FACTOR * tokens**BATCH_EXPONENT / float(recipe["seq_len"]))
    batches = Sound(2 ** math.floor(math.log2(batch)), batch / WITHIN**2, batch)
    used = float(recipe["batch_size"] if batches.holds(recipe["batch_size"]) else batches.value)
    rate = RATE_AT_768 * (float(recipe["hidden_size"]) / 768) ** RATE_EXPONENT * math.sqrt(used / batch)
    return {
        "learning_rate": Sound(float(f"{rate:.2g}"), rate / WITHIN, rate * WITHIN),
        "batch_size": batches,
        "warmup_share": Sound(0.05, 0.02, 0.15),
        "weight_decay": Sound(0.1, 0.0, 0.1),
        "schedule": Sound("wsd", words=("cosine", "wsd")),  # what never decays ends above what it could reach
    }


def mended(
    recipe: Mapping[str, Value], space: Sequence[Tunable], tried: Sequence[Mapping[str, Value]]
) -> dict[str, Value]:
    """Settings that trials may change and that lie outside their sound values, each with where to begin.

    Empty where trials have had all of these already, as often as they may.

    Args:
        recipe: what the next trial starts from.
        space: what trials may change.
        tried: recipes of all trials.
    """
    known = sound(recipe)
    begin = {t.name: t.nearest(known[t.name].value) for t in space if t.name in known}
    off = {n: value for n, value in begin.items() if not known[n].holds(recipe[n]) and value != recipe[n]}
    had = sum(all(one.get(name) == value for name, value in off.items()) for one in tried)
    return off if had < MOST_MENDED else {}


def offered(request: ProposeRequest, recipe: Mapping[str, Value]) -> ProposeRequest:
    """The question without what leads away from sound values, and with what matters most alone while any is open."""
    if not sound(recipe):
        return request
    request = _without(request, unsound_ways(recipe))
    return _without(request, [change for change in request.open_changes() if change[0] not in FIRST])


def _without(request: ProposeRequest, ways: Sequence[tuple[str, Direction]]) -> ProposeRequest:
    fewer = request.model_copy(update={"not_offered": (*request.not_offered, *ways)})
    return fewer if fewer.open_changes() else request


def unsound_ways(recipe: Mapping[str, Value]) -> tuple[tuple[str, Direction], ...]:
    """(setting, direction) pairs that lead away from sound values."""
    ways: tuple[Direction, ...] = ("raise", "lower")
    known = sound(recipe).items()
    return tuple((name, way) for name, each in known for way in ways if each.leads_away(recipe[name], way))
