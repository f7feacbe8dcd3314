"""Answers in the wire format of vLLM 0.33 serving Mistral Small 4, and of Mistral's own API, for one schema.

Written after vLLM's `vllm/parser/mistral.py` and its chat-completion protocol; no real Small 4 was asked.
"""

import json
from typing import Any

ANSWER = '{"move":"stop","ids":["L0"]}'
CALL_ID = "f7Kq02xZb"
THOUGHT = "The loss is flat [so far]; {nothing} is left to try."


def whole(message: dict[str, Any], finish_reason: str = "stop") -> tuple[int, str]:
    """A chat completion as vLLM sends it."""
    choice = {
        "index": 0, "message": {"role": "assistant", **message}, "logprobs": None, "finish_reason": finish_reason,
        "stop_reason": None, "token_ids": None,
    }  # fmt: skip
    usage = {"prompt_tokens": 211, "total_tokens": 260, "completion_tokens": 49, "prompt_tokens_details": None}
    return 200, json.dumps(
        {
            "id": "chatcmpl-9d0c5f0a", "object": "chat.completion", "created": 1_772_000_000, "model": "small4",
            "choices": [choice], "service_tier": None, "system_fingerprint": None, "usage": usage,
            "prompt_logprobs": None, "kv_transfer_params": None,
        }
    )  # fmt: skip


def call(arguments: str, name: str = "answer") -> dict[str, Any]:
    """A message that is a tool call: content null, an id of nine letters and digits."""
    function = {"name": name, "arguments": arguments}
    return {"content": None, "tool_calls": [{"id": CALL_ID, "type": "function", "function": function}]}


PLAIN = whole({"content": ANSWER, "refusal": None, "tool_calls": [], "reasoning": None})
REASONED = whole({"content": ANSWER, "reasoning": THOUGHT, "tool_calls": []})
REASONED_BEFORE_0_12 = whole({"content": ANSWER, "reasoning_content": THOUGHT, "tool_calls": []})
UNPARSED = whole({"content": f"[THINK]{THOUGHT}[/THINK]{ANSWER}"})
UNPARSED_TAIL = whole({"content": f"{THOUGHT}[/THINK]\n{ANSWER}"})
OLD_MARKS = whole({"content": f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}"})
FENCED = whole({"content": f"```json\n{ANSWER}\n```"})
CALLED = whole(call(ANSWER), "tool_calls")
PARTS = whole(
    {
        "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]},
            {"type": "text", "text": ANSWER},
        ]
    }
)
ONLY_THOUGHT = whole({"content": None, "reasoning": THOUGHT, "tool_calls": []}, "length")
CUT = whole({"content": ANSWER[:14], "reasoning": None, "tool_calls": []}, "length")


def delta(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    """One event of a stream."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason, "token_ids": None}
    return {"id": "chatcmpl-9d0c5f0a", "object": "chat.completion.chunk", "model": "small4", "choices": [choice]}


USAGE = {"choices": [], "usage": {"prompt_tokens": 211, "total_tokens": 260, "completion_tokens": 49}}
DONE = "data: [DONE]"
STREAM = (
    delta({"role": "assistant", "content": ""}),
    delta({"reasoning": THOUGHT[:9]}),
    ": keep-alive",
    delta({"reasoning": THOUGHT[9:]}),
    delta({"content": ANSWER[:5]}),
    delta({"content": ANSWER[5:]}),
    delta({}, "stop"),
    USAGE,
    DONE,
)
CALL_STREAM = (
    delta({"role": "assistant", "content": ""}),
    delta({"tool_calls": [{"index": 0, "id": CALL_ID, "type": "function", "function": {"name": "answer"}}]}),
    delta({"tool_calls": [{"index": 0, "function": {"arguments": ANSWER[:8]}}]}),
    delta({"tool_calls": [{"index": 0, "function": {"arguments": ANSWER[8:]}}]}),
    delta({}, "tool_calls"),
    USAGE,
    DONE,
)
