"""Find or start the embedded planner's server: one a user and a set of weights, shared by all processes."""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from nightsmith.model.pull import PLANNER, PlannerUnavailable, cache_dir, planner_gguf
from nightsmith.model.server_state import ServerConfig
from nightsmith.record.digest import file_digest, sha256
from nightsmith.record.offline import child_environment

ADAPTER = Path(__file__).resolve().parent / "planner" / "adapter.gguf"
"""The adapter that ships with the package; SOURCE.md beside it says how it was trained."""


@dataclass(frozen=True)
class Endpoint:
    """A planner that answered a moment ago."""

    url: str
    """Base URL without `/v1`."""
    token: str
    model_digest: str
    """16 hex digits over base and adapter."""
    pid: int


def ensure(adapter: Path | None = ADAPTER, *, start_s: float = 60.0) -> Endpoint:
    """Return the running server for the planner's weights with `adapter`, or start one, detached, and wait for it.

    `adapter` null, or a file that does not exist, serves the base alone. Pulls the weights where the cache lacks them.
    Raises PlannerUnavailable when no server answers within `start_s` seconds.
    """
    model = planner_gguf()
    adapter = adapter if adapter and adapter.is_file() else None
    digest = sha256(PLANNER.file_sha256 + (file_digest(adapter) if adapter else ""))[:16]
    state = _folder() / f"planner-{digest}.json"
    found = running(state)
    if found:
        return found
    with _locked(state):
        return running(state) or _start(model, adapter, state, start_s)


def running(state: Path) -> Endpoint | None:
    """The server that published `state`, if it takes its token now. A server that hangs is ended."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        published = json.loads(state.read_text())
        endpoint = Endpoint(published["url"], published["token"], state.stem.removeprefix("planner-"), published["pid"])
        if _answers(endpoint):
            with contextlib.suppress(FileNotFoundError):
                os.utime(state)  # counts as use: it will not leave between this answer and the first request
                return endpoint
        _end(published["pid"], published["started_at"])
    return None


def stop(endpoint: Endpoint) -> None:
    """End a server in order."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(endpoint.pid)
        process.terminate()
        process.wait(10)


def threads() -> int:
    """Threads of the engine: the cores that are free now, at least one.

    Two threads where one core is free are three to seven times slower than one.
    """
    free = len(os.sched_getaffinity(0)) - os.getloadavg()[0]
    return max(1, min(4, int(free + 0.5)))


def _start(model: Path, adapter: Path | None, state: Path, start_s: float) -> Endpoint:
    state.unlink(missing_ok=True)
    idle_s = float(os.environ.get("NIGHTSMITH_PLANNER_IDLE_S", "600"))
    config = ServerConfig(str(model), str(adapter) if adapter else None, str(state), threads(), idle_s=idle_s)
    log = state.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "nightsmith.model.serving", json.dumps(asdict(config))],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=child_environment({}),
            cwd="/",
        )
    deadline = time.monotonic() + start_s
    while time.monotonic() < deadline and process.poll() is None:
        endpoint = running(state)
        if endpoint:
            return endpoint
        time.sleep(0.02)
    process.kill()
    raise PlannerUnavailable(
        f"The embedded planner did not start within {start_s:.0f} s. Its last words, from {log}: {_tail(log)} "
        "Mend it by `nightsmith doctor`, or set planner.url in nightsmith.toml to an OpenAI-compatible server."
    )


def _answers(endpoint: Endpoint) -> bool:
    headers = {"Authorization": f"Bearer {endpoint.token}"}
    how: dict[str, Any] = {"trust_env": False, "verify": False}  # plain HTTP has no certificates; loading them: 20 ms
    try:  # a busy engine still lists its models; 10 s without an answer is a hang
        return httpx.get(f"{endpoint.url}/v1/models", headers=headers, timeout=10, **how).status_code == 200
    except httpx.HTTPError:
        return False


def _end(pid: int, started_at: float) -> None:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if abs(process.create_time() - started_at) < 120 and "nightsmith.model.serving" in process.cmdline():
            process.kill()
            process.wait(10)


def _folder() -> Path:
    folder = cache_dir() / "servers"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextlib.contextmanager
def _locked(state: Path) -> Generator[None]:
    with state.with_suffix(".start.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-500:].strip() or "none."
