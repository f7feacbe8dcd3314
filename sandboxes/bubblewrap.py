"""bubblewrap: own mounts, process ids, network and user namespaces, https://github.com/containers/bubblewrap.

Inside there is Python, what the spec names, a /tmp in memory and four devices; no /proc, no /sys, no other file.
"""

import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nightsmith.record.errors import NightsmithError
from nightsmith.sandboxes import seccomp
from nightsmith.sandboxes.base import SandboxSpec
from nightsmith.sandboxes.guarding import Plan, resource_limits
from nightsmith.sandboxes.runtime import environment, hidden, readable

INSTALL = "apt install bubblewrap, 0.7 or newer (Fedora: dnf install bubblewrap)"
_NAMESPACES = (
    "sysctl kernel.unprivileged_userns_clone=1; on Ubuntu 24.04 an AppArmor profile for bwrap that allows userns"
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_USERS = 1_879_048_192, 2**26
"""First and number of the user ids that systemd's conventions leave to nobody."""
_OWN_TASKS = 1
"""bubblewrap's first process inside counts as one of the user's."""


@dataclass(frozen=True)
class Bubblewrap:
    """bubblewrap around a guard that adds limits and a system-call filter."""

    name: str = "bubblewrap"
    isolates: bool = True
    mend: str = f"{INSTALL}; where it is there and fails: {_NAMESPACES}"

    def lacking(self) -> str | None:
        """What this machine lacks for it; whether the kernel allows namespaces only a start tells."""
        if sys.platform != "linux":
            return "it exists on Linux only"
        if not seccomp.is_known_architecture():
            return "no system-call table for this processor"
        return None if shutil.which("bwrap") else "bwrap is not on PATH"

    def command(self, spec: SandboxSpec, argv: tuple[str, ...]) -> tuple[str, ...]:
        """`bwrap … -- guard`. As root the program runs as a user id that nobody has, so that its tasks are counted."""
        user = _unused_user(spec.read_write) if os.geteuid() == 0 else None
        tasks = spec.limits.tasks
        plan = Plan(
            argv=argv,
            env=environment(spec, tmp="/tmp"),
            limits={**resource_limits(spec.limits), "RLIMIT_NPROC": tasks + (_OWN_TASKS if user is None else 0)},
            user=user,
            filter=seccomp.build(new_tasks=tasks > 1, network=spec.network, shared_system=False).hex(),
        )
        namespaces = ["--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"]
        namespaces += [] if spec.network else ["--unshare-net"]
        namespaces += ["--unshare-user"] if user is None else ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        settings = ["--die-with-parent", "--new-session", "--clearenv"]
        found = shutil.which("bwrap")
        if found is None:
            raise NightsmithError(f"bwrap is not on PATH any more: {INSTALL}.")
        return (found, *namespaces, *settings, *_mounts(spec), "--chdir", "/tmp", "--", *plan.command())


def _mounts(spec: SandboxSpec) -> Iterator[str]:
    """An empty read-only root, and in it, outer folders first, what can be seen."""
    places = {path: _shown(path, readable(spec)) for path in readable(spec)}
    places |= {path: ("--size", "4096", "--perms", "0555", "--tmpfs", path) for path in hidden(spec)}
    places |= {path: ("--bind", path, path) for path in spec.read_write}
    places |= {"/tmp": ("--size", str(spec.limits.tmp_bytes), "--perms", "1777", "--tmpfs", "/tmp")}
    above = {str(parent) for place in (*places, *_DEVICES) for parent in Path(place).parents[:-1]}
    folders = {path: ("--perms", "0755", "--dir", path) for path in above}  # else only bubblewrap itself can pass
    for _, mount in sorted((folders | places).items(), key=lambda place: len(Path(place[0]).parts)):
        yield from mount
    for device in _DEVICES:
        yield from ("--dev-bind", device, device)
    yield from ("--remount-ro", "/")


def _shown(path: str, shown: tuple[str, ...]) -> tuple[str, str, str]:
    """A path at its own place. A link into another one stays a link, so that what is hidden there is hidden here."""
    real = os.path.realpath(path)
    is_alias = real != path and any(Path(real).is_relative_to(other) for other in shown if other != path)
    return ("--symlink" if is_alias else "--ro-bind", real, path)


def _unused_user(folders: tuple[str, ...]) -> int:
    """A user id that nobody has; the folders that its program may write become its own."""
    first, count = _USERS
    user = first + secrets.randbelow(count)
    for folder in folders:
        os.chown(folder, user, user)
    return user
