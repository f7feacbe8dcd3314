"""What the planner understands stands in its adapter: with the same weights in another order it understands nothing."""

import asyncio
import json

import pytest
from pinned_wheel import own_cache

from benchmarks import planner as bench
from nightsmith.agent.backends import ChatBackend
from nightsmith.agent.planner import Planner
from nightsmith.model.planner_server import ADAPTER, ensure, stop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def share_right(adapter) -> float:
    """Share of some held-out goals of which every field is right."""
    lines = (bench.EXAMPLES / "heldout_second.jsonl").read_text().splitlines()[::3]
    cases = [json.loads(line) for line in lines]
    rows = asyncio.run(bench.measure(Planner(ChatBackend(adapter=adapter)), cases))
    assert all(row["valid"] for row in rows)
    stop(ensure(adapter))
    return sum(row["marks"]["every field"] for row in rows) / len(rows)


def test_shuffling_the_weights_of_the_adapter_ruins_what_is_understood(tmp_path):
    with own_cache(tmp_path / "cache"):
        assert share_right(bench.shuffled(ADAPTER, tmp_path / "shuffled.gguf")) <= 0.2
        assert share_right(ADAPTER) >= 0.6
