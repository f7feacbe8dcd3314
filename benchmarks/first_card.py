"""From Enter to the first card at the console: seconds besides the planner's own.

    python benchmarks/first_card.py [--rounds 7] [--json out.json]

The real console in a pseudo-terminal, the real embedded planner. A relay between the two notes when the planner was at
work; that time is taken off. `at once`: Enter as soon as the prompt stands, while imports still run. `typed`: five
seconds later, as somebody does who types a goal.
"""

import argparse
import fcntl
import json
import os
import pty
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil

from nightsmith.model.planner_server import ADAPTER, ensure

GOALS = {
    "plan": (
        "Pre-train a small mixture-of-experts model from scratch on ./notes until bits per byte are at least 0.1 below "
        "the baseline; at most 3 trials and 10 minutes.",
        b"Plan of s1",
    ),
    "question": ("Pre-train a small mixture-of-experts model from scratch on ./notes; at most 3 trials.", b"Which "),
}
"""First card -> a goal that leads to it, and what the screen then shows."""
PAUSES_S = {"at once": 0.0, "typed": 5.0}
LIMIT_S = 120.0


@dataclass
class Relay:
    """Passes requests on to the planner and notes how long it worked."""

    to: str
    token: str
    url: str = ""
    spans: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])

    def post(self, path: str, body: bytes) -> bytes:
        """One request."""
        begun = time.monotonic()
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = httpx.post(self.to + path, content=body, headers=headers, timeout=LIMIT_S, trust_env=False)
        self.spans.append((begun, time.monotonic()))
        return answer.content


@contextmanager
def relay() -> Iterator[Relay]:
    """A relay to the embedded planner, on loopback."""
    endpoint = ensure(ADAPTER)
    passing = Relay(endpoint.url, endpoint.token)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            text = passing.post(self.path, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    passing.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield passing
    finally:
        server.shutdown()
        server.server_close()


class Screen:
    """A console in a pseudo-terminal; notes when something appears on it."""

    def __init__(self, folder: Path, planner: Relay):
        """Start the console."""
        self._shown, self._own, theirs = bytearray(), *pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 80, 0, 0))
        env = os.environ | {
            "NIGHTSMITH_PLANNER_URL": planner.url, "NIGHTSMITH_PLANNER_MODEL": "planner", "TERM": "xterm-256color",
            "PROMPT_TOOLKIT_NO_CPR": "1", "XDG_STATE_HOME": str(folder / "state"),
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nightsmith.agent.cli", "chat"], cwd=folder, env=env,
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)

    def type(self, text: str) -> float:
        """Type a line. Returns when Enter was pressed."""
        os.write(self._own, text.encode())
        time.sleep(0.1)
        os.write(self._own, b"\r")
        return time.monotonic()

    def shows(self, text: bytes) -> float:
        """Wait for something. Returns when it appeared."""
        until = time.monotonic() + LIMIT_S
        while text not in self._shown:
            if time.monotonic() > until:
                raise SystemExit(f"Not seen in {LIMIT_S:.0f} s: {text!r}. Screen: {bytes(self._shown[-2000:])!r}")
            self._shown += os.read(self._own, 65536)
        return time.monotonic()

    def cpu_s(self) -> float:
        """CPU seconds that the console has taken so far: what a busy machine does not stretch."""
        taken = psutil.Process(self._process.pid).cpu_times()
        return taken.user + taken.system

    def close(self) -> None:
        """End the console."""
        self._process.kill()
        self._process.wait()
        os.close(self._own)


def once(planner: Relay, goal: str, card: bytes, pause_s: float) -> tuple[float, float, float]:
    """Seconds from Enter to the card besides the planner's, the planner's, and CPU seconds of the console meanwhile."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "notes").mkdir()
        for number in range(40):
            (folder / "notes" / f"{number}.txt").write_text(f"Note {number}. " + "The lamp is on. " * 200)
        planner.spans.clear()
        screen = Screen(folder, planner)
        try:
            screen.shows(b"goal ")
            time.sleep(pause_s)
            before = screen.cpu_s()
            pressed = screen.type(goal)
            seen = screen.shows(card)
            cpu = screen.cpu_s() - before
        finally:
            screen.close()
    thought = sum(end - begun for begun, end in planner.spans)
    return seen - pressed - thought, thought, cpu


def found_in() -> float:
    """Seconds that a console without a URL takes to find the running planner."""
    begun = time.monotonic()
    ensure(ADAPTER)
    return time.monotonic() - begun


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows: dict[str, list[float]] = {}
    with relay() as planner:
        once(planner, *GOALS["plan"], 0.0)  # files into the page cache
        for number in range(args.rounds):
            for card, (goal, text) in GOALS.items():
                for when, pause_s in PAUSES_S.items():
                    besides, thought, cpu = once(planner, goal, text, pause_s)
                    rows.setdefault(f"{card}, {when}", []).append(besides)
                    rows.setdefault(f"{card}, {when}, CPU", []).append(cpu)
                    rows.setdefault("finding the server", []).append(found_in())
                    print(
                        f"{number} {card:9} {when:8} {besides:5.2f} s, CPU {cpu:4.2f} s, planner {thought:5.2f} s",
                        flush=True,
                    )
    print(f"Enter to the first card besides the planner, {args.rounds} rounds: median and largest, seconds")
    for name, seconds in rows.items():
        print(f"  {name:24} {statistics.median(seconds):5.2f} {max(seconds):5.2f}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
