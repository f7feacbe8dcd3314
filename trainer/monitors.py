"""Monitors: pure rules over the figures of a run's steps that say when to stop it, and why. Torch-free.

Figures are TRL's, under its names, one mapping a step; a figure that a step lacks is not judged there. Rises and falls
are those between the first and the last `window` steps, so that nothing is said before two windows are full.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, variance

from pydantic import Field

from nightsmith.record.digest import Contract

REWARD, VERIFIER, FAILED = "reward", "verifier/mean", "rewards/failed_share"
KL, SAMPLING, ENTROPY = "kl", "sampling/sampling_logp_difference/mean", "entropy"
LENGTH, CLIPPED, DEAD = "completions/mean_length", "completions/clipped_ratio", "router/dead_share"
FINITE = ("loss", "grad_norm", REWARD, VERIFIER, KL, ENTROPY)
"""Figures that must be finite where they are known."""
Z = 3.0
"""Standard errors that make a rise certain: one-sided 0.1 %, as each step asks anew."""
ROBUST = 1.4826
"""Median absolute deviation to standard deviation, for normal noise."""

LOSS_SPREAD = 0.05
"""The least deviation that is believed of the loss: that of answers just drawn is about 0."""

Figures = Mapping[str, float]
"""Figure -> value of one step."""


class MonitorLimits(Contract):
    """Thresholds of the monitors; null switches a monitor off."""

    window: int = Field(default=10, ge=3)
    """Steps that are compared: the last ones with the first ones."""
    patience: int = Field(default=3, ge=1)
    """Steps in a row that must be beyond a threshold, where no window is compared."""
    reward_rise: float | None = Field(default=0.1, gt=0)
    """`reward_hacking`: a certain rise of the reward by so much, ..."""
    verifier_share: float = Field(default=0.2, ge=0, lt=1)
    """... while the verifier certainly rises by less than this share of it."""
    max_failed_share: float | None = Field(default=0.5, gt=0, le=1)
    """`failed_scorings`: share of a step's completions that could not be scored."""
    max_kl: float | None = Field(default=1.0, gt=0)
    """`kl`: divergence from the model that was started from, nats a token (known where beta is above 0)."""
    max_sampling_difference: float | None = Field(default=0.5, gt=0)
    """`kl`: mean difference between the log-probabilities of sampler and trainer, nats a token (with vLLM)."""
    max_entropy_ratio: float | None = Field(default=4.0, gt=1)
    """`entropy`: rise above the first steps' entropy by this factor, and by 0.5 nats."""
    min_entropy_ratio: float | None = Field(default=0.02, gt=0, lt=1)
    """`entropy`: fall below the first steps' entropy by this factor, without a rise of what is rewarded."""
    max_length_ratio: float | None = Field(default=3.0, gt=1)
    """`length`: completions longer or shorter than the first by this factor (and 8 tokens), without such a rise."""
    max_clipped_share: float | None = Field(default=0.95, gt=0, le=1)
    """`length`: share of completions that are cut at their longest, over a window, unless it was so at first."""
    spike: float | None = Field(default=12.0, gt=1)
    """`loss_spike`: robust standard deviations of the loss from its median in the window before."""
    grad_norm_ratio: float | None = Field(default=10.0, gt=1)
    """`loss_spike`: gradient norm, before clipping, above its median in the window before by this factor."""
    max_dead_share: float | None = Field(default=0.5, gt=0, le=1)
    """`dead_experts`: share of all experts that no token chose, over a whole window, and more than at first."""


@dataclass(frozen=True)
class Alarm:
    """Why a run is to be stopped."""

    monitor: str
    """Name of the monitor."""
    reason: str
    """What it saw, and what mends it."""


@dataclass(frozen=True)
class Change:
    """Mean of the last steps less that of the first, and its standard error."""

    first: float
    last: float
    error: float

    @property
    def estimate(self) -> float:
        """The change."""
        return self.last - self.first

    @property
    def lower(self) -> float:
        """What it is at least."""
        return self.estimate - Z * self.error

    @property
    def upper(self) -> float:
        """What it is at most."""
        return self.estimate + Z * self.error


