"""The OpenAI chat format as servers really write it: requests, whole and streamed answers, and Mistral's ways.

Sources: vLLM 0.33 (`message.reasoning`, once `reasoning_content`; ids of calls are nine letters and digits), Mistral's
own API (content in parts), mistral-common's validators (after a call comes its result, never a user's turn).
"""

import json
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from nightsmith.model.chat import call_id
from nightsmith.model.pull import PlannerUnavailable

Message = dict[str, str]
"""One chat message: role and content."""
AnswerBy = Literal["response_format", "tool"]
Effort = Literal["none", "low", "medium", "high"]
TOOL = "answer"
"""Name of the one function that a planner answers by, where its server has strict tools only."""
REASONING_TOKENS = 4096
REASONING_TEMPERATURE = 0.7
"""What an answer may take more, and how it is drawn, where the planner is to reason: as Small 4's card asks."""
_THOUGHT = re.compile(r"\s*(?:\[THINK\]|<think>)?(?:(?!\[THINK\]|<think>).)*?(?:\[/THINK\]|</think>)\s*", re.DOTALL)
_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL)


@dataclass(frozen=True)
class Style:
    """How a server is spoken to."""

    by: AnswerBy = "response_format"
    """Whether an answer is the content, held to a JSON schema, or the arguments of a strict tool."""
    effort: Effort | None = None
    """Reasoning effort; null: not named. A conversation keeps it: changing it discards the server's prefix cache."""
    stream: bool = False
    """Whether the answer is sent piece by piece: for proxies that end a connection on which nothing comes."""

    @property
    def reasons(self) -> bool:
        """Whether thoughts are asked for before the answer."""
        return self.effort not in (None, "none")


@dataclass(frozen=True)
class Completion:
    """One answer, and what it took."""

    text: str
    """Without thoughts; empty where there was none."""
    truncated: bool
    """Cut at `max_tokens`: its JSON is not whole."""
    prompt_tokens: int
    completion_tokens: int
    wall_s: float
    first_token_s: float | None = None
    """Seconds until the first token, where the server reports them (the embedded one does) or streams."""


def request(
    messages: Sequence[Message], schema: dict[str, Any], style: Style, *, max_tokens: int, temperature: float, seed: int
) -> dict[str, Any]:
    """Body of a request for one JSON object of `schema`, the model's name left out."""
    body: dict[str, Any] = {
        "messages": list(messages),
        "max_tokens": max_tokens + (REASONING_TOKENS if style.reasons else 0),
        "temperature": max(temperature, REASONING_TEMPERATURE) if style.reasons else temperature,
        "seed": seed,
    }
    if style.by == "tool":
        tool = {"name": TOOL, "description": "Gives the answer.", "parameters": schema, "strict": True}
        body |= {
            "messages": _as_calls(messages),
            "tools": [{"type": "function", "function": tool}],
            "tool_choice": {"type": "function", "function": {"name": TOOL}},
            "parallel_tool_calls": False,
        }
    else:
        named = {"name": TOOL, "strict": True, "schema": schema}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    if style.effort is not None:
        body["reasoning_effort"] = style.effort
    if style.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


