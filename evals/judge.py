"""The judge: results in, verdict out. Pure code; no model, no clock, no file (DESIGN §5).

Screen (dev split, one run) → confirm (dev split, fresh seeds: the recipe claim) → claim (sealed split, one look: the
checkpoint claim) → outcome. Whether a result is evidence at all is decided before, by `evals.evidence`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nightsmith.evals import stats
from nightsmith.evals.effects import Effect, ShareEffect
from nightsmith.evals.suite import Scored
from nightsmith.evals.targets import holds, is_absolute, lower_is_better, related
from nightsmith.evals.types import (
    Claim,
    Decision,
    Difference,
    GuardrailCheck,
    MetricName,
    Outcome,
    Target,
    Verdict,
)
from nightsmith.record.errors import NightsmithError

MIN_SEEDS = 3
"""Seeds a side for any statement about a recipe."""
LEVEL = 0.05
"""Of screens, intervals and claims; a confirmation uses the alpha spent for it."""


_OF_TOKENS = ("loss", "perplexity")
"""Metrics whose unit is a model's own token."""


class NotComparable(NightsmithError):
    """A claim was asked for that the given items cannot decide."""


@dataclass(frozen=True)
class _Comparison:
    """Runs of a candidate against runs of the baseline, and how much the goal asks of them."""

    candidates: Sequence[Scored]
    baseline: Sequence[Scored]
    metric: MetricName
    targets: Sequence[Target]
    guardrails: Sequence[Target]
    fixed: bool = False
    """Whether the baseline is one model that no seed was used for."""

    def observed(self, target: Target) -> float | None:
        """The targeted quantity on the means over seeds; None where these items do not measure it."""
        runs = (*self.candidates, *self.baseline)
        if target.task or target.relative_to not in (None, "baseline"):
            return None
        if not all(stats.measures(run.items, target.metric) for run in runs):
            return None
        means = [
            float(np.mean([stats.value(run.items, target.metric) for run in side]))
            for side in (self.candidates, self.baseline)
        ]
        return related(target, means[0], means[1])

    def checks(self) -> tuple[GuardrailCheck, ...]:
        """Each guardrail on the dev means. One on data that no target names is not measured here, so not kept."""
        known = {None} | {target.data for target in self.targets}
        estimates = [self.observed(guard) if guard.data in known else None for guard in self.guardrails]
        return tuple(
            GuardrailCheck(guardrail=guard, estimate=estimate, kept=estimate is not None and holds(guard, estimate))
            for guard, estimate in zip(self.guardrails, estimates, strict=True)
        )

    def meets_targets(self) -> bool:
        """Whether every target holds by the point estimate; False without any target."""
        observed = [(target, self.observed(target)) for target in self.targets]
        return bool(observed) and all(value is not None and holds(target, value) for target, value in observed)

    def verdict(
        self,
        decision: Decision,
        rule: Literal["screen", "confirm"],
        reason: str,
        *,
        effect: Effect | None = None,
        alpha: float | None = None,
        promising: bool = False,
    ) -> Verdict:
        """The verdict with every figure that is known of the comparison."""
        return Verdict(
            decision=decision,
            rule=rule,
            metric=self.metric,
            value=float(np.mean([stats.value(run.items, self.metric) for run in self.candidates])),
            estimate=effect.estimate if effect else None,
            interval=effect.interval(LEVEL) if effect else None,
            n=len(self.candidates[0].items),
            seeds=(len(self.candidates), len(self.baseline)),
            p=self.p_better(effect) if effect else None,
            alpha=alpha,
            promising=promising,
            meets_target=self.meets_targets(),
            guardrails=self.checks(),
            reason=reason,
        )

    def p_better(self, effect: Effect) -> float:
        """One-sided p-value of "the candidate is not better"."""
        return effect.p_below() if lower_is_better(self.metric, self.targets) else effect.p_above()

    def p_worse(self, effect: Effect) -> float:
        """One-sided p-value of "the candidate is not worse"."""
        return effect.p_above() if lower_is_better(self.metric, self.targets) else effect.p_below()


