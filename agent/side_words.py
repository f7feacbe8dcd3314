"""What is said of a baseline that is a model as it is, of the rows that were trained on, and of both sides' figures."""

from nightsmith.agent import figures
from nightsmith.agent.side_view import Figure, Measurement
from nightsmith.agent.view import JobView, StudyView

TRAINED_ROWS, TOO_LONG, TRAINED_TOKENS = "data/rows", "data/rows_too_long", "data/trained_tokens"
"""Metrics of the audit that a fine-tuning makes of its rows before its first step."""


def baseline_note(view: StudyView) -> str:
    """What the baseline's figure rests on: `the unmodified model`, or `4 seeds, deviation 0.0210`."""
    if view.has_fixed_reference:
        return "the unmodified model"
    count = len(view.baseline)
    noise = "" if view.seed_deviation is None else f", deviation {figures.value(view.metric, view.seed_deviation)}"
    return f"{count} seed{'' if count == 1 else 's'}{noise}"


def heading(view: StudyView) -> str:
    """What is compared; of a baseline with seeds, the one run that is."""
    sides = view.sides
    assert sides is not None
    name = f"the winner, trial {sides.trial}" if sides.is_winner else f"the best screened trial, {sides.trial}"
    return f"The baseline and {name}{'' if view.has_fixed_reference else ', one run of each'}"


def range_words(metric: str, figure: Figure) -> str:
    """`[81.2 %, 93.0 %]`; empty where there is no interval."""
    if figure.low is None or figure.high is None:
        return ""
    return f"[{figures.value(metric, figure.low)}, {figures.value(metric, figure.high)}]"


def audit_words(view: StudyView) -> tuple[str, ...]:
    """What the shown trial's stages trained on, by their audit of trained tokens; empty where none was made."""
    alike: dict[str, list[str]] = {}
    for job in _trained(view):
        if TRAINED_ROWS in job.metrics:
            alike.setdefault(_audited(job), []).append(job.key)
    return tuple(f"Rows of {_jobs(keys)}{said}" for said, keys in alike.items())


def _jobs(keys: list[str]) -> str:
    """`job a`, or of seeds that are alike, `each of the jobs a, b and c`."""
    if len(keys) == 1:
        return f"job {keys[0]}"
    return f"each of the jobs {', '.join(keys[:-1])} and {keys[-1]}"


def _trained(view: StudyView) -> tuple[JobView, ...]:
    """The training jobs of the trial that is shown: its earlier stages, then its own."""
    if view.sides is None:
        return ()
    own = [job for job in view.jobs if job.trial == view.sides.trial and job.role in ("stage", "trial")]
    return tuple(sorted(own, key=lambda job: job.role != "stage"))


def _audited(job: JobView) -> str:
    rows, long = job.metrics[TRAINED_ROWS], job.metrics.get(TOO_LONG, 0.0)
    left_out = f"{figures.count(long)} more were too long and left out" if long else "none was too long"
    tokens = figures.count(job.metrics.get(TRAINED_TOKENS))
    stage = ", an earlier stage" if job.role == "stage" else ""
    return (
        f"{stage}: {figures.count(rows)}, with {tokens} trained tokens; {left_out}. Every row "
        "has a trained token, and the stop token of every answer is trained. "
        f"It read {figures.count(job.num_tokens)} tokens."
    )


def difference_words(measurement: Measurement | None, metric: str) -> str:
    """`+4.0 points [+1.0 points, +7.0 points]`; `–` where two models cannot be compared by it."""
    found = measurement.difference(metric) if measurement else None
    return "–" if found is None else figures.estimated(metric, found.estimate, found.interval)
