"""Holds an external trainer on a leash: `python -I -S keeper.py COMMAND…`, with a pipe to its master on stdin.

The trainer runs in a session of its own. A byte `T` from the master becomes SIGTERM for its process group; when the
pipe closes, because the master closed it or died in whatever way, the group is killed. So no trainer outlives its job.
Exit status: the trainer's, 128 and the number of the signal that ended it, or 127 where it cannot be started.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys

REAP_S = 10.0
"""Seconds that a killed trainer may take to vanish."""


def main(argv: list[str]) -> int:
    """Run the command to its end, or to the master's."""
    try:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        print(error, file=sys.stderr)
        return 127
    end = os.pidfd_open(child.pid)
    while True:
        ready, _, _ = select.select([0, end], [], [])
        if end in ready:
            break
        if os.read(0, 1) != b"T":
            _signal(child.pid, signal.SIGKILL)
            child.wait(REAP_S)
            break
        _signal(child.pid, signal.SIGTERM)
    _signal(child.pid, signal.SIGKILL)  # ranks that outlived their launcher
    code = child.wait()
    return code if code >= 0 else 128 - code


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
