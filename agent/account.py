"""The study in sentences, rendered by code: how it ended, what it may be taken for, how to do it again."""

import shlex
from pathlib import Path

from nightsmith.agent import figures
from nightsmith.agent.escape import plain
from nightsmith.agent.standing import Standing
from nightsmith.agent.view import Signature, StudyView, TrialView
from nightsmith.evals.targets import is_absolute
from nightsmith.evals.types import Claim, Decision, Outcome, Target

SEAL_STRENGTH = {
    "policy": "jobs were given only the published train and dev files; nothing but that rule kept them from the fold",
    "jail": "agent-written code ran in a sandbox that had neither the workspace nor the sources",
    "user": "the fold belongs to another user of the machine",
}


_STANDING = {
    Standing.ENDED: "has no outcome",
    Standing.RUNNING: "is running",
    Standing.ANSWER: "needs an answer",
    Standing.APPROVAL: "needs approval",
    Standing.PAUSED: "is paused",
}


_APPROVED = {
    "flag": "beforehand (--yes)",
    "console": "at the terminal",
    "schedule": "for every night of the schedule",
}


def outcome_sentence(view: StudyView) -> str:
    """One plain sentence, outcome first, every figure with what it rests on."""
    if view.outcome is None:
        return f"UNFINISHED: {_progress(view)}; nothing is claimed yet."
    name = view.outcome.value.replace("_", " ")
    sentences = {
        Outcome.PROVEN: _claimed,
        Outcome.MET: _claimed if view.claims else _done,
        Outcome.IMPROVED: _improved,
        Outcome.NOT_MET: _not_met,
        Outcome.STOPPED: _ended,
        Outcome.BLOCKED: _ended,
    }
    return f"{name}: {sentences[view.outcome](view)}"


def claim_words(claim: Claim) -> str:
    """`bits per byte 0.3100 below the baseline (95 % bound 0.2800; n = 96 sealed items)`."""
    name = claim.target.name or figures.metric_label(claim.target.metric)
    estimate, bound = figures.against(claim.target, claim.estimate), figures.against(claim.target, claim.bound)
    if not is_absolute(claim.target) and claim.estimate * claim.bound > 0:  # on the same side, which was just named
        bound = bound.split(" times ")[0].split(" below ")[0].split(" above ")[0]
    return f"{name} {estimate} (95 % bound {bound}; n = {claim.n} sealed items)"


def reached_words(claim: Claim) -> str:
    """Whether the target is reached: by the bound, by the estimate alone, or not. Without a threshold: any better."""
    if claim.target.value is None:
        return "better, by the bound" if claim.proven else "better, by the estimate" if claim.met else "not better"
    return "proven" if claim.proven else "by the estimate" if claim.met else "no"


def targets_words(view: StudyView) -> str:
    """The goal's targets in words."""
    targets = view.spec.targets if view.spec else ()
    return "; ".join(figures.target_words(target) for target in targets) or "none named"


def estimate_words(view: StudyView, trial: TrialView) -> str:
    """`−0.2100 [−0.2500, −0.1700]`: the deciding verdict's difference from the baseline."""
    verdict = trial.verdict
    if verdict is None or verdict.estimate is None:
        return "–"
    return figures.estimated(view.metric, verdict.estimate, verdict.interval)


def seeds_words(view: StudyView, trial: TrialView) -> str:
    """`3 seeds against 4`; against a model as it is, which has none: `3 seeds`."""
    if trial.verdict is None:
        return "–"
    own, reference = trial.verdict.seeds
    return (
        figures.counted(own, "seed")
        if view.has_fixed_reference
        else f"{figures.counted(own, 'seed')} against {reference}"
    )


def expectation_words(trial: TrialView) -> str:
    """What the proposer expected, and whether the interval bears it out; empty where nothing was expected."""
    predicted, verdict = trial.plan.predicted if trial.plan else None, trial.verdict
    if predicted is None:
        return ""
    expected = f"expected {predicted.direction} {figures.metric_label(predicted.metric)}"
    if verdict is None or verdict.interval is None or verdict.metric != predicted.metric:
        return f"{expected}: not measured"
    low, high = verdict.interval
    lower = predicted.direction == "lower"
    if low <= 0 <= high:
        return f"{expected}: not decided"
    return f"{expected}: {'borne out' if (high < 0) == lower else 'the contrary was seen'}"


def guardrail_words(trial: TrialView) -> str:
    """Each guardrail of the deciding verdict, and whether it was kept; empty without any."""
    told: list[str] = []
    for check in trial.verdict.guardrails if trial.verdict else ():
        seen = "not measured" if check.estimate is None else figures.against(check.guardrail, check.estimate)
        kept = "kept" if check.kept else "not kept"
        told.append(f"guardrail {figures.target_words(check.guardrail)}: {kept} ({seen})")
    return "; ".join(told)


