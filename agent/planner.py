"""The planner's decisions: a goal becomes a spec, a study so far becomes the next trials, a sentence an utterance.

Code lists literals, renders prompts and rejects what cannot stand; every choice is the model's. An answer that is
rejected is asked for again, where it cannot recur, then with the exact error. If that fails too, the person is asked,
or the study pauses.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from nightsmith.agent import conversing, labels, literals, prompting, proposals, wire, wire_schema
from nightsmith.agent.chat_format import Style
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

INTERPRET_TOKENS = 640
PROPOSE_TOKENS = 64
CONVERSE_TOKENS = 48
"""Tokens of an answer at most (propose: for each trial)."""
TEMPERATURE = 0.0
"""Decisions are not drawn: the same question has the same answer."""
Answer = TypeVar("Answer")
Narrow = Callable[[list[WireError]], dict[str, Any]]
"""Schema for an answer after these errors."""


class Answered(Protocol):
    """What a backend gives back."""

    @property
    def text(self) -> str:
        """The answer as the model wrote it."""
        ...

    @property
    def truncated(self) -> bool:
        """Whether it was cut at the most tokens that it may have."""
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

    def __init__(self, text: str, errors: list[WireError], transcript: dict[str, Any]):
        """`errors` are what was wrong with each answer, `transcript` all that was asked and answered."""
        super().__init__(text)
        self.transcript = transcript
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
    """Prompt, schemas, raw answers, limits, seed and backend: what is needed to ask again."""

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
                lambda answer: _whole(wire.expand(labels.unlabelled(answer, candidates), goal, candidates)),
                lambda errors: _narrowed(errors, goal, candidates),
            )
        except PlannerConfused as confused:
            return _not_understood(confused)
        return _interpretation(meaning, turn.transcript(meaning.status))

    async def propose(self, request: ProposeRequest) -> tuple[list[Proposal], dict[str, Any]]:
        """Ask for the next trials, at most `request.k`. PlannerConfused when no answer can stand.

        The embedded planner is not shown `request.data`: it was not trained on that, and answered some studies worse.
        """
        if getattr(self.backend, "url", None) is None:
            request = request.model_copy(update={"data": ()})
        may_end = not request.must_go_on
        narrowed = proposals.schema(request.k, request.open_changes(), may_end=may_end)
        first = narrowed if request.hurt() or request.not_offered else proposals.schema(request.k, may_end=may_end)
        turn = _Turn(self, prompting.propose_messages(request), first, PROPOSE_TOKENS * request.k)
        found = await turn.ask(lambda answer: proposals.expand(answer, request), lambda _: narrowed)
        return found, turn.transcript([each.model_dump(mode="json", exclude_defaults=True) for each in found])

    async def converse(self, request: ConverseRequest) -> tuple[Utterance, dict[str, Any]]:
        """Ask what somebody meant. Where no answer can stand, the utterance is `unknown`."""
        found = conversing.mentions(request)
        turn = _Turn(self, prompting.converse_messages(request, found), conversing.schema(), CONVERSE_TOKENS)
        narrowed = conversing.schema(tuple(mention.id for mention in found), request.known_settings())
        try:
            said = await turn.ask(lambda answer: conversing.expand(answer, request, found), lambda _: narrowed)
        except PlannerConfused:
            said = Utterance(kind="unknown")
        return said, turn.transcript(said.model_dump(mode="json", exclude_defaults=True))


@dataclass
class _Turn:
    """One decision: the question, the answers, the errors."""

    planner: Planner
    messages: list[dict[str, str]]
    schema: dict[str, Any]
    max_tokens: int
    answers: list[str] = field(default_factory=list[str])
    asked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """For each answer the digest of its schema, and the messages after those that all have in common."""
    schemas: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """By digest."""
    wall_s: float = 0.0
    """Seconds that the answers took."""
    errors: list[WireError] = field(default_factory=list[WireError])

    async def ask(self, read: Callable[[dict[str, Any]], Answer], narrow: Narrow) -> Answer:
        """Ask; then with a schema that leaves out what cannot stand; then with the error as well.

        The second step is for small models: they choose well among what is possible, and are lost in a conversation
        about their mistakes (9 of 65 held-out goals were called dishonest there). The third is for large ones.
        """
        for is_last in (False, False, True):
            added = prompting.repair_messages(self.answers[-1], str(self.errors[-1])) if is_last else []
            answer = await self._complete(added, narrow(self.errors) if self.errors else self.schema)
            try:
                return read(_object(answer, self.max_tokens))
            except WireError as error:
                self.errors.append(error)
        text = f"The planner's answer cannot be used. {self.errors[-1]}"
        raise PlannerConfused(text, self.errors, self.transcript(None))

    async def _complete(self, added: list[dict[str, str]], schema: dict[str, Any]) -> Answered:
        backend, seed, begun = self.planner.backend, self.planner.seed, time.monotonic()
        limits: dict[str, Any] = {"max_tokens": self.max_tokens, "temperature": TEMPERATURE, "seed": seed}
        answer = await backend.complete([*self.messages, *added], schema, **limits)
        digest = sha256(canonical_json(schema))
        self.schemas[digest] = schema
        self.asked.append({"schema_digest": digest, "added": added})
        self.answers.append(answer.text)
        self.wall_s += time.monotonic() - begun
        return answer

    def transcript(self, result: Any) -> dict[str, Any]:
        """What was asked, what was answered and what came of it; null: no answer could stand."""
        return {
            "messages": self.messages,
            "schema_digest": sha256(canonical_json(self.schema)),
            "schemas": self.schemas,
            "asked": self.asked,
            "answers": self.answers,
            "errors": [str(error) for error in self.errors],
            "result": result,
            "max_tokens": self.max_tokens,
            "temperature": TEMPERATURE,
            "seed": self.planner.seed,
            "backend": identity(self.planner.backend),
            "wall_s": self.wall_s,
        }


def _object(answer: Answered, max_tokens: int) -> dict[str, Any]:
    try:
        value = json.loads(answer.text)
    except ValueError as error:
        if answer.truncated:
            raise WireError(f"The answer was cut off: it may have {max_tokens} tokens. Answer more briefly.") from error
        raise WireError(f"The answer is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise WireError("The answer must be one JSON object.")
    return value  # pyright: ignore[reportUnknownVariableType]


def _whole(meaning: Meaning) -> Meaning:
    """A meaning as it is. WireError where it is said to be ready and there is nothing to do."""
    if meaning.status == "ready" and meaning.spec is None:
        raise WireError("A goal that is ready says what is to be done; this answer does not.")
    return meaning


def _interpretation(meaning: Meaning, transcript: dict[str, Any]) -> Interpretation:
    reasons = tuple(meaning.reason_texts())
    return Interpretation(meaning.status, meaning.spec, meaning.sources, meaning.questions, reasons, transcript)


def _narrowed(errors: list[WireError], goal: str, candidates: tuple[Candidate, ...]) -> dict[str, Any]:
    """The schema after errors. What the text lacks can only be asked for; so can what was named wrongly twice."""
    last = errors[-1]
    if isinstance(last, Missing) and (last.asks != "targets" or len(errors) > 1 or not can_aim(goal, candidates)):
        return wire_schema.asking(last.asks, candidates, unspoken(goal))
    return wire_schema.narrowed(candidates, unspoken(goal), told_reasons(goal))


def _not_understood(confused: PlannerConfused) -> Interpretation:
    transcript = confused.transcript
    if confused.missing:
        return Interpretation("needs_answers", None, {}, (question(confused.missing.asks),), (), transcript)
    text = (
        f"The goal could not be read ({confused}) Put it in other words: what to train, on which data, to what target."
    )
    return Interpretation("needs_answers", None, {}, (Question(field="goal", text=text),), (), transcript)


def identity(backend: Backend) -> dict[str, Any]:
    """Which planner answers and how it is spoken to: address and model, digest of its adapter, style."""
    adapter, style = getattr(backend, "adapter", None), getattr(backend, "style", None)
    digest = file_digest(adapter) if isinstance(adapter, Path) and adapter.is_file() else None
    where = {"url": getattr(backend, "url", None), "model": getattr(backend, "model", None)}
    how = asdict(style) if isinstance(style, Style) else {}
    return {**where, "adapter_digest": digest if where["url"] is None else None, **how}
