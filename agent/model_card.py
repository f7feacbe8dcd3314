"""The card of an exported model (README.md): where it is from, what it scored, how it is served. Rendered by code."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from nightsmith.agent import account, figures
from nightsmith.agent.ancestry import Ancestor
from nightsmith.agent.report import environment
from nightsmith.agent.side_view import Figure, OwnFigures
from nightsmith.agent.view import JobView, StudyView
from nightsmith.model.export import Exported, Form, licence_of

LICENCE_KEYS = {"apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "cc-by-4.0", "cc-by-sa-4.0", "gpl-3.0", "llama3.2"}
"""Licences that model hubs know by these words; others are called `other`."""


@dataclass(frozen=True)
class Subject:
    """What a card is about."""

    name: str
    """The model's name."""
    form: Form
    """How it is written."""
    written: Exported
    """What was written."""
    checkpoint: Path
    """What it was written from."""
    ancestors: tuple[Ancestor, ...] = ()
    """Models that it descends from, the nearest first."""
    view: StudyView | None = None
    """The study that trained it; null: it came from a folder."""
    job: JobView | None = None
    """The job that trained it."""
    scored: tuple[OwnFigures, ...] = ()
    """What the checkpoint scored on its study's splits."""

    @property
    def is_winner(self) -> bool:
        """Whether the study's claims are about this very checkpoint."""
        return self.view is not None and self.job is not None and self.job.key == self.view.winner_key

    @property
    def licence(self) -> str | None:
        """The licence of the model at the root; of a folder's model, its own."""
        if self.ancestors:
            return self.ancestors[-1].licence
        return licence_of(self.checkpoint) if self.view is None else None


def card(subject: Subject) -> str:
    """README.md with the front matter that model hubs read."""
    view, job = subject.view, subject.job
    trial = next((trial for trial in view.trials if job and trial.number == job.trial), None) if view else None
    return (
        environment(autoescape=False)
        .get_template("card.md.j2")
        .render(
            subject=subject,
            view=view,
            job=job,
            trial=trial,
            headline=account.outcome_sentence(view) if view else "",
            limits=account.limits(view) if view else (),
            claims=view.claims if view and subject.is_winner else (),
            reached=account.reached_words,
            metric_label=figures.metric_label,
            range_words=_range_words,
            serve=serve_command(Path(subject.name), subject.written, subject.form),
            licence_key=_licence_key(subject.licence),
        )
    )


def serve_command(folder: Path, written: Exported, form: Form) -> str:
    """A command line that serves the exported folder."""
    if form != "safetensors":
        file = shlex.quote(str(folder / next(name for name in written.files if name.endswith(".gguf"))))
        return f"llama-server -m {file}" if form == "gguf" else f"llama-server -m BASE.gguf --lora {file}"
    options = " --model-impl transformers" if written.model_type == "small4" else ""
    return f"vllm serve {shlex.quote(str(folder))}{options}"


def _licence_key(licence: str | None) -> str:
    return licence.lower() if licence and licence.lower() in LICENCE_KEYS else "other"


def _range_words(metric: str, figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return "not bounded"
    return f"{figures.value(metric, figure.low)} to {figures.value(metric, figure.high)}"