def cost_words(view: StudyView) -> str:
    """`2 min 24 s of 9 min 00 s, 4 min 15 s of CPU time, 4.1 M tokens`."""
    spent, allowed = view.spent, view.spent.allowed
    limit = f" of {figures.duration(allowed.wall_clock_s)}" if allowed.wall_clock_s else ""
    gpu = f", {spent.amount.gpu_hours:.2f} GPU-hours" if spent.amount.gpu_hours else ""
    time = f"{figures.duration(spent.active_s)}{limit}"
    tokens = figures.count(spent.amount.tokens)
    return f"{time}, {figures.duration(spent.amount.cpu_s)} of CPU time{gpu}, {tokens} tokens"


def seal_words(view: StudyView) -> str:
    """Whether the sealed split was opened, the seal's strength in plain words, and its looks."""
    seal = view.seal
    meaning = SEAL_STRENGTH.get(seal.strength, "a strength that this version does not know")
    strength = f"Strength of the seal: {seal.strength} ({meaning})."
    if not seal.opened:
        return f"The sealed split was not opened, and nothing is claimed about a checkpoint. {strength}"
    fold = "" if seal.fold is None else f"Fold {seal.fold} of the sealed split was opened. "
    looks = "" if seal.looks is None else f" Looks taken at it, by every study: {seal.looks} of {seal.allowed}."
    return f"{fold}{strength}{looks}"


def night_words(view: StudyView) -> str:
    """Which scheduled night it was; empty where a person began the study."""
    night = view.night
    if night is None:
        return ""
    due = figures.moment(night.due_at, night.timezone)
    until = f" until {figures.moment(night.ends_at, night.timezone)[-5:]}" if night.ends_at else ""
    return f"Nobody was watching: the schedule {night.schedule} started it, due {due}{until} ({night.timezone})."


def approval_words(signature: Signature) -> str:
    """Who approved what was run, when, and by what."""
    how = _APPROVED.get(signature.how, signature.how)
    return f"Approved by {signature.by} {how}, {signature.at:%Y-%m-%d %H:%M} UTC."


def commands(view: StudyView) -> tuple[tuple[str, str], ...]:
    """What a person types to do it again: (what it does, the command line)."""
    lines = [
        (
            f"The whole study{' (the planner may propose other trials)' if view.trains else ''}",
            f"nightsmith run {shlex.quote(plain(view.goal))}",
        )
    ]
    if view.winner_key:
        spec = Path(view.workspace) / "runs" / view.winner_key / "spec.json"
        lines.append(("Only the winner's training, from its own spec", f"nightsmith train {shlex.quote(str(spec))}"))
    return tuple(lines)


def limits(view: StudyView) -> tuple[str, ...]:
    """What the figures may not be taken for."""
    if not view.trains:
        return (*_limits_of_state(view), *_limits_untrained(view))
    found = [*_limits_of_state(view), *_limits_of_screening(view), *_limits_of_recipe(view), *_limits_of_seal(view)]
    return tuple(found)


def _claimed(view: StudyView) -> str:
    if not view.claims:
        return f"{view.reason or 'no claim was recorded'}."
    told = "; ".join(claim_words(claim) for claim in view.claims)
    target = "; ".join(_short_target(claim.target) for claim in view.claims)
    verb = "is cleared by the bound" if view.outcome is Outcome.PROVEN else "is met by the estimate, not by the bound"
    return f"{told}. The target, {target}, {verb}."


def _improved(view: StudyView) -> str:
    helped = [trial for trial in view.proposed if trial.decision is Decision.PROMOTED and trial.confirm]
    if not helped:
        return f"{view.reason or 'no promoted trial was recorded'}."
    trial = best_confirmed(view, helped)
    verdict = trial.confirm
    assert verdict is not None
    change = figures.difference(view.metric, verdict.estimate)
    seeds = f"{verdict.seeds[0]} fresh seeds against {verdict.seeds[1]}"
    told = f"trial {trial.number} changes {figures.metric_label(view.metric)} by {change} on the dev split ({seeds})"
    return f"{told}. {_target_not_reached(view)}"


def _nearest(view: StudyView) -> str:
    """The best of what was confirmed, else screened, with what decided against it; empty where nothing was better."""
    sign = 1 if view.lower_is_better else -1
    judged = [trial for trial in view.proposed if trial.verdict and trial.verdict.estimate is not None]
    confirmed = [trial for trial in judged if trial.confirm]
    found = min(confirmed or judged, key=lambda trial: sign * _estimate(trial), default=None)
    if found is None or sign * _estimate(found) >= 0:
        return ""
    verdict = found.verdict
    assert verdict is not None
    on = figures.counted(verdict.seeds[0], "fresh seed") if found.confirm else "one run"
    level = f"; p {figures.p_value(verdict.p)}, needed below {figures.p_value(verdict.alpha)}" if found.confirm else ""
    return f" Nearest: trial {found.number}, {estimate_words(view, found)} on {on}{level}."


