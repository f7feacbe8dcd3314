"""How a job follows a TRL trainer: journal, progress, checkpoints by the clock, an end in order."""

import json
import math
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from nightsmith.model.health import RouterHealth, take_health, worst
from nightsmith.trainer.attempt import Attempt, Ended
from nightsmith.trainer.checkpoint import flush
from nightsmith.trainer.losses import not_finite, tail_mean
from nightsmith.trainer.post_training import PostTraining
from nightsmith.trainer.spec import RunStatus

WHOLE = "whole.json"
"""Written last into a checkpoint, TRL's or the final one: where it is, the checkpoint is whole. Holds the Progress."""
EVENT_EVERY_S = 1.0


@dataclass
class Progress:
    """What resuming needs beside TRL's own checkpoint."""

    initial_digest: str
    """Digest of the trained weights before the first step."""
    step: int = 0
    num_tokens: int = 0
    """Tokens read, padding not counted."""
    train_s: float = 0.0
    """Seconds in training, all attempts together."""
    losses: list[float] = field(default_factory=list[float])
    """Training loss of each step, nats per trained token."""
    series: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """The method's own figures, under TRL's names, of each step that logged them."""
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    """Figures that are no series: what the audit of the data found, the experts' health."""

    def keep(self, folder: Path) -> None:
        """Mark a checkpoint as whole, once all that is in it is on the disk itself."""
        for path in (*folder.iterdir(), folder):
            flush(path)
        (folder / WHOLE).write_text(json.dumps(asdict(self)))
        for path in (folder / WHOLE, folder):
            flush(path)

    @classmethod
    def read(cls, folder: Path) -> "Progress":
        """What was kept with a whole checkpoint."""
        return cls(**json.loads((folder / WHOLE).read_text()))


def checkpoints(folder: Path) -> list[Path]:
    """TRL's checkpoints, newest first, whole or not."""
    return sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1]))


def take_facts(attempt: Attempt, progress: Progress) -> None:
    """Make what is known so far the attempt's facts."""
    facts = attempt.facts
    facts.initial_digest, facts.num_steps = progress.initial_digest, progress.step
    facts.num_tokens, facts.train_s = progress.num_tokens, progress.train_s
    facts.metrics.update(progress.metrics)
    facts.metrics.update({name: tail_mean(values) for name, values in progress.series.items()})
    if progress.losses and progress.train_s:
        facts.metrics["train/loss"] = tail_mean(progress.losses)
        facts.metrics["time/tokens_per_s"] = progress.num_tokens / progress.train_s


class Watch(TrainerCallback):
    """Writes the journal, counts, saves by the clock, and ends the run in order when it has to end."""

    def __init__(
        self, attempt: Attempt, spec: PostTraining, progress: Progress, *, series: tuple[str, ...], boundary: int
    ) -> None:
        """What to follow.

        Args:
            attempt: written to, and asked whether to end.
            spec: rules the number of steps and how often to save.
            progress: what earlier attempts had done; it is moved on.
            series: prefixes of TRL's own figures that are kept.
            boundary: only after a multiple of so many steps can a run be left and gone on with.
        """
        self._attempt, self._spec, self._progress = attempt, spec, progress
        self._series, self._boundary = series, boundary
        self._tokens_before, self._seconds_before = progress.num_tokens, progress.train_s
        self._began = self._event_at = self._save_at = 0.0

    def begin(self) -> None:
        """Training begins now."""
        self._began = time.monotonic()
        self._save_at = self._began + self._spec.checkpoint_every_s
        take_facts(self._attempt, self._progress)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        """After each step: its loss. Raises Ended where it is not finite."""
        if "loss" not in (logs or {}):
            return
        loss, norm = float(logs["loss"]), float(logs.get("grad_norm") or 0.0)
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise Ended(RunStatus.NOT_FINITE, not_finite(self._spec, state.global_step, loss, norm))
        progress = self._progress
        progress.losses.append(loss)
        for name, value in self._own(logs).items():
            progress.series.setdefault(name, []).append(value)
        progress.step, progress.num_tokens = state.global_step, int(state.num_input_tokens_seen)
        progress.train_s = self._seconds_before + time.monotonic() - self._began
        last = progress.step == self._spec.num_steps
        if last or time.monotonic() >= self._event_at:
            self._write_event(logs, take_health(kwargs["model"]))
            self._event_at = time.monotonic() + EVENT_EVERY_S
        take_facts(self._attempt, progress)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """Ask for a checkpoint by the clock, and for the end once the job has to end."""
        if state.global_step % self._boundary:
            return control
        ending = self._attempt.ending() is not None
        if (ending or time.monotonic() >= self._save_at) and state.global_step < self._spec.num_steps:
            control.should_save = True
        control.should_training_stop = control.should_training_stop or ending
        return control

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Mark TRL's checkpoint as whole; what was there before is kept until then."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self._progress.keep(folder)
        for old in checkpoints(folder.parent)[1:]:
            shutil.rmtree(old)
        self._save_at = time.monotonic() + self._spec.checkpoint_every_s
        self._attempt.journal.write("checkpoint", step=state.global_step)

    def _own(self, logs: dict[str, Any]) -> dict[str, float]:
        """The method's figures of a step that are finite."""
        own = {name: value for name, value in logs.items() if self._series and name.startswith(self._series)}
        # TRL logs None for what no row of a step gave.
        return {name: float(value) for name, value in own.items() if value is not None and math.isfinite(value)}

    def _write_event(self, logs: Any, experts: list[RouterHealth]) -> None:
        progress, num_steps = self._progress, self._spec.num_steps
        if experts:
            progress.metrics.update(worst(experts))
        self._attempt.journal.write(
            "step",
            step=progress.step,
            num_steps=num_steps,
            loss=progress.losses[-1],
            learning_rate=logs.get("learning_rate"),
            tokens_per_s=progress.num_tokens / progress.train_s,
            eta_s=(num_steps - progress.step) * progress.train_s / progress.step,
            attempt_tokens=progress.num_tokens - self._tokens_before,
            router=[vars(layer) for layer in experts],
            metrics=self._own(logs),
        )
