"""Studies at the console: begun, continued, watched; the driver runs as a task beside the prompt.

The graph's imports take seconds, so they are done in a thread while the person reads or types (`warm`).
"""

import asyncio
import importlib
import textwrap
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightsmith.agent import dossier, history, render
from nightsmith.agent.console_desk import ConsoleDesk
from nightsmith.agent.console_status import Track
from nightsmith.agent.escape import plain
from nightsmith.agent.planner import Answered, Backend, Planner
from nightsmith.agent.standing import Standing, is_driven, standing
from nightsmith.agent.view import StudySummary
from nightsmith.record import events, studies
from nightsmith.record.errors import NightsmithError, NotApproved

if TYPE_CHECKING:
    from nightsmith.agent.console import Console
    from nightsmith.agent.study import Ending

DRIVING = "driving"
"""Name of the task that drives a study: the console waits for it before it leaves."""
WATCH_S = 0.5
_GRAPH = ("nightsmith.agent.study", "nightsmith.agent.services", "nightsmith.agent.understand")
"""What reading a goal needs."""
_LATER = ("duckdb", "scipy.stats")
"""What is needed once the planner has answered."""
LATER_S = 1.0


def warm() -> None:
    """Import what the first study needs; what is needed later does not compete with a goal that was typed at once."""
    load(*_GRAPH)
    time.sleep(LATER_S)
    load(*_LATER)


def load(*names: str) -> None:
    """Import modules; one that another thread imports is waited for."""
    for name in names:
        importlib.import_module(name)


async def offer(console: "Console") -> None:
    """Offer to go on with an unfinished study."""
    unfinished = [row for row in history.summaries(console.ws) if row.outcome is None]
    if not unfinished:
        return
    for row in unfinished[:5]:
        console.say_plain(_unfinished(console, row))
    newest = unfinished[0].id
    driven = standing(console.ws, newest, None) is Standing.RUNNING
    other = " or another study" if len(unfinished) > 1 else ""
    said = await console.ask(f"{'Watch' if driven else 'Continue'} {newest}? [Y/n{other}]", [("y", ""), ("n", "")])
    named = next((row.id for row in unfinished if row.id == said.strip().lower()), None)
    if named or said.lower() in ("", "y", "yes"):
        resume(console, named or newest)
    elif said.lower() not in ("n", "no"):
        console.take(said)


def _unfinished(console: "Console", row: StudySummary) -> str:
    stands = standing(console.ws, row.id, None)
    track = tracked(console, row.id)
    return f"{row.id} was at {track.phase} ({stands}): {textwrap.shorten(plain(row.goal), 100, placeholder=' …')}"


def tracked(console: "Console", study: str) -> Track:
    """Where a study stands, from all its events."""
    track = Track(console.ws, study)
    for event in events.read(console.ws, study=study):
        track.note(event)
    return track


def begin(console: "Console", goal: str) -> None:
    """Make a study of the goal and drive it."""
    study = studies.create(console.ws, goal)
    dossier.save(console.ws, study, "folder", str(console.folder))
    events.append(console.ws, study, "study_started", data={"goal": goal})
    resume(console, study)


def resume(console: "Console", study: str) -> None:
    """Drive a study on from where it stands; while another process does, watch it."""
    console.study, console.track = study, tracked(console, study)
    console.spawn(drive(console, study), name=DRIVING)


async def drive(console: "Console", study: str) -> None:
    """Drive the study until it ends, waits or was drained; say how. What pauses it is said too."""
    await asyncio.to_thread(load, *_GRAPH)
    from nightsmith.agent.study import Held

    await asyncio.to_thread(_look_at_best, console)
    if console.leaving:
        return
    try:
        await _renewed(console, study)
        ending = await _driven(console, study)
    except Held:
        console.say(f"Another process drives {study}: watching only. /stop and /tell reach it.")
        await watch(console, study)
        return
    except NotApproved as refusal:
        console.say_plain(f"{refusal}\n{study} is paused; /resume asks for the approval.")
        return
    except NightsmithError as problem:
        console.say_plain(f"{problem}\n{study} is paused; /resume goes on.")
        return
    console.say(_ending(console, study, ending))


async def _driven(console: "Console", study: str) -> "Ending":
    from nightsmith.agent.services import Services
    from nightsmith.agent.study import Driver

    folder = Path(dossier.load(console.ws, study, "folder") or console.folder)
    services = Services(ws=console.ws, planner=lambda: watched(console), cwd=folder)
    seen = [event.seq for event in events.read(console.ws, study=study)]
    driver = Driver(services, study, ConsoleDesk(console), listens=False, seen=max(seen, default=0))
    driver.draining = console.leaving  # the person may have left while imports ran
    console.driver = driver
    try:
        return await driver.drive()
    finally:
        console.driver = None
        console.line.refresh()


async def _renewed(console: "Console", study: str) -> None:
    """Where the approval has expired meanwhile, the same plan is shown and approved anew. Raises NotApproved."""
    from nightsmith.agent import understand

    if not await asyncio.to_thread(understand.is_expired, console.ws, study):
        return
    console.say(render.plan_card(console.ws, study))
    said = await console.ask("This approval has expired. Approve the same plan again? [y/N]")
    if said.lower() not in ("y", "yes"):
        raise NotApproved(f"The approval of {study} has expired.")
    understand.renew(console.ws, study, how="console")


def _ending(console: "Console", study: str, ending: "Ending") -> str:
    if ending == "done":
        return render.ending(console.ws, study, ending)
    how = "nightsmith chat" if console.leaving else "/resume"
    return f"Saved; {how} goes on with {study} exactly here."


async def watch(console: "Console", study: str) -> None:
    """Follow the events of a study that another process drives. Reads only."""
    desk = ConsoleDesk(console)
    seen = max((event.seq for event in events.read(console.ws, study=study)), default=0)
    while console.study == study and not console.leaving:
        for event in events.read(console.ws, study=study, after=seen):
            seen = event.seq
            desk.show(event)
        if studies.get(console.ws, study).outcome is not None:
            console.say(render.ending(console.ws, study, "done"))
            return
        if not is_driven(console.ws, study):
            console.say(f"Nobody drives {study} any more: /resume goes on.")
            return
        await asyncio.sleep(WATCH_S)


def _look_at_best(console: "Console") -> None:
    if console.track is not None:
        console.track.look_at_best()


def watched(console: "Console") -> Planner:
    """The planner, whose work shows in the status lines."""
    planner = console.planner()
    return Planner(WatchedBackend(planner.backend, console), seed=planner.seed)


@dataclass
class WatchedBackend:
    """A planner's backend that says at the console when it is waited for."""

    inner: Backend
    console: "Console"

    def __getattr__(self, name: str) -> Any:
        """Its address, model and adapter are the inner one's."""
        return getattr(self.inner, name)

    async def complete(self, messages: list[dict[str, str]], schema: dict[str, Any], **how: Any) -> Answered:
        """Ask once."""
        with waiting(self.console, "the planner thinks"):
            return await self.inner.complete(messages, schema, **how)


@contextmanager
def waiting(console: "Console", what: str) -> Generator[None]:
    """Say in the status lines what is waited for."""
    console.busy, console.busy_since = what, time.monotonic()
    console.line.refresh()
    try:
        yield
    finally:
        console.busy = ""
        console.line.refresh()
