"""The stages of a run in a report: what each began with, what it showed, and what it left."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nightsmith.agent import figures
from nightsmith.agent.plan import TRAINING
from nightsmith.agent.view import JobView, StudyView

METHOD_NAMES: Final[Mapping[str, str]] = {
    "pretrain": "pre-training", "sft": "fine-tuning", "dpo": "training on preferences", "grpo": "training by rewards",
}  # fmt: skip
SHOWN = (("train/loss", "loss"), ("accuracy", "share of pairs preferred"), ("reward", "reward"))
"""Training figures that tell how a stage went, each a mean over its last steps, and their names."""
SAYS_NOTHING = {"grpo": ("train/loss",)}
"""Figures that mean nothing in a method: the loss of answers just drawn is about 0 whatever is learned."""


@dataclass(frozen=True)
class StageRow:
    """One stage of one run."""

    method: str
    """In words."""
    seed: int | None
    """Seed."""
    job: str
    """Key of the job."""
    began: str
    """What it began with: the job before, a model's folder, or random weights."""
    showed: str
    """Its training figures, the study's metric on dev where it was evaluated, and why it failed where it did."""
    num_tokens: int
    """Tokens trained on."""
    wall_s: float
    """Seconds from start to exit record."""
    left: str
    """Digest of the weights that it left; empty where it left none."""


def stage_rows(view: StudyView) -> tuple[StageRow, ...]:
    """Every run of the winner, else of the baseline, stage by stage; none where a run is one stage."""
    trained = {job.key: job for job in view.jobs if job.method in TRAINING}
    if not any(job.role == "stage" for job in trained.values()):
        return ()
    continued = {job.began_from for job in trained.values()}
    shown = view.winner or 0
    ends = [job for job in trained.values() if job.trial == shown and job.key not in continued]
    return tuple(_row(job, view.metric) for end in ends for job in _run(end, trained))


def _run(end: JobView, trained: Mapping[str, JobView]) -> list[JobView]:
    """The jobs that led to one, the first stage first."""
    run = [end]
    while (before := trained.get(run[0].began_from or "")) is not None and before not in run:
        run.insert(0, before)
    return run


def _row(job: JobView, metric: str) -> StageRow:
    return StageRow(
        method=METHOD_NAMES.get(job.method, job.method),
        seed=job.seed,
        job=job.key,
        began="random weights" if job.began_from is None else job.began_from,
        showed=_showed(job, metric),
        num_tokens=job.num_tokens,
        wall_s=job.wall_s,
        left=(job.checkpoint_digest or "")[:12],
    )


def _showed(job: JobView, metric: str) -> str:
    silent = SAYS_NOTHING.get(job.method, ())
    told = [
        f"{name} {figures.decimal(job.metrics[key])}" for key, name in SHOWN if key in job.metrics and key not in silent
    ]
    if metric in job.scores:
        told.append(f"{figures.metric_label(metric)} {figures.value(metric, job.scores[metric])} on dev")
    if job.reason:
        told.append(f"{job.status}: {job.reason}")
    return ", ".join(told) or job.status
