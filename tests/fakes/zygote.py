"""Real worker processes without the seconds that importing torch costs: a process that has imported it and forks.

`python zygote.py KIND…` preloads what these kinds of job (or modules) need, then reads one JSON request a line and
answers each with one line: {"argv": [...], "file_limit": bytes or null} starts a worker in a session of its own and
gives its pid; {"wait": pid} gives its exit status (negative: signal).
"""

import json
import os
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any


class Zygote:
    """The client's side."""

    def __init__(self, *kinds: str) -> None:
        """`kinds` of job whose modules are imported before the first fork."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__, *(kinds or ("pretrain",))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self._ask({"wait": 0})

    def start(
        self, run_dir: Path, attempt: int = 1, file_limit: int | None = None, memory_limit: int | None = None
    ) -> int:
        """Start a worker for an attempt. Returns its pid.

        No file of it may grow beyond `file_limit` bytes, its address space not by more than `memory_limit` bytes.
        """
        argv = [str(run_dir), "--attempt", str(attempt)]
        return self._ask({"argv": argv, "file_limit": file_limit, "memory_limit": memory_limit})

    def wait(self, pid: int) -> int:
        """Wait for a worker's end. Returns its exit status, or the negative number of the signal that killed it."""
        return self._ask({"wait": pid})

    def run(self, run_dir: Path, attempt: int = 1, **limits: int) -> int:
        """Start a worker and wait for its end."""
        return self.wait(self.start(run_dir, attempt, **limits))

    def close(self) -> None:
        """End the process that forks; workers go on."""
        self._process.communicate()

    def _ask(self, request: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write((json.dumps(request) + "\n").encode())
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def _serve() -> None:
    from nightsmith.trainer import evaluate, worker

    del evaluate
    for kind in sys.argv[1:]:
        import_module(worker.RUNNERS.get(kind, kind))
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            pid = request["wait"]
            answer = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if pid else 0
        elif (answer := os.fork()) == 0:
            _become_worker(worker.main, request)
        print(answer, flush=True)


def _become_worker(main: Any, request: dict[str, Any]) -> None:
    os.setsid()
    log = os.open(Path(request["argv"][0]) / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if request["file_limit"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_limit"], resource.RLIM_INFINITY))
    if request["memory_limit"] is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + request["memory_limit"]
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    status = 70
    try:
        status = main(request["argv"])
    finally:
        os._exit(status)


if __name__ == "__main__":
    _serve()
