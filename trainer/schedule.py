"""Learning-rate schedules as pure functions of the step. Torch-free."""

import math

from nightsmith.trainer.spec import PretrainSpec

FLOOR = 0.1
"""Cosine and wsd end at this share of the peak."""
WSD_DECAY_SHARE = 0.2
"""Share of the steps, at the end, over which wsd decays linearly."""


def learning_rate(spec: PretrainSpec, step: int) -> float:
    """Learning rate of the optimizer step `step` (from 0): linear warm-up to the peak, then the spec's schedule."""
    warmup = round(spec.warmup_share * spec.num_steps)
    if step < warmup:
        return spec.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, spec.num_steps - warmup)
    return spec.learning_rate * _share(spec.schedule, progress)


def _share(schedule: str, progress: float) -> float:
    """Share of the peak at `progress` in 0..1 after the warm-up."""
    if schedule == "cosine":
        return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * progress))
    if schedule == "wsd":
        return 1 - (1 - FLOOR) * max(0.0, progress - (1 - WSD_DECAY_SHARE)) / WSD_DECAY_SHARE
    return 1.0
