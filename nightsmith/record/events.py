"""The one typed event stream that console, `--json` and pages read."""

from typing import Literal

from pydantic import AwareDatetime, Field, JsonValue

from nightsmith.record.digest import Contract

EventKind = Literal[
    "study_started",
    "interpreted",
    "question",
    "preflight",
    "approval",
    "planned",
    "data_built",
    "job_started",
    "job_progress",
    "job_finished",
    "trial_proposed",
    "verdict",
    "confirmation",
    "unsealed",
    "refused",
    "budget",
    "warning",
    "study_paused",
    "study_resumed",
    "outcome",
    "report",
]


class Event(Contract):
    """One thing that happened in a study."""

    seq: int = Field(ge=0)
    """Position in the workspace's stream."""
    at: AwareDatetime
    """When, UTC."""
    study: str
    """Study id."""
    kind: EventKind
    """What kind of thing."""
    trial: int | None = None
    """Trial number."""
    job: str | None = None
    """Job key."""
    data: dict[str, JsonValue] = {}
    """Particulars; figures in it come from result files."""
