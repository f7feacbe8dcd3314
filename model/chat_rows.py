"""Conversations as a model reads them: token ids, and which of them are trained. Torch-free; one home for both.

Trainer and evaluation render by the same code, so a model is asked exactly what it was trained on. With a chat template
a turn is rendered by it; without one, turns' contents are joined by line breaks, after BOS where the tokenizer adds it,
and each answer ends with EOS. An answer is tokenised apart from what precedes it, as it is when it is generated. Text
that looks like a control token ("[INST]" in a user's turn) stays text.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict, cast

from nightsmith.record.errors import NightsmithError

ROLES = ("system", "user", "assistant", "tool")
_PROBE = "nightsmith 4711"
"""An answer whose end is looked for in a template's rendering."""
_SPLIT = "\ufdd0"
"""Stands inside what looks like a control token until it is tokenised; Unicode keeps it free for such uses."""


class Message(TypedDict):
    """One turn."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    reasoning_content: NotRequired[str]
    """What an assistant thought before it answered; the conversation is rendered with reasoning effort "high"."""
    tool_calls: NotRequired[list[dict[str, Any]]]
    """An assistant's calls, as OpenAI writes them: {"id", "type": "function", "function": {"name", "arguments"}}."""
    tool_call_id: NotRequired[str]
    """Call that a tool's turn is the result of."""


Tool = dict[str, Any]
"""{"type": "function", "function": {"name", "description", "parameters"}}."""


class NotConversation(NightsmithError):
    """A row is no conversation that ends with an answer."""


@dataclass(frozen=True)
class Segment:
    """A piece of a rendering that is tokenised by itself."""

    text: str
    is_answer: bool
    """Whether it is trained."""
    ends: bool = False
    """Whether a stop token is put after it, because its text holds none."""


@dataclass(frozen=True)
class TokenRow:
    """A rendered conversation."""

    ids: tuple[int, ...]
    trained: tuple[bool, ...]
    """One entry a token: true for answers up to and including their stop token."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def answer_start(self) -> int:
        """Place of the last answer's first token; len(ids) where nothing is trained."""
        places = [i for i, trained in enumerate(self.trained) if trained]
        if not places:
            return len(self.ids)
        return next((i + 1 for i in range(places[-1], -1, -1) if not self.trained[i]), 0)


def parse_messages(text: str, row_id: str) -> tuple[Message, ...]:
    """The turns of a row's `messages` column. Raises NotConversation."""
    try:
        turns: Any = json.loads(text)
        messages = tuple(_message(turn) for turn in turns)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise NotConversation(
            f"Row {row_id}: `messages` must be a JSON list of objects with `role` and `content`, it is {text[:80]!r}."
        ) from error
    wrong = [turn for turn in messages if turn["role"] not in ROLES or not isinstance(turn["content"], str)]
    if wrong:
        raise NotConversation(f"Row {row_id}: a turn is {str(wrong[0])[:80]!r}; roles are {', '.join(ROLES)}.")
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise NotConversation(
            f"Row {row_id}: a conversation needs a turn to answer and must end with an assistant turn."
        )
    return messages


def parse_tools(text: str | None, row_id: str) -> tuple[Tool, ...]:
    """The tools of a row's `tools` column; none where it is empty. Raises NotConversation."""
    try:
        tools: Any = json.loads(text) if text else []
        named = all(isinstance(tool["function"]["name"], str) for tool in tools)
    except (ValueError, TypeError, KeyError):
        named = False
        tools = []
    if not named:
        raise NotConversation(
            f"Row {row_id}: `tools` must be a JSON list of objects with a `function` each, it is {str(text)[:80]!r}."
        )
    return tuple(tools)


def _message(turn: dict[str, Any]) -> Message:
    """A turn with what is known of it; calls' arguments, where they are JSON text, as objects."""
    calls = [_call(call) for call in turn.get("tool_calls") or []]
    kept = {name: turn[name] for name in ("reasoning_content", "tool_call_id") if turn.get(name)}
    content = "" if calls and turn.get("content") is None else turn["content"]
    return cast(Message, {"role": turn["role"], "content": content} | kept | ({"tool_calls": calls} if calls else {}))


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = function["arguments"]
    given = json.loads(arguments) if isinstance(arguments, str) and arguments else arguments or {}
    if not isinstance(given, dict):
        raise TypeError(f"arguments of {function['name']} are no object")
    known = {"type": "function", "function": {"name": function["name"], "arguments": given}}
    return known | ({"id": call["id"]} if call.get("id") else {})