def _estimate(trial: TrialView) -> float:
    return (trial.verdict.estimate if trial.verdict else None) or 0.0


def _not_met(view: StudyView) -> str:
    if not view.trains:
        told = "; ".join(claim_words(claim) for claim in view.claims)
        return f"{told or view.reason.rstrip('.')}. The target, {targets_words(view)}, is not reached."
    judged = [trial for trial in view.proposed if trial.verdict]
    told = f"no change was promoted in {figures.counted(len(judged), 'judged trial')}"
    if any(trial.decision is Decision.PROMOTED for trial in judged):
        told = "a change was promoted, but the study's end says not met"
    return f"{told}.{_nearest(view)} {_target_not_reached(view)}"


def _target_not_reached(view: StudyView) -> str:
    if not view.spec or all(target.value is None for target in view.spec.targets):
        told = "; ".join(claim_words(claim) for claim in view.claims)
        return f"On the sealed split: {told}." if told else "The goal named no threshold."
    if any(not claim.met for claim in view.claims):
        told = "; ".join(claim_words(claim) for claim in view.claims if not claim.met)
        return f"On the sealed split: {told}; the target, {targets_words(view)}, was not reached."
    if not view.claims and any(trial.verdict and trial.verdict.meets_target for trial in view.proposed):
        why = f": {view.reason.rstrip('.')}" if view.reason else ""
        return f"On the dev split the target, {targets_words(view)}, is met; on the sealed split it is undecided{why}."
    return f"The target, {targets_words(view)}, was not reached."


def _ended(view: StudyView) -> str:
    told = view.reason or "no reason was recorded"
    return f"{told}{'' if told.endswith(('.', '?', '!')) else '.'} Nothing is claimed."


def _done(view: StudyView) -> str:
    return view.reason or "what was asked for was done."


def _progress(view: StudyView) -> str:
    judged = sum(1 for trial in view.proposed if trial.verdict)
    allowed = f" of at most {view.plan.max_trials}" if view.plan else ""
    running = f", {figures.counted(len(view.running), 'job')} running" if view.running else ""
    if not view.trains:
        return f"the study {_STANDING[view.standing]}{running}"
    return f"the study {_STANDING[view.standing]}, {judged}{allowed} trials judged{running}"


def _short_target(target: Target) -> str:
    """The target without the metric's name, which the sentence has already said."""
    return figures.target_words(target).removeprefix(target.name or figures.metric_label(target.metric)).strip()


def best_confirmed(view: StudyView, trials: list[TrialView]) -> TrialView:
    """The winner, where it is among these confirmed trials; else the one with the best difference."""
    if view.winner is not None and any(trial.number == view.winner for trial in trials):
        return next(trial for trial in trials if trial.number == view.winner)
    sign = 1 if view.lower_is_better else -1
    return min(trials, key=lambda trial: sign * ((trial.confirm and trial.confirm.estimate) or 0.0))


def _limits_untrained(view: StudyView) -> list[str]:
    if view.built:
        return ["Nothing was trained: whether a model learns from these rows is not shown."]
    if view.measurement is None:
        return []
    told = [
        "The figures are about these weights on rows like these; whether a model was trained on the rows is not known."
    ]
    if not view.seal.opened:
        told.append("The rows may be looked at again: of many models tried on them, the best looks better than it is.")
    elif view.seal.strength == "policy":
        told.append("The seal is a rule, not a wall: a program of the same user could have read the rows.")
    return told


def _limits_of_state(view: StudyView) -> list[str]:
    if view.outcome is not None:
        return []
    return ["This is a partial report: the study has not ended, and figures can still change."]


def _limits_of_screening(view: StudyView) -> list[str]:
    screened = sum(1 for trial in view.proposed if trial.screen)
    if not screened:
        return []
    return [
        f"Screening looked at the dev split {figures.counted(screened, 'time')}; the best of several noisy figures "
        "looks better than it is. Screening selects, it proves nothing."
    ]


def _limits_of_recipe(view: StudyView) -> list[str]:
    confirmed = [trial.confirm for trial in view.proposed if trial.confirm]
    if not confirmed:
        return ["No recipe was confirmed on fresh seeds: that a change helps again is not shown."]
    fewest = min(min(verdict.seeds) for verdict in confirmed)
    return [
        f"Recipe claims rest on as few as {figures.counted(fewest, 'seed')} a side, at this model size and amount of "
        "training; they say nothing of larger ones."
    ]


def _limits_of_seal(view: StudyView) -> list[str]:
    if not view.seal.opened:
        return ["The sealed split was not opened: the checkpoint itself is not judged on unseen data."]
    told = ["The sealed claim is about this one checkpoint, on unseen text from the same sources as the training data."]
    if view.seal.strength == "policy":
        told.append("The seal is a rule, not a wall: a program of the same user could have read the fold.")
    if (view.seal.looks or 0) > 1:
        told.append(f"The fold was looked at {view.seal.looks} times: the stated confidence is that of one look.")
    return told
