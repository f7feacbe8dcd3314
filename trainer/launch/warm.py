"""Warm starts: jobs on CPUs are forked by a process that has imported what they need. Torch-free.

Importing torch, transformers and TRL takes seconds; forking a process that has done so takes hundredths of one. There
is one such process (`trainer.preloaded`) a user and `address`; it listens on a socket that only that user can reach and
leaves when it has been idle. Wherever it cannot serve, jobs start cold.
"""

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import nightsmith
from nightsmith.model.pull import cache_dir
from nightsmith.record.digest import canonical_json, sha256
from nightsmith.record.errors import NightsmithError
from nightsmith.record.offline import child_environment
from nightsmith.record.settings_file import setting
from nightsmith.trainer.spec import LaunchSpec

DEFAULT_IDLE_S = 600.0
ANSWER_WITHIN_S = 2.0
MESSAGE_BYTES = 65_536
_UNINITIALISED = {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # else pyarrow starts a thread when it is imported
}
"""Environment of the preloaded process beside what all children have; a forked job has its own."""
_WORKER = ("-P", "-m", "nightsmith.trainer.worker")
_ROOMS = ("evals", "model", "record", "sandboxes", "trainer")
"""Packages that a worker may import: layers go down only."""
_LIBRARIES = ("numpy", "peft", "torch", "transformers", "trl")
_INHERITED = ("Umask", "Uid", "Gid", "Groups", "CapEff", "NoNewPrivs", "Seccomp", "Cpus_allowed_list")
"""Lines of /proc/self/status that tell what a child inherits."""


def bring_up() -> None:
    """Start the preloaded process unless there is one. Does not wait: until it is ready, jobs start cold."""
    if idle_s() == 0:
        return
    place = address()
    with contextlib.suppress(OSError), place.with_suffix(".log").open("ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held as long as it is the output of a process: as one lives
        subprocess.Popen(
            [sys.executable, "-P", "-m", "nightsmith.trainer.preloaded", str(place), source_digest(), str(idle_s())],
            cwd="/",
            env=child_environment(_UNINITIALISED),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def fork(spec: LaunchSpec, log: IO[bytes]) -> int | None:
    """Have the process of a LaunchSpec forked, its output going to `log`. Its id; None: it has to be started cold.

    An answer that comes too late makes two processes of one attempt, of which one leaves.
    """
    is_plain = spec.argv[:4] == (sys.executable, *_WORKER) and spec.nodes == spec.processes == 1
    if not is_plain or idle_s() == 0 or any(device.startswith("cuda") for device in spec.devices):
        return None
    request = {"argv": spec.argv[4:], "env": child_environment(spec.env), "workdir": spec.workdir}
    with contextlib.suppress(OSError, ValueError), _connected(address()) as connection:
        socket.send_fds(connection, [json.dumps(request).encode()], [log.fileno()])
        return int(connection.recv(MESSAGE_BYTES))
    return None


def idle_s() -> float:
    """Seconds without a job after which the preloaded process leaves; 0: there is none. Setting `warm_idle_s`."""
    given = setting("warm_idle_s")
    try:
        seconds = DEFAULT_IDLE_S if given in (None, "") else float(given)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise NightsmithError(f"warm_idle_s is {given!r}. Give seconds, e.g. 600; 0 makes every job start cold.")
    return seconds


def address() -> Path:
    """The socket of the preloaded process that this process's jobs may be forked by; its output is beside it."""
    folder = cache_dir() / "servers"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"warm-{_key()}.sock"


def source_digest() -> str:
    """Digest of the code that jobs run: Nightsmith's files, and when its libraries' folders were last installed to."""
    package = Path(nightsmith.__path__[0])
    files = sorted(path for room in _ROOMS for path in (package / room).resolve().rglob("*.py"))
    specs = [find_spec(name) for name in _LIBRARIES]
    folders = sorted({Path(spec.origin).parents[1] for spec in specs if spec and spec.origin})
    installed = [f"{folder} {folder.stat().st_mtime_ns}" for folder in folders]
    return sha256(canonical_json([sys.version, installed, [sha256(path.read_bytes()) for path in files]]))


@contextlib.contextmanager
def reachable(place: Path) -> Generator[str]:
    """An address by a name that is short enough for a socket, however deep its folder lies."""
    folder = os.open(place.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{place.name}"
    finally:
        os.close(folder)


@contextlib.contextmanager
def _connected(place: Path) -> Generator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection, reachable(place) as name:
        connection.settimeout(ANSWER_WITHIN_S)
        connection.connect(name)
        yield connection


def _key() -> str:
    """Equal where a forked job is what a fresh one is: same code, same environment at import, same inheritance.

    Nightsmith reads its own variables when it uses them; a forked job is given its own.
    """
    environment = child_environment({})
    at_import = {name: value for name, value in environment.items() if not name.startswith("NIGHTSMITH_")}
    return sha256(canonical_json([sys.executable, source_digest(), at_import, _inherited()]))[:16]


def _inherited() -> list[str]:
    here = Path("/proc/self")
    status = [line for line in (here / "status").read_text().splitlines() if line.startswith(_INHERITED)]
    namespaces = [str(link.readlink()) for link in sorted((here / "ns").iterdir())]
    limits = [(here / name).read_text() for name in ("cgroup", "limits")]
    return [*status, *namespaces, *limits, str(os.getpriority(os.PRIO_PROCESS, 0))]
