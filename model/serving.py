"""`python -m nightsmith.model.serving CONFIG_AS_JSON`: the embedded planner's server process.

It speaks the OpenAI protocol on a loopback port behind a random token, publishes both in a state file that only the
user can read, and leaves when nobody has asked anything for a while. Started by `planner_server.ensure`.
"""

import fcntl
import json
import os
import secrets
import signal
import sys
import time
import urllib.request
from pathlib import Path
from types import FrameType
from typing import IO, Any, cast

from nightsmith.model.server_state import ServerConfig, publish


def start_engine(config: ServerConfig, token: str) -> Any:
    """Load the weights, half a second, and listen on a free loopback port. Requests without `token` are refused."""
    import xllamacpp

    engine = cast(Any, xllamacpp)  # its names come from a compiled module
    params = engine.CommonParams()
    params.model.path = config.model
    if config.adapter:
        adapter = engine.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = config.adapter, 1.0
        params.lora_adapters = [adapter]
    params.n_ctx, params.n_parallel, params.cache_prompt = config.context, 1, True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = config.threads
    # Threads that spin at barriers slow everybody on a busy machine: let them sleep.
    params.cpuparams.poll = params.cpuparams_batch.poll = 0
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [token]
    params.ui, params.verbosity = False, 0
    return engine.Server(params)


def serve(config: ServerConfig) -> None:
    """Serve until idle or told to stop. Waits 10 s for a predecessor that is leaving, then raises BlockingIOError."""
    with Path(config.state + ".lock").open("a") as lock:
        _take(lock, wait_s=10)
        token = secrets.token_urlsafe(32)
        engine = start_engine(config, token)
        state = Path(config.state)
        publish(state, {"pid": os.getpid(), "started_at": time.time(), "url": engine.listening_address, "token": token})
        try:
            _wait_until_idle(config, engine.listening_address, token)
        finally:
            state.unlink(missing_ok=True)


def _take(lock: IO[str], wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _wait_until_idle(config: ServerConfig, url: str, token: str) -> None:
    state, seen, since = Path(config.state), None, time.time()
    while time.time() - since < config.idle_s:
        time.sleep(min(5.0, config.idle_s / 4))
        if not state.exists():  # taken away: nobody can find this server any more
            return
        activity = (_tasks(url, token), state.stat().st_mtime)
        if activity != seen:
            seen, since = activity, time.time()


def _tasks(url: str, token: str) -> list[Any]:
    """The last task of each slot, and the time while it runs, so that a long answer counts as activity."""
    request = urllib.request.Request(f"{url}/slots", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=60) as response:
        slots = json.load(response)
    return [(slot.get("id_task"), time.time() if slot["is_processing"] else 0) for slot in slots]


def _leave(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def main() -> None:
    """Read the config, JSON on the command line, and serve."""
    signal.signal(signal.SIGTERM, _leave)
    serve(ServerConfig(**json.loads(sys.argv[1])))


if __name__ == "__main__":
    main()
