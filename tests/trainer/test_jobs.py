"""Jobs against a real record and real processes. A spec whose data are absent makes a job that ends within a second."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from killed_at import count_lines, killed_at
from small_runs import pretrain_spec

from nightsmith.model.capacity.sharding import ParallelPlan
from nightsmith.record import approvals, audit, budget, events, leases
from nightsmith.record.approvals import Envelope
from nightsmith.record.budget import Budget
from nightsmith.record.errors import BudgetSpent, NightsmithError, NoDevice, NotApproved
from nightsmith.record.workspace import Workspace, open_workspace
from nightsmith.trainer import jobs, runfolder
from nightsmith.trainer.journal import JOURNAL, read_journal
from nightsmith.trainer.spec import PretrainSpec, RunResult, RunStatus

STUDY = "s1"
LIMIT_S = 60.0
LIMITS = Budget(tokens=1e9, max_trials=3)


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace with two CPU devices and an approved study; whatever is started in it is ended afterwards."""
    monkeypatch.setenv("NIGHTSMITH_DEVICES", "cpu:0,cpu:1")
    workspace = open_workspace(tmp_path / ".nightsmith")
    approve(workspace)
    yield workspace
    for row in jobs.rows(workspace):
        jobs.stop(workspace, row.key, grace_s=0)


def approve(ws: Workspace, study: str = STUDY, limits: Budget = LIMITS) -> None:
    budget.open_account(ws, study, limits)
    envelope = Envelope(study=study, spec_digest="0", plan_digest="0", kinds=("pretrain",), time_limit_s=LIMIT_S)
    approvals.approve(ws, envelope, how="flag")


@pytest.fixture
def endless(tmp_path: Path) -> PretrainSpec:
    """A job that runs until it is ended."""
    return pretrain_spec(tmp_path, num_steps=1_000_000)


@pytest.fixture
def brief(tmp_path: Path) -> PretrainSpec:
    """A job that ends FAILED at once."""
    return pretrain_spec(tmp_path).model_copy(update={"data": str(tmp_path / "gone.parquet")})


def start(ws: Workspace, spec: PretrainSpec, **changes) -> str:
    asked = {"study": STUDY, "step": "trial-1", "trial": 1, "role": "trial", "time_limit_s": LIMIT_S}
    return jobs.start(ws, spec, **(asked | changes))


