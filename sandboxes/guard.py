"""The last step before a confined program: limits, user, Landlock, system-call filter, exec. Standard library only.

This file's text is handed to `python -I -S -c`, so that nothing of it has to be readable inside. What it sets can
neither be undone by the program nor by its children.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF, _PATH_BENEATH = 444, 445, 446, 1
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 22, 24, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, _SECCOMP_MODE_FILTER = 47, 4, 2
_CAPABILITY_VERSION_3 = 0x20080522


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def enter(plan: dict[str, Any]) -> None:
    """Confine this process as the plan says (`guarding.Plan`), and become its program."""
    if plan["user"] is not None:
        become(plan["user"])
    elif plan["drop_capabilities"]:
        drop_capabilities()
    if sys.platform == "linux":
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        prctl(_PR_SET_NO_NEW_PRIVS, 1)
    os.closerange(3, 1024)
    for name, value in plan["limits"].items():
        limit(getattr(resource, name), value)
    if plan["landlock"]:
        restrict_files(**plan["landlock"])
    if plan["filter"]:
        filter_calls(bytes.fromhex(plan["filter"]))
    os.execve(plan["argv"][0], plan["argv"], plan["env"])


def become(user: int) -> None:
    """Give up root for an unused user and group id, and with it every capability."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def drop_capabilities() -> None:
    """Give up every capability for good; a root without them is a user who owns root's files."""
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(64):  # refused from the kernel's last one on, or without the right to do so
        _LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    checked(_LIBC.capset(header, (ctypes.c_uint32 * 6)()))


def limit(which: int, value: int) -> None:
    """Lower a resource limit for good; one that is lower already stays."""
    _, hard = resource.getrlimit(which)
    lowest = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (lowest, lowest))


def restrict_files(handled: list[int], rules: list[tuple[str, int]]) -> None:
    """A Landlock domain: of the handled rights, only those of the rules remain. See landlock(7)."""
    attributes = (ctypes.c_uint64 * len(handled))(*handled)
    ruleset = system_call(_CREATE_RULESET, attributes, ctypes.c_size_t(ctypes.sizeof(attributes)), 0)
    for path, access in rules:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = _PathBeneath(access, folder)
        system_call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
        os.close(folder)
    system_call(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def filter_calls(program: bytes) -> None:
    """Load a seccomp filter of 8-byte instructions."""
    filtering = _Program(len(program) // 8, program)
    prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(filtering))


def prctl(option: int, *arguments: Any) -> None:
    """Set or drop something of this process; what is not given is 0."""
    given = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in arguments]
    checked(_LIBC.prctl(option, *given, *[ctypes.c_ulong(0)] * (4 - len(given))))


def system_call(number: int, *arguments: Any) -> int:
    """A system call by its number."""
    return checked(_LIBC.syscall(ctypes.c_long(number), *arguments))


def checked(result: int) -> int:
    """The result, unless it says that the call failed. Raises OSError."""
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


if __name__ == "__main__":
    enter(json.loads(sys.argv[1]))
