"""`nightsmith ui`: MLflow's server on loopback, open at what happened tonight, gone when it is stopped.

The server is a child in a session of its own: Ctrl-C reaches this process alone, which ends it in order. Should this
process be killed, the kernel tells the child.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO

import httpx
import psutil

from nightsmith.agent import history, morning
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
STOP_S = 15.0
REFRESH_S = 60.0
_PR_SET_PDEATHSIG = 1


class PortTaken(NightsmithError):
    """Another process listens there."""


def serve(path: Path | None, *, port: int | None, open_page: bool | None, as_json: bool) -> int:
    """Serve until Ctrl-C, SIGTERM or the end of the terminal. Raises NightsmithError where there is nothing to show."""
    ws = _workspace(path)
    with _stoppable(), _progress() as said:
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
def _server(ws: Workspace, port: int | None, said: "_Said") -> Generator[tuple[subprocess.Popen[bytes], int]]:
    """The server, once it answers. Whatever happens inside, no process of it is left afterwards."""
    for candidate in [port] if port is not None else PORTS:
        if not _is_free(candidate):
            continue
        with tempfile.TemporaryFile() as log:
            process = _start(ws, candidate, log)
            try:
                morning.refresh(ws, said)
                if _answers(process, candidate, log, said):
                    yield process, candidate
                    return
            finally:
                _stop(process)
    where = f"Port {port}" if port is not None else f"Every port from {PORTS.start} to {PORTS.stop - 1}"
    raise PortTaken(f"{where} is in use on {HOST}. Choose another one with --port.")


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            return False
    return True


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
    libc = ctypes.CDLL(None)  # before the fork
    return subprocess.Popen(
        [*argv, *(word for option in options.items() for word in option)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=ws.root,
        env=child_environment({"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}),
        start_new_session=True,
        preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) if sys.platform == "linux" else None,
    )


def _answers(process: subprocess.Popen[bytes], port: int, log: IO[bytes], said: "_Said") -> bool:
    """Wait for the server; False where another process was faster to take the port."""
    begun = time.monotonic()
    while (waited := time.monotonic() - begun) < START_S:
        said(f"Starting MLflow, {waited:.0f} s")
        if process.poll() is not None:
            break
        if _listens(process, port) and _is_healthy(port):
            return True
        time.sleep(0.1)
    told = _tail(log)
    if process.poll() is not None and "address already in use" in told:
        return False
    raise NightsmithError(
        f"MLflow did not start within {START_S:.0f} s. Its last words: {told} Mend it by `nightsmith doctor`, or look "
        "at the reports: `nightsmith studies`, `nightsmith report STUDY`."
    )


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether it is this server, not a stranger's, that listens there."""
    with suppress(psutil.Error):
        family = [top := psutil.Process(process.pid), *top.children(recursive=True)]
        found = [each for member in family for each in member.net_connections("tcp4")]
        return any(each.laddr.port == port and each.status == psutil.CONN_LISTEN for each in found if each.laddr)
    return False


def _is_healthy(port: int) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"http://{HOST}:{port}/health", timeout=5, trust_env=False).status_code == 200
    return False


def _tail(log: IO[bytes]) -> str:
    log.seek(0)
    return " ".join(log.read()[-800:].decode(errors="replace").split()) or "none."


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


def _stop(process: subprocess.Popen[bytes]) -> None:
    """In order, else by force: MLflow's own process and its workers form one group."""
    process.terminate()
    try:  # a second Ctrl-C ends the waiting, not the stopping
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_S)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def _stoppable() -> Generator[None]:
    """End the block without a traceback at Ctrl-C, SIGTERM or the end of the terminal."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Said:
    """One moving line on standard error of a terminal; nothing elsewhere."""

    def __call__(self, text: str) -> None:
        """Replace the line; an empty text takes it away."""
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[2K{text}{'…' if text else ''}")
            sys.stderr.flush()


@contextmanager
def _progress() -> Generator[_Said]:
    said = _Said()
    try:
        yield said
    finally:
        said("")
