import datetime as dt

import pytest

from nightsmith.agent.goal import DataRef, GoalSpec, Setting
from nightsmith.agent.planning import Blocked
from nightsmith.agent.preflight import preflight, seconds_to
from nightsmith.model.capacity.families import known_shape
from nightsmith.record.budget import Deadline
from nightsmith.record.errors import NightsmithError
from nightsmith.record.workspace import open_workspace

NOW = dt.datetime(2026, 3, 1, 22, 30)


@pytest.fixture
def ws(tmp_path):
    return open_workspace(tmp_path / ".nightsmith")


def goal(ref: str) -> GoalSpec:
    return GoalSpec(goal="x", methods=("pretrain",), data=(DataRef(ref=ref),))


def test_a_deadline_without_a_date_is_the_next_time_the_clock_shows_it():
    assert seconds_to(Deadline(time="23:00"), NOW) == 1800
    assert seconds_to(Deadline(time="07:00"), NOW) == 8.5 * 3600


def test_a_deadline_that_has_passed_is_blocked():
    with pytest.raises(Blocked, match="has passed"):
        seconds_to(Deadline(time="07:00", date="2026-02-28"), NOW)


def test_a_missing_folder_is_named_with_near_names(ws, tmp_path):
    (tmp_path / "notes").mkdir()
    with pytest.raises(NightsmithError, match="notes"):
        preflight(goal("./nots"), ws, tmp_path)


def test_an_empty_folder_says_that_it_is_empty(ws, tmp_path):
    (tmp_path / "notes").mkdir()
    with pytest.raises(NightsmithError, match=r"notes.*"):
        preflight(goal("./notes"), ws, tmp_path)


def test_a_goal_without_data_is_blocked(ws, tmp_path):
    with pytest.raises(Blocked, match="no data"):
        preflight(GoalSpec(goal="x", methods=("pretrain",)), ws, tmp_path)


def test_few_documents_are_cut_into_rows_and_the_plan_says_so(ws, tmp_path):
    (tmp_path / "notes").mkdir()
    for number in range(5):
        (tmp_path / "notes" / f"{number}.txt").write_text(f"page {number} " * 4000)
    plan = preflight(goal("./notes"), ws, tmp_path)
    build = next(call for call in plan.calls if call.tool == "build_dataset")
    assert build.args["chunk_bytes"] >= 256
    assert any("cut into rows" in said for said in plan.assumptions)


def test_a_jsonl_line_that_is_not_json_is_named_by_file_and_line(ws, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\nnot json\n')
    with pytest.raises(NightsmithError, match=r"rows\.jsonl.*2"):
        preflight(goal("rows.jsonl"), ws, tmp_path)


def test_a_run_too_large_for_the_memory_is_refused_with_a_batch_that_fits(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("page " * 4000)
    wanted = Setting(name="batch_size", value=65536, how="fixed"), Setting(name="steps", value=100, how="fixed")
    spec = goal("./notes").model_copy(update={"settings": wanted})
    with pytest.raises(Blocked, match=r"pretrain cannot be run here.*of memory.*a batch of \d+"):
        preflight(spec, open_workspace(tmp_path / ".nightsmith"), tmp_path)


def test_a_model_whose_size_cannot_be_told_is_not_refused_for_it():
    assert known_shape({"model_type": "llama", "hidden_size": 8}) is None
    assert known_shape({"model_type": "gpt9"}) is None
