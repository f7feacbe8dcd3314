"""A real Slurm of one node on loopback: munged, slurmctld and slurmd of Debian's packages, all state in one folder."""

import os
import shutil
import socket
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
UP_WITHIN_S = 30.0
GONE_WITHIN_S = 40.0
_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=15
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[Path]:
    """A running cluster, whose commands work for the block; yields the path of its slurm.conf.

    Where it cannot run, the test is skipped, and a warning says why; under `$NIGHTSMITH_PROMISED_SLURM` it fails.
    """
    absent = [name for name in PROGRAMS if _program(name) is None]
    if absent:
        _give_up(f"{', '.join(absent)} not found (Debian: apt install slurm-wlm munge)")
    conf, daemons = folder / "slurm.conf", list[subprocess.Popen[bytes]]()
    before = os.environ.get("SLURM_CONF")
    try:
        _write_files(folder, conf)
        os.environ["SLURM_CONF"] = str(conf)
        daemons += [_started(folder, argv) for argv in _daemons(folder, conf)]
        if reason := _unready(daemons):
            _give_up(f"{reason}; {_logs(folder)}")
        yield conf
    finally:
        with suppress(OSError, subprocess.SubprocessError):
            _end_jobs()
        for daemon in reversed(daemons):
            daemon.terminate()
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
            daemon.kill()
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before


def _end_jobs() -> None:
    """Cancel what is left, and wait until its node is rid of it: its keepers outlive the daemons otherwise."""
    subprocess.run(["scancel", f"--user={os.getuid()}"], timeout=10, check=True)
    until = time.monotonic() + GONE_WITHIN_S
    while time.monotonic() < until and subprocess.check_output(["squeue", "--noheader"], timeout=10):
        time.sleep(0.2)


def _give_up(why: str) -> None:
    told = f"NO JOB WAS RUN UNDER SLURM: {why}."
    if os.environ.get("NIGHTSMITH_PROMISED_SLURM"):
        pytest.fail(told)
    warnings.warn(told, stacklevel=3)
    pytest.skip(told)


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _write_files(folder: Path, conf: Path) -> None:
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    user, ports = subprocess.check_output(["id", "-un"], text=True).strip(), _free_ports(2)
    conf.write_text(
        _CONF.format(
            host=socket.gethostname().partition(".")[0], folder=folder, user=user,
            controller_port=ports[0], node_port=ports[1],
        )
    )  # fmt: skip


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _daemons(folder: Path, conf: Path) -> list[list[str]]:
    names = {"key": "key", "socket": "sock", "pid": "pid", "log": "log", "seed": "seed"}
    files = [f"--{option}-file={folder / f'munge.{ending}'}" for option, ending in names.items() if option != "socket"]
    return [
        [_program("munged") or "", "--foreground", "--force", f"--socket={folder / 'munge.sock'}", *files],
        [_program("slurmctld") or "", "-D", "-c", "-f", str(conf)],
        [_program("slurmd") or "", "-D", "-f", str(conf), "-N", socket.gethostname().partition(".")[0]],
    ]


def _started(folder: Path, argv: list[str]) -> subprocess.Popen[bytes]:
    with (folder / f"{Path(argv[0]).name}.out").open("wb") as out:
        daemon = subprocess.Popen(argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True)
    socket_file, until = folder / "munge.sock", time.monotonic() + 5
    while not socket_file.exists() and daemon.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    return daemon


def _unready(daemons: list[subprocess.Popen[bytes]]) -> str:
    """Why no node is idle; empty once one is."""
    until, said = time.monotonic() + UP_WITHIN_S, ""
    while time.monotonic() < until:
        if left := [Path(str(each.args[0])).name for each in daemons if each.poll() is not None]:  # pyright: ignore
            return f"{', '.join(left)} left at once"
        done = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True, check=False)
        said = done.stdout.strip() or done.stderr.strip()
        if said == "idle":
            return ""
        time.sleep(0.1)
    return f"its node is not idle after {UP_WITHIN_S:g} s: {said}"


def _logs(folder: Path) -> str:
    files = [*folder.glob("*.log"), *folder.glob("*.out")]
    return " ".join(f"{file.name}: {file.read_text(errors='replace')[-400:]!r}" for file in files)