def check(history: Sequence[Figures], limits: MonitorLimits) -> Alarm | None:
    """The first alarm that the newest step of a history gives; None where all is well."""
    found = ((name, monitor(history, limits)) for name, monitor in MONITORS.items())
    return next((Alarm(name, reason) for name, reason in found if reason), None)


def change(history: Sequence[Figures], figure: str, window: int) -> Change | None:
    """How a figure changed; None before two windows are full."""
    values = [step[figure] for step in history if figure in step]
    if len(values) < 2 * window:
        return None
    first, last = values[:window], values[-window:]
    error = math.sqrt((variance(first) + variance(last)) / window)
    return Change(fmean(first), fmean(last), error)


def _not_finite(history: Sequence[Figures], limits: MonitorLimits) -> str | None:  # noqa: ARG001
    bad = [name for name in FINITE if name in history[-1] and not math.isfinite(history[-1][name])] if history else []
    return f"{bad[0]} is {history[-1][bad[0]]:g}. Lower the learning rate." if bad else None


def _failed_scorings(history: Sequence[Figures], limits: MonitorLimits) -> str | None:
    failed = _lately(history, FAILED, limits.patience)
    if limits.max_failed_share is None or not failed or min(failed) < limits.max_failed_share:
        return None
    return (
        f"{min(failed):.0%} or more of the completions of the last {len(failed)} steps could not be scored (at most "
        f"{limits.max_failed_share:.0%}). Mend the reward; its errors are in the evidence."
    )


def _reward_hacking(history: Sequence[Figures], limits: MonitorLimits) -> str | None:
    reward, verified = (change(history, figure, limits.window) for figure in (REWARD, VERIFIER))
    if limits.reward_rise is None or reward is None or verified is None or reward.lower < limits.reward_rise:
        return None
    if verified.upper > limits.verifier_share * reward.estimate:
        return None
    return (
        f"The reward rose from {reward.first:.3g} to {reward.last:.3g} while the verifier, which is not trained on, "
        f"went from {verified.first:.3g} to {verified.last:.3g}: the model is paid for something else than what is "
        "wanted. Change the reward."
    )


def _kl(history: Sequence[Figures], limits: MonitorLimits) -> str | None:
    bounds = ((KL, limits.max_kl), (SAMPLING, limits.max_sampling_difference))
    for figure, bound in bounds:
        lately = _lately(history, figure, limits.patience)
        if bound is not None and lately and min(lately) > bound:
            return (
                f"{figure} is {lately[-1]:.3g} nats a token, above {bound:g} for {len(lately)} steps. Lower the "
                "learning rate or raise beta."
            )
    return None


def _entropy(history: Sequence[Figures], limits: MonitorLimits) -> str | None:
    found = change(history, ENTROPY, limits.window)
    if found is None:
        return None
    most, least = limits.max_entropy_ratio, limits.min_entropy_ratio
    if most is not None and found.last > max(most * found.first, found.first + 0.5):
        return (
            f"The policy's entropy rose from {found.first:.3g} to {found.last:.3g} nats a token: it drifts into noise. "
            "Lower the learning rate."
        )
    if least is not None and found.last < least * found.first and not _improves(history, limits):
        return (
            f"The policy's entropy fell from {found.first:.3g} to {found.last:.3g} nats a token without a gain: it no "
            "longer explores. Lower the learning rate, or raise temperature or beta."
        )
    return None


