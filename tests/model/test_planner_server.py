import json
import os
import signal
import stat
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from pinned_wheel import link_weights

from nightsmith.model import planner_server
from nightsmith.model.planner_server import ensure, stop


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of its own with the weights in it; every server that it published is ended."""
    folder = tmp_path / "cache"
    link_weights(folder)
    monkeypatch.setenv("NIGHTSMITH_CACHE", str(folder))
    yield folder
    for state in folder.glob("servers/*.json"):
        found = planner_server.running(state)
        if found:
            stop(found)


def answers(endpoint, token):
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.post(f"{endpoint.url}/v1/chat/completions", json=body, headers=headers, timeout=60).status_code


def test_one_server_answers_everybody_who_has_its_token_and_nobody_else(cache):
    with ThreadPoolExecutor(4) as pool:
        endpoints = set(pool.map(lambda _: ensure(None), range(4)))
    assert len(endpoints) == 1
    endpoint = endpoints.pop()
    assert answers(endpoint, endpoint.token) == 200
    assert answers(endpoint, "guess") == 401
    assert answers(endpoint, None) == 401
    (state,) = cache.glob("servers/*.json")
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    assert endpoint.url.startswith("http://127.0.0.1:")
    assert endpoint.token not in " ".join(psutil.Process(endpoint.pid).cmdline())


def test_a_killed_server_is_replaced_and_a_foreign_pid_in_its_state_is_left_alone(cache):
    first = ensure(None)
    os.kill(first.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(first.pid)] if psutil.pid_exists(first.pid) else [], timeout=10)
    (state,) = cache.glob("servers/*.json")
    state.write_text(json.dumps({**json.loads(state.read_text()), "pid": os.getpid()}))
    second = ensure(None)
    assert second.pid != first.pid
    assert answers(second, second.token) == 200


def test_a_server_leaves_when_idle_and_stays_while_it_is_used(cache, monkeypatch):
    monkeypatch.setenv("NIGHTSMITH_PLANNER_IDLE_S", "2")
    endpoint = ensure(None)
    process = psutil.Process(endpoint.pid)
    for _ in range(4):
        time.sleep(1)
        assert answers(endpoint, endpoint.token) == 200
    process.wait(timeout=15)
    assert list(cache.glob("servers/*.json")) == []


@pytest.mark.usefixtures("cache")
def test_weights_that_the_engine_cannot_load_are_reported_with_its_last_words(tmp_path):
    broken = tmp_path / "adapter.gguf"
    broken.write_bytes(b"GGUF, but not really")
    with pytest.raises(planner_server.PlannerUnavailable, match="did not start"):
        ensure(broken)
