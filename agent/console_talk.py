"""Something said at the console: the planner takes it for a goal, a question or a wish; code answers."""

import asyncio
from typing import TYPE_CHECKING

from nightsmith.agent import answering, console_study, ledger, steering
from nightsmith.agent.conversing import ConverseRequest, Utterance
from nightsmith.agent.planner import Planner
from nightsmith.record import studies
from nightsmith.record.workspace import Workspace

if TYPE_CHECKING:
    from nightsmith.agent.console import Console

QUESTIONS = ("why", "compare", "cost", "config", "best", "status")
UNKNOWN = f"Not understood. {answering.POSSIBLE}; or tell it what to try or to leave alone, or type a new goal. /help"


async def meant(ws: Workspace, study: str, text: str, planner: Planner) -> Utterance:
    """What somebody meant by a sentence about a study. The planner's words are kept with it."""
    numbers = tuple(row.number for row in studies.trials(ws, study))
    request = ConverseRequest(text=text, study=study, trials=numbers, settings=steering.tunable(ws, study))
    utterance, transcript = await planner.converse(request)
    ledger.keep_transcript(ws, study, "converse", transcript)
    return utterance


async def said(console: "Console", text: str) -> None:
    """Heed what was said. Without a study it is a goal."""
    async with console.talking:
        if console.study is None:
            console_study.begin(console, text)
            return
        utterance = await meant(console.ws, console.study, text, console_study.watched(console))
        await heed(console, console.study, text, utterance)


async def heed(console: "Console", study: str, text: str, utterance: Utterance) -> None:
    """Do what was meant: answer, steer, report, stop, or begin another study."""
    kind = utterance.kind
    if kind in QUESTIONS:
        console.say_plain(await asyncio.to_thread(answering.answer, console.ws, study, utterance))
    elif kind in ("avoid", "try"):
        console.say_plain(steering.tell(console.ws, study, text, utterance))
    elif kind == "report":
        console.take("/report")
    elif kind == "stop":
        await _confirmed_stop(console, study)
    elif kind == "goal":
        await _another(console, text)
    else:
        console.say_plain(UNKNOWN)


async def _confirmed_stop(console: "Console", study: str) -> None:
    if (await console.ask(f"Stop {study}? What there is gets judged and reported. [y/N]")).lower() in ("y", "yes"):
        console.take("/stop")


async def _another(console: "Console", goal: str) -> None:
    """A new goal; a study that is driven here is saved and left first, if the person wants that."""
    if console.driver is not None:
        said = await console.ask(f"{console.study} is running. Save and leave it, and begin this goal? [y/N]")
        if said.lower() not in ("y", "yes"):
            console.say(f'{console.study} goes on. Another terminal takes the goal too: nightsmith run "…"')
            return
        await console.drained()
    console_study.begin(console, goal)
