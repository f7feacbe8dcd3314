"""Conversations as a model reads them: token ids, and which of them are trained. Torch-free; one home for both.

Trainer and evaluation render by the same code, so a model is asked exactly what it was trained on. With a chat template
a turn is rendered by it; without one, turns' contents are joined by line breaks, after BOS where the tokenizer adds it,
and each answer ends with EOS. An answer is tokenised apart from what precedes it, as it is when it is generated.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from nightsmith.record.errors import NightsmithError

ROLES = ("system", "user", "assistant")
_PROBE = "nightsmith 4711"
"""An answer whose end is looked for in a template's rendering."""


class Message(TypedDict):
    """One turn."""

    role: Literal["system", "user", "assistant"]
    content: str


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
        messages = tuple(Message(role=turn["role"], content=turn["content"]) for turn in turns)
    except (ValueError, TypeError, KeyError) as error:
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

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens at which generation stops: the one that ends answers, and EOS."""
        eos = self._tokenizer.eos_token_id
        return tuple(dict.fromkeys(i for i in (self.stop_id, eos) if i is not None))

    def render(self, conversations: Sequence[Sequence[Message]]) -> list[list[TokenRow]]:
        """Each conversation as one row in which every answer is trained.

        It is a row for each answer where the template renders a turn differently once another follows it.
        """
        pieces = [self._rows(messages) for messages in conversations]
        texts = [segment.text for rows in pieces for row in rows for segment in row]
        tokens = iter(self._tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else [])
        return [[self._join([(segment, next(tokens)) for segment in row]) for row in rows] for rows in pieces]

    def last_answers(self, conversations: Sequence[Sequence[Message]]) -> list[TokenRow]:
        """Each conversation with its last answer alone trained; up to `answer_start` it is the prompt."""
        rows = [rows[-1] for rows in self.render(conversations)]
        return [
            TokenRow(row.ids, tuple(trained and i >= row.answer_start for i, trained in enumerate(row.trained)))
            for row in rows
        ]

    def answer_text(self, ids: Sequence[int]) -> str:
        """A generated answer's text, without what the template puts before contents (a channel, an empty thought)."""
        if self._lead_id is not None and self._lead_id in ids:
            ids = ids[len(ids) - list(reversed(ids)).index(self._lead_id) :]
        return self._tokenizer.decode(ids, skip_special_tokens=True).strip()

    def _rows(self, messages: Sequence[Message]) -> list[list[Segment]]:
        if not self._templated:
            return [self._plain(messages)]
        answers = [i for i, turn in enumerate(messages) if i > 0 and turn["role"] == "assistant"]
        turns = [self._templated_turn(messages, i) for i in answers]
        whole: list[Segment] = []
        done = ""
        for prompt, answer, rest in turns:
            if not prompt.startswith(done):
                return [[Segment(prompt, is_answer=False), answer] for prompt, answer, _ in turns]
            whole += [Segment(prompt[len(done) :], is_answer=False), answer]
            done = prompt + rest
        return [whole]

    def _templated_turn(self, messages: Sequence[Message], i: int) -> tuple[str, Segment, str]:
        """Prompt of an answer, the answer, and the answer as text that the next prompt begins with."""
        prompt = self._apply(messages[:i], add_generation_prompt=True)
        whole = self._apply(messages[: i + 1], add_generation_prompt=False)
        content = messages[i]["content"]
        if not whole.startswith(prompt):  # the template writes answers otherwise than it asks for them
            return prompt, Segment(content, is_answer=True, ends=True), content
        rest = whole[len(prompt) :]
        stop = self._tokenizer.convert_ids_to_tokens(self.stop_id)
        end = rest.rfind(stop)
        if end < 0 or end < rest.rfind(content.strip()):
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

    def _apply(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        return _apply(self._tokenizer, messages, add_generation_prompt=add_generation_prompt)

    def _join(self, pieces: Sequence[tuple[Segment, Sequence[int]]]) -> TokenRow:
        ids: list[int] = [] if self._templated else leading_bos(self._tokenizer)
        trained = [False] * len(ids)
        for segment, tokens in pieces:
            ended = [*tokens, self.stop_id] if segment.ends else list(tokens)
            ids += ended
            trained += [segment.is_answer] * len(ended)
        return TokenRow(tuple(ids), tuple(trained))


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
    prompt = _apply(tokenizer, messages[:1], add_generation_prompt=True)
    lead, _, tail = _apply(tokenizer, messages, add_generation_prompt=False).rpartition(_PROBE)
    return lead.removeprefix(prompt) if lead.startswith(prompt) else "", tail


def _apply(tokenizer: Any, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
    try:
        return tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
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
