"""The Slurm launcher: a batch job an attempt, submitted through submitit, named after run folder and attempt.

By its name the job is found again, whoever submitted it: no second one is submitted, also where the first controller
died before it knew the job's id. The batch script becomes the worker, so that SIGTERM of `scancel`, of a preemption or
of a requeue reaches it, and it saves a checkpoint. A requeued job finds its attempt taken and leaves; the next attempt
goes on.
"""

import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from nightsmith.record.digest import sha256
from nightsmith.record.errors import NightsmithError
from nightsmith.record.offline import child_environment
from nightsmith.trainer.launch.base import CLAIM_WITHIN_S, Gone, Handle
from nightsmith.trainer.runfolder import LOG, Claim, has_ended, see_afresh
from nightsmith.trainer.spec import LaunchSpec, RunStatus

ASK_EVERY_S = 2.0
"""An answer of Slurm is used again for so long: polls come often, and a busy controller of a cluster is slow."""
ANSWER_WITHIN_S = 60.0
WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"})
ENDED = {
    "BOOT_FAIL": RunStatus.KILLED,
    "CANCELLED": RunStatus.KILLED,
    "COMPLETED": RunStatus.KILLED,
    "DEADLINE": RunStatus.KILLED,
    "FAILED": RunStatus.KILLED,
    "NODE_FAIL": RunStatus.KILLED,
    "OUT_OF_MEMORY": RunStatus.OUT_OF_MEMORY,
    "PREEMPTED": RunStatus.KILLED,
    "REVOKED": RunStatus.KILLED,
    "TIMEOUT": RunStatus.TIMED_OUT,
}
"""States in which Slurm runs a job no more -> how an attempt ended that left no exit record."""


class _Job(NamedTuple):
    """One job as squeue shows it."""

    id: str
    state: str
    reason: str

    def is_alive(self, claimed: bool) -> bool:
        """Whether it runs, or may yet; a job that waits although its attempt was claimed has been requeued."""
        return self.state not in ENDED and not (claimed and self.state in WAITING)


_answers: dict[str, tuple[float, list[_Job]]] = {}


def launch(spec: LaunchSpec, attempt: int) -> Handle:
    """Submit the attempt unless Slurm has it already: `base.Launcher`."""
    if spec.nodes > 1:
        raise NightsmithError(f"A job's processes share one machine; {spec.nodes} were asked for. Set nodes to 1.")
    with _alone(Path(spec.workdir)):
        _withdraw(spec, attempt - 1)
        found = _ask(_name(spec, attempt))
        job_id = found[0].id if found else _submit(spec, attempt)
        _answers.pop(_name(spec, attempt))
    return Handle(launcher="slurm", id=job_id)


def gone(spec: LaunchSpec, attempt: int, claim: Claim | None, waited_s: float) -> Gone | None:
    """What Slurm says of it: `base.Launcher`. Locks and process ids of another machine are not relied on."""
    folder = Path(spec.workdir)
    if has_ended(folder, attempt):
        return Gone(RunStatus.KILLED, "It ended.")
    try:
        jobs = _ask_at_times(_name(spec, attempt))
        if not _is_any_alive(jobs, claim):
            jobs = _ask(_name(spec, attempt))  # that answer may be older than the claim: the job waited then
    except NightsmithError:
        return None  # as long as Slurm does not answer, nobody knows
    if _is_any_alive(jobs, claim) or (not jobs and waited_s < CLAIM_WITHIN_S):
        return None
    see_afresh(folder)
    if not jobs:
        return Gone(RunStatus.KILLED, f"Slurm has no job {_name(spec, attempt)} (any more).")
    last = jobs[-1]
    said = f"{last.state} ({last.reason})" if last.reason not in ("", "None") else last.state
    took = "" if claim else f", before a process took it: see {folder / 'slurm' / f'{last.id}_0_log.out'}"
    how = f"was requeued: its next incarnation leaves ({said})" if last.state in WAITING else f"is {said}"
    return Gone(ENDED.get(last.state, RunStatus.KILLED), f"Slurm job {last.id} {how}{took}.")


def _is_any_alive(jobs: list[_Job], claim: Claim | None) -> bool:
    return any(job.is_alive(claim is not None) for job in jobs)


