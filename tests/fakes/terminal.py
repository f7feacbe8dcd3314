"""A person's terminal: a real tmux on a server of its own, typed into and read from its screen."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

POLL_S = 0.3
GONE_S = 60.0
NIGHTSMITH = f"{sys.executable} -m nightsmith.agent.cli"


def tmux_path() -> str:
    """Where tmux is; where it is not, the test fails: nobody drove the console."""
    found = shutil.which("tmux")
    if found is None:
        pytest.fail("THE CONSOLE WAS NOT DRIVEN: tmux is absent (Debian: apt install tmux).")
    return found


@dataclass
class Terminal:
    """A shell in a window of 80 columns."""

    folder: Path
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    columns: int = 80
    rows: int = 30

    def __post_init__(self) -> None:
        """Nothing runs before `open`."""
        self._socket = str(self.folder / "tmux.socket")
        self._tmux_path = tmux_path()

    def open(self) -> None:
        """A new window with a shell. One that was killed can be opened again."""
        size = ("-x", str(self.columns), "-y", str(self.rows))
        self._tmux("new-session", "-d", "-s", "person", *size, "-c", str(self.folder), "bash", "--norc", "--noprofile")
        self._tmux("set-option", "-g", "history-limit", "5000")

    def kill(self) -> None:
        """Close the window as a lost connection does: everything in it gets SIGHUP. Returns once it is gone."""
        shell = int(self._tmux("list-panes", "-t", "person", "-F", "#{pane_pid}"))
        # A server that still exits would take the next window with it.
        server = psutil.Process(int(self._tmux("display-message", "-p", "#{pid}")))
        inside = [child for child in psutil.Process(shell).children(recursive=True) if os.getsid(child.pid) == shell]
        self._tmux("kill-server")
        _, alive = psutil.wait_procs([*inside, server], timeout=GONE_S)
        assert not alive, f"Outlived their terminal by {GONE_S:.0f} s: {alive}"

    def type(self, text: str) -> None:
        """Type a line, with Enter."""
        self._tmux("send-keys", "-t", "person", "-l", "--", text)
        self.press("Enter")

    def press(self, key: str) -> None:
        """Press one key, by its name for tmux (`C-c`)."""
        self._tmux("send-keys", "-t", "person", key)

    def read(self) -> str:
        """Everything that was ever on the screen, in one line: where a line was folded does not matter."""
        return re.sub(r"\s+", " ", self._tmux("capture-pane", "-p", "-J", "-S", "-", "-t", "person"))

    def wait_for(self, pattern: str, limit_s: float) -> str:
        """The screen, once it shows the pattern. Fails with the screen as it is."""
        until = time.monotonic() + limit_s
        while not re.search(pattern, screen := self.read()):
            if time.monotonic() > until:
                pytest.fail(f"Not seen in {limit_s:.0f} s: {pattern!r}. The screen:\n{screen[-3000:]}")
            time.sleep(POLL_S)
        return screen

    def _tmux(self, *command: str) -> str:
        done = subprocess.run(
            [self._tmux_path, "-S", self._socket, "-f", os.devnull, *command],
            env=os.environ | {"TERM": "xterm-256color"} | dict(self.env), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"tmux {command[0]}: {done.stderr}"
        return done.stdout
