"""How much fits into a budget: length of runs, trials, a confirmation. Arithmetic alone; every method plans with it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from nightsmith.agent.goal import GoalSpec
from nightsmith.agent.plan import Estimate
from nightsmith.record.errors import NightsmithError

REPORT_S = 15.0
SHARE_FOR_SLACK = 0.15
DEFAULT_TRIALS, MOST_TRIALS = 8, 200
MIN_SEEDS = 3
DEFAULT_CONFIRMATIONS = 3
LEAST_LIMIT_S, LIMIT_FACTOR = 300.0, 4.0
"""A job may take so many seconds or times its estimate, as estimates are often wrong and machines busy."""


class Blocked(NightsmithError):
    """The goal cannot be pursued as it stands; the text says what would mend it."""

    exit_code = 5


@dataclass(frozen=True)
class Machine:
    """What preflight found on this machine."""

    devices: int = 1
    """Devices that may run side by side."""
    gpus: int = 0
    """Accelerators."""
    memory_bytes: float = math.inf
    """Main memory."""
    tokens_per_s: dict[str, float] = field(default_factory=lambda: {})
    """Measured training speed of a device, by preset or by digest of the model that is fine-tuned."""
    num_measured: dict[str, int] = field(default_factory=lambda: {})
    """Runs that each speed was measured on."""
    seconds_to_deadline: float | None = None
    """Until the goal's deadline."""

    def basis(self, name: str, assumed: str) -> str:
        """What an estimate with this speed rests on."""
        runs = self.num_measured.get(name, 0)
        return f"measured on this machine ({runs} runs)" if runs else assumed


@dataclass(frozen=True)
class Costs:
    """What the runs of a study take. A run is one trial with one seed, all of its stages."""

    devices: int
    """Runs side by side."""
    seeds: int
    """Runs of a confirmation, and of a baseline that is trained."""
    fixed_s: float
    """Seconds of a run that do not depend on its length: start, evaluation."""
    train_s: float
    """Seconds of training at full length."""
    tokens: float
    """Training tokens of a run at full length."""
    sealed_s: float
    """Seconds to open the seal: the winner and the baseline, evaluated side by side."""
    reference_s: float | None = None
    """Seconds to evaluate an unmodified model as the baseline; null: the baseline is trained."""
    confirmed: bool = True
    """Whether time is kept for a confirmation."""

    def device_s(self, share: float, trials: int) -> float:
        """Device seconds of the runs of the whole study."""
        return (self.sides * self.seeds + trials) * self.run_s(share) + (self.reference_s or 0.0) + 2 * self.sealed_s

    @property
    def sides(self) -> int:
        """Sets of seeds that are trained beside the trials."""
        return int(self.reference_s is None) + int(self.confirmed)

    def run_s(self, share: float) -> float:
        """Seconds of a run of this share of its full length."""
        return self.fixed_s + share * self.train_s

    def rounds(self, trials: int) -> int:
        """Rounds of runs side by side."""
        return self.sides * math.ceil(self.seeds / self.devices) + math.ceil(trials / self.devices)

    def total_s(self, share: float, trials: int) -> float:
        """Seconds of the whole study."""
        return self.rounds(trials) * self.run_s(share) + (self.reference_s or 0.0) + self.sealed_s + REPORT_S

    def total_tokens(self, share: float, trials: int) -> float:
        """Training tokens of the whole study."""
        return share * self.tokens * (self.sides * self.seeds + trials)


@dataclass(frozen=True)
class Fitted:
    """What fits."""

    share: float
    """Length of a run as a share of the full one, at most 1."""
    max_trials: int
    max_confirmations: int
    job_limit_s: float
    estimate: Estimate
    said: tuple[str, ...]
    """Assumptions, in words."""


