"""Whether a backend holds: it is asked to do what it must not be able to do, before it is used for the first time."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from nightsmith.record.digest import Contract
from nightsmith.record.errors import NightsmithError
from nightsmith.sandboxes.base import Completed, Ending, Limits, Sandbox, SandboxSpec
from nightsmith.sandboxes.child import run
from nightsmith.sandboxes.runtime import ISOLATED

_SECRET = "canary"
_SPEC = SandboxSpec(limits=Limits(wall_s=10.0))
_ATTEMPTS = """
import json, os, signal, socket, sys
given, done = json.loads(sys.argv[1]), []

def attempt(name, act):
    try:
        act()
        done.append(name)
    except Exception:
        pass

def connect():
    socket.create_connection(("127.0.0.1", given["port"]), timeout=2).close()

def write():
    with open(given["written"], "w") as file:
        file.write("x")

def read():
    with open(given["secret"]) as file:
        assert file.read() == given["text"]

def spy():
    with open(f"/proc/{given['victim']}/environ") as file:
        assert given["text"] in file.read()

def kill():
    os.kill(given["victim"], signal.SIGKILL)

for act in (read, write, connect, spy, kill):
    attempt(act.__name__, act)
print(json.dumps(done))
"""
TOLD = {
    "read": "read a file that it was not given",
    "write": "wrote outside its own folders",
    "connect": "connected to a port of this machine",
    "spy": "saw another process's variables",
    "kill": "killed a process of its user",
}


class CanaryResult(Contract):
    """What a backend let through, or why it could not even start."""

    sandbox: str
    """The backend."""
    let_through: tuple[str, ...] = ()
    """Names of the attempts that succeeded: read, write, connect, spy, kill."""
    failure: str = ""
    """Why nothing could be attempted; empty where the attempts ran."""
    wall_s: float = 0.0
    """Seconds of the attempts."""

    @property
    def holds(self) -> bool:
        """Whether every attempt was made and none succeeded."""
        return not self.let_through and not self.failure

    def told(self) -> str:
        """One sentence."""
        if self.failure:
            return f"it could not run its self-test: {self.failure}"
        if self.let_through:
            return f"its self-test got out: it {'; it '.join(TOLD[name] for name in self.let_through)}"
        return f"its self-test could neither read, write, connect nor kill outside ({self.wall_s:.2f} s)"


def probe(sandbox: Sandbox) -> CanaryResult:
    """Let the canary loose in a backend: secret file, listener and victim are made for it, and gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="nightsmith-canary-") as name, _listener() as port, _victim() as victim:
        secret, written = Path(name) / "secret", Path(name) / "written"
        secret.write_text(_SECRET)
        given = {"secret": str(secret), "text": _SECRET, "written": str(written), "port": port, "victim": victim.pid}
        try:
            completed = run(sandbox, _SPEC, (*ISOLATED, "-c", _ATTEMPTS, json.dumps(given)))
        except NightsmithError as error:
            return CanaryResult(sandbox=sandbox.name, failure=str(error))
        seen = {"write": written.exists(), "kill": victim.poll() is not None}
    return _result(completed, seen)


def _result(completed: Completed, seen: dict[str, bool]) -> CanaryResult:
    try:
        admitted: list[str] = json.loads(completed.output)
    except ValueError:
        last = completed.output.decode(errors="replace").strip().splitlines()[-1:]
        told = last[0] if last else f"no output, exit status {completed.exit_status}"
        late = "it did not end in time" if completed.ending is Ending.TIMED_OUT else told
        return CanaryResult(sandbox=completed.sandbox, failure=late, wall_s=completed.wall_s)
    through = [name for name in TOLD if seen.get(name, name in admitted)]
    return CanaryResult(sandbox=completed.sandbox, let_through=tuple(through), wall_s=completed.wall_s)


@contextmanager
def _listener() -> Generator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@contextmanager
def _victim() -> Generator[subprocess.Popen[bytes]]:
    """A process that does nothing until its input ends."""
    waiting = [sys.executable, "-I", "-S", "-c", "input()"]
    environment = {**os.environ, "NIGHTSMITH_CANARY": _SECRET}
    with subprocess.Popen(
        waiting, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    ) as victim:
        try:
            yield victim
        finally:
            victim.kill()
