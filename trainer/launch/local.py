"""The local launcher: processes on this machine, in a session of their own, so that they outlive their starter."""

import subprocess
import sys
from pathlib import Path

from nightsmith.record.errors import NightsmithError
from nightsmith.record.offline import child_environment
from nightsmith.trainer.launch import warm
from nightsmith.trainer.runfolder import LOG
from nightsmith.trainer.spec import LaunchSpec

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


def launch(spec: LaunchSpec) -> int:
    """Start the worker of a LaunchSpec, forked warm where that is possible. Returns its process id.

    Its output goes to `log.txt` in its folder. Where several processes train, the worker starts them, once it has
    claimed the attempt.

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
                return forked
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
    return child.pid


def reap() -> None:
    """Collect ended children of this process; otherwise they would stay in the process table as long as it lives."""
    _children[:] = [child for child in _children if child.poll() is None]
