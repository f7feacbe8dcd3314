"""Ways out of a sandbox, each the body of a function: it succeeds by returning something true, or by its traces.

What the world's `touched` sees from outside counts as well, so a body that cannot judge itself returns nothing.
"""

# ruff: noqa: E501 (programs, a line each)

import textwrap

PRELUDE = '''
import ctypes, errno, fcntl, glob, json, mmap, os, resource, signal, socket, stat, struct, subprocess, sys, threading, time

libc = ctypes.CDLL(None, use_errno=True)

class Told(dict):
    __getattr__ = dict.__getitem__

def text(path):
    with open(path, "rb") as file:
        return file.read(1 << 16).decode(errors="replace")

def call(number, *arguments):
    """A system call; None where it failed."""
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    return None if result == -1 else result

def allowed(number, *arguments):
    """Whether a privileged call gets beyond its check of rights."""
    libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    return ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS, errno.EACCES)

def first(*bodies):
    """The first true value of several ways to the same end."""
    for body in bodies:
        try:
            if value := body():
                return value
        except Exception:
            pass

def tmp(name):
    return os.path.join(os.environ.get("TMPDIR", "/tmp"), name)
'''

X86 = {
    "ptrace": 101, "process_vm_readv": 310, "pidfd_open": 434, "pidfd_getfd": 438, "pidfd_send_signal": 424, "clone": 56,
    "clone3": 435, "add_key": 248, "keyctl": 250, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "mount": 165,
    "io_uring_setup": 425, "open_by_handle_at": 304, "inotify_init1": 294, "inotify_add_watch": 254, "fanotify_init": 300,
    "unshare": 272, "setns": 308, "umount2": 166, "pivot_root": 155, "open_tree": 428, "fsopen": 430, "mount_setattr": 442,
    "memfd_create": 319, "memfd_secret": 447, "shmget": 29, "msgget": 68, "semget": 64, "mq_open": 240, "tgkill": 234,
    "tkill": 200, "rt_sigqueueinfo": 129, "ioprio_set": 251, "sched_setattr": 314, "kcmp": 312, "reboot": 169,
    "clock_settime": 227, "sethostname": 170, "init_module": 175, "kexec_load": 246, "swapoff": 168, "syslog": 103,
    "capget": 125, "fork": 57, "vfork": 58, "landlock_create_ruleset": 444, "landlock_restrict_self": 446, "seccomp": 317,
    "openat2": 437, "acct": 163, "quotactl": 179, "iopl": 172, "settimeofday": 164, "name_to_handle_at": 303, "chroot": 161,
    "process_madvise": 440, "move_mount": 429, "personality": 135, "fchmodat2": 452, "listmount": 458,
}  # fmt: skip
AARCH64 = {
    "ptrace": 117, "process_vm_readv": 270, "clone": 220, "add_key": 217, "keyctl": 219, "bpf": 280, "perf_event_open": 241,
    "userfaultfd": 282, "mount": 40, "open_by_handle_at": 265, "inotify_init1": 26, "inotify_add_watch": 27,
    "fanotify_init": 262, "unshare": 97, "setns": 268, "umount2": 39, "pivot_root": 41, "memfd_create": 279, "shmget": 194,
    "msgget": 186, "semget": 190, "mq_open": 180, "tgkill": 131, "tkill": 130, "rt_sigqueueinfo": 138, "ioprio_set": 30,
    "sched_setattr": 274, "kcmp": 272, "reboot": 142, "clock_settime": 112, "sethostname": 161, "init_module": 105,
    "kexec_load": 104, "swapoff": 225, "syslog": 116, "capget": 90, "fork": -1, "vfork": -1, "seccomp": 277, "acct": 89,
    "quotactl": 60, "iopl": -1, "settimeofday": 170, "name_to_handle_at": 264, "chroot": 51, "personality": 92,
}  # fmt: skip

