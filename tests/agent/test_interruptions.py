"""Real kills, real Ctrl-C, real second terminals on a real study; only the planner is a double."""

import json
import os
import signal
import time

import pytest
import tiny_study
from tiny_study import GOAL, LOWER, RAISE, STOP

from nightsmith.agent.standing import is_driven
from nightsmith.record.workspace import open_workspace
from nightsmith.trainer import runfolder

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]
ANSWERS = (tiny_study.reading(GOAL), {"t": [LOWER, RAISE]}, {"t": [STOP]})


def wait_for_jobs(bench: tiny_study.Bench, number: int, *, state: str = "events.jsonl") -> None:
    """Wait until so many run folders show a sign of life."""
    until = time.monotonic() + 120
    while len(list((bench.workspace / "runs").glob(f"*/{state}"))) < number:
        assert time.monotonic() < until, "no job came up"
        time.sleep(0.2)


def results(bench: tiny_study.Bench) -> list[tuple[str, str]]:
    """Status and weights of every job: one more job, or another weight, and the lists differ."""
    found = [json.loads((folder / "result.json").read_text()) for folder in bench.jobs]
    return sorted((result["status"], result["checkpoint_digest"]) for result in found)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    with tiny_study.bench(tmp_path_factory.mktemp("undisturbed"), *ANSWERS, by_content=True) as bench:
        code = bench.run("run", GOAL, "--yes").returncode
        yield code, results(bench)


def test_a_killed_agent_resumes_with_the_same_jobs_and_the_same_weights(tmp_path, undisturbed):
    with tiny_study.bench(tmp_path, *ANSWERS, by_content=True) as bench:
        agent = bench.start("run", GOAL, "--yes")
        wait_for_jobs(bench, 4)
        os.kill(agent.pid, signal.SIGKILL)
        agent.wait()
        code = bench.run("resume", "s1", "--yes").returncode
        assert (code, results(bench)) == undisturbed


def claims(bench: tiny_study.Bench) -> list[runfolder.Claim]:
    """Which process took each start, of all jobs."""
    found = (bench.workspace / "runs").glob("*/claim-*.json")
    return [runfolder.Claim.model_validate_json(path.read_bytes()) for path in found]


def test_agents_killed_while_they_adopt_running_jobs_leave_one_start_of_each(tmp_path, undisturbed):
    with tiny_study.bench(tmp_path, *ANSWERS, by_content=True) as bench:
        agent = bench.start("run", GOAL, "--yes")
        wait_for_jobs(bench, 2, state="claim-1.json")
        running = [claim.pid for claim in claims(bench)]
        for pid in running:
            os.kill(pid, signal.SIGSTOP)
        os.kill(agent.pid, signal.SIGKILL)
        agent.wait()
        ws = open_workspace(bench.workspace)
        for later_s in (0.0, 0.4):
            adopting = bench.start("resume", "s1", "--yes")
            until = time.monotonic() + 60
            while not is_driven(ws, "s1"):
                assert time.monotonic() < until, "nobody drives the study"
                time.sleep(0.01)
            time.sleep(later_s)
            os.kill(adopting.pid, signal.SIGKILL)
            adopting.communicate()
        for pid in running:
            os.kill(pid, signal.SIGCONT)
        code = bench.run("resume", "s1", "--yes").returncode
        assert (code, results(bench)) == undisturbed
        assert set(running) <= {claim.pid for claim in claims(bench)}
        assert {claim.attempt for claim in claims(bench)} == {1}
        assert len(claims(bench)) == len(bench.jobs)


def test_ctrl_c_once_saves_and_says_how_to_go_on_and_resume_ends_as_if_nothing_had_happened(tmp_path, undisturbed):
    with tiny_study.bench(tmp_path, *ANSWERS, by_content=True) as bench:
        agent = bench.start("run", GOAL, "--yes")
        wait_for_jobs(bench, 3)
        os.kill(agent.pid, signal.SIGINT)
        _, errors = agent.communicate(timeout=120)
        assert agent.returncode == 130
        assert "resume s1" in errors
        code = bench.run("resume", "s1", "--yes").returncode
        assert (code, results(bench)) == undisturbed


def test_ctrl_c_twice_stops_every_process_at_once_and_the_study_can_still_be_resumed(tmp_path, undisturbed):
    with tiny_study.bench(tmp_path, *ANSWERS, by_content=True) as bench:
        agent = bench.start("run", GOAL, "--yes")
        wait_for_jobs(bench, 3)
        os.kill(agent.pid, signal.SIGINT)
        time.sleep(0.3)
        os.kill(agent.pid, signal.SIGINT)
        agent.communicate(timeout=60)
        assert agent.returncode == 130
        code = bench.run("resume", "s1", "--yes").returncode
        assert (code, results(bench)) == undisturbed


def test_stop_from_another_terminal_ends_the_study_in_order_with_a_report(tmp_path):
    with tiny_study.bench(tmp_path, *ANSWERS) as bench:
        agent = bench.start("run", GOAL, "--yes")
        wait_for_jobs(bench, 3)
        asked = bench.run("stop", "s1")
        assert asked.returncode == 0
        agent.communicate(timeout=180)
        assert agent.returncode == 3
        assert bench.show()["outcome"] == "STOPPED"
        assert (bench.workspace / "reports" / "s1" / "index.html").is_file()
        assert len(bench.jobs) == 3


def test_a_second_terminal_watches_and_starts_nothing(tmp_path):
    with tiny_study.bench(tmp_path, *ANSWERS, by_content=True) as bench:
        agent = bench.start("run", GOAL, "--yes")
        wait_for_jobs(bench, 1)
        watcher = bench.start("resume", "s1", "--yes")
        agent.communicate(timeout=400)
        _, errors = watcher.communicate(timeout=60)
        assert "Watching only" in errors
        assert watcher.returncode == agent.returncode
