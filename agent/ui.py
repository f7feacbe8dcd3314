"""`nightsmith ui`: MLflow's server on loopback, open at what happened tonight, gone when it is stopped."""

import json
import os
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import httpx

from nightsmith.agent import foreground, history, morning
from nightsmith.agent.foreground import Said
from nightsmith.agent.opening import existing
from nightsmith.record.errors import NightsmithError
from nightsmith.record.offline import child_environment
from nightsmith.record.workspace import Workspace
from nightsmith.trainer import tracking

HOST = "127.0.0.1"
PORTS = range(5050, 5150)
"""Ports that are tried in turn where none is asked for: the same one each morning, as long as it is free."""
START_S = 180.0
"""Seconds that MLflow may take to answer: 4 on an idle machine, a minute on one that trains."""
REFRESH_S = 60.0


class PortTaken(NightsmithError):
    """Another process listens there."""


def serve(path: Path | None, *, port: int | None, open_page: bool | None, as_json: bool) -> int:
    """Serve until Ctrl-C, SIGTERM or the end of the terminal. Raises NightsmithError where there is nothing to show."""
    ws = _workspace(path)
    with foreground.stoppable(), foreground.progress() as said:
        if not (ws.root / tracking.DATABASE).is_file():  # the server, which starts meanwhile, would make its tables too
            morning.refresh(ws, said)
        with _server(ws, port, said) as (process, chosen):
            url = f"http://{HOST}:{chosen}/{tracking.pages(ws).experiment}"
            said("")
            _announce(url, chosen, as_json=as_json)
            if _shall_open(open_page):
                webbrowser.open(url)
            _until_stopped(ws, process)
    with suppress(OSError):  # the terminal may be gone
        print("Stopped.", file=sys.stderr)
    return 0


def _workspace(path: Path | None) -> Workspace:
    ws = existing(path)
    if not history.summaries(ws):
        raise NightsmithError(f'No studies in {ws.root} yet. Begin one with: nightsmith run "GOAL"')
    return ws


def _announce(url: str, port: int, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"url": url, "host": HOST, "port": port, "pid": os.getpid()}), flush=True)
        return
    print(f"What happened tonight: {url}\nOnly this machine can open it. Ctrl-C stops it.", flush=True)


def _shall_open(asked: bool | None) -> bool:
    """As asked, else where somebody sits before a graphical session. A text browser would take the terminal over."""
    if asked is not None:
        return asked
    graphical = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")) or sys.platform == "darwin"
    return graphical and sys.stdout.isatty() and "SSH_CONNECTION" not in os.environ


@contextmanager
def _server(ws: Workspace, port: int | None, said: Said) -> Generator[tuple[subprocess.Popen[bytes], int]]:
    """The server, once it answers. Whatever happens inside, no process of it is left afterwards."""
    for candidate in [port] if port is not None else PORTS:
        if not foreground.is_free(HOST, candidate):
            continue
        with tempfile.TemporaryFile() as log:
            process = _start(ws, candidate, log)
            try:
                morning.refresh(ws, said)
                if _answers(process, candidate, log, said):
                    yield process, candidate
                    return
            finally:
                foreground.stop(process)
    where = f"Port {port}" if port is not None else f"Every port from {PORTS.start} to {PORTS.stop - 1}"
    raise PortTaken(f"{where} is in use on {HOST}. Choose another one with --port.")


def _start(ws: Workspace, port: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """MLflow with its security middleware, which takes no request for another host name, and without its job runner."""
    options = {
        "--backend-store-uri": ws.tracking_uri,
        "--default-artifact-root": (ws.root / "artifacts").as_uri(),
        "--host": HOST,
        "--port": str(port),
        "--workers": "1",
        "--allowed-hosts": f"{HOST}:{port},localhost:{port}",
    }
    argv = [sys.executable, "-m", "mlflow", "server", "--no-serve-artifacts"]
    words = (word for option in options.items() for word in option)
    env = child_environment({"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
    return foreground.start([*argv, *words], env, ws.root, log)


def _answers(process: subprocess.Popen[bytes], port: int, log: IO[bytes], said: Said) -> bool:
    """Wait for the server; False where another process was faster to take the port."""
    begun = time.monotonic()
    while (waited := time.monotonic() - begun) < START_S:
        said(f"Starting MLflow, {waited:.0f} s")
        if process.poll() is not None:
            break
        if foreground.listens(process, port) and _is_healthy(port):
            return True
        time.sleep(0.1)
    told = foreground.tail(log)
    if process.poll() is not None and "address already in use" in told:
        return False
    raise NightsmithError(
        f"MLflow did not start within {START_S:.0f} s. Its last words: {told} Mend it by `nightsmith doctor`, or look "
        "at the reports: `nightsmith studies`, `nightsmith report STUDY`."
    )


def _is_healthy(port: int) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"http://{HOST}:{port}/health", timeout=5, trust_env=False).status_code == 200
    return False


def _until_stopped(ws: Workspace, process: subprocess.Popen[bytes]) -> None:
    """Until a signal; meanwhile what waits for a person is kept up to date."""
    known = history.summaries(ws)
    while True:
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(timeout=REFRESH_S)
            raise NightsmithError(f"MLflow's server ended by itself with status {code}. Start it again: nightsmith ui")
        if (now := history.summaries(ws)) != known:
            known = now
            morning.refresh(ws, lambda _: None)