def cancel(spec: LaunchSpec, attempt: int, claim: Claim | None, number: signal.Signals) -> None:
    """By scancel: `base.Launcher`. SIGTERM goes to the worker alone, which saves and leaves; else the job is ended."""
    asked = claim is not None and number == signal.SIGTERM
    for job in _ask(_name(spec, attempt)):
        if job.state not in ENDED:
            _run("scancel", *(("--batch", "--signal=TERM") if asked and job.state not in WAITING else ()), job.id)


def _name(spec: LaunchSpec, attempt: int) -> str:
    """The job's name: the key for people; folder and attempt make it the only one of this name."""
    return f"nightsmith-{Path(spec.workdir).name}-{sha256(spec.workdir)[:12]}-{attempt}"


def _withdraw(spec: LaunchSpec, attempt: int) -> None:
    """Take an earlier attempt, which is over, out of the queue where Slurm has requeued it."""
    if attempt > 0:
        cancel(spec, attempt, None, signal.SIGKILL)


def _submit(spec: LaunchSpec, attempt: int) -> str:
    """Submit a job. Returns its id."""
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    package_root = child_environment({})["PYTHONPATH"]
    python = f"exec env PYTHONPATH={shlex.quote(package_root)} {shlex.quote(sys.executable)} -P"
    try:
        executor = SlurmExecutor(Path(spec.workdir) / "slurm", python=python)
        executor.update_parameters(**_parameters(spec, attempt))
        return str(executor.submit(become_worker, spec).job_id)
    except (RuntimeError, OSError, FailedJobError, FailedSubmissionError) as error:
        raise NightsmithError(f"Slurm did not take the job: {error}. See the settings in [slurm].") from error


def _parameters(spec: LaunchSpec, attempt: int) -> dict[str, object]:
    """Of submitit. A leased CPU is a CPU, a leased GPU a GPU; the job's environment has no secrets in it."""
    site = spec.site
    assert site.kind == "slurm"
    num_gpus = sum(device.startswith("cuda") for device in spec.devices)
    exported = [name for name in child_environment({}) if name in os.environ and not name.startswith("CUDA_")]
    own = {"chdir": spec.workdir, "export": ",".join(exported), "signal": "TERM@30", "no_requeue": True}
    if "requeue" in site.options:
        del own["no_requeue"]
    given = {"partition": site.partition, "account": site.account, "qos": site.qos}
    devices = {"gpus_per_node": num_gpus} if num_gpus else {"cpus_per_task": max(1, len(spec.devices))}
    return {
        "job_name": _name(spec, attempt),
        "time": site.minutes(spec.time_limit_s),
        "ntasks_per_node": 1,
        "stderr_to_stdout": True,
        "use_srun": False,  # srun would answer SIGTERM with SIGKILL for its tasks
        "additional_parameters": own | site.options,
        **devices,
        **{name: value for name, value in given.items() if value is not None},
    }


def become_worker(spec: LaunchSpec) -> None:
    """On the node: turn this process into that of a LaunchSpec, which sees the accelerators that Slurm gave it."""
    shown = any(device.startswith("cuda") for device in spec.devices)
    own = {name: value for name, value in spec.env.items() if not (shown and name == "CUDA_VISIBLE_DEVICES")}
    os.chdir(spec.workdir)
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.execve(spec.argv[0], spec.argv, child_environment(own))


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    """Only one process at a time looks for a job and submits it."""
    with (folder / "submit.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _ask_at_times(name: str) -> list[_Job]:
    at, jobs = _answers.get(name, (float("-inf"), []))
    return jobs if time.monotonic() < at + ASK_EVERY_S else _ask(name)


def _ask(name: str) -> list[_Job]:
    """The jobs of a name, those that ended minutes ago included, the newest last. Raises NightsmithError."""
    whose = (f"--user={os.getuid()}", f"--name={name}", "--states=all")
    text = _run("squeue", *whose, "--noheader", "--format=%i|%T|%r", "--sort=i")
    jobs = [_Job(*line.split("|", 2)) for line in text.splitlines() if line]
    _answers[name] = time.monotonic(), jobs
    return jobs


def _run(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=ANSWER_WITHIN_S, check=True)
    except subprocess.CalledProcessError as error:
        raise NightsmithError(f"{argv[0]} says: {error.stderr.strip()}. See whether `sinfo` works here.") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NightsmithError(f"{argv[0]} cannot be used: {error}. See whether `sinfo` works here.") from error
    return done.stdout