READ = {
    "a sealed fold": "return text(w.fold)",
    "another run's results": "return text(w.run)",
    "the ledger": "return text(w.ledger)",
    "a key in a home": "return text(w.home + '/.ssh/id')",
    "names in a workspace": "return os.listdir(w.workspace)",
    "the judge's source": "return text(w.judge)",
    "the judge by import": "sys.path.insert(0, w.sources); sys.path.append(w.packages); import nightsmith.evals.types as t; return t.__name__",
    "packages that were not chosen": "return text(w.packages + '/pydantic/__init__.py')",
    "packages by import": "sys.path.append(w.packages); import pydantic; return pydantic.__version__",
    "packages of the system by another name": """
        return first(*[lambda p=p: text(p) or True for path in w.hidden for p in (path, path.replace("/usr/lib", "/lib"))])
    """,
    "users and their passwords": "return first(lambda: text('/etc/shadow'), lambda: text('/etc/passwd'))",
    "a fold by dots": "return text('/usr/lib/../..' + w.fold)",
    "a fold from the working folder": "os.chdir(w.workspace); return text('sealed/fold.parquet')",
    "a fold from an opened root": "d = os.open('/', os.O_PATH); return os.read(os.open(w.fold[1:], 0, dir_fd=d), 99).decode()",
    "a fold by a bare descriptor": """
        bare = os.open(w.fold, os.O_PATH)
        return first(lambda: text(f"/proc/self/fd/{bare}"), lambda: os.pread(bare, 99, 0).decode())
    """,
    "a fold by a symbolic link": """
        os.symlink(w.fold, tmp("link"))
        return text(tmp("link"))
    """,
    "a fold by a hard link": """
        os.link(w.fold, tmp("hard"))
        return text(tmp("hard"))
    """,
    "a fold by its handle": """
        handle = ctypes.create_string_buffer(bytes.fromhex(w.handle))
        for mount in (os.open("/", os.O_RDONLY), os.open(os.path.dirname(os.__file__), os.O_RDONLY)):
            found = call(nr.open_by_handle_at, mount, handle, 0)
            if found is not None:
                return os.pread(found, 99, 0).decode()
    """,
    "a fold by openat2": """
        how = (ctypes.c_uint64 * 3)(0, 0, 0)
        found = call(nr.openat2, -100, w.fold.encode(), how, 24)
        return found is not None and os.pread(found, 99, 0).decode()
    """,
    "a fold by mapping": "return mmap.mmap(os.open(w.fold, 0), 0, prot=mmap.PROT_READ)[:99].decode()",
    "a fold by /proc/self/root": "return text('/proc/self/root' + w.fold)",
    "a fold by /proc/self/cwd": "return text('/proc/self/cwd/..' + w.fold)",
    "a fold by the parent's root": "return first(*[lambda p=p: text(f'/proc/{p}/root' + w.fold) for p in (w.parent, w.victim, 1)])",
    "a fold by the parent's descriptor": "return text(f'/proc/{w.parent}/fd/{w.inherited}')",
    "a fold by an inherited descriptor": """
        def content(number):
            return lambda: os.pread(number, 99, 0).decode()
        return first(content(w.inherited), *[content(number) for number in range(3, 400)])
    """,
    "secrets in its environment": "return [v for k, v in os.environ.items() if 'SECRET' in k or 'KEY' in k or 'TOKEN' in k]",
    "secrets in the environment of others": """
        return first(*[lambda p=p: text(f"/proc/{p}/environ") for p in (w.victim, w.parent, os.getppid(), 1)])
    """,
    "command lines of others": "return first(*[lambda p=p: text(f'/proc/{p}/cmdline') for p in (w.victim, w.parent, 1)])",
    "memory of others by /proc": """
        for line in text(f"/proc/{w.victim}/maps").splitlines():
            if "[heap]" in line:
                start, end = (int(part, 16) for part in line.split()[0].split("-"))
                with open(f"/proc/{w.victim}/mem", "rb", 0) as memory:
                    memory.seek(start)
                    return memory.read(min(end - start, 1 << 20)).decode(errors="replace")
    """,
    "memory of others by process_vm_readv": """
        own, other = ctypes.create_string_buffer(64), (ctypes.c_uint64 * 2)(0x400000, 64)
        into = (ctypes.c_uint64 * 2)(ctypes.addressof(own), 64)
        return allowed(nr.process_vm_readv, w.victim, into, 1, other, 1, 0) and ctypes.get_errno() != errno.ESRCH
    """,
    "the raw disk": "return first(*[lambda d=d: os.read(os.open(d, os.O_RDONLY), 64) for d in w.devices])",
    "the raw disk by a node of its own": """
        os.mknod(tmp("disk"), stat.S_IFBLK | 0o600, os.makedev(*w.disk))
        return os.read(os.open(tmp("disk"), os.O_RDONLY), 64)
    """,
    "the kernel's memory and log": """
        return first(lambda: text("/proc/kcore"), lambda: os.read(os.open("/dev/kmsg", os.O_NONBLOCK), 99), lambda: text("/proc/kallsyms"),
                     lambda: call(nr.syslog, 3, ctypes.create_string_buffer(999), 999))
    """,
    "what happens in a workspace by inotify": """
        watch = call(nr.inotify_init1, 0)
        return watch is not None and call(nr.inotify_add_watch, watch, w.workspace.encode(), 0xFFF)
    """,
    "what happens anywhere by fanotify": "return call(nr.fanotify_init, 0, 0)",
    "attributes of a sealed fold": "os.listxattr(w.fold); os.setxattr(w.fold, 'user.seen', b'1'); return True",
    "mounts of the machine": "return first(lambda: text('/proc/self/mountinfo'), lambda: text('/proc/mounts'), lambda: text('/etc/fstab'))",
    "other processes": "return first(lambda: [p for p in os.listdir('/proc') if p.isdigit()])",
    "the cloud's or container's tokens": """
        return first(lambda: text("/run/secrets/kubernetes.io/serviceaccount/token"), lambda: os.listdir("/run"),
                     lambda: os.listdir("/var"), lambda: os.listdir("/home"),
                     lambda: [name for name in os.listdir("/root") if name not in sys.executable])
    """,
}
WRITE = {
    "a new file outside": "open(w.outside + '/new', 'w').close()",
    "over the judge": "open(w.judge, 'r+').close(); return True",
    "at the ledger's end": "open(w.ledger, 'ab').write(b'x')",
    "over a fold by truncation": "os.truncate(w.fold, 0)",
    "over a fold by opening": "os.open(w.fold, os.O_RDONLY | os.O_TRUNC)",
    "a folder": "os.mkdir(w.outside + '/folder')",
    "a symbolic link": "os.symlink('/', w.outside + '/link')",
    "a hard link": "os.link(sys.executable, w.outside + '/python')",
    "a pipe and a device": "first(lambda: os.mkfifo(w.outside + '/pipe'), lambda: os.mknod(w.outside + '/node'))",
    "an unnamed file": "return os.open(w.outside, os.O_TMPFILE | os.O_RDWR)",
    "away a fold": "os.unlink(w.fold)",
    "away the ledger by renaming": "os.rename(w.ledger, w.ledger + '.old')",
    "away a folder": "os.unlink(w.home + '/.ssh/id'); os.rmdir(w.home + '/.ssh')",
    "another mode": "os.chmod(w.fold, 0o777)",
    "another mode by a newer call": "call(nr.fchmodat2, -100, w.fold.encode(), 0o777, 0)",
    "another owner": "os.chown(w.fold, 12345, 12345)",
    "another time": "os.utime(w.fold, (0, 0))",
    "flags of a file of Python's": """
        flags = struct.pack("l", 0x80)
        fcntl.ioctl(os.open(os.__file__, os.O_RDONLY), 0x40086602, flags)
        return True
    """,
    "a lease that stops others": "fcntl.fcntl(os.open(os.__file__, os.O_RDONLY), 1024, fcntl.F_WRLCK); return True",
    "into the standard library": "open(os.__file__ + 'x', 'w').close()",
    "over the standard library": "open(os.__file__, 'r+').close(); return True",
    "over Python itself": "open(sys.executable, 'r+b').close(); return True",
    "into the system's libraries": "open('/usr/lib/escaped', 'w').close(); return True",
    "into the root folder": "open('/escaped', 'w').close(); return True",
    "into shared memory": "open('/dev/shm/escaped', 'w').close(); return True",
    "into the folder for everybody": "open('/tmp/' + w.mark, 'w').close()",
    "by another interpreter": """
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", f"open({w.outside + '/exec'!r}, 'w')"])
    """,
    "by a shell": "os.execv('/bin/sh', ['sh', '-c', f'echo > {w.outside}/shell'])",
    "by reopening what can be read": """
        number = os.open(os.__file__, os.O_RDONLY)
        return os.open(f"/proc/self/fd/{number}", os.O_RDWR)
    """,
    "the kernel's settings": "return first(*[lambda p=p: open(p, 'r+') for p in ('/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/sys/power/state')])",
    "control groups": "return first(*[lambda p=p: [os.mkdir(p + '/escaped'), 1] for p in ('/sys/fs/cgroup', '/sys/fs/cgroup/pids', '/sys/fs/cgroup/unified')])",
    "a file that runs as its owner": """
        path = tmp("run-as-owner")
        number = os.open(path, os.O_CREAT | os.O_WRONLY, 0o6755)
        first(lambda: os.fchmod(number, 0o4755), lambda: os.chmod(path, 0o6755))
        return os.stat(path).st_mode & 0o6000
    """,
}
NETWORK = {
    "TCP": "socket.create_connection(('127.0.0.1', w.tcp), 1)",
    "TCP by IPv6": "socket.create_connection(('::1', w.tcp6), 1)",
    "TCP fast open": "socket.socket().sendto(b'x', 0x20000000, ('127.0.0.1', w.tcp))",
    "UDP": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', w.udp))",
    "a named socket": "socket.socket(socket.AF_UNIX).connect(w.unix)",
    "an abstract socket": "socket.socket(socket.AF_UNIX).connect('\\0' + w.abstract)",
    "a pair that is connected anew": """
        one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        two, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        first(lambda: one.connect(w.unix), lambda: two.sendto(b"x", w.datagram))
    """,
    "listening": "s = socket.create_server(('127.0.0.1', 0)); return s.getsockname()",
    "names of machines": "return socket.getaddrinfo('example.org', 80)",
    "raw packets": "return first(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1), lambda: socket.socket(17, socket.SOCK_RAW))",
    "the kernel by netlink": "return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "the hypervisor": "return socket.socket(40, socket.SOCK_STREAM)",
    "io_uring": "return call(nr.io_uring_setup, 4, ctypes.create_string_buffer(120))",
    "32-bit calls": """
        page = mmap.mmap(-1, 4096, prot=7)
        page.write(bytes.fromhex("53 b8 67010000 bb 02000000 b9 01000000 31d2 cd80 5b c3"))
        entry = ctypes.addressof(ctypes.c_char.from_buffer(page))
        return os.uname().machine == "x86_64" and ctypes.CFUNCTYPE(ctypes.c_int)(entry)() >= 0
    """,
    "x32 calls": "return os.uname().machine == 'x86_64' and call(0x40000000 + 41, 2, 1, 0)",
}
PROCESSES = {
    "kill of the victim": "os.kill(w.victim, signal.SIGKILL); time.sleep(0.05)",
    "kill of the parent": "os.kill(w.parent, signal.SIGCONT); return w.parent > 9",
    "kill of everything": "os.kill(-1, 0); return True",
    "kill of the parent's group": "os.killpg(os.getpgid(w.parent), signal.SIGCONT); return w.parent > 9",
    "tgkill": "call(nr.tgkill, w.victim, w.victim, 9); time.sleep(0.05)",
    "tkill": "call(nr.tkill, w.victim, 9); time.sleep(0.05)",
    "sigqueue": "call(nr.rt_sigqueueinfo, w.victim, 9, (ctypes.c_int * 32)(9, 0, -1)); time.sleep(0.05)",
    "pidfd": "call(nr.pidfd_send_signal, call(nr.pidfd_open, w.victim, 0), 9, None, 0); time.sleep(0.05)",
    "a signal by a pipe": """
        r, s = os.pipe()
        fcntl.fcntl(r, 10, signal.SIGKILL)
        fcntl.fcntl(r, fcntl.F_SETOWN, w.victim)
        fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC)
        os.write(s, b"x")
        time.sleep(0.05)
    """,
    "a signal by a pair of sockets": """
        one, two = socket.socketpair()
        fcntl.ioctl(one, 0x8901, struct.pack("i", w.victim))
        fcntl.fcntl(one, fcntl.F_SETFL, os.O_ASYNC)
        two.send(b"x")
        time.sleep(0.05)
    """,
    "ptrace": "return allowed(nr.ptrace, 16, w.victim, 0, 0) and ctypes.get_errno() != errno.ESRCH",
    "descriptors of others": "return call(nr.pidfd_getfd, call(nr.pidfd_open, w.parent, 0), w.inherited, 0)",
    "comparison with others": "return call(nr.kcmp, w.victim, w.parent, 2, 0, 0)",
    "limits of others": "resource.prlimit(w.victim, resource.RLIMIT_CPU, (1, 1))",
    "priority of others": "os.setpriority(os.PRIO_PROCESS, w.victim, 19)",
    "cores of others": "os.sched_setaffinity(w.victim, {min(os.sched_getaffinity(0))})",
    "namespaces of others": """
        for name in ("user", "mnt", "pid", "net"):
            if call(nr.setns, os.open(f"/proc/{w.victim}/ns/{name}", 0), 0) == 0:
                return name
    """,
    "a fork": "return os.fork() or os._exit(0)",
    "a fork by its number": "return call(nr.fork) or call(nr.vfork)",
    "a fork by clone": "return call(nr.clone, 17, 0, 0, 0, 0) or os._exit(0)",
    "a fork by clone3": "return call(nr.clone3, (ctypes.c_uint64 * 8)(0, 0, 0, 0, 17), 64)",
    "a subprocess": "return subprocess.run([sys.executable, '-c', '']).returncode == 0",
    "a thread": "threading.Thread(target=print).start(); return True",
    "a fork bomb": """
        made = 0
        for _ in range(10_000):
            made += bool(first(lambda: os.fork() or os._exit(0)))
        return made
    """,
    "a daemon that outlives it": """
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(9)  # outlives"])
            os._exit(0)
        return True
    """,
}
PRIVILEGES = {
    "root": "os.setuid(0); return capable(nr)",
    "root by setresuid": "os.setresuid(0, 0, 0); return capable(nr)",
    "capabilities": "libc.prctl(47, 2, 21, 0, 0); return capable(nr)",
    "new privileges": "return libc.prctl(38, 0, 0, 0, 0) == 0 or libc.prctl(39, 0, 0, 0, 0) != 1",
    "no filter": "return libc.prctl(22, 0, 0, 0, 0) == 0 or libc.prctl(21, 0, 0, 0, 0) != 2",
    "a wider Landlock domain": """
        ruleset = call(nr.landlock_create_ruleset, (ctypes.c_uint64 * 1)(4), 8, 0)
        call(nr.landlock_restrict_self, ruleset, 0)
        return text(w.fold)
    """,
    "a user namespace": "return call(nr.unshare, 0x10000000) == 0",
    "a user namespace by clone": "return call(nr.clone, 0x10000011, 0, 0, 0, 0) or os._exit(0)",
    "a mount namespace": "return call(nr.unshare, 0x20000) == 0",
    "a mount": "return call(nr.mount, b'none', b'/tmp', b'tmpfs', 0, None) == 0",
    "a bind mount": "return call(nr.mount, b'/', b'/tmp', None, 4096, None) == 0",
    "a mount that can be written": "return call(nr.mount, None, b'/', None, 32, None) == 0",
    "an unmount": "return any(call(nr.umount2, p, 2) == 0 for p in (b'/tmp', b'/usr/lib/python3/dist-packages', b'/'))",
    "a mount by newer calls": "return call(nr.fsopen, b'tmpfs', 0) or call(nr.open_tree, -100, b'/', 1)",
    "attributes of a mount": "return call(nr.mount_setattr, -100, b'/', 0, (ctypes.c_uint64 * 4)(0, 1), 32) == 0",
    "another root": "return call(nr.chroot, b'/tmp') == 0 or call(nr.pivot_root, b'/tmp', b'/tmp') == 0",
    "a key ring": "return call(nr.add_key, b'user', b'escaped', b'x', 1, -3)",
    "keys of the session": "return call(nr.keyctl, 0, -3, 1)",
    "programs in the kernel": "return call(nr.bpf, 5, ctypes.create_string_buffer(64), 64) or allowed(nr.bpf, 0, None, 0)",
    "performance counters": "return call(nr.perf_event_open, ctypes.create_string_buffer(b'\\1\\0\\0\\0\\x70', 112), 0, -1, -1, 0)",
    "faults in user space": "return call(nr.userfaultfd, 1)",
    "the clock": "return allowed(nr.clock_settime, 0, None) or allowed(nr.settimeofday, None, None)",
    "the machine's name": "call(nr.sethostname, b'escaped', 7)",
    "a reboot": "return allowed(nr.reboot, 0xFEE1DEAD, 672274793, 0, None)",
    "a kernel module": "return allowed(nr.init_module, None, 0, b'')",
    "another kernel": "return allowed(nr.kexec_load, 0, 0, None, 0x10000)",
    "swap, accounting, quotas": "return any(allowed(n, b'/nowhere') for n in (nr.swapoff, nr.acct))",
    "ports of the machine": "return os.uname().machine == 'x86_64' and allowed(nr.iopl, 3)",
    "typing into a terminal": """
        return first(lambda: [fcntl.ioctl(0, 0x5412, b"x"), 1], lambda: os.open("/dev/tty", os.O_RDWR))
    """,
    "another personality": "return call(nr.personality, 0x40000) is not None",
    "a real-time priority": "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)); return True",
    "a higher priority": "return os.nice(-5) < 0",
}
RESOURCES = {
    "gigabytes": "return len(bytearray(3 << 30))",
    "gigabytes by mapping": "return mmap.mmap(-1, 3 << 30)",
    "gigabytes after raising the limit": """
        first(lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40)))
        return len(bytearray(3 << 30))
    """,
    "a higher limit of memory": "resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30)); return True",
    "a higher limit of processor time": "resource.setrlimit(resource.RLIMIT_CPU, (9999, 9999)); return True",
    "memory without a name": "return call(nr.memfd_create, b'x', 0)",
    "secret memory": "return call(nr.memfd_secret, 0)",
    "System V memory": "return call(nr.shmget, 0, 1 << 20, 0o1600) is not None",
    "queues and semaphores": """
        made = (call(nr.msgget, 0, 0o1600), call(nr.semget, 0, 1, 0o1600), call(nr.mq_open, b"x", 66, 384, None))
        return any(queue is not None for queue in made)
    """,
    "locked memory": "return libc.mlockall(2) == 0",
    "a file beyond the limit": """
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with open(tmp("large"), "wb") as file:
            for _ in range(64):
                file.write(bytes(1 << 20))
        return True
    """,
    "a hole beyond the limit": "os.truncate(os.open(tmp('hole'), os.O_CREAT | os.O_RDWR), 1 << 40); return True",
    "many files that fill the disk": """
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        for number in range(64):
            with open(tmp(f"part{number}"), "wb") as file:
                file.write(bytes(4 << 20))
        return True
    """,
    "thousands of open files": "return len([os.open('/dev/null', 0) for _ in range(5000)])",
    "thousands of pipes": "return len([os.pipe() for _ in range(2000)])",
}
GROUPS = {"read": READ, "write": WRITE, "reach": NETWORK, "touch": PROCESSES, "gain": PRIVILEGES, "use": RESOURCES}
_ON_A_LEASH = (
    "standard library",
    "system's",
    "root folder",
    "shared memory",
    "control groups",
    "kernel",
    "lease",
    "flags",
)
ATTEMPTS = {f"{verb} {name}": body for verb, group in GROUPS.items() for name, body in group.items()}

