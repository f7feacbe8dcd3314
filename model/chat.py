"""Small 4's conversations: the chat template, what of it is trained, and reading a generated answer back. Torch-free.

The template is mistral-common's for Tekken version 15; it is generated, not kept. Tools and reasoning effort stand
before the first user turn: changing either within a conversation discards a server's prefix cache.
"""

import hashlib
import json
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast

Effort = Literal["none", "high"]
EFFORTS: tuple[Effort, ...] = ("none", "high")
"""Reasoning efforts that Small 4 knows; the first one holds where none is named."""
CALL_ID_LENGTH = 9
"""Letters and digits of a call id: what Mistral's validators and vLLM's parser accept."""

RESPONSE_TEMPLATE: dict[str, Any] = {
    "defaults": {"role": "assistant"},
    "start_anchor_pattern": r"(?:\[/INST\]|\[/TOOL_RESULTS\])",
    "fields": {
        "reasoning_content": {"open": "[THINK]", "close_pattern": r"\[/THINK\]\s*", "content": "text"},
        "tool_calls": {
            "open_pattern": r"\[TOOL_CALLS\](?P<name>[^\[\{]+)\[ARGS\]",
            "close_pattern": r"(?=\[TOOL_CALLS\])|</s>|$",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
        },
        "content": {"close_pattern": r"(?=\[TOOL_CALLS\])|</s>|$", "content": "text"},
    },
}
"""How transformers and TRL read an answer (`tokenizer.parse_response`): tool-calling GRPO needs it."""

_ANSWER = "        {%- if message['content'] %}\n            {{- render_content(content=message['content'], "
_STRIPPED = _ANSWER.replace(
    "content=message['content']",
    "content=message['content'].rstrip(' ') if message['content'] is string else message['content']",
)
_END = "        {{- eos_token }}\n"
_CONTROLS = ("[THINK]", "[/THINK]", "[TOOL_CALLS]", "[ARGS]", "</s>")
"""What a model writes; the other control tokens are the template's."""
_LETTERS = string.ascii_letters + string.digits


@cache
def chat_template() -> str:
    """Jinja over `messages`, `tools` and `reasoning_effort`, as Small 4 reads them.

    mistral-common's tokenizer drops spaces at the end of an answer and its template does not; this one does.
    """
    from mistral_common.integrations.chat_templates.chat_templates import generate_chat_template
    from mistral_common.tokens.tokenizers.base import TokenizerVersion

    generated = generate_chat_template(
        spm=False,
        tokenizer_version=TokenizerVersion.v15,
        image_support=False,
        audio_support=False,
        thinking_support=True,
        default_system_prompt=None,
        plain_thinking_support=False,
        use_special_token_variables=True,
        model_settings_fields=None,
        reasoning_effort_values=EFFORTS,
        reasoning_effort_default=EFFORTS[0],
    )
    return _replace_once(generated, _ANSWER, _STRIPPED)


@cache
def training_template() -> str:
    """The same with generation markers around each answer, its stop token included, for assistant-only losses."""
    begun = _replace_once(chat_template(), _STRIPPED, "        {%- generation %}\n" + _STRIPPED)
    return _replace_once(begun, _END, _END + "        {%- endgeneration %}\n")


def _replace_once(template: str, place: str, by: str) -> str:
    if template.count(place) != 1:
        raise RuntimeError(f"mistral-common's template has {place.strip()!r} {template.count(place)} times, not once.")
    return template.replace(place, by)


@dataclass(frozen=True)
class Call:
    """A tool call that can be made."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class MalformedCall:
    """What was meant as a tool call and is none."""

    id: str
    name: str
    """As far as it was written; "" without one."""
    text: str
    """What stands for its arguments."""
    reason: str
    """What is wrong with it, to be told to the model."""


@dataclass(frozen=True)
class Answer:
    """A generated answer, read."""

    content: str
    reasoning: str = ""
    """What it thought before; "" without [THINK]."""
    calls: tuple[Call | MalformedCall, ...] = ()
    """In order; several are to be made side by side."""
    ended: bool = True
    """Whether a stop token was generated: without one the answer was cut."""

    @property
    def message(self) -> dict[str, Any]:
        """The turn as chat templates take it. Malformed calls are left out."""
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in self.calls
            if isinstance(call, Call)
        ]
        turn: dict[str, Any] = {"role": "assistant", "content": self.content}
        return (
            turn
            | ({"reasoning_content": self.reasoning} if self.reasoning else {})
            | ({"tool_calls": calls} if calls else {})
        )


def parse_text(text: str, *, turn: int = 0) -> Answer:
    """The answer in a text with control tokens; whatever looks like one is taken for one. See `parse_ids`."""
    pieces = re.split("(" + "|".join(map(re.escape, _CONTROLS)) + ")", text)
    return _read([("", pieces[0]), *zip(pieces[1::2], pieces[2::2], strict=True)], turn)


def parse_ids(ids: Sequence[int], tokenizer: Any, *, turn: int = 0) -> Answer:
    """The answer in generated tokens: only control tokens control, also where text looks like them.

    Args:
        ids: what was generated, with or without its stop token.
        tokenizer: a transformers tokenizer with Small 4's control tokens.
        turn: number of the answer in its conversation, so that call ids differ between turns.
    """
    controls = {tokenizer.convert_tokens_to_ids(token): token for token in _CONTROLS}
    sections: list[tuple[str, list[int]]] = [("", [])]
    for token in ids:
        if token in controls:
            sections.append((controls[token], []))
        else:
            sections[-1][1].append(token)
    return _read([(control, tokenizer.decode(after)) for control, after in sections], turn)


def call_id(turn: int, place: int, text: str) -> str:
    """Nine letters and digits, equal for equal arguments, so that a replayed conversation renders as it did."""
    number = int.from_bytes(hashlib.sha256(f"{turn}/{place}/{text}".encode()).digest()[:8])
    letters: list[str] = []
    for _ in range(CALL_ID_LENGTH):
        number, rest = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[rest])
    return "".join(letters)


def _read(sections: Sequence[tuple[str, str]], turn: int) -> Answer:
    """The answer in sections: a control token ("" at the beginning) and the text after it."""
    content, reasoning, ended = "", "", False
    calls: list[list[str]] = []
    for control, text in sections:
        match control:
            case "</s>":
                ended = True
                break
            case "[TOOL_CALLS]":
                calls.append([text])
            case "[ARGS]" if calls:
                calls[-1].append(text)
            case "[THINK]":
                reasoning += text
            case _:
                content += text
    made = tuple(_call(call_id(turn, i, "".join(parts)), parts, ended) for i, parts in enumerate(calls))
    return Answer(content, reasoning, made, ended)


def _call(id_: str, parts: Sequence[str], ended: bool) -> Call | MalformedCall:
    """A call of its name and what stood after each [ARGS]."""
    name, texts = parts[0].strip(), parts[1:]
    text = "[ARGS]".join(texts)

    def malformed(reason: str) -> MalformedCall:
        return MalformedCall(id_, name, text, reason if ended else f"{reason} (the answer was cut)")

    if len(texts) != 1 or not re.fullmatch(r"[\w.-]{1,64}", name, re.ASCII):
        return malformed(
            f"A call is [TOOL_CALLS]name[ARGS]{{…}}, with one name of letters, digits, _ . and -; it is {name!r}."
        )
    try:
        arguments: object = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return malformed(f"The arguments of {name} are not JSON: {error}.")
    if not isinstance(arguments, dict):
        return malformed(f"The arguments of {name} must be a JSON object, they are {text[:80]!r}.")
    return Call(id_, name, cast("dict[str, Any]", arguments))


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
