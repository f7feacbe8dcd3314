"""`nightsmith ui` for real: MLflow's server answers on loopback alone, refuses strangers, and leaves nobody behind."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import chromium
import httpx
import psutil
import pytest
from study_factory import StudyFactory, workspace_in_memory

from nightsmith.agent import ui
from nightsmith.record.errors import NightsmithError
from nightsmith.record.workspace import Workspace, open_workspace
from nightsmith.trainer import tracking

WAIT_S = 100


@pytest.fixture(scope="module")
def ws() -> Iterator[Workspace]:
    with workspace_in_memory() as ws:
        StudyFactory(ws).proven()
        yield ws


@dataclass
class Served:
    """A running `nightsmith ui`."""

    process: subprocess.Popen[str]
    told: dict[str, str]
    family: list[psutil.Process]

    @property
    def server(self) -> str:
        return self.told["url"].partition("#")[0]


@contextmanager
def served(ws: Workspace, *options: str) -> Iterator[Served]:
    command = [sys.executable, "-m", "nightsmith.agent.cli", "ui", "--json", "--no-open", "--workspace", str(ws.root)]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], WAIT_S)
        line = process.stdout.readline() if readable else ""
        assert line, process.communicate(timeout=5)[1] if process.poll() is not None else "no answer in time"
        yield Served(process, json.loads(line), psutil.Process(process.pid).children(recursive=True))
    finally:
        process.kill()
        process.communicate()


def gone(family: list[psutil.Process]) -> bool:
    return psutil.wait_procs(family, timeout=WAIT_S)[1] == []


def test_it_serves_the_studies_to_this_machine_only_and_ctrl_c_leaves_nobody(ws: Workspace):
    with served(ws) as page:
        assert page.told["url"].startswith(f"http://127.0.0.1:{page.told['port']}/{tracking.pages(ws).experiment}")
        assert httpx.get(page.server, trust_env=False).status_code == 200
        for host in ("evil.example", "192.168.0.7"):
            assert httpx.get(page.server, headers={"Host": host}, trust_env=False).status_code == 403
        search, origin = f"{page.server}ajax-api/2.0/mlflow/runs/search", {"Origin": "https://evil.example"}
        assert httpx.post(search, json={}, headers=origin, trust_env=False).status_code == 403
        listening = [each for member in page.family for each in member.net_connections() if each.status == "LISTEN"]
        assert {each.laddr.ip for each in listening} == {"127.0.0.1"}
        assert not [name for member in page.family for name in member.environ() if name.endswith(("_KEY", "_TOKEN"))]
        page.process.send_signal(signal.SIGINT)
        assert page.process.wait(WAIT_S) == 0
        assert gone(page.family)
    assert not (Path.cwd() / "mlruns").exists()


@pytest.mark.browser
@pytest.mark.timeout(300)
def test_the_first_page_tells_in_a_real_browser_what_happened_tonight(ws: Workspace, tmp_path: Path):
    with served(ws) as page:
        dom = chromium.page(page.told["url"], tmp_path, virtual_s=20)
    for told in ("Nothing waits for you", "s1 PROVEN", "what happened", "bits per byte 0.3074 below the baseline"):
        assert told in dom


@pytest.mark.slow
def test_two_at_once_take_two_ports_and_kill_9_leaves_nobody(ws: Workspace):
    with served(ws) as first, served(ws) as second:
        assert first.told["port"] != second.told["port"]
        second.process.send_signal(signal.SIGTERM)
        assert second.process.wait(WAIT_S) == 0
        assert gone(second.family)
        assert httpx.get(first.server, trust_env=False).status_code == 200
        os.kill(first.process.pid, signal.SIGKILL)
        assert gone(first.family)


def test_without_workspace_or_studies_it_says_so_and_makes_nothing(tmp_path: Path):
    with pytest.raises(NightsmithError, match=r"no workspace at .*nightsmith run"):
        ui.serve(tmp_path / ".nightsmith", port=None, open_page=False, as_json=False)
    assert list(tmp_path.iterdir()) == []
    open_workspace(tmp_path / ".nightsmith")
    with pytest.raises(NightsmithError, match="No studies"):
        ui.serve(tmp_path / ".nightsmith", port=None, open_page=False, as_json=False)


def test_a_taken_port_is_refused_by_name(ws: Workspace):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ui.PortTaken, match=f"Port {port} is in use"):
            ui.serve(ws.root, port=port, open_page=False, as_json=False)
