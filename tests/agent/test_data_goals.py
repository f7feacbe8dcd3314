"""Goals that ask for a dataset alone, from the sentence to the report; only the planner is a double."""

import csv
import json

import pytest
import tiny_study

from nightsmith.agent import labels, literals
from nightsmith.agent.fitting import Blocked
from nightsmith.agent.goal import DataRef, GoalSpec, PipelineRequest, Setting
from nightsmith.agent.preflight import preflight
from nightsmith.evals.types import Target
from nightsmith.record.errors import NightsmithError
from nightsmith.record.workspace import open_workspace
from nightsmith.tools.data.manifest import read_manifest
from nightsmith.trainer import jobrows

pytestmark = pytest.mark.timeout(300)
GOAL = "Build a dataset from ./faq.csv, dedupe it and hold out 20 %; the eval set is ./heldout.csv."


def reading():
    found = {candidate.value: candidate.id for candidate in reversed(literals.find(GOAL))}
    wire = {
        "s": "ready",
        "do": "build_data",
        "data": [{"r": found["./faq.csv"]}, {"r": found["./heldout.csv"], "as": "eval"}],
        "steps": [{"do": "dedup"}],
    }
    return labels.labelled(wire, literals.find(GOAL))


def write_table(path, numbers):
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["question", "answer"])
        table.writerows([f"What is {number} plus one?", str(number + 1)] for number in numbers)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    with tiny_study.bench(tmp_path_factory.mktemp("data"), reading()) as bench:
        write_table(bench.folder / "faq.csv", [*range(100), *range(10)])
        write_table(bench.folder / "heldout.csv", range(90, 120))
        yield bench, bench.run("run", GOAL, "--yes", "--json")


def test_a_goal_of_data_ends_done_with_the_rows_that_were_published_and_starts_no_job(built):
    bench, ran = built
    assert ran.returncode == 0, ran.stderr
    shown = bench.show()
    ws = open_workspace(bench.workspace)
    manifest = read_manifest(ws, shown["lineage"]["data_digest"])
    assert shown["outcome"] == "MET"
    assert {split["name"]: split["rows"] for split in shown["built"]} == {s.name: s.rows for s in manifest.splits}
    assert sum(split["rows"] for split in shown["built"]) == 120
    assert jobrows.rows(ws, "s1") == []


def test_its_report_names_duplicates_leakage_files_and_digests(built):
    bench, _ = built
    (found,) = (bench.workspace / "data").glob("*/manifest.json")
    splits = json.loads(found.read_text())["splits"]
    for name in ("report.md", "index.html"):
        page = (bench.workspace / "reports" / "s1" / name).read_text()
        assert "10 of 140 rows have a text that another row has already" in page
        assert "10 of 130 rows are also among rows that only evaluate" in page
        assert all(split["data_digest"] in page for split in splits)
        assert "No trial was proposed" not in page


@pytest.mark.slow
def test_its_plan_is_shown_and_approved_before_anything_is_built(tmp_path):
    with tiny_study.bench(tmp_path, reading()) as bench:
        write_table(bench.folder / "faq.csv", range(100))
        write_table(bench.folder / "heldout.csv", range(100, 120))
        waiting = bench.run("run", GOAL)
        assert waiting.returncode == 6
        card = waiting.stdout + waiting.stderr
        assert "dedup, then length, then decontaminate, then split" in card
        assert "./faq.csv (train); ./heldout.csv (eval)" in card
        assert not list((bench.workspace / "data").glob("*/manifest.json"))
        assert bench.run("resume", "s1", "--yes").returncode == 0
        kinds = [json.loads(line)["kind"] for line in bench.run("resume", "s1", "--json").stdout.splitlines()]
        assert kinds == ["ending"]


def asked(**more) -> GoalSpec:
    return GoalSpec(goal="x", intent="build_data", data=(DataRef(ref="./faq.csv"),), **more)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"pipeline": (PipelineRequest(step="redact_pii"),)}, "redact_pii.*Available: dedup"),
        ({"targets": (Target(metric="accuracy", op=">=", value=0.8),)}, "a target too"),
        ({"methods": ("sft",)}, "training too"),
        ({"settings": (Setting(name="epochs", value=3),)}, "settings of a training"),
        ({"avoid": ("split",)}, "forbids a split"),
    ],
)
def test_what_a_goal_of_data_cannot_ask_for_is_refused_with_a_way_out(tmp_path, more, said):
    write_table(tmp_path / "faq.csv", range(100))
    with pytest.raises(NightsmithError, match=said):
        preflight(asked(**more), open_workspace(tmp_path / ".nightsmith"), tmp_path)


def test_too_few_rows_are_refused_with_how_many_would_do(tmp_path):
    write_table(tmp_path / "faq.csv", range(9))
    with pytest.raises(NightsmithError, match="24 rows or more"):
        preflight(asked(), open_workspace(tmp_path / ".nightsmith"), tmp_path)


def test_data_that_only_evaluate_make_no_dataset(tmp_path):
    write_table(tmp_path / "faq.csv", range(100))
    spec = GoalSpec(goal="x", intent="build_data", data=(DataRef(ref="./faq.csv", role="eval"),))
    with pytest.raises(Blocked, match="no data to train on"):
        preflight(spec, open_workspace(tmp_path / ".nightsmith"), tmp_path)
