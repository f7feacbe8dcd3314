import asyncio
import json
import os
import signal

import pytest
from openai_server import completion, serving
from pinned_wheel import own_cache

from nightsmith.agent.backends import ChatBackend, PlannerUnavailable, is_loopback, require_local
from nightsmith.model.planner_server import ensure, stop
from nightsmith.record.errors import NightsmithError

GOAL = [{"role": "user", "content": "Lower the loss."}]
SCHEMA = {
    "type": "object",
    "properties": {
        "move": {"enum": ["data", "scale", "stop"]},
        "ids": {"type": "array", "items": {"enum": ["L0", "L1"]}},
    },
    "required": ["move", "ids"],
    "additionalProperties": False,
}


def ask(backend, **options):
    return asyncio.run(backend.complete(GOAL, SCHEMA, **{"max_tokens": 60, **options}))


def test_the_schema_the_token_and_the_model_reach_the_server():
    with serving(completion('{"move":"stop"}')) as server:
        answer = ask(ChatBackend(url=server.url + "/", token="t0ken"), temperature=0.5, seed=3)
    listing, request = server.requests
    assert (answer.text, answer.truncated, answer.prompt_tokens, answer.completion_tokens) == (
        '{"move":"stop"}',
        False,
        7,
        3,
    )
    assert listing["path"] == "/v1/models"
    assert request["path"] == "/v1/chat/completions"
    assert request["authorization"] == "Bearer t0ken"
    assert request["body"]["model"] == "listed-model"
    assert request["body"]["messages"] == GOAL
    assert request["body"]["response_format"]["json_schema"]["schema"] == SCHEMA
    assert (request["body"]["temperature"], request["body"]["seed"], request["body"]["max_tokens"]) == (0.5, 3, 60)


def test_an_answer_cut_at_max_tokens_says_so():
    with serving(completion('{"mo', "length")) as server:
        assert ask(ChatBackend(url=server.url, model="m")).truncated


def test_a_busy_server_is_asked_again_and_one_that_stays_busy_is_unavailable():
    with serving((503, "loading"), completion("{}")) as server:
        assert ask(ChatBackend(url=server.url, model="m", backoff_s=0.01)).text == "{}"
    with serving((429, "too many")) as server, pytest.raises(PlannerUnavailable, match="too many"):
        ask(ChatBackend(url=server.url, model="m", backoff_s=0.01))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((401, "no"), "NIGHTSMITH_PLANNER_TOKEN"),
        ((400, "unknown field response_format"), "unknown field response_format"),
        ((200, "<html>"), "no JSON"),
        ((200, '{"choices": []}'), "not a chat completion"),
    ],
)
def test_a_server_that_refuses_or_talks_something_else_pauses_the_study(answer, words):
    with serving(answer) as server, pytest.raises(PlannerUnavailable, match=words) as caught:
        ask(ChatBackend(url=server.url, model="m"))
    assert caught.value.exit_code == 6
    assert len(server.requests) == 1


def test_a_server_that_is_not_there_is_unavailable_by_name():
    with serving(completion("{}")) as server:
        url = server.url
    with pytest.raises(PlannerUnavailable, match=url):
        ask(ChatBackend(url=url, model="m", backoff_s=0.01))


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://localhost/v1", True),
        ("http://127.0.0.1.example.com/v1", False),
        ("http://localhost.example.com/v1", False),
        ("http://10.0.0.5/v1", False),
        ("https://planner.example.com/v1", False),
    ],
)
def test_only_this_machine_is_local(url, local):
    assert is_loopback(url) is local
    assert require_local(url, allow_remote=True) == url
    if not local:
        with pytest.raises(NightsmithError, match="allow_remote_planner"):
            require_local(url, allow_remote=False)


@pytest.mark.parametrize("url", ["http://localhost@example.com/v1", "http://me:s3cret@127.0.0.1:8000/v1"])
def test_an_address_with_a_name_or_a_password_is_refused_without_showing_it(url):
    with pytest.raises(NightsmithError, match="token_env") as caught:
        require_local(url, allow_remote=True)
    assert "s3cret" not in str(caught.value)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """The embedded planner's base in a cache of its own."""
    with own_cache(tmp_path_factory.mktemp("planner")):
        yield ChatBackend(adapter=None)
        stop(ensure(None))


def test_the_embedded_planner_is_held_to_the_schema(embedded):
    answer = ask(embedded)
    value = json.loads(answer.text)
    assert value.keys() == {"move", "ids"}
    assert value["move"] in ("data", "scale", "stop")
    assert answer.completion_tokens > 0
    assert answer.first_token_s is not None
    assert 0 < answer.first_token_s <= answer.wall_s


def test_an_embedded_planner_that_was_killed_is_started_again_without_anybody_noticing(embedded):
    ask(embedded)
    os.kill(ensure(None).pid, signal.SIGKILL)
    assert json.loads(ask(embedded).text)["move"] in ("data", "scale", "stop")
