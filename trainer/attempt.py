"""One start of a job, as its runner sees it: where to write, when to end, what is known so far."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from nightsmith.evals.types import Evaluation
from nightsmith.trainer.journal import Journal
from nightsmith.trainer.spec import RunStatus


class Ended(Exception):
    """A job ends early, in order. Not an error: it becomes the result's status and reason."""

    def __init__(self, status: RunStatus, reason: str) -> None:
        """Status and reason of the result to be."""
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass
class Facts:
    """What a runner has established; becomes the RunResult however the job ends."""

    metrics: dict[str, float] = field(default_factory=dict[str, float])
    checkpoint: Path | None = None
    checkpoint_digest: str | None = None
    initial_digest: str | None = None
    evaluation: Evaluation | None = None
    num_steps: int = 0
    num_tokens: int = 0
    train_s: float = 0.0
    evaluate_s: float = 0.0
    peak_memory_gib: float = 0.0
    """Of processes that the worker has started."""


@dataclass(frozen=True)
class Attempt:
    """One start of a job."""

    run_dir: Path
    devices: tuple[str, ...]
    journal: Journal
    ending: Callable[[], RunStatus | None]
    """STOPPED or TIMED_OUT once the job has to end; runners ask at every step."""
    facts: Facts = field(default_factory=Facts)
    micro_batch_size: int | None = None
    """Rows of a batch that are in memory at once; null: all of them."""

    def end_if_asked(self) -> None:
        """Raise Ended once the job has to end."""
        if self.ending() is not None:
            self.end()

    def end(self) -> NoReturn:
        """Raise Ended; another process of the job may have been the one that was asked."""
        status = self.ending() or RunStatus.STOPPED
        raise Ended(status, f"Ended at step {self.facts.num_steps}; starting it again goes on from there.")

    def phase(self, name: str) -> None:
        """Say what the job does now."""
        self.journal.write("phase", phase=name)
