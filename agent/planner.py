"""The planner's decisions: a goal becomes a spec, a study so far becomes the next trials, a sentence an utterance.

Code lists literals, renders prompts and rejects what cannot stand; every choice is the model's. An answer that is
rejected is asked for again, where it cannot recur, then with the exact error. If that fails too, the person is asked,
or the study pauses.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from nightsmith.agent import conversing, literals, prompting, proposals, wire, wire_schema
from nightsmith.agent.conversing import ConverseRequest, Utterance
from nightsmith.agent.goal import GoalSpec
from nightsmith.agent.grounds import can_aim, told_reasons, unspoken
from nightsmith.agent.literals import Candidate
from nightsmith.agent.proposals import Proposal, ProposeRequest
from nightsmith.agent.questions import Question, question
from nightsmith.agent.wire import Meaning, Status
from nightsmith.agent.wire_error import Missing, WireError
from nightsmith.record.digest import canonical_json, file_digest, sha256
from nightsmith.record.errors import NightsmithError

INTERPRET_TOKENS = 480
PROPOSE_TOKENS = 64
CONVERSE_TOKENS = 48
"""Tokens of an answer at most (propose: for each trial)."""
Answer = TypeVar("Answer")
Narrow = Callable[[list[WireError]], dict[str, Any]]
"""Schema for an answer after these errors."""


class Answered(Protocol):
    """What a backend gives back."""

    @property
    def text(self) -> str:
        """The answer as the model wrote it."""
        ...


class Backend(Protocol):
    """Any server that answers chat messages with JSON of a schema. Raises PlannerUnavailable when none is reachable."""

    async def complete(
        self,
        messages: list[dict[str, str]],
        schema: dict[str, Any],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Answered:
        """Ask once."""
        ...


class PlannerConfused(NightsmithError):
    """No answer of the planner can stand. Studies pause; nothing decides in its place."""

    def __init__(self, text: str, errors: list[WireError], wall_s: float):
        """`errors` are what was wrong with each answer, `wall_s` the seconds that the answers took."""
        super().__init__(text)
        self.wall_s = wall_s
        self.missing = next((error for error in reversed(errors) if isinstance(error, Missing)), None)


@dataclass(frozen=True)
class Interpretation:
    """A goal as the planner read it, in the form that `nightsmith plan --json` prints."""

    status: Status
    spec: GoalSpec | None
    sources: dict[str, Any]
    """JSON pointer into the spec -> {"span": [a, b]} | {"rule": …}."""
    questions: tuple[Question, ...]
    reasons: tuple[str, ...]
    transcript: dict[str, Any] = field(default_factory=dict[str, Any], compare=False)
    """Prompt, schema digest, raw answers, seed and backend: what is needed to ask again."""

    def as_json(self) -> dict[str, Any]:
        """Status, spec, sources, questions and reasons as plain JSON."""
        return {
            "status": self.status,
            "spec": None if self.spec is None else self.spec.model_dump(mode="json"),
            "sources": self.sources,
            "questions": [question.model_dump(mode="json") for question in self.questions],
            "reasons": list(self.reasons),
        }


@dataclass(frozen=True)
class Planner:
    """Understands goals and proposes trials through a language model."""

    backend: Backend
    seed: int = 0

    async def interpret(self, goal: str) -> Interpretation:
        """Read a goal. Where no answer can stand, the person is asked to put it in other words."""
        candidates = literals.find(goal)
        turn = _Turn(self, prompting.interpret_messages(goal, candidates), wire_schema.SCHEMA, INTERPRET_TOKENS)
        try:
            meaning = await turn.ask(
                lambda answer: wire.expand(answer, goal, candidates),
                lambda errors: _narrowed(errors, goal, candidates),
            )
        except PlannerConfused as confused:
            return _not_understood(confused, turn.transcript())
        return _interpretation(meaning, turn.transcript())

    async def propose(self, request: ProposeRequest) -> tuple[list[Proposal], dict[str, Any]]:
        """Ask for the next trials, at most `request.k`. PlannerConfused when no answer can stand."""
        turn = _Turn(self, prompting.propose_messages(request), proposals.schema(request.k), PROPOSE_TOKENS * request.k)
        narrowed = proposals.schema(request.k, request.open_changes())
        return await turn.ask(lambda answer: proposals.expand(answer, request), lambda _: narrowed), turn.transcript()

    async def converse(self, request: ConverseRequest) -> tuple[Utterance, dict[str, Any]]:
        """Ask what somebody meant. Where no answer can stand, the utterance is `unknown`."""
        found = conversing.mentions(request)
        turn = _Turn(self, prompting.converse_messages(request, found), conversing.schema(), CONVERSE_TOKENS)
        narrowed = conversing.schema(tuple(mention.id for mention in found), request.known_settings())
        try:
            said = await turn.ask(lambda answer: conversing.expand(answer, request, found), lambda _: narrowed)
        except PlannerConfused:
            said = Utterance(kind="unknown")
        return said, turn.transcript()


@dataclass
class _Turn:
    """One decision: the question, the answers, the errors."""

    planner: Planner
    messages: list[dict[str, str]]
    schema: dict[str, Any]
    max_tokens: int
    answers: list[str] = field(default_factory=list[str])
    wall_s: float = 0.0
    """Seconds that the answers took."""
    errors: list[WireError] = field(default_factory=list[WireError])

    async def ask(self, read: Callable[[dict[str, Any]], Answer], narrow: Narrow) -> Answer:
        """Ask; then with a schema that leaves out what cannot stand; then with the error as well.

        The second step is for small models: they choose well among what is possible, and are lost in a conversation
        about their mistakes (9 of 65 held-out goals were called dishonest there). The third is for large ones.
        """
        for messages in (self._as_asked, self._as_asked, self._with_error):
            answer = await self._complete(messages(), narrow(self.errors) if self.errors else self.schema)
            try:
                return read(_object(answer))
            except WireError as error:
                self.errors.append(error)
        raise PlannerConfused(f"The planner's answer cannot be used. {self.errors[-1]}", self.errors, self.wall_s)

    def _as_asked(self) -> list[dict[str, str]]:
        return self.messages

    def _with_error(self) -> list[dict[str, str]]:
        return [*self.messages, *prompting.repair_messages(self.answers[-1], str(self.errors[-1]))]

    async def _complete(self, messages: list[dict[str, str]], schema: dict[str, Any]) -> str:
        backend, seed, begun = self.planner.backend, self.planner.seed, time.monotonic()
        answer = await backend.complete(messages, schema, max_tokens=self.max_tokens, temperature=0.0, seed=seed)
        self.answers.append(answer.text)
        self.wall_s += time.monotonic() - begun
        return answer.text

    def transcript(self) -> dict[str, Any]:
        """What was asked and answered."""
        return {
            "messages": self.messages,
            "schema_digest": sha256(canonical_json(self.schema)),
            "answers": self.answers,
            "errors": [str(error) for error in self.errors],
            "seed": self.planner.seed,
            "backend": _identity(self.planner.backend),
            "wall_s": self.wall_s,
        }


def _object(answer: str) -> dict[str, Any]:
    try:
        value = json.loads(answer)
    except ValueError as error:
        raise WireError(f"The answer is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise WireError("The answer must be one JSON object.")
    return value  # pyright: ignore[reportUnknownVariableType]


def _interpretation(meaning: Meaning, transcript: dict[str, Any]) -> Interpretation:
    reasons = tuple(meaning.reason_texts())
    return Interpretation(meaning.status, meaning.spec, meaning.sources, meaning.questions, reasons, transcript)


def _narrowed(errors: list[WireError], goal: str, candidates: tuple[Candidate, ...]) -> dict[str, Any]:
    """The schema after errors. What the text lacks can only be asked for; so can what was named wrongly twice."""
    last = errors[-1]
    if isinstance(last, Missing) and (last.asks != "targets" or len(errors) > 1 or not can_aim(goal, candidates)):
        return wire_schema.asking(last.asks, candidates, unspoken(goal))
    return wire_schema.narrowed(candidates, unspoken(goal), told_reasons(goal))


def _not_understood(confused: PlannerConfused, transcript: dict[str, Any]) -> Interpretation:
    if confused.missing:
        return Interpretation("needs_answers", None, {}, (question(confused.missing.asks),), (), transcript)
    text = (
        f"The goal could not be read ({confused}) Put it in other words: what to train, on which data, to what target."
    )
    return Interpretation("needs_answers", None, {}, (Question(field="goal", text=text),), (), transcript)


def _identity(backend: Backend) -> dict[str, Any]:
    """Which planner answered: its address and model, and the digest of its adapter."""
    adapter = getattr(backend, "adapter", None)
    digest = file_digest(adapter) if isinstance(adapter, Path) and adapter.is_file() else None
    return {"url": getattr(backend, "url", None), "model": getattr(backend, "model", None), "adapter_digest": digest}
