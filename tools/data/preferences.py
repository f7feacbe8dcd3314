"""From a record to a pair: two answers to one question, the first preferred to the second."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import model_validator

from nightsmith.record.digest import Contract
from nightsmith.tools.data.conversations import Conversation, Turn, as_text, is_ragged, parse_turns


class PreferenceColumns(Contract):
    """Which columns of a table make pairs of answers. A cell is a text, or a list of turns (also as JSON text)."""

    prompt: str | None = None
    """What is answered: the user's turn, or several; null: `chosen` and `rejected` are whole conversations."""
    chosen: str
    """The better answer, or a conversation that ends with it."""
    rejected: str
    """The worse one."""
    system: str | None = None
    """The system's turn, where it is not empty."""

    @model_validator(mode="after")
    def _are_apart(self) -> "PreferenceColumns":
        if len(set(self.names())) < len(self.names()):
            raise ValueError(f"a column has two parts to play: {', '.join(self.names())}")
        return self

    def names(self) -> tuple[str, ...]:
        """The columns, as far as they are set."""
        return tuple(name for name in (self.system, self.prompt, self.chosen, self.rejected) if name is not None)


@dataclass(frozen=True)
class Pair:
    """Two conversations that differ in their last answer alone."""

    chosen: Conversation
    """Ends with the better answer."""
    rejected: Conversation
    """Ends with the worse one."""


def pair(record: Mapping[str, Any], columns: PreferenceColumns) -> Pair | None:
    """The pair of a record; None where something of it is empty, two questions are answered, or both answers are one.

    Answers that differ in the white space around them are one: chat templates cut it off.
    """
    if is_ragged(record):
        return None
    asked = _turns(record.get(columns.prompt), "user") if columns.prompt else ()
    system = as_text(record.get(columns.system)) if columns.system else None
    better, worse = (_whole(asked, record.get(name), system) for name in (columns.chosen, columns.rejected))
    if better is None or worse is None or better.turns[:-1] != worse.turns[:-1]:
        return None
    return None if better.answer.strip() == worse.answer.strip() else Pair(better, worse)


def _turns(value: object, role: str) -> tuple[Turn, ...]:
    """The turns of a cell; a text is one turn of that role."""
    if (turns := parse_turns(value)) is not None:
        return turns
    text = as_text(value)
    return ((role, text),) if text else ()


def _whole(asked: tuple[Turn, ...], answered: object, system: str | None) -> Conversation | None:
    """The question with its answer; an answer that begins with a question of its own is left as it is."""
    turns = _turns(answered, "assistant")
    while turns and turns[-1][0] != "assistant":
        turns = turns[:-1]
    if not turns:
        return None
    turns = (*asked, *turns) if turns[0][0] == "assistant" else turns
    if not any(role == "user" for role, _ in turns[:-1]):
        return None
    return Conversation((("system", system), *turns) if system and turns[0][0] != "system" else turns)
