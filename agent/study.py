"""Drives one study through its graph: answers interrupts, waits for jobs, counts time, stops in order.

The driver may die at any moment: the graph's state is on disk after every step, jobs live in sessions of their own, and
`drive` called again goes on exactly there.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import Command, Interrupt

from nightsmith.agent import dossier
from nightsmith.agent.goal import GoalSpec
from nightsmith.agent.graph import build
from nightsmith.agent.pruning import Pruner
from nightsmith.agent.services import Services
from nightsmith.agent.standing import lock_name
from nightsmith.agent.work import device_kind, seconds_left
from nightsmith.evals.types import Outcome
from nightsmith.record import budget, events, leases, studies
from nightsmith.record.errors import Busy
from nightsmith.record.workspace import Workspace
from nightsmith.trainer import jobs
from nightsmith.trainer.jobrows import STARTED

POLL_S = 0.25
PRUNE_EVERY_S = 2.0
"""Seconds between two looks at how running trials stand against earlier ones."""
START: dict[str, Any] = {
    "queue": [],
    "running": [],
    "steps": {},
    "confirmed": [],
    "winner": None,
    "ended": "",
    "edits": {},
}
"""State of a study that has not begun."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
DRAIN_GRACE_S = 30.0


class Held(Busy):
    """Another process drives the study."""


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

    async def answer(self, questions: Sequence[dict[str, Any]]) -> list[str] | None:
        """Answers to the planner's questions. Cancelled where the study is stopped or interrupted meanwhile."""
        ...

    async def approve(self, study: str) -> dict[str, Any] | None:
        """`{"approved": bool, "how": "flag" | "console" | "schedule"}`; with `reason` where it is not."""
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
    listens: bool = True
    """Whether SIGINT and SIGTERM are this driver's; a console, to which Ctrl-C is a key, hears them itself."""
    draining: bool = False
    """Set by the first Ctrl-C: finish the step, save, leave."""
    seen: int = 0
    """Last event shown."""
    last_tick: float = field(default_factory=time.monotonic)

    @property
    def ws(self) -> Workspace:
        """The workspace."""
        return self.services.ws

    async def drive(self) -> Ending:
        """Run the study until it ends, waits for a person, or is interrupted. Raises Busy where it is held."""
        with ExitStack() as stack:
            self._hold(stack)
            self._listen()
            path = str(self.ws.study_dir(self.study) / "graph.db")
            async with AsyncSqliteSaver.from_conn_string(path) as saver:
                ending = await self._drive(build(saver))
            self._show_events()
            return ending

    def _hold(self, stack: ExitStack) -> None:
        """Hold the study for as long as the stack. Raises Held where another process drives it."""
        try:
            stack.enter_context(self.ws.lock(lock_name(self.study)))
        except Busy as busy:
            raise Held(str(busy)) from None

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
                answers = await self._ask(self.desk.answer(first.value["questions"]), stopped=[])
                return Ending.QUESTION if answers is None else {first.id: answers}
            case "approval":
                given = await self._ask(self.desk.approve(self.study), stopped={"approved": False})
                return Ending.APPROVAL if given is None else {first.id: given}
            case _:
                return await self._wait(interrupts)

    async def _ask(self, question: Coroutine[Any, Any, Any], stopped: Any) -> Any:
        """Ask a person; their time is not the study's. Ctrl-C and Ctrl-D leave the question open."""
        self._show_events()
        self._listen(False)  # a desk that blocks in input() hears Ctrl-C as KeyboardInterrupt
        asked = asyncio.ensure_future(question)
        try:
            while not self._is_moot():
                done, _ = await asyncio.wait({asked}, timeout=POLL_S)
                if done:
                    return await asked
            return stopped if dossier.stop_requested(self.ws, self.study) else None
        finally:
            asked.cancel()
            self._listen()
            self.last_tick = time.monotonic()

    def _is_moot(self) -> bool:
        return self.draining or dossier.stop_requested(self.ws, self.study)

    async def _wait(self, interrupts: Sequence[Interrupt]) -> dict[str, Any] | Ending:
        """Wait for all jobs of the round, or for a free device (that time is not the study's)."""
        keys = tuple(i.value["key"] for i in interrupts if i.value["kind"] == "job")
        pruner, looked = Pruner(self.ws, self.study), time.monotonic()
        while not self._done(keys):
            await asyncio.sleep(POLL_S)
            self._tick(counts=bool(keys))
            self._show_events()
            self.desk.progress(keys)
            if keys and time.monotonic() - looked >= PRUNE_EVERY_S:
                await asyncio.to_thread(self._stop_jobs, await asyncio.to_thread(pruner.hopeless, keys))
                looked = time.monotonic()
            if self.draining or dossier.stop_requested(self.ws, self.study) or (keys and self._out_of_time()):
                if not keys:
                    break
                await asyncio.to_thread(self._stop_jobs, keys)
        return Ending.INTERRUPTED if self.draining else {i.id: True for i in interrupts}

    def _done(self, keys: Sequence[str]) -> bool:
        if keys:
            results = [jobs.poll(self.ws, key) for key in keys]  # every one: a poll settles what ended
            return None not in results
        for row in jobs.rows(self.ws):
            if row.state == STARTED:  # jobs of a controller that died hold devices until somebody looks
                jobs.poll(self.ws, row.key)
        return bool(leases.free(self.ws, device_kind()))

    def _stop_jobs(self, keys: Sequence[str], grace_s: float = DRAIN_GRACE_S) -> None:
        for key in keys:
            jobs.stop(self.ws, key, grace_s=grace_s)

    def _out_of_time(self) -> bool:
        left = seconds_left(self.ws, self.study)
        return left is not None and left <= 0

    def _tick(self, *, counts: bool = True) -> None:
        """Count active wall-clock time into the study's account, once it is open."""
        now = time.monotonic()
        if now - self.last_tick < 1.0:
            return
        if counts and budget.is_open(self.ws, self.study):
            budget.tick(self.ws, self.study, now - self.last_tick)
        self.last_tick = now

    def _show_events(self) -> None:
        for event in events.read(self.ws, study=self.study, after=self.seen):
            self.seen = event.seq
            self.desk.show(event)

    def _listen(self, on: bool = True) -> None:
        """First SIGINT or SIGTERM: finish the step and save. Second: stop now; nothing on disk is left half."""
        if not self.listens:
            return
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            if on:
                loop.add_signal_handler(number, self.interrupt)
            else:
                loop.remove_signal_handler(number)

    def interrupt(self) -> None:
        """What Ctrl-C does: the first time the step is finished and saved, the second time the process ends at once."""
        if not self.draining:
            self.draining = True
            print("Finishing the step and saving; Ctrl-C again stops at once.", file=sys.stderr, flush=True)
            return
        try:
            self.stop_now()
        finally:
            print(f"Stopped. `nightsmith resume {self.study}` goes on from the last checkpoints.", file=sys.stderr)
            os._exit(130)  # the graph is on disk after every step, so there is nothing to unwind

    def stop_now(self) -> None:
        """End the study's jobs without waiting for a checkpoint; the last ones stand."""
        started = [row.key for row in jobs.rows(self.ws, self.study) if row.state == STARTED]
        self._stop_jobs(started, grace_s=0.0)


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
    good = outcome in (Outcome.PROVEN, Outcome.MET) or (outcome is Outcome.IMPROVED and open_ended)
    return 0 if good else 3
