"""What the timer calls: finds what is due, runs each study inside its window, and records what became of it.

One lock a schedule. What was cut off goes on first; what was missed is caught up once; what came due while the night
before was still running is skipped; what needs a person waits, and the other schedules go on.
"""

import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from nightsmith.agent import dossier, understand, window
from nightsmith.agent.night_desk import NightDesk
from nightsmith.agent.study import Desk, Ending, Held, exit_code
from nightsmith.agent.window import Window
from nightsmith.record import budget, events, recurrence, schedules, studies
from nightsmith.record.clock import Clock, utc_now
from nightsmith.record.errors import Busy, NightsmithError, NotApproved
from nightsmith.record.recurrence import Due
from nightsmith.record.schedules import FAILED, MISSED, SKIPPED, WAITING, OccurrenceRow, ScheduleRow
from nightsmith.record.workspace import Workspace

Drive = Callable[[str, Desk, Path], Ending]
"""Drives one study (id, desk, folder that its goal speaks of) until it ends, waits or is interrupted."""
GRACE = timedelta(hours=1)
"""How late a night without a window may start where catching up is off: timers are not exact."""
DONE, WAITS, BUG, CUT_OFF = 0, 6, 1, 130
_SEVERITY = (DONE, 3, 5, WAITS, BUG, CUT_OFF)
"""Exit statuses from harmless to grave: of several schedules the gravest is told."""


def gravest(statuses: Iterable[int]) -> int:
    """The exit status of a whole call."""
    return max(statuses, key=_SEVERITY.index, default=DONE)


