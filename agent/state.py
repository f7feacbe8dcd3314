"""What the graph carries between its steps: plain JSON ids. Everything else is read from the record by id."""

from typing import Literal, TypedDict

Phase = Literal["baseline", "calibration", "trials", "confirmation", "sealed", "measured"]
Role = Literal["baseline", "calibration", "trial", "confirmation", "sealed", "measured"]


class Step(TypedDict):
    """One job to be started."""

    step: str
    """Plan-step id: with study and spec it makes the job's key."""
    trial: int
    """Trial it belongs to."""
    role: Role
    """What it is for."""
    seed: int
    """Seed of a training job."""
    stage: int
    """Stage of the run that it is, from 0."""
    model_of: str
    """Key of the job of the stage before, whose checkpoint it starts from; empty in the first stage."""
    checkpoint_of: str
    """Key of the job whose checkpoint is evaluated; empty for a training job."""
    fold: int
    """Sealed fold of an evaluation."""


class State(TypedDict):
    """The graph's state."""

    study: str
    """Study id."""
    phase: Phase
    """What the running jobs are for."""
    queue: list[Step]
    """Jobs still to be started in this phase."""
    running: list[str]
    """Keys of the jobs of this round."""
    steps: dict[str, Step]
    """Steps of this phase by job key."""
    next_trial: int
    """Number of the next trial."""
    proposed: list[int]
    """Trials of this round."""
    candidate: int
    """Trial under confirmation."""
    confirmed: list[int]
    """Trials that had their confirmation."""
    winner: int | None
    """Trial whose checkpoint is unsealed."""
    ended: str
    """Why the study ends early; empty while it does not."""
    edits: dict[str, str]
    """Changes to the plan that was shown, as typed: name -> value; empty once they are in the goal."""


class WaitState(TypedDict):
    """One branch that waits for one job (or, with an empty key, for a free device)."""

    study: str
    """Study id."""
    key: str
    """Job key."""
