"""The path end to end, with real processes, real training, real DuckDB and MLflow; only the planner is a double."""

import json
import sqlite3

import pytest
import tiny_study
from tiny_study import GOAL, LOWER, RAISE, STOP

from nightsmith.agent import labels, literals

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """One study that reaches its target, run once for the tests that look at it."""
    folder = tmp_path_factory.mktemp("study")
    answers = (tiny_study.reading(GOAL), {"t": [LOWER, RAISE]}, {"t": [STOP]})
    with tiny_study.bench(folder, *answers) as bench:
        finished = bench.run("run", GOAL, "--yes", "--json")
        assert finished.stderr == "" or finished.returncode == 0, finished.stderr
        yield bench, finished


def test_a_reachable_target_ends_proven_or_met_with_exit_status_0(ended):
    _, finished = ended
    outcome = next(e for line in finished.stdout.splitlines() if (e := json.loads(line))["kind"] == "outcome")
    assert (finished.returncode, outcome["kind"]) == (0, "outcome")
    assert outcome["data"]["outcome"] in ("PROVEN", "MET")


def test_the_spec_follows_the_text_of_the_goal(ended):
    spec = ended[0].show()["spec"]
    assert spec["targets"][0]["value"] == -0.3
    assert spec["budget"]["max_trials"] == 2
    assert spec["data"][0]["ref"] == "./corpus"


def test_the_hurting_change_is_not_promoted_and_the_helping_one_is(ended):
    trials = {trial["number"]: trial for trial in ended[0].show()["trials"]}
    decisions = {number: trial["decision"] for number, trial in trials.items() if number > 0}
    assert sorted(decisions.values()) in (["INCONCLUSIVE", "PROMOTED"], ["PROMOTED", "REJECTED"])


def test_every_figure_in_mlflow_is_that_of_its_result_file(ended):
    from nightsmith.record.workspace import open_workspace
    from nightsmith.trainer import tracking

    assert tracking.differences(open_workspace(ended[0].workspace), "s1") == []


def test_the_report_names_the_outcome_and_carries_no_script(ended):
    html = (ended[0].workspace / "reports" / "s1" / "index.html").read_text()
    assert "<script" not in html
    assert any(word in html for word in ("PROVEN", "MET"))


def test_the_audit_chain_of_the_study_is_whole(ended):
    from nightsmith.record import audit
    from nightsmith.record.workspace import open_workspace

    assert audit.verify(open_workspace(ended[0].workspace)) is None


def test_all_leases_and_reservations_are_given_back(ended):
    db = sqlite3.connect(ended[0].workspace / "record.db")
    assert db.execute("SELECT count(*) FROM leases").fetchone() == (0,)
    assert db.execute("SELECT count(*) FROM reservations WHERE reserved IS NOT NULL").fetchone() == (0,)


def test_resuming_an_ended_study_says_how_it_ended_and_starts_nothing(ended):
    bench, _ = ended
    jobs = bench.jobs
    again = bench.run("resume", "s1")
    assert again.returncode == 0
    assert any(word in again.stdout for word in ("PROVEN", "MET"))
    assert bench.jobs == jobs


def test_a_training_job_by_hand_without_approval_is_refused_and_audited(ended):
    bench, _ = ended
    spec = next(path for path in (bench.workspace / "runs").glob("*/spec.json") if '"pretrain"' in path.read_text())
    refused = bench.run("train", str(spec))
    assert refused.returncode == 6
    assert "approv" in refused.stderr
    db = sqlite3.connect(bench.workspace / "record.db")
    actions = [row[0] for row in db.execute("SELECT action FROM audit ORDER BY seq DESC LIMIT 1")]
    assert "refused" in actions[0]


def test_a_goal_without_yes_or_terminal_waits_for_an_approval_at_once(tmp_path):
    with tiny_study.bench(tmp_path, tiny_study.reading(GOAL)) as bench:
        waiting = bench.run("run", GOAL)
        assert waiting.returncode == 6
        assert "resume s1" in waiting.stdout + waiting.stderr
        assert bench.jobs == []


def test_a_missing_folder_is_blocked_with_near_names_before_anything_is_approved(tmp_path):
    goal = GOAL.replace("./corpus", "./corpsu")
    with tiny_study.bench(tmp_path, tiny_study.reading(goal, folder="./corpsu")) as bench:
        blocked = bench.run("run", goal, "--yes")
        assert blocked.returncode == 5
        assert "corpus" in blocked.stdout + blocked.stderr


def test_a_goal_that_lacks_a_target_asks_and_goes_on_with_the_answer(tmp_path):
    goal = GOAL.replace("until bits per byte are at least 0.3 below the baseline", "and make it better")
    asks = {"s": "ask", "do": "train", "how": ["pretrain"], "ask": ["targets"]}
    asks = labels.labelled(asks, literals.find(goal))
    answered = f"{goal}\nTarget: at least 0.3 below the baseline"
    answers = (asks, tiny_study.reading(answered))
    with tiny_study.bench(tmp_path, *answers) as bench:
        waiting = bench.run("run", goal, "--yes", "--json")
        assert waiting.returncode == 4
        assert any(json.loads(line)["kind"] == "question" for line in waiting.stdout.splitlines())
        resumed = bench.run("resume", "s1", "--answer", "at least 0.3 below the baseline")
        assert resumed.returncode == 6
        assert bench.show()["spec"]["targets"][0]["value"] == -0.3


def test_an_unreachable_planner_pauses_the_study_with_a_way_to_go_on(tmp_path):
    with tiny_study.bench(tmp_path, tiny_study.reading(GOAL)) as bench:
        bench.planner.url = "http://127.0.0.1:9/v1"
        paused = bench.run("run", GOAL, "--yes")
        assert paused.returncode == 6
        assert "resume" in paused.stderr
        assert bench.jobs == []
