"""One trial, or all of them, in the words that answers share: figures with what they rest on."""

from typing import Any

from nightsmith.agent import figures
from nightsmith.agent.view import StudyView, TrialView
from nightsmith.evals.types import Decision, Verdict


def decided(trial: TrialView) -> str:
    """The judgement in one word or few; a promising trial is not yet more than that."""
    if trial.decision is Decision.INCONCLUSIVE and trial.verdict and trial.verdict.promising:
        return "found promising, not confirmed"
    return trial.decision.value.lower() if trial.decision else "not judged"


def estimate(verdict: Verdict) -> str:
    """`+0.2417 against the baseline, 95 % interval +0.1587 to +0.3247 (n = 128 items; seeds 1 against 4)`."""
    told = f"{figures.difference(verdict.metric, verdict.estimate)} against the baseline"
    if verdict.interval:
        low, high = (figures.difference(verdict.metric, end) for end in verdict.interval)
        told += f", 95 % interval {low} to {high}"
    return f"{told} (n = {verdict.n} items; seeds {verdict.seeds[0]} against {verdict.seeds[1]})"


def change(trial: TrialView) -> str:
    """What the trial changed, against the recipe that it started from."""
    if trial.plan is None:
        return "an unreadable plan"
    return figures.change(trial.plan.change) if trial.plan.change else "the recipe as it stands"


def change_from(view: StudyView, trial: TrialView) -> str:
    """`batch_size 8 → 4`: each changed setting, from its value in the recipe that the trial started from."""
    if trial.plan is None:
        return "–"
    stages = next((each.plan.stages for each in view.trials if each.number == trial.plan.start and each.plan), ())
    before: dict[str, Any] = {**(view.plan.recipe if view.plan else {}), **(stages[-1].args if stages else {})}
    told = [_step(name, before.get(name), value) for name, value in trial.plan.change.items()]
    return ", ".join(told) or figures.UNCHANGED


def _step(name: str, before: float | int | str | None, after: float | int | str) -> str:
    if before is None or before == after:
        return figures.change({name: after})
    return f"{name} {figures.setting(before)} → {figures.setting(after)}"


def trial_of(view: StudyView, number: int) -> TrialView:
    """A trial that is known to be there."""
    return next(trial for trial in view.trials if trial.number == number)


def numbers(view: StudyView) -> tuple[int, ...]:
    """Numbers of all trials, the baseline's included."""
    return tuple(trial.number for trial in view.trials)


def which(view: StudyView) -> str:
    """`0–4`; `none yet`."""
    found = numbers(view)
    return f"0–{found[-1]}" if len(found) > 1 else "0" if found else "none yet"


def best_number(view: StudyView) -> int | None:
    """The winner, else the trial with the best dev value; None where none is better than the baseline."""
    if view.winner:
        return view.winner
    return view.best[-1].trial if len(view.best) > 1 else None


def dev_value(view: StudyView, number: int) -> float | None:
    """A trial's value of the judged metric on dev; the baseline's is the mean over its seeds."""
    verdict = trial_of(view, number).verdict
    return view.baseline_mean if number == 0 else verdict.value if verdict else None


def baseline(view: StudyView) -> str:
    """`The baseline has bits per byte 2.9534 on dev (4 seeds, deviation 0.0210)`."""
    if view.baseline_mean is None:
        return "The baseline has not been measured yet"
    mean = figures.value(view.metric, view.baseline_mean)
    noise = "" if view.seed_deviation is None else f", deviation {figures.value(view.metric, view.seed_deviation)}"
    seeds = f"{len(view.baseline)} seed{'' if len(view.baseline) == 1 else 's'}{noise}"
    return f"The baseline has {figures.metric_label(view.metric)} {mean} on dev ({seeds})"