@dataclass
class NightRun:
    """One call of `night run`."""

    ws: Workspace
    drive: Drive
    now: Clock = utc_now
    as_json: bool = False
    called: datetime = field(init=False)
    """When the call began: a schedule that waits its turn behind others is not late."""

    def run(self, chosen: Sequence[ScheduleRow], *, forced: bool = False) -> int:
        """Run what is due of these schedules, one after the other (`forced`: due or not). Returns the exit status."""
        statuses: list[int] = []
        self.called = self.now()
        for schedule in chosen:
            try:
                with self.ws.lock(schedule.lock):
                    statuses.append(self._turn(schedule, forced=forced))
            except Busy as busy:
                self._say(schedule, f"It is being run already. {busy}")
            if CUT_OFF in statuses:
                break
        return gravest(statuses)

    def _turn(self, schedule: ScheduleRow, *, forced: bool) -> int:
        statuses: list[int] = []
        for row in schedules.unfinished(self.ws, schedule.id):
            statuses.append(self._go_on(schedule, row))
            if statuses[-1] == CUT_OFF:
                return CUT_OFF
        due = self._choose(schedule, forced=forced)
        if due is not None:
            statuses.append(self._start(schedule, due))
        return gravest(statuses)

    def _go_on(self, schedule: ScheduleRow, row: OccurrenceRow) -> int:
        """An occurrence that was cut off: its study goes on; after its window it is judged as far as it came."""
        if row.study is None:
            schedules.release(self.ws, row.id)
            return DONE
        try:
            schedules.standing(self.ws, schedule, self.now)
        except NotApproved as refusal:
            return self._end(schedule, row, WAITING, WAITS, str(refusal))
        desk = self._desk(schedule)
        if budget.is_open(self.ws, row.study) and not desk.objection(row.study):
            understand.renew(self.ws, row.study, how="schedule")
        self._say(schedule, f"{row.study} was cut off and goes on.")
        return self._drive(schedule, row, row.study, desk, again=True)

    def _choose(self, schedule: ScheduleRow, *, forced: bool) -> Due | None:
        """The one occurrence to run now: the newest that is due. Those before it are recorded as missed."""
        now, length = self.now(), schedule.recurrence.window
        dues = recurrence.between(schedule.recurrence, schedules.handled_until(self.ws, schedule), now)
        anew = now + length if length else None
        if not dues:
            return Due(now, anew) if forced else None
        *missed, newest = dues
        in_time = now < newest.until if newest.until else self.called < newest.at + GRACE
        if not (in_time or schedule.catch_up or forced):
            self._pass_over(schedule, dues, MISSED, "Nothing ran at its time; it is not caught up (--no-catch-up).")
            return None
        self._pass_over(schedule, missed, MISSED, "Nothing ran at its time; caught up once, by the night after it.")
        return newest if in_time and not forced else Due(newest.at, anew)

    def _start(self, schedule: ScheduleRow, due: Due) -> int:
        if reason := self._held_back(schedule):
            self._pass_over(schedule, [due], WAITING, reason, status=WAITS)
            self._say(schedule, reason)
            return WAITS
        row = schedules.begin(self.ws, schedule.id, due, now=self.now)
        if row is None:
            return DONE
        study = self._new_study(schedule, row)
        return self._drive(schedule, row, study, self._desk(schedule), again=False)

    def _held_back(self, schedule: ScheduleRow) -> str:
        """Why no study is started: the approval rules no more, or an earlier night still waits for a person."""
        try:
            schedules.standing(self.ws, schedule, self.now)
        except NotApproved as refusal:
            return str(refusal)
        for row in reversed(schedules.occurrences(self.ws, schedule.id)):
            if row.outcome == WAITING and row.study and studies.get(self.ws, row.study).outcome is None:
                return (
                    f"{row.study}, of an earlier night, still waits for a person, so no other study is started. "
                    f"See: nightsmith show {row.study}; then `resume {row.study}` or `stop {row.study}`."
                )
        return ""

    def _new_study(self, schedule: ScheduleRow, row: OccurrenceRow) -> str:
        """A study whose goal is understood already, as it was when a person approved the schedule."""
        study = studies.create(self.ws, schedule.goal)
        dossier.save(self.ws, study, "folder", schedule.folder)
        ends_at = row.ends_at and row.ends_at - window.END_MARGIN
        window.give(self.ws, study, Window(ends_at=ends_at))
        dossier.save(self.ws, study, "interpretation", {**schedule.interpretation, "num_answers": 0})
        events.append(
            self.ws, study, "study_started", data={"goal": schedule.goal, "schedule": schedule.name}, now=self.now
        )
        schedules.set_study(self.ws, row.id, study)
        return study

    def _drive(self, schedule: ScheduleRow, row: OccurrenceRow, study: str, desk: NightDesk, *, again: bool) -> int:
        began = self.now()
        try:
            ending = self.drive(study, desk, Path(schedule.folder))
        except Held as held:
            schedules.remark(self.ws, row.id, f"Somebody else drives {study}. {held}")
            self._say(schedule, str(held))
            return DONE
        except NightsmithError as error:
            return self._failed(schedule, row, study, str(error), WAITS, again=again)
        except Exception as error:  # a bug in one night must not cost the others theirs; it is told as exit status 1
            traceback.print_exc()
            return self._failed(schedule, row, study, f"{type(error).__name__}: {error}", BUG, again=again)
        if ending is Ending.INTERRUPTED:
            schedules.remark(self.ws, row.id, "Interrupted; it goes on at the next start inside its window.")
            return CUT_OFF
        self._note_overlap(schedule, study, began)
        if ending is not Ending.DONE:
            return self._end(schedule, row, WAITING, WAITS, desk.waits_for)
        outcome = studies.get(self.ws, study).outcome or ""
        return self._end(schedule, row, outcome, exit_code(self.ws, study, ending), "")

    def _failed(
        self, schedule: ScheduleRow, row: OccurrenceRow, study: str, reason: str, status: int, *, again: bool
    ) -> int:
        """A study that could not go on is tried once more at the next start, then left to a person."""
        told = f"{study} is paused: {reason}"
        self._say(schedule, told)
        if again:
            return self._end(schedule, row, FAILED, status, f"{told} Go on: nightsmith resume {study}.")
        schedules.remark(self.ws, row.id, told)
        return status

    def _note_overlap(self, schedule: ScheduleRow, study: str, began: datetime) -> None:
        """Occurrences that came due while the study ran are skipped."""
        since = max(began, schedules.handled_until(self.ws, schedule))
        dues = recurrence.between(schedule.recurrence, since, self.now())
        self._pass_over(schedule, dues, SKIPPED, f"Overlap: {study}, of the night before, was still running.")

    def _end(self, schedule: ScheduleRow, row: OccurrenceRow, outcome: str, status: int, note: str) -> int:
        schedules.end(self.ws, row.id, outcome, status=status, note=note, now=self.now)
        if note:
            self._say(schedule, note)
        return status

    def _pass_over(
        self, schedule: ScheduleRow, dues: Sequence[Due], outcome: str, note: str, *, status: int | None = None
    ) -> None:
        schedules.pass_over(self.ws, schedule.id, dues, outcome, note, status=status, now=self.now)

    def _desk(self, schedule: ScheduleRow) -> NightDesk:
        return NightDesk(self.ws, as_json=self.as_json, schedule=schedule, now=self.now)

    def _say(self, schedule: ScheduleRow, told: str) -> None:
        print(f"nightsmith: {schedule.name}: {told}", file=sys.stderr, flush=True)
