"""What Nightsmith has to know of an external trainer; each is a module with a `Tool` of its own. Torch-free."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nightsmith.model.capacity.shapes import ModelShape
from nightsmith.trainer.external.layout import WhyNot
from nightsmith.trainer.external.process import Child
from nightsmith.trainer.external.recipe import Recipe, Renderable, Request


@dataclass(frozen=True)
class StepLine:
    """What a trainer's log says of one optimizer step."""

    loss: float
    """Nats per trained token."""
    grad_norm: float | None = None
    """Before clipping."""
    learning_rate: float | None = None
    """Of this step, as the trainer says it."""
    epoch: float | None = None
    """Passes over the rows so far."""
    step: int | None = None
    """Number of the step, from 1; None: the log does not say, it is one more than the one before."""
    series: Mapping[str, float] = field(default_factory=dict[str, float])
    """The method's own figures, under TRL's names."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was written to its end."""

    step: int
    """Optimizer steps done."""
    folder: Path
    """Where it is."""


@dataclass(frozen=True)
class Tool:
    """An external trainer."""

    name: str
    """As a spec's `backend` names it."""
    executable: str
    """What is looked for on PATH."""
    package: str
    """What pip installs."""
    version: str
    """Release whose published schema recipes are written for."""
    needs_gpu: bool
    """Whether it runs on accelerators only."""
    shifted: bool
    """Whether the label of a token is the token after it (else itself, as in transformers)."""
    refuse: Callable[[Renderable, ModelShape, Mapping[str, Any]], None]
    """Raises CannotExpress for what it has no word for, given the spec, the model's weights and its config.json."""
    why_not: Callable[[Renderable, ModelShape], WhyNot]
    """Layouts that it cannot have."""
    recipe: Callable[[Request], Recipe]
    """The recipe of a run. Raises CannotExpress."""
    read: Callable[[str], StepLine | None]
    """What a line of its log says of a step; None: nothing."""
    saved: Callable[[Path], list[Saved]]
    """Whole checkpoints in its output folder, the newest first."""
    tidy: Callable[[Path], None]
    """Take away what it would wrongly go on from: checkpoints that were not written to their end."""
    ask_to_save: Callable[[Path, Child], bool]
    """Ask a running trainer for a checkpoint, where it can be asked without ending; whether that was possible."""
    ends_by_signal: bool
    """Whether it saves and leaves on SIGTERM."""
    final: Callable[[Path, Renderable], Path | None]
    """The folder with the trained model in Hugging Face's form; None where it is not there."""
