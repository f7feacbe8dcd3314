"""What the console's status lines say: phase, trial, budget left, running jobs with their curves. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from nightsmith.agent import dossier, figures, history
from nightsmith.agent.render import progress_words
from nightsmith.agent.sparkline import sparkline
from nightsmith.record import budget
from nightsmith.record.events import Event
from nightsmith.record.workspace import Workspace
from nightsmith.trainer import jobs
from nightsmith.trainer.journal import JOURNAL, read_tail

MOST_JOBS = 3
"""Running jobs with a line of their own."""
_PHASES = {
    "study_started": "reading the goal", "preflight": "plan", "approval": "baseline", "planned": "trials",
    "trial_proposed": "trials", "verdict": "trials", "unsealed": "seal", "outcome": "ended",
}  # fmt: skip
_ROLES = {"baseline": "baseline", "calibration": "baseline", "trial": "trials", "confirmation": "confirmation",
          "sealed": "seal", "measured": "evaluation"}  # fmt: skip


@dataclass
class Track:
    """Where a study stands, from its events as they come."""

    ws: Workspace
    study: str
    phase: str = "reading the goal"
    trial: int = 0
    """Newest trial."""
    running: dict[str, int | None] = field(default_factory=dict[str, "int | None"])
    """Key of each running job -> its trial."""
    best: str = ""
    """Best value so far with its curve, in words."""

    def note(self, event: Event) -> None:
        """Take an event in."""
        self.phase = _PHASES.get(event.kind, self.phase)
        if event.kind == "interpreted" and event.data.get("status") == "needs_answers":
            self.phase = "questions"
        if event.kind == "trial_proposed" and event.trial is not None:
            self.trial = event.trial
        if event.job and event.kind == "job_started":
            self.running[event.job] = event.trial
            self.phase = _ROLES.get(str(event.data.get("role")), self.phase)
        if event.job and event.kind == "job_finished":
            self.running.pop(event.job, None)

    def status(self) -> str:
        """`s1 · trials · trial 2 of 2 · 1 trial, 3 min 20 s left · 2 jobs`."""
        planned = dossier.load(self.ws, self.study, "plan") if self.trial else None
        of = f" of {planned['max_trials']}" if planned else ""
        parts = [self.study, self.phase, f"trial {self.trial}{of}" if self.trial else "", left(self.ws, self.study)]
        number = len(self.running)
        parts += [figures.counted(number, "job") if number else ""]
        return " · ".join(part for part in parts if part)

    def lines(self) -> list[str]:
        """Where it stands, the best so far, running jobs."""
        return [line for line in (self.status(), self.best, *self.job_lines()) if line]

    def job_lines(self, most: int = MOST_JOBS) -> list[str]:
        """One line a running job: how far it is, its training loss as a curve."""
        keys = list(self.running)
        lines = [job_line(self.ws, key, self.running[key]) for key in keys[:most]]
        return [*lines, *([f"… and {len(keys) - most} more, /jobs shows them"] if len(keys) > most else [])]

    def look_at_best(self) -> None:
        """Read the best value so far anew: it changes with a verdict only."""
        self.best = best_words(self.ws, self.study)


def left(ws: Workspace, study: str) -> str:
    """What is left of the budget, in words; empty before an approval, or without limits."""
    if not budget.is_open(ws, study):
        return ""
    rest = budget.balance(ws, study).left
    seconds = min((s for s in (rest.wall_s, rest.deadline_s) if s is not None), default=None)
    told = [
        f"{rest.trials} trial{'' if rest.trials == 1 else 's'}" if rest.trials is not None else "",
        figures.duration(seconds) if seconds is not None else "",
        f"{figures.count(rest.tokens)} tokens" if rest.tokens is not None else "",
        f"{rest.gpu_hours:.2f} GPU-hours" if rest.gpu_hours is not None else "",
    ]
    words = ", ".join(part for part in told if part)
    return f"{words} left" if words else ""


def job_line(ws: Workspace, key: str, trial: int | None) -> str:
    """`3f2a trial 2: train 31/64, loss 3.21, 22.1 k tokens/s, 12 s left ▇▅▃▂`."""
    name, _, progress = progress_words(key, jobs.progress(ws, key)).partition(" ")
    where = "" if trial is None else " baseline" if trial == 0 else f" trial {trial}"
    return f"{name}{where}: {progress} {sparkline(losses(ws, key))}".rstrip()


def losses(ws: Workspace, key: str) -> Sequence[float]:
    """Training losses that the job's journal ends with, oldest first, nats per token."""
    lines = read_tail(ws.run_dir(key) / JOURNAL)
    found = [line.get("loss") for line in lines if line.get("kind") == "step"]
    return [float(loss) for loss in found if isinstance(loss, (int, float))]


def best_words(ws: Workspace, study: str) -> str:
    """`best bits per byte 2.6407 (trial 4) ▇▆▃▁`: the best so far after each judged trial. Empty before the first."""
    view = history.load(ws, study)
    judged = [trial.number for trial in view.trials if trial.number == 0 or trial.verdict]
    so_far = [[point.value for point in view.best if point.trial <= number] for number in judged]
    values = [points[-1] for points in so_far if points]
    if len(values) < 2:
        return ""
    best = view.best[-1]
    where = "baseline" if best.trial == 0 else f"trial {best.trial}"
    value = figures.value(view.metric, best.value)
    return f"best {figures.metric_label(view.metric)} {value} ({where}) {sparkline(values)}".rstrip()
