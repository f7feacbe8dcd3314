"""Nights end to end through the real command line, with real studies; only the planner is a double."""

import json
import os
import signal
import sqlite3
import time
from datetime import UTC, datetime, timedelta

import pytest
import tiny_study
from tiny_study import GOAL, LOWER, RAISE

from nightsmith.record import audit
from nightsmith.record.workspace import open_workspace
from nightsmith.trainer import tracking

pytestmark = pytest.mark.timeout(900)
TRIALS = {"t": [LOWER, RAISE]}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A schedule and its first night, run once for the tests that look at it. The goal is read once: by `add`."""
    with tiny_study.bench(tmp_path_factory.mktemp("nights"), tiny_study.reading(GOAL), TRIALS) as bench:
        added = bench.run(
            "night", "add", GOAL, "--at", "22:00", "--until", "22:20", "--days", "mon-fri", "--name", "tiny",
            "--timezone", "Europe/Paris", "--yes", "--json",
        )  # fmt: skip
        assert added.returncode == 0, added.stderr
        yield bench, json.loads(added.stdout), bench.run("night", "run", "--now", "--json")


def test_what_is_added_is_the_goal_as_read_under_an_approval_for_ninety_days(first):
    bench, added, _ = first
    assert added["schedule"]["spec"]["targets"][0]["value"] == -0.3
    assert added["schedule"]["folder"] == str(bench.folder)
    assert added["approval"]["envelope"]["max_trials"] == 2
    assert added["approval"]["how"] == "flag"
    expires = datetime.fromisoformat(added["approval"]["expires_at"])
    assert abs(expires - datetime.now(UTC) - timedelta(days=90)) < timedelta(hours=1)


def test_a_night_is_approved_by_the_schedule_and_ends_proven_or_met(first):
    bench, _, ran = first
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert (ran.returncode, lines[-1]["exit_status"]) == (0, 0), ran.stderr
    approval = next(line for line in lines if line["kind"] == "approval")
    assert approval["data"]["how"] == "schedule"
    (night,) = lines[-1]["nights"]
    assert night["outcome"] in ("PROVEN", "MET")
    assert night["report"] == str(bench.workspace / "reports" / "s1" / "index.html")
    assert night["cost"]["trials"] == 2
    assert night["cost"]["tokens"] > 0


def test_the_night_had_a_deadline_before_the_end_of_its_window(first):
    bench, _, _ = first
    db = sqlite3.connect(bench.workspace / "record.db")
    (deadline,) = db.execute("SELECT deadline_at FROM accounts WHERE name = 's1'").fetchone()
    (ends_at,) = db.execute("SELECT ends_at FROM occurrences").fetchone()
    assert datetime.fromisoformat(ends_at) - datetime.fromisoformat(deadline) == timedelta(seconds=30)


def test_figures_of_the_night_equal_mlflows_and_the_audit_is_whole(first):
    ws = open_workspace(first[0].workspace)
    assert tracking.differences(ws, "s1") == []
    assert audit.verify(ws) is None


def test_the_morning_reads_at_eighty_columns(first):
    bench, _, _ = first
    told = bench.run("night", "history")
    assert told.returncode == 0
    assert all(len(line) <= 80 or str(bench.workspace) in line for line in told.stdout.splitlines())
    assert "s1" in told.stdout
    assert "Cost: " in told.stdout
    listed = bench.run("night", "list", "--json")
    assert json.loads(listed.stdout)[0]["approval"]["by"]
    assert "mon-fri at 22:00 until 22:20" in bench.run("night", "show", "tiny").stdout


@pytest.fixture(scope="module")
def second(first):
    """A second night, when every sealed fold has been used: killed at its first job, and called again."""
    bench, _, _ = first
    use_every_fold(bench)
    before = len(bench.jobs)
    killed = bench.start("night", "run", "tiny", "--now", "--json")
    until = time.monotonic() + 120
    while len(bench.jobs) == before and time.monotonic() < until:
        time.sleep(0.1)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    (cut_off,) = [night for night in nights(bench) if night["ended_at"] is None]
    return bench, cut_off, bench.run("night", "run", "--json")


def test_a_night_whose_process_is_killed_goes_on_at_the_next_call(second):
    bench, cut_off, ran = second
    assert f"{cut_off['study']} was cut off and goes on" in ran.stderr
    (night,) = json.loads(ran.stdout.splitlines()[-1])["nights"]
    assert (night["study"], night["due_at"]) == (cut_off["study"], cut_off["due_at"])
    again = bench.run("night", "run")
    assert (again.returncode, again.stdout) == (0, "Nothing was due.\n")


def test_with_every_sealed_fold_used_a_night_ends_in_order_and_says_so(second):
    bench, _, ran = second
    assert ran.returncode == 3, ran.stderr
    (night,) = json.loads(ran.stdout.splitlines()[-1])["nights"]
    assert (night["study"], night["outcome"]) == ("s2", "IMPROVED")
    assert "on the sealed split it is undecided: Study s2 may not look at the sealed data" in night["sentence"]
    assert "all used by other studies" in (bench.workspace / "reports" / "s2" / "report.md").read_text()


def use_every_fold(bench):
    manifest = next((bench.workspace / "data").glob("*/manifest.json")).read_text()
    folds = [split["data_digest"] for split in json.loads(manifest)["splits"] if split["name"].startswith("fold")]
    db = sqlite3.connect(bench.workspace / "record.db")
    for fold in folds:
        db.execute("INSERT OR IGNORE INTO looks VALUES (?, 'another', '2026-01-01T00:00:00+00:00')", (fold,))
    db.commit()


def nights(bench):
    return json.loads(bench.run("night", "history", "--json").stdout)
