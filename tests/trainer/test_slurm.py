"""Jobs on a real Slurm: one node on loopback, whose daemons the fixture `cluster` starts."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from killed_at import count_lines, killed_at
from small_runs import pretrain_spec

from nightsmith.model.capacity.sharding import ParallelPlan
from nightsmith.record import approvals, budget, events, leases
from nightsmith.record.approvals import Envelope
from nightsmith.record.budget import Budget
from nightsmith.record.workspace import Workspace, open_workspace
from nightsmith.trainer import jobs, runfolder
from nightsmith.trainer.journal import JOURNAL, read_journal
from nightsmith.trainer.spec import PretrainSpec, RunResult, RunStatus

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]
STUDY = "s1"
LIMIT_S = 120.0


@pytest.fixture
def ws(tmp_path: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace whose jobs run on the cluster, with more leases than that has CPUs: the rest waits in its queue."""
    assert cluster.exists()
    monkeypatch.setenv("NIGHTSMITH_DEVICES", ",".join(f"cpu:{number}" for number in range(8)))
    monkeypatch.chdir(tmp_path)
    settings(tmp_path)
    workspace = open_workspace(tmp_path / ".nightsmith")
    budget.open_account(workspace, STUDY, Budget(tokens=1e9))
    envelope = Envelope(study=STUDY, spec_digest="0", plan_digest="0", kinds=("pretrain",), time_limit_s=LIMIT_S)
    approvals.approve(workspace, envelope, how="flag")
    yield workspace
    for row in jobs.rows(workspace):
        jobs.stop(workspace, row.key, grace_s=0)


def settings(folder: Path, options: str = "") -> None:
    (folder / "nightsmith.toml").write_text(
        f'launcher = "slurm"\n[slurm]\npartition = "main"\noptions = {{ {options} }}\n'
    )


@pytest.fixture
def endless(tmp_path: Path) -> PretrainSpec:
    """A job that runs until it is ended."""
    return pretrain_spec(tmp_path, num_steps=1_000_000, checkpoint_every_s=0.2)


@pytest.fixture
def brief(tmp_path: Path) -> PretrainSpec:
    """A job that ends FAILED at once."""
    return pretrain_spec(tmp_path).model_copy(update={"data": str(tmp_path / "gone.parquet")})


def start(ws: Workspace, spec: PretrainSpec, step: str = "trial-1", **changes) -> str:
    return jobs.start(ws, spec, study=STUDY, step=step, trial=1, role="stage", time_limit_s=LIMIT_S, **changes)


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, squeue("%i %j %T %r")
        time.sleep(0.1)


def end_of(ws: Workspace, key: str) -> RunResult:
    wait_until(lambda: jobs.poll(ws, key))
    result = jobs.poll(ws, key)
    assert result is not None
    return result


def journal(ws: Workspace, key: str, kind: str, attempt: int = 1) -> list[dict]:
    lines = read_journal(ws.run_dir(key) / JOURNAL)
    return [line for line in lines if line["kind"] == kind and line["attempt"] == attempt]


def starts(ws: Workspace, key: str) -> list[int]:
    lines = read_journal(ws.run_dir(key) / JOURNAL)
    return [line["attempt"] for line in lines if line.get("phase") == "start"]


def squeue(columns: str, key: str = "") -> list[str]:
    """A line a job of that key, or a job, in Slurm's memory."""
    argv = ["squeue", "--noheader", "--states=all", "--sort=i", f"--format=%j|{columns}"]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.partition("|")[2] for line in lines if key in line]


def scontrol(*argv: str, check: bool = True) -> None:
    subprocess.run(["scontrol", *argv], check=check, timeout=30)


def test_a_training_runs_to_its_end_on_the_cluster_and_the_record_says_where(ws, tmp_path) -> None:
    key = start(ws, pretrain_spec(tmp_path), num_devices=2)
    assert start(ws, pretrain_spec(tmp_path), num_devices=2) == key
    result = end_of(ws, key)
    assert result.status == RunStatus.FINISHED, result.reason
    assert result.evaluation is not None
    (row,) = jobs.rows(ws, STUDY)
    assert (row.launch.site.kind, row.launch.site.partition) == ("slurm", "main")
    (started,) = [event for event in events.read(ws, study=STUDY) if event.kind == "job_started"]
    assert started.data["launcher"] == "slurm"
    handle = json.loads((ws.run_dir(key) / "launched-1.json").read_text())
    wait_until(lambda: squeue("%i|%C|%T", key) == [f"{handle['id']}|2|COMPLETED"])
    assert len(leases.free(ws)) == 8


def test_two_processes_train_together_save_when_asked_to_and_go_on(ws, endless) -> None:
    spread = endless.model_copy(update={"parallel": ParallelPlan(fsdp=2, ep=2)})
    key = start(ws, spread)
    wait_until(lambda: journal(ws, key, "checkpoint"))
    assert squeue("%C|%D", key) == ["2|1"]
    result = jobs.stop(ws, key, grace_s=60)
    assert result is not None
    assert (result.status, result.num_steps > 0) == (RunStatus.STOPPED, True), result.reason
    assert {file.name for file in ws.run_dir(key).glob("rank-*.log")} == {"rank-0.log", "rank-1.log"}
    start(ws, spread)
    wait_until(lambda: journal(ws, key, "step", attempt=2))
    assert journal(ws, key, "step", attempt=2)[0]["step"] >= result.num_steps