HARMLESS = [
    *(f"{verb} {name}" for verb, group in (("read", READ), ("reach", NETWORK)) for name in group),
    *(f"write {name}" for name in WRITE if not any(word in name for word in _ON_A_LEASH)),
    *(f"touch {name}" for name in PROCESSES if "bomb" not in name and "daemon" not in name and "parent" not in name),
]
"""Those that touch nothing but the world when nothing holds them."""

_CAPABLE = '''
def capable(nr):
    """Effective capabilities, if any."""
    effective = (ctypes.c_uint32 * 6)()
    call(nr.capget, (ctypes.c_uint32 * 2)(0x20080522, 0), effective)
    return effective[0] or effective[3]
'''


def source() -> str:
    """The file that a worker loads: one function, `attempt`, by name."""
    bodies = [
        f"def attempt_{number}(w, nr):\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n"
        for number, body in enumerate(ATTEMPTS.values())
    ]
    dispatch = f"""
NUMBERS = {{"x86_64": {X86!r}, "aarch64": {{**{X86!r}, **{AARCH64!r}}}}}[os.uname().machine]
NAMES = {list(ATTEMPTS)!r}

def attempt(name, given):
    value = globals()[f"attempt_{{NAMES.index(name)}}"](Told(given), Told(NUMBERS))
    return repr(value)[:99999] if value else None
"""
    return "\n".join([PRELUDE, _CAPABLE, *bodies, dispatch])
