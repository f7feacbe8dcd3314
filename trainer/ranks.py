"""Several processes that train together, seen from the worker: started through torchrun, watched, ended. Torch-free.

The worker claims the attempt, holds the run's lock and writes its result; each rank (`trainer.rank`) holds a lock of
its own, touches it as a sign of life, and leaves `rank-N.json` at its end. Whatever ends one rank ends all of them: the
kernel kills torchrun with the worker, and each rank with torchrun.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from nightsmith.record.errors import NightsmithError
from nightsmith.trainer import runfolder
from nightsmith.trainer.attempt import Attempt, Ended
from nightsmith.trainer.spec import LaunchSpec, RunResult, RunStatus

POLL_S = 0.1
HUNG_AFTER_S = 60.0
"""Seconds without a sign of life after which a rank hangs."""
UP_WITHIN_S = 300.0
"""Seconds that a rank may take to come up."""
SETTLE_S = 3.0
"""Seconds that the other ranks have for an end of their own, once one has ended otherwise than finished."""
GONE_WITHIN_S = 10.0
"""Seconds that killed ranks of an earlier attempt may take to be gone."""


def run(attempt: Attempt, launch: LaunchSpec, number: int) -> None:
    """Have the ranks of a launch run attempt `number` of its spec; what rank 0 establishes becomes the attempt's facts.

    Raises:
        Ended: a rank ended otherwise than finished, vanished, or hangs; the reason names it.
        NightsmithError: a rank of an earlier attempt is still there.
    """
    ranks = [Rank(attempt.run_dir, number) for number in range(launch.processes)]
    for rank in ranks:
        rank.clear()
    torchrun = _start(attempt.run_dir, launch, number)
    try:
        _watch(attempt, ranks, torchrun)
    finally:
        for rank in ranks:
            rank.signal(signal.SIGKILL)
        torchrun.kill()
        torchrun.wait()
        _take_facts(attempt, ranks)


@dataclass
class Rank:
    """One of the processes, from outside."""

    run_dir: Path
    number: int
    _seen: tuple[int, float] = field(default_factory=lambda: (0, time.monotonic()))
    """Newest sign of life, and when it was first seen by this process's own clock."""
    _asked: bool = False

    @property
    def name(self) -> str:
        """In reasons."""
        return f"Rank {self.number}"

    @property
    def log(self) -> str:
        """Name of the file with its output."""
        return f"rank-{self.number}.log"

    @property
    def lock(self) -> str:
        """Name of the file that it holds while it lives; holds its process id."""
        return f"rank-{self.number}.lock"

    @property
    def end(self) -> Path:
        """Where it writes how it ended."""
        return self.run_dir / f"rank-{self.number}.json"

    def clear(self) -> None:
        """Take away what an earlier attempt has left. Raises NightsmithError where its process still lives."""
        file = runfolder.take_lock(self.run_dir, GONE_WITHIN_S, self.lock)
        if file is None:
            raise NightsmithError(
                f"{self.name} of an earlier attempt still runs (process {self._pid()}). End it and start again."
            )
        os.ftruncate(file, 0)
        os.close(file)
        self.end.unlink(missing_ok=True)

    def vanished(self) -> bool:
        """Whether it came up and is gone without saying how it ended."""
        return self._pid() is not None and not runfolder.is_locked(self.run_dir, self.lock) and self.ended() is None

    def ended(self) -> RunResult | None:
        """How it ended; None: not yet."""
        with suppress(FileNotFoundError):
            return RunResult.model_validate_json(self.end.read_bytes())
        return None

    def ended_at(self) -> int:
        """When, in nanoseconds."""
        return self.end.stat().st_mtime_ns

    def silent_s(self) -> float:
        """Seconds since a sign of life was new to this process."""
        touched = (self.run_dir / self.lock).stat().st_mtime_ns
        if touched != self._seen[0]:
            self._seen = touched, time.monotonic()
        return time.monotonic() - self._seen[1]

    def hangs(self) -> bool:
        """Whether it lives, or should, and gives no sign of it."""
        return self.ended() is None and self.silent_s() > (UP_WITHIN_S if self._pid() is None else HUNG_AFTER_S)

    def ask_to_end(self) -> None:
        """Have it save and leave; once, as soon as it is up."""
        self._asked = self._asked or self.signal(signal.SIGTERM)

    def signal(self, number: signal.Signals) -> bool:
        """Signal its process group (torchrun gives each rank one). Returns whether it is up."""
        pid = self._pid()
        if pid is None:
            return False
        if runfolder.is_locked(self.run_dir, self.lock):
            with suppress(ProcessLookupError):
                os.killpg(pid, number)
        return True

    def _pid(self) -> int | None:
        text = (self.run_dir / self.lock).read_text()
        return int(text) if text else None


