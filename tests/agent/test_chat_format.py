"""The chat format of Mistral Small 4 behind vLLM, and what servers get wrong: over HTTP, and against a real engine."""

import asyncio
import json
import time

import mistral_wire as wire
import pytest
from openai_server import FakeOpenAI, events, serving
from pinned_wheel import own_cache

from nightsmith.agent.backends import ChatBackend
from nightsmith.agent.chat_format import REASONING_TOKENS, Style
from nightsmith.agent.planner import Planner
from nightsmith.model.planner_server import ensure, stop
from nightsmith.model.pull import PlannerUnavailable

GOAL = [{"role": "system", "content": "You plan."}, {"role": "user", "content": "Lower the loss."}]
SCHEMA = {
    "type": "object",
    "properties": {
        "move": {"enum": ["data", "scale", "stop"]},
        "ids": {"type": "array", "items": {"enum": ["L0", "L1"]}, "maxItems": 2},
    },
    "required": ["move", "ids"],
    "additionalProperties": False,
}
PLAIN, TOOL, STREAM = Style(), Style(by="tool"), Style(stream=True)


def ask(server: FakeOpenAI, style: Style = PLAIN, messages=GOAL, max_tokens: int = 60, **how):
    backend = ChatBackend(url=server.url, model="small4", style=style, backoff_s=0.01, **how)
    return asyncio.run(backend.complete(messages, SCHEMA, max_tokens=max_tokens))


@pytest.mark.parametrize(
    "sent", ["PLAIN", "REASONED", "REASONED_BEFORE_0_12", "UNPARSED", "UNPARSED_TAIL", "OLD_MARKS", "FENCED", "PARTS"]
)
def test_the_answer_is_found_beside_and_behind_thoughts(sent):
    with serving(getattr(wire, sent)) as server:
        answer = ask(server)
    assert (answer.text, answer.truncated, answer.completion_tokens) == (wire.ANSWER, False, 49)


@pytest.mark.parametrize(("sent", "text"), [("ONLY_THOUGHT", ""), ("CUT", wire.ANSWER[:14])])
def test_an_answer_that_was_cut_or_never_came_is_no_json_and_says_that_it_was_cut(sent, text):
    with serving(getattr(wire, sent)) as server:
        answer = ask(server)
    assert (answer.text, answer.truncated) == (text, True)


def test_a_call_that_nobody_asked_for_is_no_answer():
    with serving(wire.CALLED) as server:
        assert ask(server).text == ""
    with serving(wire.whole(wire.call(wire.ANSWER, name="launch_run"))) as server:
        assert ask(server, TOOL).text == ""


def test_a_strict_tool_carries_the_schema_and_its_arguments_are_the_answer():
    with serving(wire.CALLED) as server:
        assert ask(server, TOOL).text == wire.ANSWER
    body = server.requests[0]["body"]
    assert body["tools"][0]["function"]["parameters"] == SCHEMA
    assert body["tools"][0]["function"]["strict"] is True
    assert body["tool_choice"] == {"type": "function", "function": {"name": "answer"}}
    assert body["parallel_tool_calls"] is False
    assert "response_format" not in body


@pytest.mark.parametrize("answer", [wire.ANSWER, "no JSON", "[1]"])
def test_a_repair_turn_of_a_strict_tool_passes_mistrals_own_validator(answer):
    from mistral_common.protocol.instruct.request import ChatCompletionRequest
    from mistral_common.protocol.instruct.validator import ValidationMode, get_validator
    from mistral_common.tokens.tokenizers.base import TokenizerVersion

    repair = [*GOAL, {"role": "assistant", "content": answer}, {"role": "user", "content": "Error: no. Answer again."}]
    with serving(wire.CALLED) as server:
        ask(server, TOOL, repair)
    sent = server.requests[0]["body"]
    call = sent["messages"][2]["tool_calls"][0]
    assert call["id"].isalnum()
    assert len(call["id"]) == 9
    assert sent["messages"][3]["tool_call_id"] == call["id"]
    assert isinstance(json.loads(call["function"]["arguments"]), dict)
    request = ChatCompletionRequest.from_openai(sent["messages"], sent["tools"], model="small4")
    get_validator(TokenizerVersion.v15, ValidationMode.serving).validate_request(request)


@pytest.mark.parametrize(
    ("pieces", "style"), [(wire.STREAM, STREAM), (wire.CALL_STREAM, Style(by="tool", stream=True))]
)
def test_a_streamed_answer_is_put_together_without_its_thoughts(pieces, style):
    with serving(events(*pieces)) as server:
        answer = ask(server, style)
    assert (answer.text, answer.truncated, answer.prompt_tokens) == (wire.ANSWER, False, 211)
    assert answer.first_token_s is not None
    assert server.requests[0]["body"]["stream_options"] == {"include_usage": True}