def _as_calls(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """An earlier answer becomes the call that it was, and what was said of it the call's result."""
    told: list[dict[str, Any]] = []
    open_call = ""
    for turn, message in enumerate(messages):
        if message["role"] == "assistant":
            arguments = _object_text(message["content"])
            open_call = call_id(turn, 0, arguments)
            call = {"id": open_call, "type": "function", "function": {"name": TOOL, "arguments": arguments}}
            told.append({"role": "assistant", "content": "", "tool_calls": [call]})
        elif open_call:
            told.append({"role": "tool", "tool_call_id": open_call, "name": TOOL, "content": message["content"]})
            open_call = ""
        else:
            told.append(dict(message))
    return told


def _object_text(answer: str) -> str:
    """Arguments of a call: servers and templates parse them, so what is no JSON object is quoted in one."""
    try:
        is_object = isinstance(json.loads(answer), dict)
    except ValueError:
        is_object = False
    return answer if is_object else json.dumps({"malformed": answer})


def completion(answer: dict[str, Any], style: Style, wall_s: float) -> Completion:
    """An answer. Raises PlannerUnavailable where it is not in the format."""
    try:
        choice = answer["choices"][0]
        usage = cast(dict[str, Any], answer.get("usage") or {})
        timings = cast(dict[str, Any], answer.get("timings") or {})
        return Completion(
            text=_said(choice["message"], style),
            truncated=choice.get("finish_reason") == "length",
            prompt_tokens=usage.get("prompt_tokens", 0),
            completion_tokens=usage.get("completion_tokens", 0),
            wall_s=wall_s,
            first_token_s=timings["prompt_ms"] / 1000 if "prompt_ms" in timings else None,
        )
    except (KeyError, IndexError, TypeError, AttributeError):
        raise PlannerUnavailable(f"The planner's answer is not a chat completion: {str(answer)[:200]}.") from None


def _said(message: dict[str, Any], style: Style) -> str:
    """The JSON that was meant: arguments of the call, else the content. A call that was not asked for is no answer."""
    for call in message.get("tool_calls") or () if style.by == "tool" else ():
        if call["function"]["name"] == TOOL:
            arguments = call["function"]["arguments"]
            return arguments if isinstance(arguments, str) else json.dumps(arguments)
    return bare(_text(message.get("content")))


def _text(content: Any) -> str:
    """Content as text: null is none; of Mistral's parts those that are text, without those that are thoughts."""
    if isinstance(content, list):
        parts = cast(list[dict[str, Any]], content)
        return "".join(part["text"] for part in parts if part.get("type") == "text")
    return content or ""


def bare(text: str) -> str:
    """Text without the thoughts before it, which stay in it where a server parses none, and without a code fence."""
    if text.lstrip().startswith("{"):
        return text
    thought = _THOUGHT.match(text)
    rest = text[thought.end() :] if thought else text
    fenced = _FENCED.fullmatch(rest)
    return fenced[1] if fenced else rest


async def streamed(lines: AsyncIterator[str]) -> dict[str, Any]:
    """The whole answer of server-sent events, as a server that does not stream would give it.

    Raises PlannerUnavailable where an event reports an error or is none, BrokenOff where they end before the answer.
    """
    answer = _Streamed()
    async for event in _events(lines):
        try:
            answer.take(event)
        except (AttributeError, KeyError, TypeError):
            raise PlannerUnavailable(f"The planner's stream is no chat completion: {str(event)[:200]}.") from None
    return answer.whole()


@dataclass
class _Streamed:
    """An answer that comes in pieces."""

    content: str = ""
    calls: dict[int, dict[str, str]] = field(default_factory=dict[int, dict[str, str]])
    finish: str | None = None
    usage: dict[str, Any] = field(default_factory=dict[str, Any])
    begun: float = field(default_factory=time.monotonic)
    first_s: float | None = None

    def take(self, event: dict[str, Any]) -> None:
        """Add an event's pieces."""
        self.usage = event.get("usage") or self.usage
        for choice in cast(list[dict[str, Any]], event.get("choices") or []):
            delta = cast(dict[str, Any], choice.get("delta") or {})
            self.content += _text(delta.get("content"))
            for part in cast(list[dict[str, Any]], delta.get("tool_calls") or []):
                self._add_call(part.get("index", 0), part["function"])
            if delta and self.first_s is None:
                self.first_s = time.monotonic() - self.begun
            self.finish = choice.get("finish_reason") or self.finish

    def _add_call(self, index: int, function: dict[str, Any]) -> None:
        """A piece of a call: its name comes first and once, its arguments in pieces."""
        call = self.calls.setdefault(index, {"name": "", "arguments": ""})
        call["name"] += function.get("name") or ""
        call["arguments"] += function.get("arguments") or ""

    def whole(self) -> dict[str, Any]:
        """The answer. Raises BrokenOff where it has no end."""
        if self.finish is None:
            raise BrokenOff("the stream ended before the answer did")
        calls = [{"function": self.calls[index]} for index in sorted(self.calls)]
        choice = {"message": {"content": self.content, "tool_calls": calls}, "finish_reason": self.finish}
        timings = {} if self.first_s is None else {"timings": {"prompt_ms": self.first_s * 1000}}
        return {"choices": [choice], "usage": self.usage, **timings}


class BrokenOff(Exception):
    """A stream that ended too early; it may be asked for again."""


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[dict[str, Any]]:
    async for line in lines:
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or data == "[DONE]":  # comments keep the connection alive
            continue
        try:
            event = json.loads(data)
        except ValueError:
            raise PlannerUnavailable(f"The planner's stream holds no JSON: {data[:200]!r}.") from None
        if "error" in event:
            raise PlannerUnavailable(f"The planner broke off its answer: {str(event['error'])[:300]}")
        yield event
