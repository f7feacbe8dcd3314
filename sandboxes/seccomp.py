"""A system-call filter (seccomp BPF): what confined Python code never needs and what would reach out is refused.

It refuses by name, and everything newer than the table by number. Numbers: the kernel's syscall tables. x32 calls,
whose numbers have bit 30 set, fall under what is newer. See seccomp(2) and linux/filter.h for the instructions.
"""

import errno
import platform
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from nightsmith.sandboxes.syscalls import ARCHITECTURES, NUMBERS

NEWEST = 449
"""futex_waitv (Linux 5.16). Later calls are answered with ENOSYS, as by an older kernel."""
_LOAD, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_LAYOUT = "=HBBI"
_CLONE_NEW_NAMESPACES = 0x7E020000


def names(text: str) -> tuple[str, ...]:
    """System calls named in a text."""
    return tuple(text.split())


KERNEL = names("""
    ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp pidfd_open pidfd_getfd
    pidfd_send_signal perf_event_open bpf userfaultfd keyctl add_key request_key io_uring_setup io_uring_enter
    io_uring_register unshare setns mount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount
    fspick mount_setattr swapon swapoff acct quotactl quotactl_fd personality modify_ldt kexec_load
    kexec_file_load init_module finit_module delete_module reboot settimeofday clock_settime clock_adjtime
    adjtimex iopl ioperm lookup_dcookie nfsservctl vhangup syslog sethostname setdomainname name_to_handle_at
    open_by_handle_at uselib ustat sysfs _sysctl fanotify_init fanotify_mark mq_open mq_unlink mq_timedsend
    mq_timedreceive mq_notify mq_getsetattr shmget shmat shmctl shmdt semget semop semctl semtimedop msgget
    msgsnd msgrcv msgctl memfd_create memfd_secret migrate_pages move_pages mbind set_mempolicy remap_file_pages
""")
"""Other processes, namespaces, mounts, keys, the kernel itself, and memory that no limit counts."""
SOCKETS = names("socket connect bind listen accept accept4 sendmsg sendmmsg")
"""All but socketpair, which event loops need."""
OUT_OF_SIGHT = names("clone3 openat2")
"""Their flags lie in memory, which a filter cannot read; libraries fall back on clone and openat without them."""
NEW_TASKS = names("clone fork vfork")
SHARED_SYSTEM = names("""
    kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo setpriority ioprio_set sched_setscheduler sched_setparam
    sched_setattr get_robust_list setpgid chmod fchmod fchmodat chown fchown lchown fchownat utime utimes
    utimensat futimesat setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr getxattr lgetxattr
    fgetxattr listxattr llistxattr flistxattr inotify_init inotify_init1 inotify_add_watch
""")
"""What Landlock leaves open where processes and file systems are shared: signals, priorities, attributes of files."""


@dataclass(frozen=True)
class Condition:
    """A call that is refused by the value of one argument: outside `only`, with one of `bits`, or else any but zero."""

    name: str
    """System call."""
    argument: int
    """Which argument, from 0."""
    only: tuple[int, ...] = ()
    """Values that are let through, of the low half (32 bits), which is all that the kernel looks at."""
    bits: int = 0
    """Refused where one of these bits of the low half is set."""


_MODES = (
    *(("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("open", 2)),
    *(("openat", 3), ("creat", 1), ("mknod", 1), ("mknodat", 2)),
)
"""Calls that set a file's mode, and the argument that holds it."""
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX. Others type into terminals, set owners, flags of files."""
_FCNTL = (*range(8), 36, 37, 38, 1030, 1031, 1032)
"""Descriptors, flags, locks, sizes of pipes. Others set owners, leases and watches."""
_STREAMS = tuple(1 | flags for flags in (0, 0o4000, 0o2000000, 0o2004000))
"""SOCK_STREAM, perhaps with SOCK_NONBLOCK and SOCK_CLOEXEC."""
_INTERNET = (2, 10)
"""AF_INET, AF_INET6."""
ALWAYS = (
    Condition("ioctl", 1, only=_IOCTL),
    Condition("fcntl", 1, only=_FCNTL),
    Condition("prlimit64", 0),  # a process id: another's limits
    Condition("socketpair", 1, only=_STREAMS),  # a pair of datagrams could be sent to whatever is bound
    *(Condition(name, argument, bits=0o6000) for name, argument in _MODES),  # files that run as their owner
)


def build(*, new_tasks: bool, network: bool, shared_system: bool, machine: str | None = None) -> bytes:
    """The filter's program.

    Args:
        new_tasks: whether threads and processes may be started.
        network: whether sockets work.
        shared_system: whether the program shares process ids and mounts with the machine.
        machine: `x86_64` or `aarch64`; null: this one.
    """
    refused = [*KERNEL]
    conditions = [*ALWAYS]
    if new_tasks:
        conditions.append(Condition("clone", 0, bits=_CLONE_NEW_NAMESPACES))
    else:
        refused += NEW_TASKS
    if network:
        conditions.append(Condition("socket", 0, only=_INTERNET))  # not the machine's own sockets, nor the kernel's
    else:
        refused += SOCKETS
        conditions.append(Condition("sendto", 4))  # an address
    if shared_system:
        refused += SHARED_SYSTEM
        conditions.append(Condition("sched_setaffinity", 0))
    steps = _program(refused, conditions, machine or platform.machine())
    return b"".join(struct.pack(_LAYOUT, *step) for step in steps)


def read(program: bytes) -> list["Instruction"]:
    """The instructions of a program."""
    return [(code, true, false, operand) for code, true, false, operand in struct.iter_unpack(_LAYOUT, program)]


def is_known_architecture() -> bool:
    """Whether there is a table for this machine."""
    return platform.machine() in ARCHITECTURES


Instruction = tuple[int, int, int, int]
"""Code, instructions to skip if true, if false, operand."""


def _program(refused: Iterable[str], conditions: Iterable[Condition], machine: str) -> list[Instruction]:
    numbers = NUMBERS[machine]
    missing = _ERRNO | errno.ENOSYS
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_GREATER, 0, 1, NEWEST),
        (_RETURN, 0, 0, missing),
    ]
    for name in OUT_OF_SIGHT:
        program += [(_JUMP_EQUAL, 0, 1, numbers[name]), (_RETURN, 0, 0, missing)]
    for name in refused:
        if name in numbers:
            program += [(_JUMP_EQUAL, 0, 1, numbers[name]), _refusal()]
    for condition in conditions:
        if condition.name in numbers:
            program += _block(numbers[condition.name], condition)
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def _block(number: int, condition: Condition) -> list[Instruction]:
    """Tests of one call's argument; afterwards the call's number is loaded again."""
    low = _ARGUMENTS + 8 * condition.argument
    tests: list[Instruction] = [(_LOAD, 0, 0, low)]
    if condition.bits:
        tests += [(_JUMP_ANY_BIT, 0, 1, condition.bits), _refusal()]
    elif condition.only:
        left = range(len(condition.only), 0, -1)
        tests += [(_JUMP_EQUAL, skipped, 0, value) for skipped, value in zip(left, condition.only, strict=True)]
        tests += [_refusal()]
    else:
        tests += [(_JUMP_EQUAL, 1, 0, 0), _refusal(), (_LOAD, 0, 0, low + 4), (_JUMP_EQUAL, 1, 0, 0), _refusal()]
    return [(_JUMP_EQUAL, 0, len(tests) + 1, number), *tests, (_LOAD, 0, 0, _NUMBER)]


def _refusal() -> Instruction:
    return _RETURN, 0, 0, _ERRNO | errno.EPERM
