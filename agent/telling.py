"""Which trials of a long study are shown first: those that a reader looks for."""

from nightsmith.agent.view import StudyView, TrialView
from nightsmith.evals.types import Decision

WHOLE = 20
"""Trials up to which all are shown."""
BEST, LAST = 8, 4
"""How many of the best screened, and of the newest."""
_LOUD = (Decision.PROMOTED, Decision.TAMPERED)


def telling(view: StudyView) -> tuple[TrialView, ...]:
    """By number: winner, confirmed, promoted and refused, the best screened, the newest; of a short study all."""
    trials = view.proposed
    if len(trials) <= WHOLE:
        return trials
    refused = {refusal.trial for refusal in view.refusals}
    chosen = {trial.number for trial in (*_best(view), *trials[-LAST:])}
    chosen |= {trial.number for trial in trials if trial.confirm or trial.decision in _LOUD or trial.number in refused}
    return tuple(trial for trial in trials if trial.number in chosen or trial.number == view.winner)


def rest(view: StudyView) -> tuple[TrialView, ...]:
    """The other trials, by number."""
    shown = {trial.number for trial in telling(view)}
    return tuple(trial for trial in view.proposed if trial.number not in shown)


def _best(view: StudyView) -> list[TrialView]:
    sign = 1 if view.lower_is_better else -1
    values = {
        trial.number: sign * trial.screen.value
        for trial in view.proposed
        if trial.screen and trial.screen.value is not None
    }
    screened = [trial for trial in view.proposed if trial.number in values]
    return sorted(screened, key=lambda trial: values[trial.number])[:BEST]
