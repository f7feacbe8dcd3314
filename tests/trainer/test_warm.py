"""Jobs that a preloaded process forks: what they inherit, what they do not, and who outlives whom."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_runs import pretrain_spec, sft_spec
from tiny_models import write_model

import nightsmith
from nightsmith.record import approvals, budget
from nightsmith.record.approvals import Envelope
from nightsmith.record.budget import Budget
from nightsmith.record.errors import NightsmithError
from nightsmith.record.workspace import Workspace, open_workspace
from nightsmith.trainer import jobs, runfolder
from nightsmith.trainer.launch import local, warm
from nightsmith.trainer.spec import LaunchSpec, RunResult, RunSpec, RunStatus

STUDY = "s1"
TELLING = """
import os, sys
from pathlib import Path
from nightsmith.trainer import preloaded
job = preloaded.serve(Path(sys.argv[1]), float(sys.argv[2]))
if job is not None:
    for name in ("0", "1", "2", "3", "4", "5", "6", "7", "8"):
        print(name, os.path.realpath(f"/proc/self/fd/{name}") if os.path.exists(f"/proc/self/fd/{name}") else "-")
    print("session", os.getsid(0) == os.getpid(), "folder", os.getcwd(), "threads", os.environ["OMP_NUM_THREADS"])
    print("own", os.environ.get("NIGHTSMITH_WORKSPACE"), "job", job)
"""
"""A process that forks jobs which tell what they are, without the seconds that importing torch takes."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of its own; whatever serves there has to leave."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIGHTSMITH_CACHE", str(folder))
        patch.setenv("NIGHTSMITH_WARM_IDLE_S", "60")
        yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def preloaded(cache: Path) -> Path:  # noqa: ARG001
    """The address of the real preloaded process, ready."""
    warm.bring_up()
    wait_until(warm.address().exists)
    return warm.address()


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setenv("NIGHTSMITH_DEVICES", "cpu:0,cpu:1")
    workspace = open_workspace(tmp_path / ".nightsmith")
    budget.open_account(workspace, STUDY, Budget())
    envelope = Envelope(study=STUDY, spec_digest="0", plan_digest="0", kinds=("pretrain", "sft"), time_limit_s=60)
    approvals.approve(workspace, envelope, how="flag")
    yield workspace
    for row in jobs.rows(workspace):
        jobs.stop(workspace, row.key, grace_s=0)


def wait_until(condition: Callable[[], object], seconds: float = 100) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def start(ws: Workspace, spec: RunSpec, step: str, threads: int = 1) -> str:
    return jobs.start(ws, spec, study=STUDY, step=step, role="trial", time_limit_s=60, num_devices=threads)


def claimed(ws: Workspace, key: str) -> int:
    wait_until(lambda: runfolder.read_claim(ws.run_dir(key), 1))
    claim = runfolder.read_claim(ws.run_dir(key), 1)
    assert claim is not None
    return claim.pid


def end_of(ws: Workspace, key: str) -> RunResult:
    wait_until(lambda: jobs.poll(ws, key))
    result = jobs.poll(ws, key)
    assert result is not None
    return result


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def launch_spec(folder: Path, **changes) -> LaunchSpec:
    return local.worker(folder, 1, ("cpu:0", "cpu:1"), 60).model_copy(update=changes)


def forked(spec: LaunchSpec) -> int | None:
    with (Path(spec.workdir) / "log.txt").open("ab") as log:
        return warm.fork(spec, log)