def screen(
    candidate: Scored,
    baseline: Sequence[Scored],
    *,
    metric: MetricName,
    targets: Sequence[Target] = (),
    guardrails: Sequence[Target] = (),
    fixed: bool = False,
) -> Verdict:
    """One dev run of a changed recipe against the baseline's seeds. Never promotes: it tells what is worth confirming.

    REJECTED where the run is credibly worse (one-sided 95 %), else INCONCLUSIVE; `promising` where it is credibly
    better than a further seed of the baseline would be, and keeps the guardrails.

    Args:
        candidate: the run.
        baseline: the baseline's runs; with `fixed` the one evaluation of a model that is not trained by the study.
        metric: what is compared.
        targets: the goal's targets, for `meets_target`.
        guardrails: the goal's guardrails.
        fixed: whether the baseline has no seeds; then only the choice of items is by chance, paired item by item.
    """
    case = _Comparison([candidate], baseline, metric, targets, guardrails, fixed)
    if unfit := _unfit(case):
        return unfit
    if not fixed and len(baseline) < MIN_SEEDS:
        reason = f"The baseline has {len(baseline)} of the {MIN_SEEDS} seeds that its noise is estimated from."
        return case.verdict(Decision.INCONCLUSIVE, "screen", reason)
    effect, noise = _effect(case, screening=True), "item noise" if fixed else "seed noise"
    if case.p_worse(effect) < LEVEL:
        return case.verdict(Decision.REJECTED, "screen", f"worse, beyond {noise}", effect=effect, alpha=LEVEL)
    if case.p_better(effect) >= LEVEL:
        return case.verdict(Decision.INCONCLUSIVE, "screen", f"within {noise}", effect=effect, alpha=LEVEL)
    kept = all(check.kept for check in case.checks())
    reason = f"better, beyond {noise}; " + ("worth confirming" if kept else "but a guardrail is not kept")
    return case.verdict(Decision.INCONCLUSIVE, "screen", reason, effect=effect, alpha=LEVEL, promising=kept)


def confirm(
    candidates: Sequence[Scored],
    baseline: Sequence[Scored],
    *,
    metric: MetricName,
    alpha: float,
    screened: Iterable[str] = (),
    targets: Sequence[Target] = (),
    guardrails: Sequence[Target] = (),
    fixed: bool = False,
) -> Verdict:
    """The recipe claim: fresh seeds of the candidate against the baseline's seeds, at the level that was spent for it.

    Args:
        candidates: fresh runs of the candidate, at least MIN_SEEDS.
        baseline: runs of the baseline, at least MIN_SEEDS; with `fixed` the one evaluation of the reference model.
        metric: what is compared.
        alpha: level of this confirmation (`stats.spend_alpha`).
        screened: digests of the checkpoints that the candidate was chosen by: they may not count again.
        targets: the goal's targets, for `meets_target`.
        guardrails: the goal's guardrails; a broken one rejects, one that cannot be measured leaves it open.
        fixed: whether the baseline is one model without seeds; the candidate needs its seeds all the same.
    """
    case = _Comparison(candidates, baseline, metric, targets, guardrails, fixed)
    if unfit := _unfit(case, frozenset(screened)):
        return unfit
    if fixed and len(candidates) < MIN_SEEDS:
        reason = f"{len(candidates)} fresh seeds: a recipe claim needs {MIN_SEEDS} of the candidate."
        return case.verdict(Decision.INCONCLUSIVE, "confirm", reason, alpha=alpha)
    if not fixed and min(len(candidates), len(baseline)) < MIN_SEEDS:
        reason = f"{len(candidates)} fresh seeds against {len(baseline)}: a recipe claim needs {MIN_SEEDS} a side."
        return case.verdict(Decision.INCONCLUSIVE, "confirm", reason, alpha=alpha)
    effect = _effect(case, screening=False)
    decision, reason = _confirmed(case, effect, alpha)
    return case.verdict(decision, "confirm", reason, effect=effect, alpha=alpha)


def claim(candidate: Scored, reference: Scored | None, target: Target) -> Claim:
    """The checkpoint claim on the sealed split: the item-level one-sided 95 % bound of the targeted quantity.

    `max` and `min` name no threshold: their claim is "strictly better than the reference". Raises NotComparable where
    the items do not decide the target: unknown metric, no reference, other items, fewer than two items.
    """
    effect = _claim_effect(candidate, reference, target)
    bound = effect.lower(LEVEL) if target.op in (">=", ">", "max") else effect.upper(LEVEL)
    return Claim(
        target=target,
        estimate=effect.estimate,
        bound=bound,
        n=effect.n,
        met=holds(target, effect.estimate),
        proven=holds(target, bound),
    )


def difference(first: Scored, second: Scored, metric: MetricName) -> Difference:
    """Two models that were evaluated once each, paired item by item: only the choice of items is by chance.

    Raises NotComparable: other items, a metric that they do not measure or that is infinite, fewer than two items, or
    tokens of two vocabularies.
    """
    if unfit := _unfit(_Comparison([first], [second], metric, (), (), fixed=True)):
        raise NotComparable(unfit.reason)
    if metric in _OF_TOKENS and not np.array_equal(first.items.num_tokens, second.items.num_tokens):
        raise NotComparable(f"{metric} is per token, and the models cut texts into other tokens: use bits_per_byte.")
    effect = stats.fixed_effect([first.items], second.items, metric)
    low, high = effect.interval(LEVEL)
    lower = lower_is_better(metric)
    better = None if low <= 0 <= high else "first" if (high < 0) == lower else "second"
    return Difference(metric=metric, estimate=effect.estimate, interval=(low, high), n=effect.n, better=better)


