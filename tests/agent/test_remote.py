"""A planner on another machine is named at every start, and nothing is sent there unless that was allowed."""

import asyncio
from contextlib import nullcontext

import fake_planner
import pytest

from nightsmith.agent import chat, session
from nightsmith.agent.console import Console
from nightsmith.agent.remote import notice
from nightsmith.agent.settings import PlannerSettings, Settings, load_settings
from nightsmith.record.errors import NightsmithError
from nightsmith.record.workspace import open_workspace

GOAL = "Pre-train a small MoE from scratch on ./notes; at most 3 trials."
ASK = {"s": "read", "L0": "train", "L1": "trials", "do": "train", "ask": ["targets"]}


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A planner whose address is not a loopback one; the kernel takes 0.0.0.0 for this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "*")
    with fake_planner.serve(ASK) as fake:
        monkeypatch.setenv("NIGHTSMITH_PLANNER_URL", fake.url.replace("127.0.0.1", "0.0.0.0"))
        yield fake


@pytest.mark.parametrize("start", [
    lambda: session.plan(GOAL, None, None, check=False, as_json=False),
    lambda: session.run(GOAL, None, yes=False, as_json=False),
])  # fmt: skip
def test_a_start_names_the_machine_that_goals_go_to(elsewhere, monkeypatch, capsys, start):
    monkeypatch.setenv("NIGHTSMITH_ALLOW_REMOTE_PLANNER", "true")
    assert start() == 4
    assert "goals, settings and results are sent to http://0.0.0.0:" in capsys.readouterr().err
    assert elsewhere.requests


def test_nothing_is_sent_elsewhere_unless_it_was_allowed(elsewhere, capsys):
    assert "is not asked" in notice(load_settings())
    with pytest.raises(NightsmithError, match="Set allow_remote_planner = true"):
        session.plan(GOAL, None, None, check=False, as_json=False)
    assert elsewhere.requests == []
    assert "are sent" not in capsys.readouterr().err


class LeavingLine:
    """A terminal whose person leaves at once; `said` is what stood on it."""

    keys = ""

    def __init__(self, _face=None):
        self.said: list[str] = []

    def open(self):
        return nullcontext()

    async def read(self):
        raise EOFError

    def say(self, text):
        self.said.append(text)

    def refresh(self):
        pass


@pytest.mark.usefixtures("elsewhere")
def test_the_console_says_it_before_anything_is_typed(tmp_path, monkeypatch):
    monkeypatch.setenv("NIGHTSMITH_ALLOW_REMOTE_PLANNER", "true")
    ws, told = open_workspace(tmp_path / ".nightsmith"), notice(load_settings())
    console = Console(ws, chat.planner, tmp_path, LeavingLine, notice=told)
    asyncio.run(console.run())
    assert "goals, settings and results are sent to http://0.0.0.0:" in " ".join(" ".join(console.line.said).split())


def test_a_planner_of_this_machine_is_nothing_to_tell():
    assert notice(Settings()) == ""
    assert notice(Settings(planner=PlannerSettings(url="http://127.0.0.1:8000/v1"))) == ""