@pytest.fixture
def telling(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["subprocess.Popen[bytes]"]:  # noqa: ARG001
    """A process that serves at an address of its own until it is idle for two seconds."""
    monkeypatch.setenv("LANG", "fr_FR.UTF-8")
    monkeypatch.setenv("NIGHTSMITH_WORKSPACE", "of whoever started it")
    warm.address().unlink(missing_ok=True)
    with subprocess.Popen([sys.executable, "-P", "-c", TELLING, str(warm.address()), "2"], cwd="/") as process:
        wait_until(warm.address().exists)
        yield process
        process.kill()


@pytest.mark.usefixtures("telling")
def test_a_forked_job_has_its_own_session_folder_output_and_environment_and_no_other_descriptor(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("NIGHTSMITH_WORKSPACE", "of the job")
    assert forked(launch_spec(tmp_path)) is not None
    log = tmp_path / "log.txt"
    wait_until(lambda: "job" in log.read_text())
    told = log.read_text().splitlines()
    assert told[:3] == ["0 /dev/null", f"1 {log}", f"2 {log}"]
    assert {line.split()[1] for line in told[3:9]} == {"-"}
    assert told[9] == f"session True folder {tmp_path} threads 2"
    assert told[10] == f"own of the job job {[str(tmp_path), '--attempt', '1']}"


def test_an_idle_process_leaves_and_takes_its_files_away(telling) -> None:
    address = warm.address()
    assert telling.wait(20) == 0
    assert list(address.parent.glob(f"{address.stem}*")) == []


@pytest.mark.usefixtures("telling")
def test_strangers_at_the_socket_disturb_nobody(tmp_path) -> None:
    address = warm.address()
    assert (address.stat().st_mode & 0o777, address.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    for message in (b"", b"{}", b"\xff" * 100, b'{"argv": 1}'):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger, warm.reachable(address) as name:
            stranger.connect(name)
            if message:
                stranger.send(message)
    assert forked(launch_spec(tmp_path)) is not None


@pytest.mark.usefixtures("telling")
def test_a_job_is_forked_only_where_that_makes_no_difference(tmp_path, monkeypatch) -> None:
    assert forked(launch_spec(tmp_path)) is not None
    assert forked(launch_spec(tmp_path, devices=("cpu:0", "cuda:0"))) is None
    assert forked(launch_spec(tmp_path, argv=("torchrun", "-m", "nightsmith.trainer.worker"))) is None
    umask = os.umask(0o077)
    assert forked(launch_spec(tmp_path)) is None
    os.umask(umask)
    with monkeypatch.context() as other:
        other.setenv("LD_LIBRARY_PATH", "/opt/other")
        assert forked(launch_spec(tmp_path)) is None
        other.setenv("NIGHTSMITH_WARM_IDLE_S", "0")
        warm.bring_up()
        assert not warm.address().with_suffix(".log").exists()
    with monkeypatch.context() as off:
        off.setenv("NIGHTSMITH_WARM_IDLE_S", "0")
        assert forked(launch_spec(tmp_path)) is None
        off.setenv("NIGHTSMITH_WARM_IDLE_S", "soon")
        with pytest.raises(NightsmithError, match="makes every job start cold"):
            forked(launch_spec(tmp_path))
    assert forked(launch_spec(tmp_path)) is not None


def test_changed_sources_have_another_digest(tmp_path) -> None:
    package = Path(nightsmith.__path__[0])
    copy = shutil.copytree(package, tmp_path / "nightsmith", ignore=shutil.ignore_patterns("*.gguf", "__pycache__"))
    program = "from nightsmith.trainer.launch import warm; print(warm.source_digest())"

    def digest() -> str:
        ran = subprocess.run(
            [sys.executable, "-P", "-c", program], env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return ran.stdout

    before = digest()
    assert before == digest()
    (copy / "model" / "router.py").open("a").write("# changed\n")
    assert digest() != before


@pytest.mark.usefixtures("preloaded")
def test_jobs_start_warm_and_outlive_the_process_that_forked_them(ws, tmp_path) -> None:
    key = start(ws, pretrain_spec(tmp_path, num_steps=1_000_000), "endless")
    pid = claimed(ws, key)
    parent = parent_of(pid)
    assert b"nightsmith.trainer.preloaded" in Path(f"/proc/{parent}/cmdline").read_bytes()
    brief = end_of(ws, start(ws, pretrain_spec(tmp_path, num_steps=3), "brief"))
    assert brief.status == RunStatus.FINISHED
    assert "torch" not in (ws.run_dir(brief.key) / "log.txt").read_text()
    os.kill(parent, signal.SIGKILL)
    wait_until(lambda: parent_of(pid) != parent)
    at = jobs.progress(ws, key).step or 0
    wait_until(lambda: (jobs.progress(ws, key).step or 0) > at + 1)
    assert jobs.poll(ws, key) is None
    assert forked(launch_spec(tmp_path)) is None
    stopped = jobs.stop(ws, key)
    assert stopped is not None
    assert stopped.status == RunStatus.STOPPED


@pytest.mark.slow
@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_job_that_starts_warm_ends_bit_equal_to_one_that_starts_cold(ws, tmp_path, monkeypatch, threads) -> None:
    warm.bring_up()
    wait_until(warm.address().exists)
    specs: list[RunSpec] = [pretrain_spec(tmp_path, num_steps=20), sft_spec(tmp_path, write_model(tmp_path / "base"))]
    hot = [end_of(ws, start(ws, spec, "warm", threads)) for spec in specs]
    assert warm.address().exists()  # so all of them were forked
    monkeypatch.setenv("NIGHTSMITH_WARM_IDLE_S", "0")
    cold = [end_of(ws, start(ws, spec, "cold", threads)) for spec in specs]
    for one, other in zip(hot, cold, strict=True):
        assert one.status == other.status == RunStatus.FINISHED
        assert one.checkpoint_digest == other.checkpoint_digest
        assert one.evaluation is not None
        assert one.evaluation.items_digest == other.evaluation.items_digest
