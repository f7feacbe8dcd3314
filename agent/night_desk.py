"""Nobody at the keyboard: a schedule approves what a person approved for every night, and nothing beyond it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nightsmith.agent import understand
from nightsmith.agent.desk import FlagDesk
from nightsmith.record import approvals, schedules
from nightsmith.record.clock import Clock, utc_now
from nightsmith.record.errors import NotApproved
from nightsmith.record.schedules import ScheduleRow


@dataclass
class NightDesk(FlagDesk):
    """Approves inside the standing envelope. Questions, and everything outside it, wait for a person."""

    schedule: ScheduleRow = field(kw_only=True)
    now: Clock = utc_now
    waits_for: str = ""
    """What a person is needed for; empty while nobody is."""

    async def answer(self, questions: Sequence[dict[str, Any]]) -> list[str] | None:
        """A question waits for the morning."""
        self.waits_for = "An answer is needed: " + " ".join(str(question["text"]) for question in questions)
        return await super().answer(questions)

    async def approve(self, study: str) -> dict[str, Any] | None:
        """Approved by the schedule where the study's envelope is inside the standing one."""
        await super().approve(study)  # shows the plan
        self.waits_for = self.objection(study)
        return None if self.waits_for else {"approved": True, "how": "schedule"}

    def objection(self, study: str) -> str:
        """Why a person has to approve the study; empty where the standing envelope covers it."""
        try:
            allowed = schedules.standing(self.ws, self.schedule, self.now).envelope
        except NotApproved as refusal:
            return str(refusal)
        beyond = approvals.excess(allowed, understand.envelope(self.ws, study))
        return f"Outside what was approved for each night: {'; '.join(beyond)}." if beyond else ""
