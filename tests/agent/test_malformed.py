"""What is malformed never gets as far as an approval, however it is malformed."""

import asyncio
import copy
import json
from typing import Any

import fake_planner
import pytest
import tiny_study
from hypothesis import given, settings
from hypothesis import strategies as st

from nightsmith.agent import dossier, literals, understand
from nightsmith.agent.backends import ChatBackend
from nightsmith.agent.planner import Planner
from nightsmith.record import audit, studies
from nightsmith.record.workspace import open_workspace
from nightsmith.tools.base import ToolError

JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8),
    st.sampled_from(["L9", "L63", "/etc/passwd", "85%", "$(reboot)", [], {}, [["L0"]], {"v": "L0"}, -1, 1e308]),
)  # fmt: skip
GOAL = tiny_study.GOAL
RIGHT = tiny_study.reading(GOAL)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place inside an answer."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(each for key, part in inner for each in places(part, (*path, key)))]


def put(answer: dict[str, Any], path: tuple[Any, ...], junk: Any) -> dict[str, Any]:
    """A copy with something else at a place."""
    copied = copy.deepcopy(answer)
    at = copied
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = junk
    return copied


@pytest.fixture(scope="module")
def planner():
    """A planner whose answers are set one by one."""
    with fake_planner.serve("") as fake:
        yield fake, Planner(ChatBackend(url=fake.url))


@settings(max_examples=20, deadline=None)
@given(path=st.sampled_from(places(RIGHT)), junk=JUNK)
def test_an_answer_with_anything_at_any_place_is_refused_or_means_only_what_the_goal_says(planner, path, junk):
    fake, asks = planner
    fake.answers = [json.dumps(put(RIGHT, path, junk))]
    reading = asyncio.run(asks.interpret(GOAL))
    if reading.status != "ready":
        return
    spec = reading.spec
    assert spec is not None
    assert type(spec).model_validate(spec.model_dump(mode="json")) == spec
    known = {candidate.value for candidate in literals.find(GOAL)}
    said = (
        [target.value for target in spec.targets]
        + [ref.ref for ref in spec.data]
        + [each.value for each in spec.settings]
    )
    assert {value for value in said if value is not None} <= known


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["no JSON", '{"s": "ready"', put(RIGHT, ("L0",), "L63")], ids=str)
def test_a_study_whose_planner_answers_nonsense_asks_and_approves_nothing(tmp_path, answer):
    with tiny_study.bench(tmp_path, answer) as bench:
        assert bench.run("run", GOAL, "--yes", "--json").returncode == 4
        ws = open_workspace(bench.workspace)
        assert bench.jobs == []
        assert [line.action for line in audit.read(ws) if "approv" in line.action] == []
        assert studies.get(ws, "s1").outcome is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "words"),
    [({"learning_rate": "fast"}, "learning_rate"), ({"rm": "-rf"}, "rm"), ({"num_steps": -5}, "num_steps")],
)
def test_a_plan_whose_call_has_arguments_that_its_tool_does_not_take_cannot_be_approved(approvable, args, words):
    ws, study = approvable
    whole = dossier.load(ws, study, "plan")
    plan = copy.deepcopy(whole)
    call = next(each for each in plan["calls"] if each["tool"] == "pretrain")
    understand.envelope(ws, study)
    call["args"] |= args
    dossier.save(ws, study, "plan", plan)
    with pytest.raises(ToolError, match=words):
        understand.envelope(ws, study)
    dossier.save(ws, study, "plan", whole)


@pytest.fixture(scope="module")
def approvable(tmp_path_factory):
    """A study that waits for its approval."""
    with tiny_study.bench(tmp_path_factory.mktemp("waiting"), RIGHT) as bench:
        assert bench.run("run", GOAL, "--json").returncode == 6
        yield open_workspace(bench.workspace), "s1"
