"""From a record to a conversation: columns of a pair, or a list of turns, become messages that end with an answer."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import model_validator

from nightsmith.record.digest import Contract

SURROGATES = re.compile("[\ud800-\udfff]")
"""Halves of UTF-16 pairs: JSON can escape a lone one, UTF-8 cannot hold it."""
OVERFLOW = ""
"""Key of a record under which a table with ragged rows keeps the values beyond its header."""
EXACT_INTEGERS = 2.0**53
"""Below it every whole float is an exact integer."""

_ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "prompter": "user", "customer": "user",
    "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "chatbot": "assistant", "model": "assistant",
    "ai": "assistant", "agent": "assistant",
}  # fmt: skip
_ROLE_KEYS = ("role", "from", "speaker", "author")
_CONTENT_KEYS = ("content", "value", "text", "message")


class ChatColumns(Contract):
    """Which columns of a table make a conversation: `messages` alone, or `prompt` and `completion`."""

    messages: str | None = None
    """Lists of turns, each with role and content (or from and value); also as JSON text."""
    prompt: str | None = None
    """The user's turn."""
    context: str | None = None
    """Appended to the prompt after a blank line, where it is not empty."""
    completion: str | None = None
    """The assistant's turn."""
    system: str | None = None
    """The system's turn, where it is not empty."""

    @model_validator(mode="after")
    def _one_form(self) -> "ChatColumns":
        names = self.names()
        if self.messages is None and (self.prompt is None or self.completion is None):
            raise ValueError("columns need prompt and completion, or messages")
        if self.messages is not None and (self.prompt or self.context or self.completion):
            raise ValueError("messages excludes prompt, context and completion: set one form")
        if len(set(names)) < len(names):
            raise ValueError(f"a column has two parts to play: {', '.join(names)}")
        return self

    def names(self) -> tuple[str, ...]:
        """The columns, as far as they are set."""
        found = (self.messages, self.system, self.prompt, self.context, self.completion)
        return tuple(name for name in found if name is not None)


Turn = tuple[str, str]
"""Role and content."""


@dataclass(frozen=True)
class Conversation:
    """Turns that end with the assistant's answer."""

    turns: tuple[Turn, ...]
    """In order."""

    @property
    def text(self) -> str:
        """All contents, for length, duplicates and reading."""
        return "\n".join(content for _, content in self.turns)

    @property
    def answer(self) -> str:
        """The last turn."""
        return self.turns[-1][1]

    @property
    def opening(self) -> str:
        """What comes before the first answer to a user: equal for every conversation that goes on from it.

        Rows are placed in splits by it, so that no prompt of any turn is in two splits.
        """
        roles = [role for role, _ in self.turns]
        end = roles.index("assistant", roles.index("user"))
        return "\n".join(content for _, content in self.turns[:end])

    @property
    def json(self) -> str:
        """The column `messages`."""
        return json.dumps([{"role": role, "content": content} for role, content in self.turns], ensure_ascii=False)


def conversation(record: Mapping[str, Any], columns: ChatColumns) -> Conversation | None:
    """The conversation of a record; None where prompt or answer is empty, or the row has values beyond its header."""
    if is_ragged(record):
        return None
    system = as_text(record.get(columns.system)) if columns.system else None
    if columns.messages:
        turns = turns_of(record.get(columns.messages))
        opens = turns is not None and turns[0][0] != "system"
    else:
        turns, opens = _pair(record, columns), True
    if turns is None:
        return None
    return Conversation((("system", system), *turns) if system and opens else turns)


def is_ragged(record: Mapping[str, Any]) -> bool:
    """Whether a row has values beyond its table's header, so that it cannot be told which is which."""
    return any(as_text(value) for value in cast("list[Any]", record.get(OVERFLOW) or []))


def _pair(record: Mapping[str, Any], columns: ChatColumns) -> tuple[Turn, ...] | None:
    asked = as_text(record.get(str(columns.prompt)))
    given = as_text(record.get(str(columns.completion)))
    if asked is None or given is None:
        return None
    context = as_text(record.get(columns.context)) if columns.context else None
    return ("user", f"{asked}\n\n{context}" if context else asked), ("assistant", given)


def as_text(value: object) -> str | None:
    """A value as text: numbers as people write them (12, not 12.0), true and false; None where there is none."""
    match value:
        case str():
            text = SURROGATES.sub("\ufffd", value)
            return text if text.strip() else None
        case bool():
            return "true" if value else "false"
        case float():
            if not math.isfinite(value):
                return None
            return str(int(value)) if value.is_integer() and abs(value) < EXACT_INTEGERS else repr(value)
        case None | bytes() | list() | dict() | tuple() | set():
            return None
        case _:
            return str(value)


def turns_of(value: object) -> tuple[Turn, ...] | None:
    """Turns of a list of objects (or its JSON text), up to the last answer; None where it is no such list.

    A list is refused whole where a turn has an unknown role or no text: half a conversation would teach something else.
    """
    turns = parse_turns(value) or ()
    while turns and turns[-1][0] != "assistant":
        turns = turns[:-1]
    return turns if any(role == "user" for role, _ in turns) else None


def parse_turns(value: object) -> tuple[Turn, ...] | None:
    """All turns of a list of objects (or its JSON text); None where it is no such list, or one of them is no turn."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, list):
        return None
    turns = [_turn(each) for each in cast("list[object]", value) if not _is_empty_system(each)]
    known = tuple(turn for turn in turns if turn is not None)
    return known if known and len(known) == len(turns) else None


def _turn(value: object) -> Turn | None:
    if not isinstance(value, dict):
        return None
    turn = cast("dict[str, object]", value)
    role = next((turn[key] for key in _ROLE_KEYS if key in turn), None)
    content = next((_content(turn[key]) for key in _CONTENT_KEYS if key in turn), None)
    known = _ROLES.get(role.strip().lower()) if isinstance(role, str) else None
    return (known, content) if known and content else None


def _is_empty_system(value: object) -> bool:
    return (
        isinstance(value, dict)
        and "system" in value.values()
        and not any(  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType, reportUnknownVariableType]
            as_text(cast("dict[str, object]", value).get(key)) for key in _CONTENT_KEYS
        )
    )


def _content(value: object) -> str | None:
    """Text, or the texts of a list of parts; None where a part is no text."""
    if not isinstance(value, list):
        return as_text(value)
    parts = cast("list[object]", value)
    texts = [as_text(cast("dict[str, object]", part).get("text")) if isinstance(part, dict) else None for part in parts]
    return "\n".join(text for text in texts if text) or None if all(texts) else None
