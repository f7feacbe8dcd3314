"""Who answers a study's questions: a terminal with a person at it, or flags alone."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nightsmith.agent import render
from nightsmith.record.events import Event
from nightsmith.record.workspace import Workspace


@dataclass
class FlagDesk:
    """No person: `--answer` and `--yes` answer, everything else waits. Prints NDJSON or plain lines."""

    ws: Workspace
    yes: bool = False
    as_json: bool = False
    answers: list[str] = field(default_factory=lambda: [])

    async def answer(self, questions: Sequence[dict[str, Any]]) -> list[str] | None:
        """Answers given by flag; without any, the questions are printed and wait."""
        given, self.answers = self.answers, []
        if given:
            return given
        if self.as_json:
            print(json.dumps({"kind": "question", "questions": list(questions)}), flush=True)
        else:
            print(render.questions(questions), file=sys.stderr)
        return None

    async def approve(self, study: str) -> dict[str, Any] | None:
        """Approved by `--yes`, else it waits."""
        if not self.as_json:
            print(render.plan_card(self.ws, study))
        return {"approved": True, "how": "flag"} if self.yes else None

    def progress(self, keys: Sequence[str]) -> None:
        """Progress is in the events of the jobs; a log file needs no moving line."""

    def show(self, event: Event) -> None:
        """One line an event."""
        print(event.model_dump_json() if self.as_json else render.event_line(event), flush=True)


@dataclass
class TerminalDesk(FlagDesk):
    """A person at a terminal: asks, shows the plan card, keeps one moving progress line."""

    line: render.ProgressLine = field(default_factory=render.ProgressLine)

    async def answer(self, questions: Sequence[dict[str, Any]]) -> list[str] | None:
        """Ask one by one; an empty line takes the default."""
        if self.answers:
            return await super().answer(questions)
        self.line.clear()
        answers: list[str] = []
        for question in questions:
            default = f" [{question['default']}]" if question.get("default") else ""
            said = _typed(f"{question['text']}{default}: ")
            if said is None:
                return None
            answers.append(said or question.get("default") or "")
        return answers

    async def approve(self, study: str) -> dict[str, Any] | None:
        """Show the plan and ask; `--yes` answers beforehand."""
        if self.yes:
            return await super().approve(study)
        print(render.plan_card(self.ws, study))
        said = _typed("Start? [y/N] ")
        return None if said is None else {"approved": said.lower() in ("y", "yes"), "how": "console"}

    def progress(self, keys: Sequence[str]) -> None:
        """Redraw the progress line."""
        self.line.draw(self.ws, keys)

    def show(self, event: Event) -> None:
        """A line above the progress line."""
        self.line.clear()
        super().show(event)


def _typed(prompt: str) -> str | None:
    """A line from the terminal; None after Ctrl-C or Ctrl-D, which leave the question open."""
    try:
        return input(prompt).strip()
    except (EOFError, KeyboardInterrupt):
        print()
        return None


def desk(ws: Workspace, *, yes: bool, as_json: bool, answers: list[str]) -> FlagDesk:
    """The desk for this process: a terminal's if a person can see and type, else flags."""
    interactive = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    kind = TerminalDesk if interactive else FlagDesk
    return kind(ws, yes=yes, as_json=as_json, answers=list(answers))
