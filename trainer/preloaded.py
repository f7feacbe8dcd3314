"""The process that jobs on CPUs are forked by: `python -m nightsmith.trainer.preloaded SOCKET SOURCE_DIGEST IDLE_S`.

It has imported what jobs need and initialised nothing: no thread, no device, no pool. A forked job is the leader of a
session of its own, with its own environment and output; it outlives this process, which leaves when it is idle, or when
its socket is taken away. Started by `launch.warm`.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from nightsmith.trainer import worker
from nightsmith.trainer.launch import warm

TICK_S = 2.0
_LATE_IMPORTS = ("pyarrow.parquet",)
"""Modules that runners import when they run."""


def main(argv: list[str]) -> int:
    """Preload, then fork until idle. Returns the exit status: of this process, and in a forked one of its job."""
    address, sources, idle_s = Path(argv[0]), argv[1], float(argv[2])
    for name in (*worker.RUNNERS.values(), *_LATE_IMPORTS):
        importlib.import_module(name)
    if reason := _unfit(sources):
        print(f"{reason} Jobs start cold.", flush=True)
        return 1
    gc.collect()
    gc.freeze()  # a collection in a forked job would copy every page that it marks
    job = serve(address, idle_s)
    return 0 if job is None else worker.main(job)


def _unfit(sources: str) -> str:
    """Why nothing may be forked off this process; empty where it may."""
    if warm.source_digest() != sources:
        return "The sources were changed while they were imported."
    num_threads = len(list(Path("/proc/self/task").iterdir()))
    if num_threads > 1:
        return f"An import started {num_threads - 1} thread(s), which a forked process would lack."
    if sys.modules["torch"].cuda.is_initialized():
        return "An import initialised CUDA, which a forked process could not use."
    return ""


def serve(address: Path, idle_s: float) -> list[str] | None:
    """Fork a job for each request. Returns None when idle; in a forked process, its worker's arguments."""
    listener, used_at, jobs = _listen(address), time.monotonic(), set[int]()
    socket_id = address.stat().st_ino
    while jobs or time.monotonic() - used_at < idle_s:
        if not (address.exists() and address.stat().st_ino == socket_id):
            return None  # nobody can find this process any more
        if (request := _next_request(listener, min(TICK_S, idle_s))) is not None:
            used_at, pid = time.monotonic(), os.fork()
            if pid == 0:
                listener.close()
                return request.become_its_process()
            jobs.add(pid)
            request.answer(pid)
        jobs -= _ended()
    address.unlink()
    address.with_suffix(".log").unlink(missing_ok=True)
    return None


@dataclass(frozen=True)
class _Request:
    """A job to fork, and who waits for its process id."""

    connection: socket.socket
    log: int
    """Descriptor of the job's output."""
    argv: list[str]
    env: dict[str, str]
    workdir: str

    def answer(self, pid: int) -> None:
        """Tell the process id to who asked, and keep nothing of theirs."""
        with contextlib.suppress(OSError):
            self.connection.send(str(pid).encode())
        self.connection.close()
        os.close(self.log)

    def become_its_process(self) -> list[str]:
        """In the forked process: session, folder, environment and output as a fresh process has them."""
        os.setsid()
        os.chdir(self.workdir)
        for descriptor in (1, 2):
            os.dup2(self.log, descriptor)
        os.close(self.log)
        self.connection.close()
        os.environ.clear()
        os.environ.update(self.env)
        return self.argv


def _listen(address: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    address.unlink(missing_ok=True)  # of a process that was killed
    with warm.reachable(address) as name:
        listener.bind(name)
    address.chmod(0o600)
    listener.listen()
    return listener


def _next_request(listener: socket.socket, seconds: float) -> _Request | None:
    if not select.select([listener], [], [], seconds)[0]:
        return None
    connection, _ = listener.accept()
    connection.settimeout(warm.ANSWER_WITHIN_S)
    try:
        message, (log,), _, _ = socket.recv_fds(connection, warm.MESSAGE_BYTES, 1)
        return _Request(connection, log, **json.loads(message))
    except (OSError, ValueError, TypeError):
        connection.close()  # whoever asked starts the job cold
        return None


def _ended() -> set[int]:
    """Forked jobs that have ended since the last call."""
    ended = set[int]()
    with contextlib.suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            ended.add(pid)
    return ended


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