def _start(run_dir: Path, launch: LaunchSpec, number: int) -> subprocess.Popen[bytes]:
    """Torchrun for the launch, on loopback; its own output goes where the worker's goes."""
    argv = [
        sys.executable, "-P", "-m", "nightsmith.trainer.torchrun", "--standalone", "--local-addr", "127.0.0.1",
        "--nproc-per-node", str(launch.processes), "-m", "nightsmith.trainer.rank", str(run_dir), str(number),
    ]  # fmt: skip
    env = {"PYTHONSAFEPATH": "1", "GLOO_SOCKET_IFNAME": "lo", **os.environ}
    return subprocess.Popen(argv, cwd=run_dir, env=env, stdin=subprocess.DEVNULL, start_new_session=True)


def _watch(attempt: Attempt, ranks: list[Rank], torchrun: "subprocess.Popen[bytes]") -> None:
    """Wait until all have finished. Raises Ended for everything else."""
    bad_since = float("inf")
    while True:
        alone = torchrun.poll() is not None  # asked for before the ends are, which are written before it leaves
        ends = [rank.ended() for rank in ranks]
        if all(end is not None and end.status == RunStatus.FINISHED for end in ends):
            return
        if lost := [rank for rank in ranks if rank.vanished()]:
            raise Ended(RunStatus.KILLED, _lost(lost, "vanished without saying why: it was killed, or it crashed"))
        if hung := [rank for rank in ranks if rank.hangs()]:
            raise Ended(RunStatus.HUNG, _lost(hung, "gave no sign of life any more"))
        if any(end is not None and end.status != RunStatus.FINISHED for end in ends):
            bad_since = min(bad_since, time.monotonic())
        if alone or time.monotonic() > bad_since + SETTLE_S or (None not in ends and bad_since < float("inf")):
            raise _first_end(attempt, ranks, torchrun.returncode)
        if attempt.ending() is not None:
            for rank in ranks:
                rank.ask_to_end()
        time.sleep(POLL_S)


def _lost(ranks: list[Rank], what: str) -> str:
    names = " and ".join(rank.name for rank in ranks)
    logs = ", ".join(rank.log for rank in ranks)
    return f"{names} {what}. Its output is in {logs}; started again, the run goes on from its last checkpoint."


def _first_end(attempt: Attempt, ranks: list[Rank], torchrun_status: int | None) -> Ended:
    """The end that brought on the others."""
    bad = [(rank, end) for rank in ranks if (end := rank.ended()) is not None and end.status != RunStatus.FINISHED]
    if not bad:
        return Ended(
            RunStatus.FAILED, f"torchrun left with status {torchrun_status}. Its output is in {runfolder.LOG}."
        )
    rank, end = min(bad, key=lambda each: each[0].ended_at())
    if end.status == RunStatus.STOPPED and (status := attempt.ending()) is not None:
        return Ended(status, end.reason)
    together = len(bad) == len(ranks) and len({each.reason for _, each in bad}) == 1
    return Ended(end.status, end.reason if together else f"{rank.name}: {end.reason}")


def _take_facts(attempt: Attempt, ranks: list[Rank]) -> None:
    facts, ends = attempt.facts, [end for rank in ranks if (end := rank.ended()) is not None]
    facts.peak_memory_gib = max((end.peak_memory_gib for end in ends), default=0.0)
    if (first := ranks[0].ended()) is None:
        return
    facts.metrics, facts.evaluation, facts.initial_digest = first.metrics, first.evaluation, first.initial_digest
    facts.checkpoint = None if first.checkpoint is None else Path(first.checkpoint)
    facts.checkpoint_digest = first.checkpoint_digest
    facts.num_steps, facts.num_tokens = first.num_steps, first.num_tokens
    facts.train_s, facts.evaluate_s = first.train_s, first.evaluate_s
