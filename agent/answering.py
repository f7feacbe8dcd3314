"""Answers to questions about a study, rendered from its result files, verdicts and ledger. No model writes any of it.

The planner says what was asked (`conversing.Utterance`); this says what is known of it, every figure with what it rests
on, and says so where nothing is known.
"""

from collections.abc import Callable, Mapping

from nightsmith.agent import account, comparing, costing, figures, history, trial_words
from nightsmith.agent.conversing import Kind, Utterance
from nightsmith.agent.escape import visible
from nightsmith.agent.trial_words import trial_of
from nightsmith.agent.view import JobView, StudyView, TrialView
from nightsmith.evals.types import Verdict
from nightsmith.record.clock import Clock, utc_now
from nightsmith.record.workspace import Workspace

POSSIBLE = (
    'Ask for example: "why was trial 2 rejected?", "compare 1 and 2", "what did it cost?", "how does trial 1 differ '
    'from the baseline?", "which trial is best?", "how far is it?"'
)
_RULES: Mapping[str, str] = {
    "screen": "the screen (one dev run against the baseline)",
    "confirm": "the confirmation (fresh seeds against the baseline)",
    "evidence": "the evidence rule (what is missing or implausible is no evidence)",
}


def answer(ws: Workspace, study: str, utterance: Utterance, *, now: Clock = utc_now) -> str:
    """What the record says to a question, as plain lines of text. Raises NightsmithError for an unknown study."""
    view = history.load(ws, study)
    unknown = [number for number in utterance.trials if number not in trial_words.numbers(view)]
    if unknown:
        named = " and ".join(map(str, unknown))
        return f"There is no trial {named} in {view.id}; trials: {trial_words.which(view)}."
    told = _ANSWERS.get(utterance.kind, _unknown)(view, utterance)
    night = costing.since(ws, now() - costing.NIGHT) if utterance.kind == "cost" else ""
    return "\n".join(visible(line) for line in [*told.splitlines(), *night.splitlines()])


def _unknown(view: StudyView, utterance: Utterance) -> str:
    del view, utterance
    return f"That is not something the record answers. {POSSIBLE}"


def _why(view: StudyView, utterance: Utterance) -> str:
    if not utterance.trials:
        return account.outcome_sentence(view)
    return "\n\n".join(_why_trial(view, trial_of(view, number)) for number in utterance.trials)


def _why_trial(view: StudyView, trial: TrialView) -> str:
    if trial.number == 0:
        return f"Trial 0 is the baseline, which the others are judged against. {trial_words.baseline(view)}."
    failed = _failures(trial)
    if not trial.verdict:
        return "\n".join([f"Trial {trial.number} has not been judged: its job is {trial.status}.", *failed])
    lines = [f"Trial {trial.number} was {trial_words.decided(trial)}. It tried {trial_words.change(trial)}.", *failed]
    for verdict in (trial.screen, trial.confirm):
        lines += _verdict_lines(view, verdict) if verdict else []
    lines += [f"  {words}" for words in (account.guardrail_words(trial), account.expectation_words(trial)) if words]
    return "\n".join(lines)


def _verdict_lines(view: StudyView, verdict: Verdict) -> list[str]:
    """The rule, its sentence, and the figures that it looked at."""
    told = [f"By {_RULES[verdict.rule]}: {verdict.reason}"]
    if verdict.estimate is not None:
        value = figures.value(verdict.metric, verdict.value)
        told.append(f"  {figures.metric_label(verdict.metric)} {value}: {trial_words.estimate(verdict)}")
    if verdict.p is not None:
        level = "" if verdict.alpha is None else f", compared with {figures.p_value(verdict.alpha)}"
        shown = figures.p_value(verdict.p)
        told.append(f'  p {shown if shown.startswith("<") else f"= {shown}"} for "it is not better"{level}')
    elif verdict.estimate is not None and view.seed_deviation is None:
        told.append("  no p-value: the reference is one model, whose seed noise is not known")
    return told


def _failures(trial: TrialView) -> list[str]:
    """Why its jobs failed, where any did."""
    failed = [job for job in trial.jobs if job.ended and job.status != "FINISHED"]
    return [f"Job {job.key} ended {job.status}: {job.reason or 'no reason was recorded'}" for job in failed]


def _best(view: StudyView, utterance: Utterance) -> str:
    del utterance
    number = trial_words.best_number(view)
    if number is None:
        return f"No trial of {view.id} was measured better than the baseline. {trial_words.baseline(view)}."
    trial = trial_of(view, number)
    told = "not judged" if trial.verdict is None else trial_words.estimate(trial.verdict)
    value = figures.value(view.metric, trial_words.dev_value(view, number))
    ended = [] if view.outcome is None else [account.outcome_sentence(view)]
    ran = [f"It ran with {comparing.in_full(comparing.ran_with(view.plan.recipe, trial))}."] if view.plan else []
    best = f"Trial {number} is best: {figures.metric_label(view.metric)} {value} on dev, {told}"
    return "\n".join(
        [f"{best}. It was {trial_words.decided(trial)}; it tried {trial_words.change(trial)}.", *ran, *ended]
    )


def _status(view: StudyView, utterance: Utterance) -> str:
    running = [_job_words(job) for job in view.running]
    lines = [account.outcome_sentence(view), f"Running: {'; '.join(running)}." if running else ""]
    if view.outcome is None and trial_words.best_number(view):
        lines.append(_best(view, utterance))
    return "\n".join(filter(None, lines))


def _job_words(job: JobView) -> str:
    return f"{job.key[:4]} ({job.role}{'' if job.trial is None else f' of trial {job.trial}'})"


_ANSWERS: Mapping[Kind, Callable[[StudyView, Utterance], str]] = {
    "why": _why,
    "compare": comparing.compare,
    "cost": costing.cost,
    "config": comparing.config,
    "best": _best,
    "status": _status,
}
