"""One of several processes that train together: `torchrun -m nightsmith.trainer.rank RUN_DIR ATTEMPT`.

Rank 0 writes the journal and the checkpoints; every rank writes its output to `rank-N.log` and how it ended to
`rank-N.json`. Exit status: 0 however the run ended; 75 another process is this rank.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from pydantic import TypeAdapter

from nightsmith.trainer import runfolder
from nightsmith.trainer.attempt import Attempt
from nightsmith.trainer.journal import JOURNAL, Journal
from nightsmith.trainer.ranks import Rank
from nightsmith.trainer.spec import LaunchSpec, RunSpec, RunStatus
from nightsmith.trainer.torchrun import die_with_parent
from nightsmith.trainer.worker import BALLAST, TAKEN, make_result, outcome, run_here

ALIVE_EVERY_S = 1.0


def main() -> int:
    """Run this rank's part of an attempt. Returns the exit status."""
    die_with_parent()
    run_dir, number = Path(sys.argv[1]), int(os.environ["RANK"])
    rank = Rank(run_dir, number)
    _write_output_to(run_dir / rank.log)
    stopped = threading.Event()
    for asked in (signal.SIGTERM, signal.SIGINT):
        signal.signal(asked, lambda *_: stopped.set())
    lock = runfolder.take_lock(run_dir, 0, rank.lock)
    if lock is None:
        return TAKEN
    os.write(lock, str(os.getpid()).encode())
    threading.Thread(target=_live, args=(lock,), daemon=True).start()
    spec: RunSpec = TypeAdapter[RunSpec](RunSpec).validate_json((run_dir / runfolder.SPEC).read_bytes())
    launch = LaunchSpec.model_validate_json((run_dir / runfolder.LAUNCH).read_bytes())
    devices = _share(launch, number)
    attempt = Attempt(
        run_dir, devices, _journal(run_dir, number, int(sys.argv[2])),
        ending=lambda: RunStatus.STOPPED if stopped.is_set() else None,
    )  # fmt: skip
    status, reason = outcome(lambda: run_here(attempt, spec), rank.log)
    (run_dir / BALLAST).unlink(missing_ok=True)
    result = make_result(attempt, spec, status, reason, devices)
    runfolder.write_atomic(rank.end, result.model_dump_json(indent=1))
    return 0


def _live(lock: int) -> None:
    """Signs of life, for as long as threads of this process run."""
    while True:
        os.utime(lock)
        time.sleep(ALIVE_EVERY_S)


def _share(launch: LaunchSpec, number: int) -> tuple[str, ...]:
    """This rank's own devices; other accelerators are hidden from it."""
    each = len(launch.devices) // launch.processes
    devices = launch.devices[number * each : (number + 1) * each]
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")  # the job's: as leased, or as Slurm numbers them
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(shown[number * each : (number + 1) * each])
    return devices


def _journal(run_dir: Path, number: int, attempt: int) -> Journal:
    """The run's journal is rank 0's: what the others would write is the same."""
    return Journal(run_dir / JOURNAL if number == 0 else Path(os.devnull), attempt)


def _write_output_to(path: Path) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)


if __name__ == "__main__":
    sys.exit(main())