def test_a_job_that_is_stopped_saves_and_goes_on_also_where_the_settings_changed(ws, endless, monkeypatch) -> None:
    key = start(ws, endless)
    wait_until(lambda: journal(ws, key, "checkpoint"))
    monkeypatch.setenv("NIGHTSMITH_LAUNCHER", "local")  # of later starts: this one is still found where it is
    assert jobs.poll(ws, key) is None
    result = jobs.stop(ws, key)
    assert result is not None
    assert (result.status, result.num_steps > 0) == (RunStatus.STOPPED, True)
    monkeypatch.delenv("NIGHTSMITH_LAUNCHER")
    assert start(ws, endless) == key
    wait_until(lambda: journal(ws, key, "step", attempt=2))
    assert journal(ws, key, "step", attempt=2)[0]["step"] >= result.num_steps
    result = jobs.stop(ws, key, grace_s=0)
    assert result is not None
    assert len(squeue("%i", key)) == 2


def test_a_job_that_is_stopped_in_the_queue_never_runs_however_long_it_waited(ws, endless, tmp_path) -> None:
    settings(tmp_path, 'begin = "now+1hour"')
    key = start(ws, endless)
    with ws.write() as db:
        db.execute("UPDATE jobs SET started_at = '2020-01-01T00:00:00+00:00'")
    assert jobs.poll(ws, key) is None
    result = jobs.stop(ws, key)
    assert result is not None
    assert (result.status, result.wall_s == 0) == (RunStatus.KILLED, True)
    assert squeue("%T", key) == ["CANCELLED"]
    assert starts(ws, key) == []


def test_a_requeued_job_saves_and_leaves_and_its_next_attempt_goes_on(ws, endless, tmp_path) -> None:
    settings(tmp_path, "requeue = true")
    key = start(ws, endless)
    wait_until(lambda: journal(ws, key, "checkpoint"))
    scontrol("requeue", squeue("%i", key)[0])
    result = end_of(ws, key)
    assert result.status == RunStatus.STOPPED
    assert start(ws, endless) == key
    wait_until(lambda: journal(ws, key, "step", attempt=2))
    assert journal(ws, key, "step", attempt=2)[0]["step"] >= result.num_steps
    first, second = squeue("%T", key)
    assert (first in ("CANCELLED", "COMPLETING"), second) == (True, "RUNNING")
    assert starts(ws, key) == [1, 2]


def test_a_node_that_is_lost_loses_the_attempt_and_not_the_job(ws, endless) -> None:
    key = start(ws, endless)
    wait_until(lambda: journal(ws, key, "checkpoint"))
    (node,) = squeue("%N", key)
    scontrol("update", f"nodename={node}", "state=down", "reason=test")
    try:
        assert end_of(ws, key).status in (RunStatus.KILLED, RunStatus.STOPPED)
        assert squeue("%T", key) == ["NODE_FAIL"]
    finally:
        scontrol("update", f"nodename={node}", "state=resume", check=False)  # it may have returned by itself
    start(ws, endless)
    wait_until(lambda: journal(ws, key, "step", attempt=2))
    assert journal(ws, key, "step", attempt=2)[0]["step"] > 0


def test_controllers_killed_around_the_submission_leave_exactly_one_job(ws, brief) -> None:
    start(ws, brief, "first")  # what is imported or remembered at the first start is not counted
    total = count_lines(lambda: start(ws, brief, "counted"))
    steps = {f"killed-{before}": total - before for before in (40, 24, 12, 6, 3, 1)}
    for step, line in steps.items():
        assert killed_at(line, lambda step=step: start(ws, brief, step))
    left = len(squeue("%j"))
    keys = [start(ws, brief, step) for step in steps]
    assert left < len(squeue("%j"))
    assert left > 2
    for key in keys:
        assert end_of(ws, key).status == RunStatus.FAILED
        assert starts(ws, key) == [1]
        assert len(squeue("%i", key)) == 1


def test_a_failed_job_names_the_file_in_which_its_output_is(ws, tmp_path, monkeypatch) -> None:
    spec = pretrain_spec(tmp_path)
    Path(spec.data).write_text("no parquet")
    result = end_of(ws, key := start(ws, spec))
    assert result.status == RunStatus.FAILED, result.reason
    assert runfolder.LOG in result.reason or "parquet" in result.reason
    monkeypatch.setattr(sys, "executable", "/bin/false")
    key = start(ws, spec, "no-python")
    result = end_of(ws, key)
    assert result.status == RunStatus.KILLED
    (output,) = (ws.run_dir(key) / "slurm").glob("*.out")
    assert str(output) in result.reason