class ChatFormat:
    """How one tokenizer renders conversations."""

    def __init__(self, tokenizer: Any) -> None:
        """Find out how answers end. Raises NightsmithError where the tokenizer has no token that could end one."""
        self._tokenizer = tokenizer
        self._templated = bool(getattr(tokenizer, "chat_template", None))
        lead, tail = _around_probe(tokenizer) if self._templated else ("", "")
        self.stop_id = _stop_id(tokenizer, tail)
        """The token that ends an answer."""
        self._lead_id = next(iter(reversed(_special_ids(tokenizer, lead))), None)
        self._controls = _control_pattern(tokenizer)
        self._lead_text = lead if self._lead_id is None else ""
        """What a template without a generation prompt writes before an answer: it belongs to the question."""

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens at which generation stops: the one that ends answers, and EOS."""
        eos = self._tokenizer.eos_token_id
        return tuple(dict.fromkeys(i for i in (self.stop_id, eos) if i is not None))

    def render(
        self, conversations: Sequence[Sequence[Message]], tools: Sequence[Sequence[Tool]] = ()
    ) -> list[list[TokenRow]]:
        """Each conversation as one row in which every answer is trained.

        It is a row for each answer where the template renders a turn differently once another follows it.

        Args:
            conversations: messages each.
            tools: what each may call; empty where none may.
        """
        offered = tools or [()] * len(conversations)
        pieces = [self._rows(self._dialogue(*each)) for each in zip(conversations, offered, strict=True)]
        tokens = iter(self._tokenise([segment.text for rows in pieces for row in rows for segment in row]))
        return [[self._join([(segment, next(tokens)) for segment in row]) for row in rows] for rows in pieces]

    def last_answers(
        self, conversations: Sequence[Sequence[Message]], tools: Sequence[Sequence[Tool]] = ()
    ) -> list[TokenRow]:
        """Each conversation with its last answer alone trained; up to `answer_start` it is the prompt."""
        rows = [rows[-1] for rows in self.render(conversations, tools)]
        return [
            TokenRow(row.ids, tuple(trained and i >= row.answer_start for i, trained in enumerate(row.trained)))
            for row in rows
        ]

    def answer_text(self, ids: Sequence[int]) -> str:
        """A generated answer's text, without what the template puts before contents (a channel, an empty thought)."""
        if self._lead_id is not None and self._lead_id in ids:
            ids = ids[len(ids) - list(reversed(ids)).index(self._lead_id) :]
        return self._tokenizer.decode(ids, skip_special_tokens=True).strip()

    def _dialogue(self, messages: Sequence[Message], tools: Sequence[Tool]) -> "_Dialogue":
        """What a template is given. Raises NightsmithError where there are tools and no template."""
        calls = tools or any(turn["role"] == "tool" or turn.get("tool_calls") for turn in messages)
        if calls and not self._templated:
            raise NightsmithError(
                "The model has no chat template, and without one tools cannot be rendered. Leave such rows out, or put "
                "a chat_template.jinja into the model's folder."
            )
        options: dict[str, Any] = {"tools": list(tools)} if tools else {}
        if any(turn.get("reasoning_content") for turn in messages):
            options["reasoning_effort"] = "high"
        return _Dialogue(self._as_text(list(messages)), self._as_text(options))

    def _as_text(self, value: Any) -> Any:
        """A value in whose strings nothing can be taken for a control token."""
        match value:
            case str():
                return self._controls.sub(lambda found: found[0][0] + _SPLIT + found[0][1:], value)
            case list():
                return [self._as_text(each) for each in cast("list[Any]", value)]
            case dict():
                return {self._as_text(k): self._as_text(v) for k, v in cast("dict[Any, Any]", value).items()}
            case _:
                return value

    def _tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text."""
        if not texts:
            return []
        ids = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [self._tokenise_split(text) if _SPLIT in text else found for text, found in zip(texts, ids, strict=True)]

    def _tokenise_split(self, text: str) -> list[int]:
        """Ids of a text in which something only looks like a control token."""
        ids: list[int] = []
        for piece in filter(None, re.split(f"({self._controls.pattern})", text)):
            control = self._controls.fullmatch(piece) is not None
            found = self._tokenizer(
                piece.replace(_SPLIT, ""), add_special_tokens=False, split_special_tokens=not control
            )
            ids += found["input_ids"]
        return ids

    def _rows(self, dialogue: "_Dialogue") -> list[list[Segment]]:
        messages = dialogue.messages
        if not self._templated:
            return [self._plain(messages)]
        answers = [i for i, turn in enumerate(messages) if i > 0 and turn["role"] == "assistant"]
        turns = [self._templated_turn(dialogue, i) for i in answers]
        whole: list[Segment] = []
        done = ""
        for prompt, answer, rest in turns:
            if not prompt.startswith(done):
                return [[Segment(prompt, is_answer=False), answer] for prompt, answer, _ in turns]
            whole += [Segment(prompt[len(done) :], is_answer=False), answer]
            done = prompt + rest
        return [whole]

    def _templated_turn(self, dialogue: "_Dialogue", i: int) -> tuple[str, Segment, str]:
        """Prompt of an answer, the answer, and the answer as text that the next prompt begins with."""
        prompt = dialogue.apply(self._tokenizer, i, add_generation_prompt=True)
        whole = dialogue.apply(self._tokenizer, i + 1, add_generation_prompt=False)
        turn = dialogue.messages[i]
        _require_calls(turn, whole.removeprefix(prompt))
        content = turn["content"]
        if not whole[len(prompt) :].strip() or not whole.startswith(prompt):  # answers are written otherwise, or not
            return prompt, Segment(content, is_answer=True, ends=True), content
        prompt += self._lead_text if whole.startswith(prompt + self._lead_text) else ""
        rest = whole[len(prompt) :]
        stop = self._tokenizer.convert_ids_to_tokens(self.stop_id)
        end = rest.rfind(stop)
        if end < 0 or (content.strip() and end + len(stop) <= rest.rfind(content.strip())):
            return prompt, Segment(rest.rstrip(), is_answer=True, ends=True), rest.rstrip()
        answer = rest[: end + len(stop)]
        return prompt, Segment(answer, is_answer=True), answer

    def _plain(self, messages: Sequence[Message]) -> list[Segment]:
        segments: list[Segment] = []
        for i, turn in enumerate(messages):
            answer = i > 0 and turn["role"] == "assistant"
            segments.append(Segment(turn["content"], is_answer=answer, ends=answer))
            segments.append(Segment("\n", is_answer=False))
        return segments[:-1]

    def _join(self, pieces: Sequence[tuple[Segment, Sequence[int]]]) -> TokenRow:
        ids: list[int] = [] if self._templated else leading_bos(self._tokenizer)
        trained = [False] * len(ids)
        for segment, tokens in pieces:
            ended = [*tokens, self.stop_id] if segment.ends else list(tokens)
            ids += ended
            trained += [segment.is_answer] * len(ended)
        return TokenRow(tuple(ids), tuple(trained))


@dataclass(frozen=True)
class _Dialogue:
    """What a template is given."""

    messages: Sequence[Message]
    options: dict[str, Any]
    """Further arguments of the template: tools, reasoning effort."""

    def apply(self, tokenizer: Any, num_turns: int, *, add_generation_prompt: bool) -> str:
        """The first turns as text."""
        return _apply(tokenizer, self.messages[:num_turns], self.options, add_generation_prompt=add_generation_prompt)


def _require_calls(turn: Message, rendered: str) -> None:
    """Refuse a template that leaves an answer's calls out: it would teach to stop where a call is wanted."""
    lost = [call["function"]["name"] for call in turn.get("tool_calls", []) if call["function"]["name"] not in rendered]
    if lost:
        raise NightsmithError(
            f"The model's chat template leaves tool calls out ({', '.join(lost)}). Leave such conversations out, or "
            "use a model whose template knows tools."
        )


