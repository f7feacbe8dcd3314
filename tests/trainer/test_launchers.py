"""What a launcher promises (`trainer.launch.base`), asked of each one; and what settings make of it."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from small_runs import pretrain_spec

from nightsmith.record.errors import NightsmithError
from nightsmith.trainer import runfolder
from nightsmith.trainer.journal import JOURNAL, read_journal
from nightsmith.trainer.launch import local, site
from nightsmith.trainer.launch.base import CLAIM_WITHIN_S
from nightsmith.trainer.launch.launchers import LAUNCHERS, launcher_of
from nightsmith.trainer.launch.site import LocalSite, SlurmSite
from nightsmith.trainer.spec import LaunchSpec, RunSpec, RunStatus

pytestmark = pytest.mark.timeout(300)
SITES = [
    pytest.param(LocalSite(), id="local"),
    pytest.param(SlurmSite(), id="slurm", marks=pytest.mark.slurm),
]


class Started:
    """An attempt of a job at a site."""

    def __init__(self, folder: Path, where: LocalSite | SlurmSite) -> None:
        self.folder, self.site = folder, where
        folder.mkdir()

    def prepare(self, spec: RunSpec, attempt: int = 1) -> None:
        launch = local.worker(self.folder, attempt, ("cpu:0",), 60)
        self.launch_spec, self.attempt = launch.model_copy(update={"site": self.site}), attempt
        runfolder.prepare(self.folder, spec, self.launch_spec, attempt)

    def command(self, *argv: str) -> None:
        self.attempt = 1
        self.launch_spec = LaunchSpec(
            argv=argv, env={"MINE": "1"}, time_limit_s=30, workdir=str(self.folder), site=self.site
        )

    def launch(self):
        return launcher_of(self.launch_spec).launch(self.launch_spec, self.attempt)

    def claim(self) -> runfolder.Claim | None:
        return runfolder.read_claim(self.folder, self.attempt)

    def gone(self, waited_s: float = 0):
        return launcher_of(self.launch_spec).gone(self.launch_spec, self.attempt, self.claim(), waited_s)

    def cancel(self, number: signal.Signals) -> None:
        launcher_of(self.launch_spec).cancel(self.launch_spec, self.attempt, self.claim(), number)

    def starts(self) -> list[int]:
        lines = read_journal(self.folder / JOURNAL)
        return [line["attempt"] for line in lines if line.get("phase") == "start"]

    def steps(self) -> bool:
        return any(line["kind"] == "step" for line in read_journal(self.folder / JOURNAL))


@pytest.fixture(params=SITES)
def started(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Started]:
    if request.param.kind == "slurm":
        request.getfixturevalue("cluster")
    job = Started(tmp_path / "0123456789ab", request.param)
    yield job
    job.cancel(signal.SIGKILL)


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def test_every_site_has_its_launcher() -> None:
    assert set(LAUNCHERS) == {LocalSite().kind, SlurmSite().kind}


def test_an_attempt_that_is_launched_twice_runs_once_to_its_exit_record(started: Started, tmp_path: Path) -> None:
    started.prepare(pretrain_spec(tmp_path).model_copy(update={"data": str(tmp_path / "gone.parquet")}))
    handles = {started.launch().id, started.launch().id}
    assert started.site.kind == "local" or len(handles) == 1
    wait_until(lambda: started.claim() and started.gone())
    result = runfolder.read_end(started.folder, 1)
    assert result is not None
    assert result.status == RunStatus.FAILED
    started.launch()
    wait_until(started.gone)
    assert started.starts() == [1]


def test_a_process_that_is_asked_to_end_saves_and_says_how_it_ended(started: Started, tmp_path: Path) -> None:
    started.prepare(pretrain_spec(tmp_path, num_steps=1_000_000))
    started.launch()
    wait_until(started.steps)
    assert started.gone(waited_s=2 * CLAIM_WITHIN_S) is None
    started.cancel(signal.SIGTERM)
    wait_until(started.gone)
    result = runfolder.read_end(started.folder, 1)
    assert result is not None
    assert result.status == RunStatus.STOPPED
    assert result.num_steps > 0


def test_a_process_that_is_killed_is_known_to_be_gone_without_an_exit_record(started: Started, tmp_path: Path) -> None:
    started.prepare(pretrain_spec(tmp_path, num_steps=1_000_000))
    started.launch()
    wait_until(started.steps)
    claim = started.claim()
    assert claim is not None
    os.kill(claim.pid, signal.SIGKILL)
    wait_until(started.gone)
    gone = started.gone()
    assert gone is not None
    assert gone.status == RunStatus.KILLED
    assert runfolder.read_end(started.folder, 1) is None


def test_a_start_that_no_process_claims_is_over_after_a_while_and_not_before(started: Started) -> None:
    started.command("/bin/true")
    assert started.gone() is None
    assert started.gone(waited_s=CLAIM_WITHIN_S) is not None


def test_a_process_gets_paths_and_its_own_variables_but_no_secrets_and_leaves_its_output(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "s3cret")
    monkeypatch.setenv("NIGHTSMITH_PLANNER_TOKEN", "s3cret")
    program = "import json, os; print(json.dumps(dict(os.environ))); print(os.getcwd())"
    started.command(sys.executable, "-c", program)
    started.launch()
    log = started.folder / runfolder.LOG
    wait_until(lambda: log.exists() and log.read_text().count("\n") == 2)
    environment, folder = log.read_text().splitlines()
    variables = json.loads(environment)
    assert "s3cret" not in variables.values()
    assert (variables["MINE"], variables["HF_HUB_OFFLINE"]) == ("1", "1")
    assert variables["PATH"] == os.environ["PATH"]
    assert folder == str(started.folder)


def test_a_process_of_another_machine_is_not_signalled_here(tmp_path: Path) -> None:
    job = Started(tmp_path / "0123456789ab", LocalSite())
    job.command("/bin/true")
    own = runfolder.process_start(os.getpid()) or 0
    runfolder.claim(job.folder, runfolder.Claim(attempt=1, pid=os.getpid(), pid_start=own, host="elsewhere"))
    with pytest.raises(NightsmithError, match="elsewhere"):
        job.cancel(signal.SIGTERM)


def test_the_site_is_a_setting_and_this_machine_where_nothing_is_set(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert site.chosen(60) == LocalSite()
    (tmp_path / "nightsmith.toml").write_text(
        'launcher = "slurm"\n[slurm]\npartition = "gpu"\nmax_minutes = 60\noptions = { mem = "64G", exclude-x = 3 }\n'
    )
    chosen = site.chosen(60)
    assert chosen == SlurmSite(partition="gpu", max_minutes=60, options={"mem": "64G", "exclude_x": 3})
    with pytest.raises(NightsmithError, match="max_minutes of \\[slurm\\] is 60"):
        site.chosen(3600)
    monkeypatch.setenv("NIGHTSMITH_LAUNCHER", "local")
    assert site.chosen(3600) == LocalSite()
    monkeypatch.setenv("NIGHTSMITH_LAUNCHER", "kubernetes")
    with pytest.raises(NightsmithError, match="local, slurm"):
        site.chosen(60)


@pytest.mark.parametrize("options", [{"array": "0-9"}, {"job-name": "x"}, {"--output": "x"}, {"mem": "1\nrm -rf x"}])
def test_options_that_would_break_the_launcher_are_refused(options: dict[str, str], monkeypatch) -> None:
    with pytest.raises(ValidationError):
        SlurmSite(options=options)
    monkeypatch.setenv("NIGHTSMITH_LAUNCHER", "slurm")
    monkeypatch.setenv("NIGHTSMITH_SLURM", json.dumps({"options": options}))
    with pytest.raises(NightsmithError, match="Allowed: partition, account, qos"):
        site.chosen(60)


def test_without_slurm_a_launch_says_what_is_missing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    job = Started(tmp_path / "0123456789ab", SlurmSite())
    job.command("/bin/true")
    with pytest.raises(NightsmithError, match="sinfo"):
        job.launch()
    assert job.gone(waited_s=1e6) is None
