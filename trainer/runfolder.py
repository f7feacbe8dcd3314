"""The files of a run folder through which a job and its controllers agree. Torch-free.

spec.json     what is run: written by the starter
launched-N.json  what the launcher calls attempt N: for people
launch.json   how the newest attempt is started: written by the starter
lock          held (flock) by the process that runs the job, as long as it lives
claim-N.json  attempt N was taken by this process; created once, never changed: no attempt runs twice
events.jsonl  heartbeats, phases, steps
rank-N.lock   held by process N of several that train; touched as its sign of life (see `ranks`)
rank-N.json   how that process ended, as a RunResult
result.json   the RunResult
exit.json     attempt N has ended, and this is the result's digest: written last
"""

import fcntl
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from pydantic import Field

from nightsmith.record.digest import Contract, sha256
from nightsmith.record.errors import Damaged
from nightsmith.trainer.spec import LaunchSpec, RunResult, RunSpec

SPEC, LAUNCH, LOCK, RESULT, EXIT, LOG = "spec.json", "launch.json", "lock", "result.json", "exit.json", "log.txt"


class Claim(Contract):
    """Which process took an attempt."""

    attempt: int = Field(ge=1)
    """Number of the start, from 1."""
    pid: int = Field(ge=0)
    """Process id; 0: a controller declared the attempt void before any process took it."""
    pid_start: int = Field(ge=0)
    """Start time of that process in clock ticks since boot: tells it from a later one with the same id."""
    host: str = ""
    """Machine that it runs on: process ids are of one machine. Empty: as old claims are, this one."""


class ExitRecord(Contract):
    """That an attempt has ended, in order."""

    attempt: int = Field(ge=1)
    """Number of the start."""
    result_digest: str
    """SHA-256 of result.json."""


def write_atomic(path: Path, content: str) -> None:
    """Write a file that is there whole or not at all, also after a power cut."""
    aside = path.with_name(f".{path.name}.{_writer()}.tmp")
    with aside.open("w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def take_lock(run_dir: Path, wait_s: float, name: str = LOCK) -> int | None:
    """The lock's file descriptor, or None while another process holds it. The kernel frees it when this one dies."""
    file = os.open(run_dir / name, os.O_RDWR | os.O_CREAT, 0o644)
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() >= until:
                os.close(file)
                return None
            time.sleep(0.05)


def is_locked(run_dir: Path, name: str = LOCK) -> bool:
    """Whether a process runs the job. Ask only of a claimed attempt: the probe itself holds the lock for a moment."""
    file = take_lock(run_dir, 0, name)
    if file is not None:
        os.close(file)
    return file is None


def claim(run_dir: Path, claimed: Claim) -> bool:
    """Take an attempt; False where it was taken before. Whoever links the file first has it, for ever."""
    aside = run_dir / f".claim-{claimed.attempt}.{_writer()}.tmp"
    aside.write_text(claimed.model_dump_json())
    try:
        os.link(aside, _claim_path(run_dir, claimed.attempt))
    except FileExistsError:
        return False
    finally:
        aside.unlink()
    return True


def void(attempt: int) -> Claim:
    """A claim that keeps every process from taking the attempt."""
    return Claim(attempt=attempt, pid=0, pid_start=0)


def read_claim(run_dir: Path, attempt: int) -> Claim | None:
    """Who took the attempt, if anybody did."""
    try:
        return Claim.model_validate_json(_claim_path(run_dir, attempt).read_bytes())
    except FileNotFoundError:
        return None


def prepare(run_dir: Path, spec: RunSpec, launch: LaunchSpec, attempt: int) -> None:
    """Write what the process of an attempt reads, and clear away how earlier attempts ended. May be repeated."""
    with suppress(FileNotFoundError):
        if ExitRecord.model_validate_json((run_dir / EXIT).read_bytes()).attempt < attempt:
            (run_dir / EXIT).unlink()
            (run_dir / RESULT).unlink()
    write_atomic(run_dir / SPEC, spec.model_dump_json(indent=1))
    write_atomic(run_dir / LAUNCH, launch.model_dump_json(indent=1))


def finish(run_dir: Path, attempt: int, result: RunResult) -> None:
    """Write the result, then the exit record that makes it valid."""
    text = result.model_dump_json(indent=1)
    write_atomic(run_dir / RESULT, text)
    write_atomic(run_dir / EXIT, ExitRecord(attempt=attempt, result_digest=sha256(text)).model_dump_json())


def read_end(run_dir: Path, attempt: int) -> RunResult | None:
    """The result of an attempt that has ended in order; None where it has not.

    Raises:
        Damaged: result.json is not the file that the exit record names.
    """
    try:
        record = ExitRecord.model_validate_json((run_dir / EXIT).read_bytes())
    except FileNotFoundError:
        return None
    if record.attempt != attempt:
        return None
    with suppress(FileNotFoundError, ValueError):
        text = (run_dir / RESULT).read_text()
        if sha256(text) == record.result_digest:
            return RunResult.model_validate_json(text)
    raise Damaged(f"{run_dir / RESULT} is not the file that its exit record names. Start the job under another step.")


def has_ended(run_dir: Path, attempt: int) -> bool:
    """Whether an attempt has left its exit record."""
    try:
        return ExitRecord.model_validate_json((run_dir / EXIT).read_bytes()).attempt == attempt
    except FileNotFoundError:
        return False


def see_afresh(run_dir: Path) -> None:
    """Have a network file system show what another machine wrote: changing a folder ends what is cached of it."""
    aside = run_dir / f".fresh.{_writer()}.tmp"
    aside.touch()
    aside.unlink()


def process_start(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[19])


def process_age_s() -> float:
    """Seconds since this process was started."""
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return uptime - (process_start(os.getpid()) or 0) / os.sysconf("SC_CLK_TCK")


def _writer() -> str:
    """Tells the temporary files of two writers apart."""
    return f"{os.getpid()}-{threading.get_ident()}"


def _claim_path(run_dir: Path, attempt: int) -> Path:
    return run_dir / f"claim-{attempt}.json"
