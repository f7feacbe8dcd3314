"""Drives one study through its graph: answers interrupts, waits for jobs, counts time, stops in order.

The driver may die at any moment: the graph's state is on disk after every step, jobs live in sessions of their own, and
`drive` called again goes on exactly there.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import Command, Interrupt

from nightsmith.agent.goal import GoalSpec
from nightsmith.agent.graph import build
from nightsmith.agent.services import Services
from nightsmith.evals.types import Outcome
from nightsmith.record import budget, events, leases, studies
from nightsmith.record.workspace import Workspace
from nightsmith.trainer import jobs

POLL_S = 0.25
START: dict[str, Any] = {"queue": [], "running": [], "steps": {}, "confirmed": [], "winner": None, "ended": ""}
"""State of a study that has not begun."""
STOP_FILE = "stop"
DRAIN_GRACE_S = 30.0


class Ending(StrEnum):
    """Why the driver came back."""

    DONE = "done"
    """The study ended; its outcome is in the record."""
    QUESTION = "question"
    """It waits for an answer."""
    APPROVAL = "approval"
    """It waits for an approval."""
    INTERRUPTED = "interrupted"
    """It was interrupted and can be resumed."""


class Desk(Protocol):
    """Whoever answers: a terminal, a flag, a schedule. None means: nobody is there, let it wait."""

    def answer(self, questions: Sequence[dict[str, Any]]) -> list[str] | None:
        """Answers to the planner's questions."""
        ...

    def approve(self, study: str) -> dict[str, Any] | None:
        """`{"approved": bool, "how": "flag" | "console" | "schedule"}`."""
        ...

    def progress(self, keys: Sequence[str]) -> None:
        """Called while jobs run."""
        ...

    def show(self, event: events.Event) -> None:
        """Called once for every event of the study."""
        ...


@dataclass
class Driver:
    """One process's hold on one study."""

    services: Services
    study: str
    desk: Desk
    draining: bool = False
    """Set by the first Ctrl-C: finish the step, save, leave."""
    seen: int = 0
    """Last event shown."""
    last_tick: float = field(default_factory=time.monotonic)
    running: tuple[str, ...] = ()
    """Jobs that are being waited for."""

    @property
    def ws(self) -> Workspace:
        """The workspace."""
        return self.services.ws

    async def drive(self) -> Ending:
        """Run the study until it ends, waits for a person, or is interrupted. Raises Busy where it is held."""
        with self.ws.lock(f"study-{self.study}"):
            self._listen()
            path = str(self.ws.study_dir(self.study) / "graph.db")
            async with AsyncSqliteSaver.from_conn_string(path) as saver:
                ending = await self._drive(build(saver))
            self._show_events()
            return ending

    async def _drive(self, graph: Any) -> Ending:
        config = {"configurable": {"thread_id": self.study}}
        snapshot = await graph.aget_state(config)
        if snapshot.values and not snapshot.next:
            return Ending.DONE
        given: Any = None if snapshot.values else START | {"study": self.study}
        while True:
            if snapshot.interrupts:
                answer = await self._answer(snapshot.interrupts)
                if isinstance(answer, Ending):
                    return answer
                given = Command(resume=answer)
            await self._invoke(graph, given, config)
            snapshot = await graph.aget_state(config)
            if not snapshot.next:
                return Ending.DONE
            if self.draining and not snapshot.interrupts:
                return Ending.INTERRUPTED
            given = None

    async def _invoke(self, graph: Any, given: Any, config: Any) -> None:
        """Run the graph to its next interrupt, showing events as they come."""
        step = asyncio.ensure_future(graph.ainvoke(given, config, context=self.services, durability="sync"))
        while not step.done():
            await asyncio.wait({step}, timeout=POLL_S)
            self._tick()
            self._show_events()
        await step

    async def _answer(self, interrupts: Sequence[Interrupt]) -> dict[str, Any] | Ending:
        """What the interrupted nodes are resumed with, by interrupt id."""
        first = interrupts[0]
        match first.value["kind"]:
            case "question":
                answers = self._ask(lambda: self.desk.answer(first.value["questions"]))
                return Ending.QUESTION if answers is None else {first.id: answers}
            case "approval":
                given = self._ask(lambda: self.desk.approve(self.study))
                return Ending.APPROVAL if given is None else {first.id: given}
            case _:
                return await self._wait(interrupts)

    def _ask(self, question: Callable[[], Any]) -> Any:
        """Ask a person; their time is not the study's."""
        self._show_events()
        given = question()
        self.last_tick = time.monotonic()
        return given

    async def _wait(self, interrupts: Sequence[Interrupt]) -> dict[str, Any] | Ending:
        """Wait for all jobs of the round (or a free device)."""
        keys = tuple(i.value["key"] for i in interrupts if i.value["kind"] == "job")
        self.running = keys
        while any(jobs.poll(self.ws, key) is None for key in keys) or (not keys and not leases.free(self.ws, "cpu")):
            await asyncio.sleep(POLL_S)
            self._tick()
            self._show_events()
            self.desk.progress(keys)
            if self.draining or stop_requested(self.ws, self.study) or self._out_of_time():
                await asyncio.to_thread(self._stop_jobs, keys)
        self.running = ()
        return Ending.INTERRUPTED if self.draining else {i.id: True for i in interrupts}

    def _stop_jobs(self, keys: Sequence[str], grace_s: float = DRAIN_GRACE_S) -> None:
        for key in keys:
            jobs.stop(self.ws, key, grace_s=grace_s)

    def _out_of_time(self) -> bool:
        wall_s = budget.balance(self.ws, self.study).left.wall_s
        return wall_s is not None and wall_s <= 0

    def _tick(self) -> None:
        """Count active wall-clock time into the study's account, once it is open."""
        now = time.monotonic()
        if now - self.last_tick < 1.0:
            return
        if budget.is_open(self.ws, self.study):
            budget.tick(self.ws, self.study, now - self.last_tick)
        self.last_tick = now

    def _show_events(self) -> None:
        for event in events.read(self.ws, study=self.study, after=self.seen):
            self.seen = event.seq
            self.desk.show(event)

    def _listen(self) -> None:
        """First SIGINT or SIGTERM: finish the step and save. Second: stop now; nothing on disk is left half."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt)

    def _interrupt(self) -> None:
        if self.draining:
            self._stop_jobs(self.running, grace_s=0.0)
            raise SystemExit(130)
        self.draining = True


def stop_requested(ws: Workspace, study: str) -> bool:
    """Whether somebody asked the study to end."""
    return (ws.study_dir(study) / STOP_FILE).exists()


def request_stop(ws: Workspace, study: str) -> None:
    """Ask the study to end: whoever drives it stops its jobs, judges what there is and reports."""
    (ws.study_dir(study) / STOP_FILE).touch()


def exit_code(ws: Workspace, study: str, ending: Ending) -> int:
    """Exit status of `run` and `resume` (DESIGN §8)."""
    if ending is not Ending.DONE:
        return {Ending.QUESTION: 4, Ending.APPROVAL: 6, Ending.INTERRUPTED: 130}[ending]
    row = studies.get(ws, study)
    outcome = Outcome(row.outcome or Outcome.STOPPED)
    if outcome is Outcome.BLOCKED:
        return 5
    targets = GoalSpec.model_validate(row.spec).targets if row.spec else ()
    open_ended = bool(targets) and all(target.value is None for target in targets)
    good = {Outcome.PROVEN, Outcome.MET} | ({Outcome.IMPROVED} if open_ended else set())
    return 0 if outcome in good else 3
