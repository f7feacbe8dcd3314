"""What a study, its trials and the last 24 hours have taken: answers to "cost"."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from nightsmith.agent import figures
from nightsmith.agent.conversing import Utterance
from nightsmith.agent.trial_words import trial_of
from nightsmith.agent.view import JobView, StudyView, TrialView
from nightsmith.record import studies
from nightsmith.record.workspace import Workspace
from nightsmith.trainer import jobrows

NIGHT = timedelta(hours=24)


def cost(view: StudyView, utterance: Utterance) -> str:
    """What the study has taken in all, and each trial (of those named, where any is)."""
    chosen = [trial_of(view, number) for number in utterance.trials] or list(view.trials)
    sealed = [] if utterance.trials or not view.other_jobs else [_line("sealed evaluations", view.other_jobs)]
    return "\n".join([_total(view), *(_trial_line(trial) for trial in chosen), *sealed])


def since(ws: Workspace, begin: datetime) -> str:
    """What every study of the workspace took in jobs started after `begin`; empty where none ended."""
    results = [row.result for row in jobrows.rows(ws) if row.result and row.started_at and row.started_at >= begin]
    if not results:
        return ""
    device_s = sum(result.wall_s * max(1, len(result.devices)) for result in results)
    begun = sum(1 for row in studies.all(ws) if row.created_at >= begin)
    return (
        f"All studies in the last 24 hours ({begun} begun): {len(results)} ended jobs, {figures.duration(device_s)} of "
        f"device time, {figures.count(sum(result.num_tokens for result in results))} training tokens."
    )


def _total(view: StudyView) -> str:
    spent, allowed = view.spent.amount, view.spent.allowed.wall_clock_s
    limit = f" of {figures.duration(allowed)}" if allowed else ""
    gpu = f", {spent.gpu_hours:.2f} GPU-hours" if spent.gpu_hours else ""
    cpu = f"{figures.duration(spent.cpu_s)} of CPU time"
    tokens = f"{figures.count(spent.tokens)} training tokens"
    return f"{view.id} has taken {figures.duration(view.spent.active_s)}{limit}, {cpu}{gpu}, {tokens}."


def _trial_line(trial: TrialView) -> str:
    return _line("baseline" if trial.number == 0 else f"trial {trial.number}", trial.jobs)


def _line(name: str, jobs: Sequence[JobView]) -> str:
    device_s = sum(job.cpu_s + 3600 * job.gpu_hours for job in jobs)
    tokens = figures.count(sum(job.num_tokens for job in jobs))
    number = f"{len(jobs)} job{'' if len(jobs) == 1 else 's'}"
    return f"  {name}: {number}, {figures.duration(device_s)} of device time, {tokens} tokens"
