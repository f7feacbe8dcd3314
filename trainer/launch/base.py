"""What every launcher can do. A launcher is a module with these functions, entered in `launchers.LAUNCHERS`."""

import signal
from dataclasses import dataclass
from typing import Protocol

from pydantic import Field

from nightsmith.record.digest import Contract
from nightsmith.trainer.launch.site import LauncherName
from nightsmith.trainer.runfolder import Claim
from nightsmith.trainer.spec import LaunchSpec, RunStatus

CLAIM_WITHIN_S = 30.0
"""A start that no engine knows of, and that no process has claimed by then, is over."""


class Handle(Contract):
    """What an engine calls a start; `launched-N.json` in the run folder, for people: no launcher needs it."""

    launcher: LauncherName
    """Which launcher."""
    id: str = Field(min_length=1)
    """Process id, or job id of the engine."""


@dataclass(frozen=True)
class Gone:
    """That no process runs an attempt, or will."""

    status: RunStatus
    """How it ended, unless it has left an exit record."""
    why: str
    """In a sentence, for the result's reason."""


class Launcher(Protocol):
    """Starts attempts of jobs, and knows of each what becomes of it, also for a controller that did not start it."""

    def launch(self, spec: LaunchSpec, attempt: int) -> Handle:
        """Start the process of an attempt; its output goes to `log.txt` in its folder.

        Called again for an attempt that it has started already, however long ago and by whomever, it starts nothing, or
        a process that finds the attempt claimed and leaves.

        Raises:
            NightsmithError: it cannot be started.
        """
        ...

    def gone(self, spec: LaunchSpec, attempt: int, claim: Claim | None, waited_s: float) -> Gone | None:
        """Whether nobody runs an attempt any more; None: somebody does, or it waits, comes up, or cannot be asked for.

        An exit record that is absent after this said so stays absent. `claim`: who took the attempt, if anybody;
        `waited_s`: seconds since it was intended.
        """
        ...

    def cancel(self, spec: LaunchSpec, attempt: int, claim: Claim | None, number: signal.Signals) -> None:
        """Ask the process to end (SIGTERM), or end it (SIGKILL); without a claim, take it out of the queue.

        Does not wait. Raises NightsmithError where it cannot be reached from here.
        """
        ...