def test_a_server_that_does_not_stream_although_asked_to_is_understood():
    with serving(wire.PLAIN) as server:
        assert ask(server, STREAM).text == wire.ANSWER


def test_a_stream_that_breaks_off_is_asked_for_again():
    with serving(events(*wire.STREAM[:5]), events(*wire.STREAM)) as server:
        assert ask(server, STREAM).text == wire.ANSWER
    with serving(events(*wire.STREAM[:5])) as server, pytest.raises(PlannerUnavailable, match="before the answer"):
        ask(server, STREAM)
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("piece", "words"),
    [
        ('data: {"error": {"message": "engine died"}}', "engine died"),
        ("data: <html>", "no JSON"),
        (wire.delta({"tool_calls": [7]}), "no chat completion"),
    ],
)
def test_an_error_within_a_stream_pauses_the_study(piece, words):
    with serving(events(wire.STREAM[0], piece)) as server, pytest.raises(PlannerUnavailable, match=words):
        ask(server, STREAM)


def test_reasoning_is_asked_for_with_room_for_it_and_as_the_model_card_says():
    with serving(wire.REASONED) as server:
        for effort in ("high", "none", None):
            ask(server, Style(effort=effort))
    high, none, unnamed = (request["body"] for request in server.requests)
    assert (high["reasoning_effort"], high["max_tokens"], high["temperature"]) == ("high", 60 + REASONING_TOKENS, 0.7)
    assert (none["reasoning_effort"], none["max_tokens"], none["temperature"]) == ("none", 60, 0.0)
    assert "reasoning_effort" not in unnamed


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again_later_and_later_and_then_the_study_pauses(status):
    with serving((status, "not now"), (status, "not now"), wire.PLAIN) as server:
        assert ask(server).text == wire.ANSWER
    with serving((status, "not now")) as server, pytest.raises(PlannerUnavailable, match="not now") as caught:
        ask(server)
    assert caught.value.exit_code == 6
    assert len(server.requests) == 4


def test_a_server_that_names_when_to_come_again_is_heeded():
    with serving((429, "slow down", {"Retry-After": "1"}), wire.PLAIN) as server:
        begun = time.monotonic()
        assert ask(server).text == wire.ANSWER
        assert time.monotonic() - begun >= 1


def test_a_server_that_hangs_is_given_up():
    class Hanging(FakeOpenAI):
        def respond(self, path, headers, body):
            time.sleep(0.3)
            return super().respond(path, headers, body)

    with serving(wire.PLAIN) as server:
        server.__class__ = Hanging
        with pytest.raises(PlannerUnavailable, match="ReadTimeout"):
            ask(server, timeout_s=0.05, attempts=2)


def test_an_answer_that_was_cut_is_repaired_with_that_error_and_then_asked_of_the_person():
    goal = "Pre-train a small MoE from scratch on ./notes until perplexity is below 12; at most 3 trials."
    with serving(wire.CUT) as server:
        reading = asyncio.run(Planner(ChatBackend(url=server.url, model="small4")).interpret(goal))
    assert reading.status == "needs_answers"
    assert len(server.requests) == 3
    assert "cut off: it may have 640 tokens" in server.requests[2]["body"]["messages"][-1]["content"]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """llama.cpp's server with the planner's base, reached by URL as any other server."""
    with own_cache(tmp_path_factory.mktemp("engine")):
        endpoint = ensure(None)
        yield endpoint
        stop(endpoint)


def asked(engine, style: Style, token: str | None = None, **how):
    backend = ChatBackend(url=f"{engine.url}/v1", token=token or engine.token, style=style)
    return asyncio.run(backend.complete(GOAL, SCHEMA, **{"max_tokens": 60, **how}))


def test_a_real_engine_streams_the_answer_that_it_gives_at_once(engine):
    whole, streamed = asked(engine, Style()), asked(engine, STREAM)
    assert streamed.text == whole.text
    assert json.loads(whole.text).keys() == {"move", "ids"}
    assert streamed.completion_tokens == whole.completion_tokens > 0


def test_a_real_engine_that_cuts_an_answer_says_so(engine):
    assert asked(engine, Style(), max_tokens=3).truncated
    assert asked(engine, STREAM, max_tokens=3).truncated


def test_a_real_engine_that_ignores_strict_tools_gives_nothing_that_passes_for_an_answer(engine):
    answer = asked(engine, TOOL, max_tokens=20)
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(answer.text)


def test_a_real_engine_refuses_a_wrong_token_by_name(engine):
    with pytest.raises(PlannerUnavailable, match="NIGHTSMITH_PLANNER_TOKEN"):
        asked(engine, Style(), token="wrong")
