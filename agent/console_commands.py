"""Commands of the console: a line that begins with a slash. They work at any time, also while a question is open."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nightsmith.agent import console_study, console_talk, costing, dossier, figures, history, render, steering
from nightsmith.agent.console_status import job_line, left
from nightsmith.agent.conversing import Utterance
from nightsmith.agent.standing import is_driven
from nightsmith.record import budget, studies
from nightsmith.record.errors import NightsmithError
from nightsmith.tools.arguments import did_you_mean

if TYPE_CHECKING:
    from nightsmith.agent.console import Console


@dataclass(frozen=True)
class Command:
    """One command."""

    takes: str
    """Its argument, for the help."""
    does: str
    """What it does, for the help."""
    run: "Callable[[Console, str], Awaitable[None]]"
    """Runs it with what was typed after it."""


async def run(console: "Console", name: str, rest: str) -> None:
    """Run a command; an unknown one is answered with near names."""
    command = COMMANDS.get(name)
    if command is None:
        known = ", ".join(f"/{each}" for each in COMMANDS)
        console.say_plain(f"There is no command /{name}.{did_you_mean(name, COMMANDS)} Commands: {known}.")
        return
    await command.run(console, rest)


def words(console: "Console", typed: str) -> Sequence[tuple[str, str]]:
    """Completions of a command line: names, and the studies of those that take one."""
    name, space, _ = typed.removeprefix("/").partition(" ")
    if not space:
        return [(f"/{each}", command.does) for each, command in COMMANDS.items()]
    if name in COMMANDS and "STUDY" in COMMANDS[name].takes:
        return [(row.id, row.goal[:40]) for row in history.summaries(console.ws)]
    return []


def _study(console: "Console", named: str = "") -> str:
    """The study that is meant: the named one, else the one spoken of, else the newest. Raises NightsmithError."""
    rows = studies.all(console.ws)
    if not named and console.study is None and not rows:
        raise NightsmithError("There is no study yet. Type a goal to begin one.")
    return studies.get(console.ws, named or console.study or rows[-1].id).id


async def _help(console: "Console", rest: str) -> None:
    del rest
    width = max(len(f"{name} {command.takes}") for name, command in COMMANDS.items())
    for name, command in COMMANDS.items():
        console.say(f"  /{f'{name} {command.takes}'.strip():<{width}}  {command.does}")
    console.say_plain("Anything else is a goal, an answer, a question about the study, or what it should try or leave.")


async def _status(console: "Console", rest: str) -> None:
    del rest
    study = _study(console)
    console.say(render.show(await asyncio.to_thread(history.load, console.ws, study)))
    if console.track is not None and console.track.study == study:
        console.say(console.track.status())


async def _jobs(console: "Console", rest: str) -> None:
    del rest
    study = _study(console)
    view = await asyncio.to_thread(history.load, console.ws, study)
    for job in view.running:
        console.say_plain(f"  {job_line(console.ws, job.key, job.trial)}")
    ended = [job for job in view.jobs if job.ended]
    took = figures.duration(sum(job.wall_s for job in ended))
    console.say(f"{study}: {len(view.running)} running, {len(ended)} ended ({took}).")


async def _budget(console: "Console", rest: str) -> None:
    del rest
    study = _study(console)
    view = await asyncio.to_thread(history.load, console.ws, study)
    if not budget.is_open(console.ws, study):
        console.say(f"{study} has no budget yet: its plan was not approved.")
        return
    console.say_plain(costing.cost(view, Utterance(kind="cost")))
    console.say_plain(left(console.ws, study) or "Its goal names no limit.")


async def _report(console: "Console", rest: str) -> None:
    from nightsmith.agent import report as reporting

    study = _study(console, rest)
    await asyncio.to_thread(reporting.write, console.ws, study)
    console.say(render.ending(console.ws, study, "done"))


async def _tell(console: "Console", rest: str) -> None:
    study = _study(console)
    if not rest:
        raise steering.CannotSteer(f"/tell needs a sentence. {steering.possible(console.ws, study)}")
    async with console.talking:
        utterance = await console_talk.meant(console.ws, study, rest, console_study.watched(console))
        console.say_plain(steering.tell(console.ws, study, rest, utterance))


async def _stop(console: "Console", rest: str) -> None:
    study = _study(console, rest)
    if (row := studies.get(console.ws, study)).outcome is not None:
        console.say(f"{study} has ended already: {row.outcome}.")
        return
    dossier.request_stop(console.ws, study)
    console.say(f"Asked {study} to stop: its jobs save a checkpoint, then it is judged and reported.")
    if console.driver is None and not is_driven(console.ws, study):
        console_study.resume(console, study)


async def _resume(console: "Console", rest: str) -> None:
    if console.driver is not None:
        console.say(f"{console.driver.study} is running here; Ctrl-C saves and leaves it.")
        return
    unfinished = [row.id for row in history.summaries(console.ws) if row.outcome is None]
    spoken = [console.study] if console.study in unfinished else []
    study = rest or next(iter([*spoken, *unfinished]), "")
    if not study:
        console.say("Every study has ended. Type a goal to begin one; /studies lists them.")
        return
    console_study.resume(console, studies.get(console.ws, study).id)


async def _studies(console: "Console", rest: str) -> None:
    del rest
    console.say(render.study_table(await asyncio.to_thread(history.summaries, console.ws)))


async def _quit(console: "Console", rest: str) -> None:
    del rest
    console.close()


COMMANDS: Mapping[str, Command] = {
    "status": Command("", "outcome so far, trials, cost", _status),
    "jobs": Command("", "running jobs with their loss curves", _jobs),
    "budget": Command("", "what was spent, and what is left", _budget),
    "report": Command("[STUDY]", "outcome and where the report lies", _report),
    "tell": Command("TEXT", "what to try next, or to leave alone", _tell),
    "stop": Command("[STUDY]", "end it in order: judged and reported", _stop),
    "resume": Command("[STUDY]", "go on exactly where it was left", _resume),
    "studies": Command("", "all studies of the workspace", _studies),
    "help": Command("", "this list", _help),
    "quit": Command("", "save and leave (Ctrl-D)", _quit),
}