def _control_pattern(tokenizer: Any) -> re.Pattern[str]:
    """Finds control tokens in a text, longer ones first; each has at least two letters."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    known = {token for token in (*added, *tokenizer.all_special_tokens) if len(token) > 1}
    ordered = sorted(known, key=lambda token: (-len(token), token))
    return re.compile("|".join(map(re.escape, ordered)) or r"(?!)")


def stop_ids(tokenizer: Any) -> tuple[int, ...]:
    """Tokens at which an answer ends. Raises NightsmithError where there is none."""
    return ChatFormat(tokenizer).stop_ids


def _stop_id(tokenizer: Any, tail: str) -> int:
    """The first special token after an answer in a template's rendering, else EOS."""
    ends = _special_ids(tokenizer, tail)
    if ends:
        return ends[0]
    if tokenizer.eos_token_id is None:
        raise NightsmithError(
            "The tokenizer has no end-of-sequence token, so that no answer could end. Name one of its tokens as "
            "`eos_token` in the model's tokenizer_config.json."
        )
    return int(tokenizer.eos_token_id)


def _special_ids(tokenizer: Any, text: str) -> list[int]:
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    return [int(i) for i in tokenizer(text, add_special_tokens=False)["input_ids"] if i in special] if text else []


def _around_probe(tokenizer: Any) -> tuple[str, str]:
    """What a template writes between the prompt and an answer's content, and after it."""
    messages: list[Message] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _PROBE}]
    prompt = _apply(tokenizer, messages[:1], {}, add_generation_prompt=True)
    lead, _, tail = _apply(tokenizer, messages, {}, add_generation_prompt=False).rpartition(_PROBE)
    return lead.removeprefix(prompt) if lead.startswith(prompt) else "", tail


def _apply(tokenizer: Any, messages: Sequence[Message], options: dict[str, Any], *, add_generation_prompt: bool) -> str:
    try:
        return tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=add_generation_prompt, **options
        )
    except Exception as error:  # templates raise what they like, e.g. for a role that they do not know
        roles = ", ".join(turn["role"] for turn in messages)
        raise NightsmithError(
            f"The model's chat template refuses a conversation with the turns {roles}: {error}. Leave such turns out, "
            "or give the model folder another chat_template.jinja."
        ) from error


def leading_bos(tokenizer: Any) -> list[int]:
    """BOS where the tokenizer itself begins texts with it."""
    ids = tokenizer("")["input_ids"]
    return [int(ids[0])] if ids and ids[0] == tokenizer.bos_token_id else []