def fit(spec: GoalSpec, machine: Machine, costs: Costs, *, least: float, worth_confirming: float, basis: str) -> Fitted:
    """Fit a study into the goal's budget. Raises Blocked, with the seconds that would do, where not one trial fits.

    Args:
        spec: the goal with its budget.
        machine: what this machine offers.
        costs: what runs take, confirmation included.
        least: shortest run that makes sense, as a share of the full one.
        worth_confirming: shortest run beside which a confirmation is kept time for; shorter ones are not confirmed.
        basis: what the speeds rest on.
    """
    wall, trials = wall_s(spec, machine), spec.budget.max_trials
    share, said = _most(spec, costs, trials, wall), list[str]()
    if share < worth_confirming:
        costs, said = _without_confirmation(costs, said)
        share = _most(spec, costs, trials, wall)
    if share < least:
        raise Blocked(_too_small(spec, costs, least, wall))
    share = min(share, 1.0)
    if trials is None:
        trials = _trials_that_fit(costs, share, wall)
        said.append(f"No number of trials is named: at most {trials}.")
    estimate = Estimate(
        trial_s=round(costs.run_s(share), 1),
        total_s=round(costs.total_s(share, trials), 1),
        sealed_s=round(costs.sealed_s, 1),
        tokens=round(costs.total_tokens(share, trials)),
        gpu_hours=round(costs.device_s(share, trials) / 3600, 3) if machine.gpus else 0.0,
        basis=basis,
    )
    confirmations = DEFAULT_CONFIRMATIONS if costs.confirmed else 0
    return Fitted(share, trials, confirmations, _job_limit(spec, costs, share, wall), estimate, tuple(said))


def wall_s(spec: GoalSpec, machine: Machine) -> float:
    """Seconds that the study may take: budget and deadline; infinite without either."""
    return min(w for w in (spec.budget.wall_clock_s, machine.seconds_to_deadline, math.inf) if w is not None)


def seeds_per_side(spec: GoalSpec, devices: int) -> int:
    """Seeds of baseline and of a confirmation: three or more, rounded up so that no device idles in the last round."""
    asked = [int(s.value) for s in spec.settings if s.name == "seeds" and isinstance(s.value, (int, float))]
    least = max(MIN_SEEDS, *asked) if asked else MIN_SEEDS
    return least if devices >= least else math.ceil(least / devices) * devices


def _without_confirmation(costs: Costs, said: Sequence[str]) -> tuple[Costs, list[str]]:
    """Where the baseline is a model as it is, its checkpoints can be claimed without a confirmation."""
    if costs.reference_s is None:
        return costs, [*said]
    told = (
        f"A confirmation on {costs.seeds} fresh seeds does not fit into the budget: what is claimed is the best "
        "checkpoint on the sealed split, not that its recipe works again."
    )
    return replace(costs, confirmed=False), [*said, told]


def _most(spec: GoalSpec, costs: Costs, trials: int | None, wall: float) -> float:
    """The longest run that the budget holds, as a share of the full one."""
    budget, most = spec.budget, math.inf
    planned = 1 if trials is None else trials
    if wall < math.inf:
        left = wall * (1 - SHARE_FOR_SLACK) - costs.total_s(0, planned)
        most = (
            left / (costs.rounds(planned) * costs.train_s) if costs.rounds(planned) else math.copysign(math.inf, left)
        )
    if budget.per_trial_s is not None:
        most = min(most, budget.per_trial_s * (1 - SHARE_FOR_SLACK) / costs.train_s)
    if budget.tokens is not None:
        most = min(most, (1 - SHARE_FOR_SLACK) * budget.tokens / max(costs.total_tokens(1, planned), 1.0))
    return most


def _job_limit(spec: GoalSpec, costs: Costs, share: float, wall: float) -> float:
    longest = max(costs.run_s(share), costs.reference_s or 0.0, costs.sealed_s if costs.reference_s else 0.0)
    per_trial = math.inf if spec.budget.per_trial_s is None else costs.fixed_s + spec.budget.per_trial_s
    return round(min(max(LIMIT_FACTOR * longest, LEAST_LIMIT_S), wall, per_trial), 1)


def _too_small(spec: GoalSpec, costs: Costs, least: float, wall: float) -> str:
    trials = spec.budget.max_trials or 1
    enough = math.ceil(costs.total_s(least, trials) / (1 - SHARE_FOR_SLACK) / 10) * 10
    given = f"{wall:.0f} s" if wall < math.inf else "the tokens or seconds per trial"
    parts = [
        f"a baseline with {costs.seeds} seeds" if costs.reference_s is None else "the unmodified model's evaluation"
    ]
    parts += [f"{trials} trial(s)", "a confirmation" if costs.confirmed else "the sealed evaluation"]
    return (
        f"The budget is too small: {given} do not hold {parts[0]}, {parts[1]} and {parts[2]}. "
        f"About {enough} s would; fewer trials or a smaller model need less."
    )


def _trials_that_fit(costs: Costs, share: float, wall: float) -> int:
    if wall == math.inf:
        return DEFAULT_TRIALS
    fits = (t for t in range(MOST_TRIALS, 0, -1) if costs.total_s(share, t) <= wall * (1 - SHARE_FOR_SLACK))
    return next(fits, 1)
