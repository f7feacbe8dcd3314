"""How a job follows an external trainer: its log becomes our journal, counted over all attempts. Torch-free."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nightsmith.trainer.attempt import Attempt, Ended
from nightsmith.trainer.external.tool import StepLine
from nightsmith.trainer.losses import not_finite, tail_mean
from nightsmith.trainer.post_training import PostTraining
from nightsmith.trainer.runfolder import write_atomic
from nightsmith.trainer.spec import RunStatus

TALLY = "tally.json"
EVENT_EVERY_S = 1.0
FIRST_STEP_S, SILENCE_S, SILENT_STEPS = 3600.0, 900.0, 20.0
"""A trainer is taken to hang that logs no step within an hour of its start (a large model is read and compiled
meanwhile), or none for a quarter of an hour and twenty times its longest step."""


@dataclass
class Tally:
    """What is known of a run over all its attempts."""

    losses: list[float] = field(default_factory=list[float])
    """Of each step, nats per trained token."""
    train_s: float = 0.0
    """Seconds in steps."""
    series: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """The method's own figures, under TRL's names, of each step that logged them."""

    @classmethod
    def read(cls, folder: Path, step: int) -> "Tally":
        """As it was at a step that the trainer goes on from."""
        path = folder / TALLY
        kept = cls(**json.loads(path.read_text())) if step and path.is_file() else cls()
        share = step / len(kept.losses) if kept.losses else 0.0
        series = {name: values[:step] for name, values in kept.series.items()}
        return cls(kept.losses[:step], kept.train_s * min(1.0, share), series)

    def keep(self, folder: Path) -> None:
        """Write it, whole."""
        write_atomic(folder / TALLY, json.dumps(asdict(self)))


class Follower:
    """Turns lines of steps into events and facts; says when a trainer hangs."""

    def __init__(
        self, attempt: Attempt, spec: PostTraining, step: int, row_tokens: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Begin where the trainer does.

        Args:
            attempt: its journal and facts are written.
            spec: rules steps and rows of a step.
            step: the step that the trainer goes on from.
            row_tokens: mean length of a row; a step reads as many rows as the spec says.
            clock: seconds that pass.
        """
        self._attempt, self._spec, self._row_tokens, self._clock = attempt, spec, row_tokens, clock
        self.tally = Tally.read(attempt.run_dir, step)
        self.step = self._first = step
        self._started = self._heard = self._clock()
        self._first_at = self._event_at = self._longest_s = 0.0
        self._train_s_before = self.tally.train_s

    def take(self, line: StepLine) -> None:
        """One step. Raises Ended where its loss or gradient is not finite."""
        norm = line.grad_norm or 0.0
        self.step = line.step if line.step is not None else self.step + 1
        if not math.isfinite(line.loss) or not math.isfinite(norm):
            raise Ended(RunStatus.NOT_FINITE, not_finite(self._spec, self.step, line.loss, norm))
        now = self._clock()
        if self._first_at:
            self._longest_s = max(self._longest_s, now - self._heard)
        self._first_at, self._heard = self._first_at or now, now
        self.tally.losses = [*self.tally.losses[: self.step - 1], line.loss]
        for name, value in line.series.items():
            self.tally.series[name] = [*self.tally.series.get(name, [])[: self.step - 1], value]
        self.tally.train_s = self._train_s_before + self._seconds(now)
        self._take_facts()
        if now >= self._event_at or self.step == self._spec.num_steps:
            self._event_at = now + EVENT_EVERY_S
            self._write_event(line)

    def hangs(self) -> str | None:
        """Why the trainer is taken to hang; None while it is not."""
        silent = self._clock() - self._heard
        if not self._first_at:
            return None if silent <= FIRST_STEP_S else f"It logged no step within {FIRST_STEP_S:g} s of its start."
        limit = max(SILENCE_S, SILENT_STEPS * self._longest_s)
        return None if silent <= limit else f"It logged no step for {silent:.0f} s after step {self.step}."

    def _seconds(self, now: float) -> float:
        """Seconds in steps of this attempt. The first counts as the mean of the rest: when it began is not logged."""
        done, span = self.step - self._first, now - self._first_at
        return span * done / (done - 1) if done > 1 and span > 0 else now - self._started

    def _take_facts(self) -> None:
        facts, tally = self._attempt.facts, self.tally
        facts.num_steps, facts.train_s = self.step, tally.train_s
        facts.num_tokens = self._tokens(self.step)
        facts.metrics.update({name: tail_mean(values) for name, values in tally.series.items()})
        facts.metrics["train/loss"] = tail_mean(tally.losses)
        facts.metrics["time/tokens_per_s"] = facts.num_tokens / tally.train_s

    def _tokens(self, steps: int) -> int:
        return round(steps * self._spec.batch_size * self._row_tokens)

    def _write_event(self, line: StepLine) -> None:
        self.tally.keep(self._attempt.run_dir)
        self._attempt.journal.write(
            "step",
            step=self.step,
            num_steps=self._spec.num_steps,
            loss=line.loss,
            learning_rate=line.learning_rate,
            grad_norm=line.grad_norm,
            epoch=line.epoch,
            tokens_per_s=self._attempt.facts.metrics["time/tokens_per_s"],
            eta_s=(self._spec.num_steps - self.step) * self.tally.train_s / self.step,
            attempt_tokens=self._tokens(self.step - self._first),
            metrics=dict(line.series),
        )
