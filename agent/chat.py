"""What `chat`, `tell` and `ask` do: open the workspace, find a terminal, hand over to the console or the planner."""

import asyncio
import sys
from pathlib import Path

from nightsmith.agent import answering, console_talk, steering
from nightsmith.agent.console import Console
from nightsmith.agent.console_line import Face, Line, PlainLine, PromptLine, history, is_plain
from nightsmith.agent.conversing import Utterance
from nightsmith.agent.opening import existing, opened
from nightsmith.agent.planner import Planner
from nightsmith.agent.remote import notice, say_remote
from nightsmith.agent.settings import load_settings
from nightsmith.record import studies
from nightsmith.record.errors import NightsmithError
from nightsmith.record.workspace import Workspace

NO_TERMINAL = (
    'chat needs a terminal to type in. Without one: nightsmith run "GOAL" --yes begins a study, resume STUDY --answer '
    '"…" answers it, show STUDY tells where it stands, ask STUDY "QUESTION" and tell STUDY "…" speak with it.'
)


def chat(path: Path | None) -> int:
    """The console, until the person leaves."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise NightsmithError(NO_TERMINAL)
    console = Console(opened(path), planner, Path.cwd(), line, notice=notice(load_settings()))
    return asyncio.run(console.run())


def line(face: Face) -> Line:
    """A prompt that stays below what is printed; on a dumb terminal, or without colour, plain lines."""
    return PlainLine(face) if is_plain() else PromptLine(face, history())


def planner() -> Planner:
    """The planner of the settings."""
    return Planner(load_settings().backend())


def tell(study: str, text: str, path: Path | None) -> int:
    """Steer a study by a sentence. Only writes it down: whoever drives the study hears it."""
    ws = existing(path)
    print(steering.tell(ws, study, text, _meant(ws, study, text)))
    return 0


def ask(study: str, question: str, path: Path | None) -> int:
    """Answer a question about a study from its result files."""
    ws = existing(path)
    utterance = _meant(ws, study, question)
    if utterance.kind not in console_talk.QUESTIONS:
        raise NightsmithError(f"Not understood as a question about {study}. {answering.POSSIBLE}.")
    print(answering.answer(ws, study, utterance))
    return 0


def _meant(ws: Workspace, study: str, text: str) -> Utterance:
    studies.get(ws, study)  # says which studies there are
    say_remote(load_settings())
    return asyncio.run(console_talk.meant(ws, study, text, planner()))