def outcome(claims: Sequence[Claim], *, promoted: bool, targets: Sequence[Target]) -> Outcome:
    """How a study that ran to its end ends. All targets must hold; a target without a claim is not met.

    A goal that names no threshold (only `max` and `min`, or no target) can be improved on, never met or proven.
    """
    made = {item.target: item for item in claims}
    found = [made.get(target) for target in targets]
    has_threshold = any(target.value is not None for target in targets)
    if has_threshold and all(item is not None and item.proven for item in found):
        return Outcome.PROVEN
    if has_threshold and all(item is not None and item.met for item in found):
        return Outcome.MET
    return Outcome.IMPROVED if promoted else Outcome.NOT_MET


def _effect(case: _Comparison, *, screening: bool) -> Effect:
    candidates, baseline = ([run.items for run in side] for side in (case.candidates, case.baseline))
    if case.fixed:
        return stats.fixed_effect(candidates, baseline[0], case.metric)
    if screening:
        return stats.screen_effect(candidates[0], baseline, case.metric)
    return stats.confirm_effect(candidates, baseline, case.metric)


def _confirmed(case: _Comparison, effect: Effect, alpha: float) -> tuple[Decision, str]:
    checks = case.checks()
    if case.p_worse(effect) < LEVEL:
        return Decision.REJECTED, "worse, beyond noise, on fresh seeds"
    if any(not check.kept and check.estimate is not None for check in checks):
        return Decision.REJECTED, "it breaks a guardrail"
    if case.p_better(effect) >= alpha:
        return Decision.INCONCLUSIVE, "fresh seeds do not decide"
    if not all(check.kept for check in checks):
        return Decision.INCONCLUSIVE, "better on fresh seeds, but a guardrail could not be measured"
    return Decision.PROMOTED, "better on fresh seeds"


def _unfit(case: _Comparison, screened: frozenset[str] = frozenset()) -> Verdict | None:
    """The verdict on runs that must not be compared, or None."""

    def verdict(decision: Decision, reason: str) -> Verdict:
        return Verdict(decision=decision, rule="evidence", metric=case.metric, reason=reason)

    sides, runs = (case.candidates, case.baseline), (*case.candidates, *case.baseline)
    if not case.candidates or not case.baseline:
        return verdict(Decision.UNVERIFIED, "There is no run to compare on one of the sides.")
    if case.fixed and len(case.baseline) > 1:
        return verdict(Decision.UNVERIFIED, f"A fixed reference is one evaluation, not {len(case.baseline)}.")
    if not all(stats.measures(run.items, case.metric) for run in runs):
        return verdict(Decision.UNVERIFIED, f"Item scores do not measure {case.metric}.")
    if len({run.evaluation.suite_digest for run in runs}) > 1 or not all(_same_items(runs[0], run) for run in runs):
        return verdict(Decision.TAMPERED, "The runs were not evaluated on the same suite and items.")
    if len(runs[0].items) < 2 or not all(math.isfinite(stats.value(run.items, case.metric)) for run in runs):
        return verdict(Decision.UNVERIFIED, f"A run has no finite {case.metric} on at least two items.")
    digests = [[run.evaluation.checkpoint_digest for run in side] for side in sides]
    if any(len(set(side)) < len(side) for side in digests):
        return verdict(Decision.UNVERIFIED, "One checkpoint was counted as two seeds.")
    if screened & set(digests[0]):
        return verdict(Decision.UNVERIFIED, "A run that the candidate was chosen by was counted as a fresh seed.")
    return None


def _same_items(one: Scored, other: Scored) -> bool:
    return np.array_equal(one.items.row_id, other.items.row_id) and np.array_equal(
        one.items.num_bytes, other.items.num_bytes
    )


def _claim_effect(candidate: Scored, reference: Scored | None, target: Target) -> Effect | ShareEffect:
    if not stats.measures(candidate.items, target.metric):
        measured = ", ".join(metric for metric in stats.METRICS if stats.measures(candidate.items, metric))
        raise NotComparable(f"Items do not measure {target.metric}; they measure {measured}.")
    if len(candidate.items) < 2:
        raise NotComparable("A bound needs at least two sealed items; reserve a larger fold when the data are built.")
    if is_absolute(target):
        return stats.own_effect(candidate.items, target.metric)
    if reference is None or not stats.measures(reference.items, target.metric):
        raise NotComparable(f"The target {target.op} {target.value} is relative; evaluate its reference as well.")
    if candidate.evaluation.suite_digest != reference.evaluation.suite_digest or not _same_items(candidate, reference):
        raise NotComparable("Candidate and reference were evaluated on different items; evaluate both on one fold.")
    return _paired_effect(candidate, reference, target)


def _paired_effect(candidate: Scored, reference: Scored, target: Target) -> Effect:
    figures = [stats.point(run.items, target.metric) for run in (candidate, reference)]
    if target.relation != "ratio" or target.value is None:
        return stats.item_effect(stats.difference(*figures))
    if figures[1].value == 0:
        raise NotComparable(
            f"The reference's {target.metric} is 0, and nothing is a multiple of it; state the target as a value or as "
            "a difference."
        )
    return stats.item_effect(stats.ratio(*figures))
