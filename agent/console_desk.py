"""A person at the console answers a study's questions, and approves, edits or rejects its plan."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nightsmith.agent import dossier, editing, render
from nightsmith.agent.editing import CannotEdit
from nightsmith.record.events import Event

if TYPE_CHECKING:
    from nightsmith.agent.console import Console

CHOICES = (("approve", "start it"), ("edit", "change the budget, the target or a setting"), ("reject", "end the study"))
UNSAID = ("study_started", "question", "report")
"""Events that whoever sits at the console has just caused, or reads at the end anyway."""


class ConsoleDesk:
    """Asks at the prompt while everything else goes on."""

    def __init__(self, console: "Console"):
        """For one study after the other."""
        self.console = console
        self._best = ""

    async def answer(self, questions: Sequence[dict[str, Any]]) -> list[str] | None:
        """Ask one by one; an empty line takes the default."""
        answers: list[str] = []
        for number, question in enumerate(questions, 1):
            of = f"Question {number} of {len(questions)}: " if len(questions) > 1 else ""
            self.console.say_plain(f"{of}{question['text']}")
            answers.append(await self._said(question.get("default")))
        return answers

    async def _said(self, default: str | None) -> str:
        while not (said := await self.console.ask(f"[{default}]" if default else "answer")):
            if default:
                return default
            self.console.say("This has no default: answer it, or end the study with /stop.")
        return said

    async def approve(self, study: str) -> dict[str, Any] | None:
        """Show the plan; approve, edit or reject it, with a reason."""
        ws, console = self.console.ws, self.console
        console.say(render.plan_card(ws, study))
        while True:
            word, _, rest = (await console.ask("[a]pprove / [e]dit / [r]eject", CHOICES)).partition(" ")
            if word.lower() in ("a", "approve", "y", "yes"):
                return {"approved": True, "how": "console"}
            if word.lower() in ("r", "reject", "n", "no"):
                reason = rest.strip() or await console.ask("Why not? It is kept with the study")
                return {"approved": False, "how": "console", "reason": reason}
            if word.lower() in ("e", "edit"):
                if changes := await self._changes(study, rest.strip()):
                    return {"edits": changes}
            elif word:
                console.say("Type a to approve, e to edit (or e trials 2, time 5m), r to reject; commands work too.")

    async def _changes(self, study: str, typed: str) -> dict[str, str]:
        """Names and values that the plan can be given; an empty line changes nothing."""
        spec, plan = dossier.goal_spec(self.console.ws, study), dossier.study_plan(self.console.ws, study)
        words = [(name, "") for name in editing.names(plan.recipe)]
        while text := typed or await self.console.ask("edit: name value …", words):
            typed = ""
            try:
                changes = editing.parse(text)
                editing.edited(spec, {}, changes, plan.recipe)
            except CannotEdit as problem:
                self.console.say_plain(str(problem))
                continue
            return changes
        return {}

    def progress(self, keys: Sequence[str]) -> None:
        """Progress is in the status lines."""

    def show(self, event: Event) -> None:
        """A line above the prompt; after a verdict the curve of the best so far."""
        track = self.console.track
        if track is not None:
            track.note(event)
        if event.kind not in UNSAID:
            self.console.say(render.event_line(event, folded=True))
        if track is not None and event.kind in ("verdict", "confirmation"):
            self.console.spawn(self._curve())

    async def _curve(self) -> None:
        track = self.console.track
        if track is None:
            return
        await asyncio.to_thread(track.look_at_best)
        if track.best and track.best != self._best:
            self._best = track.best
            self.console.say(f"         {track.best}")