def _length(history: Sequence[Figures], limits: MonitorLimits) -> str | None:
    found, factor = change(history, LENGTH, limits.window), limits.max_length_ratio
    if found is None or _improves(history, limits):
        return None
    drifted = factor is not None and not found.first / factor <= found.last <= found.first * factor
    if drifted and abs(found.estimate) >= 8:
        return (
            f"Completions went from {found.first:.3g} to {found.last:.3g} tokens without a gain. Change what the "
            "reward pays for length."
        )
    clipped, most = change(history, CLIPPED, limits.window), limits.max_clipped_share
    if most is not None and clipped is not None and clipped.first < most <= clipped.last:
        return (
            f"{clipped.last:.0%} of the completions are cut at their longest ({clipped.first:.0%} at first), without a "
            "gain. Raise max_completion_length, or change what the reward pays for length."
        )
    return None


def _loss_spike(history: Sequence[Figures], limits: MonitorLimits) -> str | None:
    if len(history) < limits.window + limits.patience:
        return None
    before, lately = history[-limits.window - limits.patience : -limits.patience], history[-limits.patience :]
    for figure, is_far in SPIKES.items():
        # Where all answers to a prompt are paid alike, nothing is learned and the gradient is 0: that is no scale.
        values = [step[figure] for step in before if step.get(figure)]
        spikes = [step[figure] for step in lately if figure in step and values and is_far(step[figure], values, limits)]
        if 2 * len(values) > len(before) and len(spikes) == len(lately):
            return (
                f"{figure} has been {', '.join(f'{spike:.3g}' for spike in spikes)} after a median of "
                f"{median(values):.3g}. Lower the learning rate."
            )
    return None


def _dead_experts(history: Sequence[Figures], limits: MonitorLimits) -> str | None:
    dead = change(history, DEAD, limits.window)
    if limits.max_dead_share is None or dead is None or dead.last < limits.max_dead_share or dead.estimate <= 0:
        return None
    return (
        f"{dead.last:.0%} of the experts are chosen by no token ({dead.first:.0%} at first). Freeze the routers, or "
        "lower the learning rate."
    )


MONITORS: dict[str, Callable[[Sequence[Figures], MonitorLimits], str | None]] = {
    "not_finite": _not_finite,
    "failed_scorings": _failed_scorings,
    "reward_hacking": _reward_hacking,
    "kl": _kl,
    "entropy": _entropy,
    "length": _length,
    "loss_spike": _loss_spike,
    "dead_experts": _dead_experts,
}
"""Name -> rule; each returns its reason, or None. Asked in this order."""


def _improves(history: Sequence[Figures], limits: MonitorLimits) -> bool:
    """Whether what is wanted certainly rose: the verifier where there is one, else the reward."""
    found = change(history, VERIFIER, limits.window) or change(history, REWARD, limits.window)
    return found is not None and found.lower > 0


def _lately(history: Sequence[Figures], figure: str, patience: int) -> list[float]:
    """The figure's values in the last steps, or none where not all of them have it."""
    values = [step[figure] for step in history[-patience:] if figure in step]
    return values if len(values) == patience else []


def _is_far_loss(value: float, before: Sequence[float], limits: MonitorLimits) -> bool:
    """Whether a loss is too many robust deviations, each of at least a tenth of the median, from the median."""
    centre = median(before)
    spread = ROBUST * median(abs(each - centre) for each in before)
    least = max(LOSS_SPREAD, 0.1 * abs(centre))
    return limits.spike is not None and abs(value - centre) > limits.spike * max(spread, least)


def _is_far_norm(value: float, before: Sequence[float], limits: MonitorLimits) -> bool:
    """Whether a gradient norm is too many times the median.

    Norms of GRPO have a heavy tail, as few answers with large advantages decide each, and a window's deviation says
    little of it; clipping bounds what a step does. Healthy runs had three steps in a row at 3 times the median.
    """
    return limits.grad_norm_ratio is not None and value > limits.grad_norm_ratio * median(before)


SPIKES: dict[str, Callable[[float, Sequence[float], MonitorLimits], bool]] = {
    "loss": _is_far_loss,
    "grad_norm": _is_far_norm,
}
"""Figures that spike, and what a spike of each is, given those of the window before."""
