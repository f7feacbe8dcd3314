"""The console as a person meets it: a real terminal, the real planner, real jobs; the terminal is killed on the way."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_study
from terminal import NIGHTSMITH, Terminal

from nightsmith.agent import history
from nightsmith.record import events
from nightsmith.record.workspace import open_workspace

pytestmark = [pytest.mark.tmux, pytest.mark.timeout(900)]

GOAL = "Pre-train a small mixture-of-experts model from scratch on ./corpus; at most 3 trials and 10 minutes."
SOON_S, PLANNER_S, STUDY_S = 60.0, 180.0, 600.0
"""Limits for a machine with much else to do."""


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    tiny_study.write_corpus(tmp_path)
    settings = {"XDG_STATE_HOME": str(tmp_path / "state"), "NIGHTSMITH_DEVICES": "cpu:0,cpu:1,cpu:2"}
    person = Terminal(tmp_path, settings | {"OMP_NUM_THREADS": "1", "PS1": "shell$ "})
    person.open()
    yield person
    person.kill()


def test_from_a_goal_without_a_target_to_a_result_over_a_killed_terminal(terminal: Terminal):
    terminal.type(f"{NIGHTSMITH} chat")
    terminal.wait_for(r"goal › $", SOON_S)
    terminal.type(GOAL)
    terminal.wait_for(r"Which metric should reach which value.*allows\] ›", PLANNER_S)
    terminal.type("bits per byte at least 7.5 below the baseline")
    card = terminal.wait_for(r"Plan of s1.*\[a\]pprove", PLANNER_S)
    assert "Target bits per byte at least 7.5000 below the baseline" in card
    assert "Budget 3 trials, 10 min 00 s" in card

    terminal.type("e trials 0")
    terminal.wait_for(r"trials '0': a whole number from 1", SOON_S)
    terminal.type("trials 2, time 8m, steps 40")
    terminal.wait_for(r"Budget 2 trials, 8 min 00 s.*num_steps=40.*\[a\]pprove", SOON_S)
    terminal.type("a")
    terminal.wait_for(r"s1 · baseline · 2 trials, .* \w+ baseline: \w+", SOON_S)

    terminal.kill()
    terminal.open()
    terminal.type(f"{NIGHTSMITH} chat")
    terminal.wait_for(r"s1 was at baseline \(paused\): Pre-train .* Continue s1\? \[Y/n\] ›", SOON_S)
    terminal.type("")
    screen = terminal.wait_for(r"Report: \S+", STUDY_S)
    assert "verdict trial 2" in screen

    terminal.type("why was trial 2 rejected?")
    screen = terminal.wait_for(r"Trial 2 was .*It tried .* › ", PLANNER_S)
    ws = open_workspace(terminal.folder / ".nightsmith")
    trial = history.load(ws, "s1").trials[2]
    assert trial.screen is not None
    assert trial.screen.reason in screen
    started = [event.job for event in events.read(ws, study="s1") if event.kind == "job_started"]
    assert len(started) == len(set(started)) > 4

    terminal.press("C-d")
    terminal.wait_for(r"shell\$ $", SOON_S)
