"""The local launcher: processes on this machine, in a session of their own, so that they outlive their starter."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from nightsmith.record.errors import NightsmithError
from nightsmith.record.offline import child_environment
from nightsmith.trainer.launch import warm
from nightsmith.trainer.launch.base import CLAIM_WITHIN_S, Gone, Handle
from nightsmith.trainer.runfolder import LOG, Claim, is_locked, process_start
from nightsmith.trainer.spec import LaunchSpec, RunStatus

_children: list[subprocess.Popen[bytes]] = []


def worker(folder: Path, attempt: int, devices: tuple[str, ...], time_limit_s: float, processes: int = 1) -> LaunchSpec:
    """The LaunchSpec of one attempt of a job on its leased devices, which its processes share out evenly.

    `-P` keeps files in the run folder from being imported; a leased CPU device is one thread; accelerators that are not
    leased are hidden.
    """
    threads = max(1, sum(device.startswith("cpu") for device in devices) // processes)
    visible = ",".join(device.partition(":")[2] for device in devices if device.startswith("cuda"))
    return LaunchSpec(
        argv=(sys.executable, "-P", "-m", "nightsmith.trainer.worker", str(folder), "--attempt", str(attempt)),
        env={
            "OMP_NUM_THREADS": str(threads),
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "CUDA_VISIBLE_DEVICES": visible,
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        },
        processes=processes,
        devices=devices,
        time_limit_s=time_limit_s,
        workdir=str(folder),
    )


def launch(spec: LaunchSpec, attempt: int) -> Handle:  # noqa: ARG001
    """Start the worker of a LaunchSpec, forked warm where that is possible: `base.Launcher`.

    Where several processes train, the worker starts them, once it has claimed the attempt. Of two workers of one
    attempt, one leaves.

    Raises:
        NightsmithError: it asks for several machines, or cannot be started.
    """
    if spec.nodes > 1:
        raise NightsmithError(
            f"The local launcher starts processes on one machine, not on {spec.nodes}. Set nodes to 1."
        )
    reap()
    folder = Path(spec.workdir)
    try:
        with (folder / LOG).open("ab") as log:
            if (forked := warm.fork(spec, log)) is not None:
                return Handle(launcher="local", id=str(forked))
            child = subprocess.Popen(
                spec.argv,
                cwd=folder,
                env=child_environment(spec.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise NightsmithError(f"{spec.argv[0]} cannot be started in {folder}: {error}.") from error
    _children.append(child)
    return Handle(launcher="local", id=str(child.pid))


def gone(spec: LaunchSpec, attempt: int, claim: Claim | None, waited_s: float) -> Gone | None:  # noqa: ARG001
    """By the lock, which the kernel frees when the process dies: `base.Launcher`."""
    reap()
    if claim is None:
        late = waited_s >= CLAIM_WITHIN_S
        return Gone(RunStatus.KILLED, f"No process took it within {CLAIM_WITHIN_S:g} s.") if late else None
    if is_locked(Path(spec.workdir)):
        return None
    return Gone(RunStatus.KILLED, "The process vanished without an exit record.")


def cancel(spec: LaunchSpec, attempt: int, claim: Claim | None, number: signal.Signals) -> None:  # noqa: ARG001
    """By a signal to the claim's process group, if that very process still lives: `base.Launcher`."""
    if claim is None:
        return
    if claim.host not in ("", socket.gethostname()):
        raise NightsmithError(f"The job runs on {claim.host}, where this machine cannot end it. Stop it there.")
    if process_start(claim.pid) != claim.pid_start:
        return
    with suppress(ProcessLookupError):
        if os.getpgid(claim.pid) == claim.pid:
            os.killpg(claim.pid, number)
        else:  # started by hand, inside a group that is not its own
            os.kill(claim.pid, number)


def reap() -> None:
    """Collect ended children of this process; otherwise they would stay in the process table as long as it lives."""
    _children[:] = [child for child in _children if child.poll() is None]