def wait_until(condition: Callable[[], object], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def end_of(ws: Workspace, key: str) -> RunResult:
    wait_until(lambda: jobs.poll(ws, key) is not None)
    result = jobs.poll(ws, key)
    assert result is not None
    return result


def claimed(ws: Workspace, key: str, attempt: int = 1) -> int:
    wait_until(lambda: runfolder.read_claim(ws.run_dir(key), attempt))
    claim = runfolder.read_claim(ws.run_dir(key), attempt)
    assert claim is not None
    return claim.pid


def end_as(ws: Workspace, key: str, attempt: int, status: RunStatus) -> None:
    """Leave what the process of an attempt would have left."""
    folder, digest = ws.run_dir(key), jobs.rows(ws, STUDY)[0].spec.digest()
    assert runfolder.claim(folder, runfolder.Claim(attempt=attempt, pid=os.getpid(), pid_start=1))
    runfolder.finish(folder, attempt, RunResult(key=key, spec_digest=digest, status=status))


def starts(ws: Workspace, key: str) -> list[int]:
    """Attempts whose runner really began, in order."""
    lines = read_journal(ws.run_dir(key) / JOURNAL)
    return [line["attempt"] for line in lines if line.get("phase") == "start"]


def refusals(ws: Workspace) -> tuple[int, int]:
    """Lines of the audit and events that tell of a refusal."""
    lines = sum(line.action == "job.refused" for line in audit.read(ws))
    return lines, sum(event.kind == "refused" for event in events.read(ws))


def test_a_job_is_started_once_settled_once_and_leaves_nothing_reserved(ws, brief) -> None:
    key = start(ws, brief)
    assert start(ws, brief) == key
    reserved = budget.balance(ws, STUDY).reserved
    assert (reserved.wall_s, reserved.trials) == (LIMIT_S, 1)
    assert leases.free(ws, "cpu") == ("cpu:1",)
    result = end_of(ws, key)
    assert result.status == RunStatus.FAILED
    assert "gone.parquet" in result.reason
    spent = budget.balance(ws, STUDY).spent
    assert jobs.poll(ws, key) == result
    assert start(ws, brief) == key
    assert starts(ws, key) == [1]
    assert budget.balance(ws, STUDY).spent == spent
    assert budget.balance(ws, STUDY).reserved.wall_s == 0
    assert (spent.trials, spent.tokens) == (1, 0)
    assert 0 < spent.wall_s < 30
    assert leases.free(ws, "cpu") == ("cpu:0", "cpu:1")
    kinds = [event.kind for event in events.read(ws, study=STUDY)]
    assert (kinds.count("job_started"), kinds.count("job_finished")) == (1, 1)
    assert [line.action for line in audit.read(ws)].count("job.started") == 1
    assert audit.verify(ws) is None


def test_each_process_of_a_run_gets_a_device_that_is_leased_and_reserved(ws, brief) -> None:
    spread = brief.model_copy(update={"parallel": ParallelPlan(fsdp=2, ep=2)})
    with pytest.raises(NightsmithError, match="multiple of 2"):
        start(ws, spread, num_devices=3)
    key = start(ws, spread)
    (row,) = jobs.rows(ws, STUDY)
    assert (row.launch.processes, row.launch.devices) == (2, ("cpu:0", "cpu:1"))
    assert row.launch.env["OMP_NUM_THREADS"] == "1"
    assert budget.balance(ws, STUDY).reserved.cpu_s == 2 * LIMIT_S
    assert leases.free(ws, "cpu") == ()
    end_of(ws, key)
    assert leases.free(ws, "cpu") == ("cpu:0", "cpu:1")
    spent = budget.balance(ws, STUDY).spent
    assert spent.cpu_s == 2 * spent.wall_s


def test_keys_follow_study_step_and_spec_and_nothing_else(ws, brief) -> None:
    keys = {
        start(ws, brief),
        start(ws, brief, role="manual", time_limit_s=5),
        start(ws, brief, step="trial-2"),
    }
    assert len(keys) == 2
    assert all(len(key) == 12 for key in keys)
    assert [row.step for row in jobs.rows(ws, STUDY)] == ["trial-1", "trial-2"]
    assert jobs.rows(ws, "s9") == []


def test_without_approval_account_tokens_or_device_nothing_starts_and_the_audit_says_so(ws, endless) -> None:
    refused: list[tuple[type[Exception], dict[str, object]]] = [
        (NotApproved, {"study": "s2"}),
        (NotApproved, {"time_limit_s": LIMIT_S + 1}),
        (NoDevice, {"num_devices": 3}),
        (BudgetSpent, {"study": "s3"}),
        (BudgetSpent, {"study": "s4"}),
    ]
    envelope = Envelope(study="s3", spec_digest="0", plan_digest="0", kinds=("pretrain",), time_limit_s=LIMIT_S)
    approvals.approve(ws, envelope, how="flag")
    approve(ws, "s4", Budget(tokens=1000))
    for number, (kind, changes) in enumerate(refused, start=1):
        with pytest.raises(kind):
            start(ws, endless, **changes)
        assert refusals(ws) == (number, number)
    assert jobs.rows(ws) == []
    assert list(ws.runs.glob("*/claim-*")) == []
    assert leases.free(ws, "cpu") == ("cpu:0", "cpu:1")
    assert budget.balance(ws, STUDY).reserved.wall_s == 0


def test_trials_are_counted_and_other_roles_are_not(ws, brief) -> None:
    for step, role in (("a", "trial"), ("b", "baseline"), ("c", "trial"), ("d", "confirmation"), ("e", "trial")):
        end_of(ws, start(ws, brief, step=step, role=role))
    assert budget.balance(ws, STUDY).left.trials == 0
    with pytest.raises(BudgetSpent):
        start(ws, brief, step="f")


def test_a_killed_job_is_known_as_killed_and_goes_on_under_the_same_key(ws, endless) -> None:
    key = start(ws, endless)
    os.killpg(claimed(ws, key), signal.SIGKILL)
    result = end_of(ws, key)
    assert result.status == RunStatus.KILLED
    assert "vanished" in result.reason
    assert leases.free(ws, "cpu") == ("cpu:0", "cpu:1")
    assert start(ws, endless) == key
    assert jobs.poll(ws, key) is None
    assert jobs.num_starts(ws, key) == 2
    claimed(ws, key, attempt=2)
    assert jobs.stop(ws, key, grace_s=0).status == RunStatus.KILLED
    assert budget.balance(ws, STUDY).spent.trials == 1


def test_a_start_notices_that_the_job_was_killed_though_nobody_polled(ws, endless) -> None:
    key = start(ws, endless)
    os.killpg(claimed(ws, key), signal.SIGKILL)
    wait_until(lambda: not runfolder.is_locked(ws.run_dir(key)))
    start(ws, endless)
    assert jobs.num_starts(ws, key) == 2


def test_a_job_outlives_its_starter_and_reports_progress_to_whoever_asks(ws, endless) -> None:
    pid = os.fork()
    if pid == 0:
        start(ws, endless)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    (row,) = jobs.rows(ws, STUDY)
    wait_until(lambda: (jobs.progress(ws, row.key).step or 0) > 1)
    progress = jobs.progress(ws, row.key)
    assert (progress.phase, progress.num_steps) == ("train", 1_000_000)
    assert min(progress.loss, progress.tokens_per_s, progress.eta_s) > 0
    assert jobs.poll(ws, row.key) is None
    result = jobs.stop(ws, row.key)
    assert result.status == RunStatus.STOPPED
    assert result.num_steps >= progress.step
    spent = budget.balance(ws, STUDY).spent
    assert spent.tokens > 0
    assert spent.cpu_s == spent.wall_s


def test_an_attempt_that_no_process_takes_is_declared_void_and_stays_so(ws, brief, monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    key = start(ws, brief)
    assert jobs.poll(ws, key) is None
    with ws.write() as db:
        db.execute("UPDATE jobs SET started_at = '2020-01-01T00:00:00+00:00'")
    assert end_of(ws, key).status == RunStatus.KILLED
    late = runfolder.Claim(attempt=1, pid=os.getpid(), pid_start=1)
    assert not runfolder.claim(ws.run_dir(key), late)


def test_a_job_that_is_stopped_before_its_process_came_up_never_runs(ws, brief, monkeypatch) -> None:
    python = sys.executable
    monkeypatch.setattr(sys, "executable", "/bin/true")
    key = start(ws, brief)
    assert "before a process took it" in jobs.stop(ws, key).reason
    monkeypatch.setattr(sys, "executable", python)
    assert start(ws, brief) == key
    end_of(ws, key)
    assert starts(ws, key) == [2]


def test_a_result_that_was_changed_after_the_end_is_not_believed(ws, brief) -> None:
    key = start(ws, brief)
    path = ws.run_dir(key) / runfolder.RESULT
    wait_until(lambda: (ws.run_dir(key) / runfolder.EXIT).exists())
    wait_until(lambda: not runfolder.is_locked(ws.run_dir(key)))
    path.write_text(path.read_text().replace("FAILED", "FINISHED"))
    result = end_of(ws, key)
    assert result.status == RunStatus.FAILED
    assert "not the file that its exit record names" in result.reason


def test_a_job_that_ran_out_of_memory_goes_on_with_half_the_micro_batch_until_there_is_no_half(
    ws, brief, monkeypatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    sizes = []
    for attempt in (1, 2, 3):
        key = start(ws, brief)
        (row,) = jobs.rows(ws, STUDY)
        assert row.attempt == attempt
        sizes.append(row.launch.micro_batch_size)
        end_as(ws, key, attempt, RunStatus.OUT_OF_MEMORY)
        assert jobs.poll(ws, key).status == RunStatus.OUT_OF_MEMORY
        assert jobs.may_go_on(ws, key) == (attempt < 3)
    assert sizes == [None, 2, 1]
    assert start(ws, brief) == key
    assert jobs.num_starts(ws, key) == 3
    told = [event.data.get("micro_batch_size") for event in events.read(ws, study=STUDY) if event.kind == "job_started"]
    assert told == [None, 2, 1]
    assert budget.balance(ws, STUDY).spent.trials == 1


def test_micro_batches_stay_small_after_other_ends(ws, brief, monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    key = start(ws, brief)
    end_as(ws, key, 1, RunStatus.OUT_OF_MEMORY)
    start(ws, brief)
    jobs.stop(ws, key)
    start(ws, brief)
    (row,) = jobs.rows(ws, STUDY)
    assert (row.attempt, row.launch.micro_batch_size) == (3, 2)


def test_an_unknown_job_is_named(ws) -> None:
    with pytest.raises(NightsmithError, match="no job 'abc'"):
        jobs.poll(ws, "abc")


def test_many_starters_at_once_start_one_process(ws, brief) -> None:
    threads = [threading.Thread(target=start, args=(ws, brief)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (row,) = jobs.rows(ws, STUDY)
    end_of(ws, row.key)
    assert starts(ws, row.key) == [1]


def test_starters_and_settlers_killed_at_any_line_leave_one_start_and_one_settlement(ws, brief) -> None:
    wide = "s-many"
    approve(ws, wide, Budget())
    rehearsal = start(ws, brief, study=wide, step="rehearsal")
    end_of(ws, rehearsal)
    lines = count_lines(lambda: start(ws, brief, study=wide, step="counted"))
    moments = [round(1 + (lines - 1) * share / 23) for share in range(24)]
    killed = 0
    for moment in moments:
        step = f"moment-{moment}"
        killed += killed_at(moment, lambda step=step: start(ws, brief, study=wide, step=step, role="confirmation"))
        key = start(ws, brief, study=wide, step=step, role="confirmation")
        folder = ws.run_dir(key)
        wait_until(lambda folder=folder: (folder / runfolder.EXIT).exists() and not runfolder.is_locked(folder))
        killed += killed_at(moment, lambda key=key: jobs.poll(ws, key))
        assert end_of(ws, key).status == RunStatus.FAILED
        assert (starts(ws, key), jobs.num_starts(ws, key)) == ([1], 1)
    assert killed >= len(moments)
    finished = [event.job for event in events.read(ws, study=wide) if event.kind == "job_finished"]
    assert len(finished) == len(set(finished)) >= len(moments) + 1
    assert audit.verify(ws) is None


@pytest.mark.slow
def test_controllers_killed_while_they_adopt_a_job_that_comes_up_or_has_ended_leave_one_start_and_one_end(
    ws, brief
) -> None:
    wide = "s-many"
    approve(ws, wide, Budget())

    def starter(step: str) -> Callable[[], str]:
        return lambda: start(ws, brief, study=wide, step=step, role="confirmation")

    end_of(ws, starter("rehearsal")())
    first = count_lines(starter("counted"))
    second = count_lines(starter("counted"))
    end_of(ws, starter("counted")())
    for share in range(6):
        begin = starter(f"moment-{share}")
        assert killed_at(first - share, begin)  # the process is launched, or just about to be
        for moment in (share, 5 - share):
            killed_at(1 + round((first - 2) * moment / 5), begin)
        key = begin()
        folder = ws.run_dir(key)
        wait_until(lambda folder=folder: (folder / runfolder.EXIT).exists() and not runfolder.is_locked(folder))
        for moment in (share, share + 1, share + 2):
            killed_at(1 + round((second - 2) * moment / 7), begin)
        assert begin() == key
        assert end_of(ws, key).status == RunStatus.FAILED
        assert (starts(ws, key), jobs.num_starts(ws, key)) == ([1], 1)
        ends = [event for event in events.read(ws, study=wide) if event.kind == "job_finished" and event.job == key]
        assert len(ends) == 1
    assert leases.free(ws, "cpu") == ("cpu:0", "cpu:1")
    assert budget.balance(ws, wide).reserved.wall_s == 0
    assert audit.verify(ws) is None


def voided(ws: Workspace, spec: PretrainSpec, step: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A job whose first attempt no process took, and none ever will."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/bin/true")
        key = start(ws, spec, step=step, role="confirmation")
    jobs.stop(ws, key)
    return key


@pytest.mark.slow
def test_those_who_start_a_job_again_killed_at_any_line_leave_one_second_attempt(ws, brief, monkeypatch) -> None:
    counted = voided(ws, brief, "counted", monkeypatch)
    lines = count_lines(lambda: start(ws, brief, step="counted", role="confirmation"))
    end_of(ws, counted)
    for share in range(6):
        step = f"moment-{share}"
        key = voided(ws, brief, step, monkeypatch)
        assert killed_at(
            1 + round((lines - 2) * share / 5), lambda step=step: start(ws, brief, step=step, role="confirmation")
        )
        assert start(ws, brief, step=step, role="confirmation") == key
        assert end_of(ws, key).status == RunStatus.FAILED
        assert (starts(ws, key), jobs.num_starts(ws, key)) == ([2], 2)
        ends = [event for event in events.read(ws, study=STUDY) if event.kind == "job_finished" and event.job == key]
        assert [event.data["attempt"] for event in ends] == [1, 2]


def hold(folder: Path, attempt: int = 1) -> int:
    """A process, in a session of its own, that has claimed an attempt and does nothing; returns its id."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        runfolder.take_lock(folder, 1)
        start_ticks = runfolder.process_start(os.getpid()) or 0
        runfolder.claim(folder, runfolder.Claim(attempt=attempt, pid=os.getpid(), pid_start=start_ticks))
        time.sleep(60)
        os._exit(0)
    wait_until(lambda: runfolder.read_claim(folder, attempt))
    return pid


def test_controllers_that_adopt_a_running_job_killed_at_any_line_leave_it_running_as_it_is(
    ws, brief, monkeypatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    key = start(ws, brief)
    pid = hold(ws.run_dir(key))

    def adopt() -> None:
        assert start(ws, brief) == key
        assert jobs.poll(ws, key) is None
        jobs.progress(ws, key)

    before = (jobs.rows(ws, STUDY), budget.balance(ws, STUDY).reserved, leases.free(ws, "cpu"))
    lines = count_lines(adopt)
    for share in range(24):
        assert killed_at(1 + round((lines - 2) * share / 23), adopt)
        assert (jobs.rows(ws, STUDY), budget.balance(ws, STUDY).reserved, leases.free(ws, "cpu")) == before
    adopt()
    assert claimed(ws, key) == pid
    assert jobs.stop(ws, key, grace_s=1).status == RunStatus.KILLED
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    kinds = [event.kind for event in events.read(ws, study=STUDY)]
    assert (kinds.count("job_started"), kinds.count("job_finished"), jobs.num_starts(ws, key)) == (1, 1, 1)
    assert leases.free(ws, "cpu") == ("cpu:0", "cpu:1")
    assert budget.balance(ws, STUDY).reserved.wall_s == 0


def test_those_who_stop_a_job_killed_at_any_line_leave_it_to_the_next_to_stop_it_once(ws, brief, monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")

    def held(step: str) -> tuple[str, int]:
        key = start(ws, brief, step=step, role="confirmation")
        return key, hold(ws.run_dir(key))

    key, pid = held("counted")
    lines = count_lines(lambda: jobs.stop(ws, key, grace_s=1))
    os.waitpid(pid, 0)
    for share in range(6):
        key, pid = held(f"moment-{share}")
        assert killed_at(1 + round((lines - 2) * share / 6), lambda key=key: jobs.stop(ws, key, grace_s=1))
        assert jobs.stop(ws, key, grace_s=1).status == RunStatus.KILLED
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
        ends = [event for event in events.read(ws, study=STUDY) if event.kind == "job_finished" and event.job == key]
        assert len(ends) == 1
    assert leases.free(ws, "cpu") == ("cpu:0", "cpu:1")
    assert budget.balance(ws, STUDY).reserved.wall_s == 0
