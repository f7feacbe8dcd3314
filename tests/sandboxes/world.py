"""What must not be reached from a sandbox: a workspace, a victim, listeners; and whether anything of it was touched."""

import contextlib
import ctypes
import os
import resource
import select
import socket
import stat
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nightsmith
from nightsmith.sandboxes.runtime import package_folders

SECRET = "sealed-fold-5f1c9a"
_SOURCES = Path(nightsmith.__file__).parent / "evals"
_VICTIM = "secret = 'victim-' + __import__('os').environ['NIGHTSMITH_SECRET']; print(flush=True); input()"


@dataclass
class World:
    """One machine's worth of temptation, in one folder."""

    folder: Path
    victim: subprocess.Popen[bytes]
    sockets: dict[str, socket.socket]
    inherited: int
    """A descriptor of the sealed fold that children would inherit."""
    seen: dict[str, Any] = field(default_factory=dict)

    @property
    def given(self) -> dict[str, Any]:
        """What the attacker knows: everything."""
        workspace = self.folder / ".nightsmith"
        return {
            "outside": str(self.folder),
            "workspace": str(workspace),
            "fold": str(workspace / "sealed" / "fold.parquet"),
            "run": str(workspace / "runs" / "other" / "result.json"),
            "ledger": str(workspace / "record.db"),
            "home": str(self.folder / "home"),
            "judge": str(_SOURCES / "judge.py"),
            "sources": str(_SOURCES.parent.parent),
            "packages": str(Path(sys.modules["pydantic"].__file__ or "").parents[1]),
            "hidden": _packaged(),
            "victim": self.victim.pid,
            "parent": os.getpid(),
            "inherited": self.inherited,
            "tcp": self.sockets["tcp"].getsockname()[1],
            "tcp6": self.sockets["tcp6"].getsockname()[1] if "tcp6" in self.sockets else 9,
            "udp": self.sockets["udp"].getsockname()[1],
            "unix": self.sockets["unix"].getsockname(),
            "datagram": self.sockets["datagram"].getsockname(),
            "mark": self.mark,
            "abstract": self.sockets["abstract"].getsockname().decode()[1:],
            "disk": _disk(),
            "devices": [str(path) for path in Path("/dev").iterdir() if _is_device(path)],
            "handle": _handle(workspace / "sealed" / "fold.parquet").hex(),
        }

    @property
    def mark(self) -> str:
        """Name of a file that nobody makes."""
        return f"nightsmith-escaped-{self.victim.pid}"

    def touched(self) -> list[str]:
        """What differs from before."""
        now = self._look()
        found = [f"{name}: {self.seen[name]} → {now[name]}" for name in now if now[name] != self.seen[name]]
        found += [f"{name} was reached" for name, listener in self.sockets.items() if _is_reached(listener)]
        return found

    def remember(self) -> None:
        """How everything is now."""
        self.seen = self._look()

    def _look(self) -> dict[str, Any]:
        pid = self.victim.pid
        alive = self.victim.poll() is None
        return {
            "victim": alive,
            "limits": alive and resource.prlimit(pid, resource.RLIMIT_CPU),
            "priority": alive and os.getpriority(os.PRIO_PROCESS, pid),
            "cores": alive and sorted(os.sched_getaffinity(pid)),
            "files": {str(path): _file(path) for path in (self.folder, *sorted(self.folder.rglob("*")))},
            "judge": _file(_SOURCES / "judge.py"),
            "stdlib": (_file(Path(os.__file__)), Path(os.__file__ + "x").exists()),
            "host": os.uname().nodename,
            "everybody's folder": Path("/tmp", self.mark).exists(),
        }


@contextlib.contextmanager
def world(folder: Path) -> Generator[World]:
    """A workspace with a sealed fold, another run, a home, a victim of the same user, and listeners."""
    for name in ("sealed/fold.parquet", "runs/other/result.json", "record.db"):
        path = folder / ".nightsmith" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SECRET)
    (folder / "home" / ".ssh").mkdir(parents=True)
    (folder / "home" / ".ssh" / "id").write_text(SECRET)
    environment = {"NIGHTSMITH_SECRET": SECRET, "PATH": os.environ.get("PATH", "")}
    with contextlib.ExitStack() as stack:
        sockets = {name: stack.enter_context(made) for name, made in _sockets(folder)}
        inherited = os.open(folder / ".nightsmith" / "sealed" / "fold.parquet", os.O_RDONLY)
        stack.callback(os.close, inherited)
        os.set_inheritable(inherited, True)
        victim = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-I", "-c", _VICTIM], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        )
        stack.callback(victim.kill)
        assert victim.stdout is not None
        victim.stdout.readline()
        made = World(folder, victim, sockets, inherited)
        made.remember()
        yield made


def _sockets(folder: Path) -> Generator[tuple[str, socket.socket]]:
    yield "tcp", socket.create_server(("127.0.0.1", 0))
    with contextlib.suppress(OSError):
        yield "tcp6", socket.create_server(("::1", 0), family=socket.AF_INET6)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    yield "udp", udp
    datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    datagram.bind(str(folder / "datagram"))
    yield "datagram", datagram
    for name, address in (("unix", str(folder / "socket")), ("abstract", f"\0nightsmith-{os.getpid()}-{id(folder)}")):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(address)
        listener.listen()
        yield name, listener


def _is_reached(listener: socket.socket) -> bool:
    return bool(select.select([listener], [], [], 0)[0])


def _file(path: Path) -> tuple[int, ...]:
    """Kind and mode, owner, size, links and times, but not that of reading."""
    state = path.lstat()
    return state.st_mode, state.st_uid, state.st_size, state.st_nlink, state.st_mtime_ns


def _is_device(path: Path) -> bool:
    with contextlib.suppress(OSError):
        kind = path.stat().st_mode
        return (stat.S_ISCHR(kind) or stat.S_ISBLK(kind)) and path.name not in ("null", "zero", "random", "urandom")
    return False


def _packaged() -> list[str]:
    """One file of each folder of packages beside Python."""
    files = (next((path for path in Path(folder).rglob("*.*") if path.is_file()), None) for folder in package_folders())
    return [str(path) for path in files if path is not None]


def _disk() -> list[int]:
    device = Path("/").stat().st_dev
    return [os.major(device), os.minor(device)]


def _handle(path: Path) -> bytes:
    """The handle by which open_by_handle_at opens a file without looking at its folders."""
    buffer = ctypes.create_string_buffer(128 + 8)
    ctypes.c_uint32.from_buffer(buffer).value = 128
    libc, mount = ctypes.CDLL(None), ctypes.c_int()
    libc.name_to_handle_at(-100, os.fsencode(path), buffer, ctypes.byref(mount), 0)
    return buffer.raw
