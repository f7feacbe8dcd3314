"""The Landlock jail: no package and no user namespaces needed, one process, Linux 6.2 or newer. See landlock(7).

Landlock decides which files can be opened; what it leaves open (sockets, signals, attributes of files, other processes)
the system-call filter refuses. Names and sizes of files outside can still be looked up, contents cannot.
"""

import ctypes
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nightsmith.record.errors import NightsmithError
from nightsmith.sandboxes import seccomp
from nightsmith.sandboxes.base import SandboxSpec
from nightsmith.sandboxes.guarding import Domain, Plan, resource_limits
from nightsmith.sandboxes.runtime import environment, hidden, readable

_CREATE_RULESET, _VERSION_FLAG = 444, 1
OLDEST = 3
"""ABI version from which truncation is governed as well (Linux 6.2)."""
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE, IOCTL_DEV = 1, 2, 4, 8, 1 << 14, 1 << 15
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
_READ = EXECUTE | READ_FILE | READ_DIR
_ALL = {3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""Every right of files that an ABI version knows, from that version on."""
_MAKE_DEVICES = 1 << 6 | 1 << 9 | 1 << 11
"""MAKE_CHAR, MAKE_SOCK, MAKE_BLOCK: never given."""
_TCP, _SCOPES = 0b11, 0b11
"""Bind and connect; abstract sockets and signals."""
_DEVICES = (("/dev/null", READ_FILE | WRITE_FILE), ("/dev/urandom", READ_FILE))


def abi() -> int:
    """The kernel's Landlock ABI version; 0 where it has none. Asks only, restricts nothing."""
    if sys.platform != "linux":
        return 0
    asked = ctypes.CDLL(None).syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    return max(0, int(asked))


@dataclass(frozen=True)
class Landlock:
    """Landlock and a system-call filter around one process."""

    name: str = "landlock"
    isolates: bool = True
    mend: str = "Linux 6.2 or newer with landlock in its list of LSMs (/sys/kernel/security/lsm)"

    def lacking(self) -> str | None:
        """What this machine lacks for it."""
        if sys.platform != "linux":
            return "it exists on Linux only"
        if not seccomp.is_known_architecture():
            return "no system-call table for this processor"
        if abi() < OLDEST:
            return f"the kernel offers Landlock ABI {abi()}, not {OLDEST}"
        return None

    def command(self, spec: SandboxSpec, argv: tuple[str, ...]) -> tuple[str, ...]:
        """A guard that confines itself."""
        if spec.limits.tasks > 1:
            raise NightsmithError(
                f"The Landlock jail runs one process with one thread, not {spec.limits.tasks} tasks. "
                "Set limits.tasks to 1, or install bubblewrap (Debian: apt install bubblewrap)."
            )
        plan = Plan(
            argv=argv,
            env=environment(spec, tmp=None),
            limits=resource_limits(spec.limits),
            landlock=_domain(spec),
            filter=seccomp.build(new_tasks=False, network=spec.network, shared_system=True).hex(),
        )
        return plan.command()


def _domain(spec: SandboxSpec) -> Domain:
    version = abi()
    files = max(rights for since, rights in _ALL.items() if since <= version)
    handled = [files]
    if version >= 4:
        handled.append(0 if spec.network else _TCP)
    if version >= 6:
        handled.append(_SCOPES)
    return Domain(handled=tuple(handled), rules=tuple(_rules(spec, files)))


def _rules(spec: SandboxSpec, files: int) -> Iterator[tuple[str, int]]:
    unseen = {os.path.realpath(folder) for folder in hidden(spec)}
    for path in dict.fromkeys(map(os.path.realpath, readable(spec))):
        yield from _reading(path, unseen)
    for path in spec.read_write:
        yield path, files & ~(EXECUTE | _MAKE_DEVICES | IOCTL_DEV)
    yield from _DEVICES


def _reading(path: str, unseen: set[str]) -> Iterator[tuple[str, int]]:
    """Reading all beneath a path, but for the unseen folders: of those only the names can be listed."""
    if path in unseen:
        return
    if not any(Path(folder).is_relative_to(path) for folder in unseen):
        yield path, _READ if stat.S_ISDIR(Path(path).stat().st_mode) else _READ & _OF_FILES
        return
    yield path, READ_DIR
    for entry in Path(path).iterdir():
        if entry.exists() and not entry.is_symlink():
            yield from _reading(str(entry), unseen)
